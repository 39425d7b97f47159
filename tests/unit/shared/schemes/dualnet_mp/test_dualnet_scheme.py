"""DualNet-MP, whole: the paper's sizes and bits, its variants over the wire, the stages of its training."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from csiemu.training.complexity import complexity
from csiemu.training.schemes import training_of
from csiemu.training.trainer import Recipe, Trainer
from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Samples
from shared.channels.uplink import UplinkView
from shared.errors import InvalidInput
from shared.quantizers.float32 import Float32
from shared.schemes import Scheme
from shared.schemes.dualnet_mp import DualNetConfig, DualNetMp
from shared.schemes.dualnet_mp.branches import BranchDecoder

MakeScheme = Callable[..., Scheme]
MakeSamples = Callable[..., Samples]
OverTheWire = Callable[[Scheme, Samples], tuple[bytes, Tensor]]

INDOOR = "cost2100-indoor-5g1-5g3"
SMALL = f"{INDOOR}:antennas=8,first_rows=4,last_rows=4"

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "estimated uplink": {"uplink": "estimated"},
    "no uplink": {"uplink": "none"},
    "cnn": {"core": "cnn", "magnitude_core": "cnn"},
    "dnn": {"core": "dnn", "magnitude_core": "dnn"},
    "blq": {"quantizer": "blq", "magnitude_quantizer": "blq"},
    "released": {"layers": "released", "combiner_blocks": 2},
    "perfect magnitudes": {"magnitude_quantizer": "perfect"},
    "mse0": {"phase": "mse0", "phase_compression": 6.4},
    "mdpp": {"phase": "mdpp", "phase_bits": 10},
    "mdpq": {"phase": "mdpq"},
}


@pytest.fixture(params=[name for name in VARIANTS if name != "mse0"])
def variant(request: pytest.FixtureRequest) -> dict[str, Any]:
    return VARIANTS[request.param]


def dualnet(make_scheme: MakeScheme, scenario: str = SMALL, **config: Any) -> DualNetMp:
    scheme = make_scheme("dualnet_mp", scenario, **config)
    assert isinstance(scheme, DualNetMp)
    return scheme


@pytest.mark.parametrize(
    ("blocks", "magnitude_weights", "parameters"), [(1, False, 825_882), (2, True, 831_168)], ids=["one", "two"]
)
def test_parameters_are_those_of_the_paper(
    make_scheme: MakeScheme, blocks: int, magnitude_weights: bool, parameters: int
) -> None:
    """826K in the paper; the gNB's copies of the quantisers' weights are not counted twice."""
    scheme = dualnet(make_scheme, INDOOR, combiner_blocks=blocks)
    copies = {id(p) for part in ("magnitude", "phase") for p in getattr(scheme.decoder, part).quantizer.parameters()}
    if not magnitude_weights:
        copies |= {id(parameter) for parameter in scheme.encoder.magnitude.quantizer.parameters()}
    assert sum(parameter.numel() for parameter in scheme.parameters() if id(parameter) not in copies) == parameters


def test_fully_connected_branches_have_as_many_parameters_as_the_papers(make_scheme: MakeScheme) -> None:
    scheme = dualnet(make_scheme, INDOOR, core="dnn", magnitude_core="dnn")
    assert abs(sum(parameter.numel() for parameter in scheme.parameters()) - 11.6e6) < 0.05e6


@pytest.mark.parametrize(
    ("config", "bits"),
    [
        ({}, 3336),
        ({"phase_compression": 16, "sign_ratio": 0.125}, 2696),
        ({"sign_ratio": 1.0}, 8 + 2048 + 1024 + 1024),
        ({"quantizer": "blq", "magnitude_quantizer": "blq"}, 3336),
        ({"phase": "mdpp", "phase_bits": 10}, 3336),
        ({"phase": "mse0", "phase_compression": 6.4}, 3336),
        ({"phase": "mdpq"}, 8 + 2048 + 102 * 7 + 103 * 3),
        ({"phase": "mdpq", "mdpq_bits": (0, 0, 0, 0, 5)}, 8 + 2048 + 102 * 5),
        ({"magnitude_quantizer": "perfect"}, 8 + 1024 * 32 + 1024 + 256),
    ],
)
def test_bits_are_what_is_sent(make_scheme: MakeScheme, config: dict[str, Any], bits: int) -> None:
    assert dualnet(make_scheme, INDOOR, **config).layout.bits == bits


def test_wire_is_nearly_the_path_of_training(
    make_scheme: MakeScheme, make_samples: MakeSamples, over_the_wire: OverTheWire, variant: dict[str, Any]
) -> None:
    """Soft and hard rounding differ by less than a level."""
    scheme, samples = dualnet(make_scheme, f"{SMALL},slots=2", **variant), make_samples(20)
    training = training_of(scheme)
    training.calibrate(DownlinkView(scheme.scenario, make_samples(300, seed=9)))
    with torch.no_grad():
        side = scheme.decoder.side_information(UplinkView(scheme.scenario, samples))
        assert side.shape == (20, 2, 64 if scheme.reads_uplink else 0)
        trained = training.reconstruct(scheme.encoder.observe(DownlinkView(scheme.scenario, samples)), side, 1.0)
    found = over_the_wire(scheme, samples)[1]
    error = (found - trained).abs().square().sum((-2, -1)).sqrt() / trained.abs().square().sum((-2, -1)).sqrt()
    assert error.median() < 0.05


def test_every_variant_learns(make_scheme: MakeScheme, variant: dict[str, Any]) -> None:
    """Both stages, from a linear start; of fixed frames the frozen branch is computed once."""
    scheme = dualnet(make_scheme, perturbed=False, **variant)
    frames = Samples(1, 0, torch.arange(300), torch.zeros(300, dtype=torch.int64))
    training_of(scheme).start("principal", DownlinkView(scheme.scenario, frames))
    if variant.get("magnitude_quantizer") != "perfect":
        Trainer(scheme, Recipe(steps=5, batch=50, rate=1e-4, stage="magnitude", frames=300)).run()
    training_of(scheme.eval()).calibrate(DownlinkView(scheme.scenario, frames))
    recipe = Recipe(steps=30, batch=50, rate=1e-3, warmup=2, stage="phase", frames=300)
    trainer = Trainer(scheme, recipe)
    trainer.run(report_every=5)
    losses = [point["loss"] for point in trainer.history]
    assert losses[-1] < 0.98 * losses[0]


def test_precomputed_magnitudes_are_those_of_the_wire(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    scheme, samples = dualnet(make_scheme), make_samples(10)
    view = DownlinkView(scheme.scenario, samples)
    training_of(scheme).calibrate(view)
    side = scheme.decoder.side_information(UplinkView(scheme.scenario, samples))
    computed = training_of(scheme, "phase").precompute(scheme.encoder.observe(view), side)
    levels = scheme.encoder.encode(scheme.encoder.observe(view)[:, 0])["magnitude"]
    codeword = scheme.decoder.magnitude.quantizer.from_levels(levels)
    assert computed.shape == (10, 1, 64 + 16)
    torch.testing.assert_close(computed[:, 0, :64], scheme.decoder.magnitude(codeword, side[:, 0]).detach().flatten(1))
    assert torch.equal(computed[:, 0, 64:].long(), scheme.encoder.dominant(levels, 16))


def test_stages_train_their_own_parts(make_scheme: MakeScheme) -> None:
    trained = {}
    for stage in ("magnitude", "phase", "all"):
        scheme = dualnet(make_scheme, perturbed=False)
        before = {name: value.clone() for name, value in scheme.named_parameters()}
        Trainer(scheme, Recipe(steps=2, batch=8, warmup=0, stage=stage)).run()
        changed = {name for name, value in scheme.named_parameters() if not torch.equal(value, before[name])}
        trained[stage] = {".".join(name.split(".")[:2]) for name in changed}
    assert trained["magnitude"] == {"encoder.magnitude", "decoder.magnitude"}
    assert trained["phase"] == {"encoder.phase", "decoder.phase", "decoder.combiner"}
    assert trained["all"] == trained["magnitude"] | trained["phase"]
    with pytest.raises(InvalidInput, match="stage: 'both' is not one of all, magnitude, phase"):
        training_of(dualnet(make_scheme), "both")
    with pytest.raises(
        InvalidInput, match="stage: 'magnitude' has nothing to train when magnitudes are sent perfectly"
    ):
        training_of(dualnet(make_scheme, magnitude_quantizer="perfect"), "magnitude")


def test_error_of_the_first_stage_is_that_of_magnitudes(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    scheme, samples = dualnet(make_scheme), make_samples(10)
    truth = DownlinkView(scheme.scenario, samples).image()
    side = scheme.decoder.side_information(UplinkView(scheme.scenario, samples))
    observation = scheme.encoder.observe(DownlinkView(scheme.scenario, samples))
    estimate = training_of(scheme, "magnitude").reconstruct(observation, side, 1.0)
    wanted = (estimate.abs() - truth.abs()).square()
    same_way = (estimate.conj() * truth).real > 0  # a network may answer with negative magnitudes
    torch.testing.assert_close((estimate - truth).abs().square()[same_way], wanted[same_way], rtol=1e-3, atol=1e-9)


def test_loss_of_phases_alone_weights_them_by_magnitude(make_scheme: MakeScheme) -> None:
    """Eq. (12), as printed: differences of angles are not wrapped, and magnitudes of the estimate do not count."""
    scheme = dualnet(make_scheme, phase="mdpp")
    truth = torch.polar(torch.tensor([[[[0.2, 0.4]]]]), torch.tensor([[[[0.5, -3.0]]]]))
    estimate = torch.polar(torch.tensor([[[[7.0, 1.0]]]]), torch.tensor([[[[0.6, 3.0]]]]))
    torch.testing.assert_close(training_of(scheme).loss(estimate, truth), torch.tensor((0.1 * 0.5) ** 2 + 6.0**2))
    assert not list(scheme.decoder.combiner.parameters())


def test_uplink_is_estimated_at_the_scenarios_snr(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    sides = {}
    for uplink, snr in (("perfect", 10), ("estimated", 60), ("estimated", 0)):
        scheme = dualnet(make_scheme, f"{SMALL},snr_db={snr}", uplink=uplink)
        sides[uplink, snr] = scheme.decoder.side_information(UplinkView(scheme.scenario, make_samples(50)))
    fine, coarse = (
        (sides["estimated", snr] - sides["perfect", 10]).square().mean() / sides["perfect", 10].square().mean()
        for snr in (60, 0)
    )
    assert fine < 1e-5
    assert coarse > 100 * fine


def test_linear_start_knows_which_entries_are_dominant(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    """Joint training places signs by them from its first step."""
    scheme, view = dualnet(make_scheme), DownlinkView(Scenario.parse(SMALL), make_samples(300))
    training_of(scheme).start("principal", view)
    image = view.image()[:, 0]
    levels = scheme.encoder.encode(scheme.encoder.observe(view)[:, 0])["magnitude"]
    chosen = image.abs().flatten(1).gather(1, scheme.decoder.dominant(levels, 16)).square().sum(1)
    assert (chosen / image.abs().square().sum((-2, -1))).mean() > 0.8


def test_quantisers_of_both_ends_are_one(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    scheme = dualnet(make_scheme)
    scheme.encoder.phase.quantizer.weight.data.mul_(2)
    training_of(scheme).calibrate(DownlinkView(scheme.scenario, make_samples(100)))
    assert isinstance(scheme.decoder.phase, BranchDecoder)
    for ours, theirs in (
        (scheme.encoder.phase.quantizer, scheme.decoder.phase.quantizer),
        (scheme.encoder.dominant, scheme.decoder.dominant),
    ):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name])


def test_perfect_magnitudes_must_be_numbers(make_scheme: MakeScheme) -> None:
    nan = {
        name: field.numpy() for name, field in Float32("magnitude", 64).encode(torch.full((1, 64), torch.nan)).items()
    }
    with pytest.raises(InvalidInput, match="payload magnitude: NaN"):
        dualnet(make_scheme, magnitude_quantizer="perfect").check_fields(nan)
    dualnet(make_scheme).check_fields(nan)


def test_multiply_accumulates_are_those_of_the_layers(make_scheme: MakeScheme) -> None:
    """Not those of the blocks in which they are computed."""
    conv = {kernel: 1024 * kernel**2 for kernel in (5, 7)}
    branch = 16 + 16 * 8 + 8 * 4 + 4
    found = complexity(dualnet(make_scheme, INDOOR))
    assert found["encoder"].macs == 2 * conv[7] * branch + 1024 * (256 + 128)
    combined = conv[5] * (2 * 16 + 16 * 8 + 8 * 4 + 4 * 2)
    assert found["decoder"].macs == conv[7] * (branch + 16) + conv[5] * branch + combined + 1024 * (256 + 128)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_its_layers_counted(make_scheme: MakeScheme, name: str) -> None:
    """Training ends with it: the card names them."""
    found = complexity(dualnet(make_scheme, **VARIANTS[name]))
    assert found["decoder"].paper_flops >= found["decoder"].macs > 0


def test_configuration_survives_json() -> None:
    config = DualNetConfig(phase="mdpq", mdpq_bits=(0, 0, 0, 0, 5))
    assert DualNetConfig(**json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"magnitude_compression": 0}, "magnitude_compression: 0 is not in [1, 1024]"),
        ({"phase_bits": 13}, "phase_bits: 13 is not in [2, 12]"),
        ({"sign_ratio": 1.5}, "sign_ratio: 1.5 is not in [0, 1]"),
        ({"mdpq_bits": (1, 2)}, "mdpq_bits: (1, 2) is not five numbers in [0, 12]"),
        ({"layers": "mine"}, "layers: 'mine' is not paper or released"),
        ({"core": "rnn"}, "core: 'rnn' is not c-cnn, cnn or dnn"),
        ({"phase": "polar"}, "phase: 'polar' is not smape, mse0, mdpp or mdpq"),
        ({"uplink": "guessed"}, "uplink: 'guessed' is not perfect, estimated or none"),
        ({"combiner_blocks": -1}, "combiner_blocks: -1 is not in [0, 8]"),
        ({"scale_low_db": 9.0}, "scale_low_db, scale_high_db: 9.0, 8.0; wanted -200 <= low < high <= 200"),
    ],
)
def test_configuration_names_what_it_refuses(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        DualNetConfig(**config)
    assert str(refused.value) == message


def test_worlds_that_do_not_fit_are_refused(make_scheme: MakeScheme) -> None:
    with pytest.raises(InvalidInput, match="phase_compression: 7 does not divide 64, the entries of an image"):
        dualnet(make_scheme, phase_compression=7)
    with pytest.raises(InvalidInput, match="scenario: dualnet_mp needs a wideband world"):
        DualNetMp(Scenario.parse("multipath-p2"), DualNetConfig())
