"""DualNet-MP: the paper's sizes and bits, signs that both ends place alike, the stages of its training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gnb_server.decoding import decode_frames
from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Samples
from shared.channels.uplink import UplinkView
from shared.errors import InvalidInput
from shared.schemes import DualNetConfig, DualNetMp, Scheme
from shared.schemes.dualnet_mp import DominantEntries, polar
from training.trainer import Recipe, Trainer
from ue_client.encoding import encode_frames

MakeScheme = Callable[..., Scheme]
MakeSamples = Callable[..., Samples]

INDOOR = "cost2100-indoor-5g1-5g3"
SMALL = f"{INDOOR}:antennas=8,first_rows=4,last_rows=4"


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
    copies = {
        id(p) for part in ("magnitude", "phase") for p in getattr(scheme.decoder, f"{part}_quantizer").parameters()
    }
    if not magnitude_weights:
        copies |= {id(parameter) for parameter in scheme.encoder.magnitude_quantizer.parameters()}
    assert sum(parameter.numel() for parameter in scheme.parameters() if id(parameter) not in copies) == parameters


@pytest.mark.parametrize(
    ("compression", "ratio", "bits"), [(8, 0.25, 3336), (16, 0.125, 2696), (8, 1.0, 8 + 2048 + 1024 + 1024)]
)
def test_bits_are_what_is_sent(make_scheme: MakeScheme, compression: int, ratio: float, bits: int) -> None:
    assert dualnet(make_scheme, INDOOR, phase_compression=compression, sign_ratio=ratio).layout.bits == bits


def test_dominant_entries_are_found_from_the_codeword_alone() -> None:
    """Nearly all that matter, and bit for bit the same in any batch."""
    draw = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 256, (500, 16), generator=draw)
    magnitudes = (levels.float() - 128) @ torch.rand(16, 64, generator=draw).pow(4)
    chooser = DominantEntries(64, 16, 16)
    chooser.fit(levels, magnitudes)
    chosen = chooser(levels)
    assert chooser.weight.dtype == torch.int8
    assert chooser.weight.abs().max() == 127
    assert (chosen.diff(dim=1) > 0).all()
    best = magnitudes.topk(16, dim=1).indices
    shared = (chosen[:, :, None] == best[:, None]).any(-1).float().mean()
    assert shared > 0.9
    for batch in (1, 7, 128):
        assert torch.equal(torch.cat([chooser(part) for part in levels.split(batch)]), chosen)
    assert torch.equal(chooser(levels[:, :] * 0), torch.arange(64)[chooser(levels[:1] * 0)].expand(500, -1))


def test_ties_go_to_the_lower_index() -> None:
    assert DominantEntries(6, 2, 3)(torch.zeros(1, 2, dtype=torch.int64)).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("core", ["c-cnn", "cnn"])
@pytest.mark.parametrize("uplink", ["perfect", "none"])
def test_wire_is_nearly_the_path_of_training(
    make_scheme: MakeScheme, make_samples: MakeSamples, core: str, uplink: str
) -> None:
    """Soft and hard rounding differ by less than a level."""
    scheme, samples = dualnet(make_scheme, f"{SMALL},slots=2", core=core, uplink=uplink), make_samples(20)
    view = DownlinkView(scheme.scenario, samples)
    scheme.calibrate(DownlinkView(scheme.scenario, make_samples(300, seed=9)))
    with torch.no_grad():
        side = scheme.decoder.side_information(UplinkView(scheme.scenario, samples))
        assert side.shape == (20, 2, 64 if uplink == "perfect" else 0)
        trained = scheme.reconstruct(scheme.encoder.observe(view), side, 1.0)
    found = decode_frames(scheme, scheme.scenario, samples, encode_frames(scheme, scheme.scenario, samples))
    error = (found - trained).abs().square().sum((-2, -1)).sqrt() / trained.abs().square().sum((-2, -1)).sqrt()
    assert error.median() < 0.05


def test_signs_are_those_of_the_chosen_entries(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    scheme, samples = dualnet(make_scheme, sign_ratio=0.5), make_samples(30)
    view = DownlinkView(scheme.scenario, samples)
    scheme.calibrate(view)
    fields = scheme.encoder.encode(scheme.encoder.observe(view)[:, 0])
    entries = scheme.decoder.dominant(fields["magnitude"])
    imaginary = view.image()[:, 0].imag.mT.flatten(1).gather(1, entries)
    assert torch.equal(fields["sign"] == 1, imaginary >= 0)


def test_polar_takes_an_image_apart() -> None:
    image = torch.randn(3, 4, 5, dtype=torch.complex64)
    magnitude, cosine = polar(image)
    assert magnitude.shape == (3, 5, 1, 4)
    torch.testing.assert_close((magnitude * cosine)[:, :, 0].mT, 2 * image.real)


def test_stages_train_their_own_parts(make_scheme: MakeScheme) -> None:
    trained = {}
    for stage in ("magnitude", "phase", "all"):
        scheme = dualnet(make_scheme, perturbed=False)
        before = {name: value.clone() for name, value in scheme.named_parameters()}
        Trainer(scheme, scheme.scenario, Recipe(steps=2, batch=8, warmup=0, stage=stage)).run()
        changed = {name for name, value in scheme.named_parameters() if not torch.equal(value, before[name])}
        trained[stage] = {".".join(name.split(".")[:2]) for name in changed}
    ends = [f"{end}.magnitude{part}" for end in ("encoder", "decoder") for part in ("", "_fc")]
    assert trained["magnitude"] == {*ends, "encoder.magnitude_quantizer"}
    phases = [f"{end}.phase{part}" for end in ("encoder", "decoder") for part in ("", "_fc")]
    assert trained["phase"] == {*phases, "encoder.phase_quantizer", "decoder.combiner"}
    assert trained["all"] == trained["magnitude"] | trained["phase"]
    with pytest.raises(InvalidInput, match="stage: 'both' is not one of all, magnitude, phase"):
        dualnet(make_scheme).begin("both")


def test_error_of_the_first_stage_is_that_of_magnitudes(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    scheme, samples = dualnet(make_scheme), make_samples(10)
    scheme.begin("magnitude")
    truth = DownlinkView(scheme.scenario, samples).image()
    side = scheme.decoder.side_information(UplinkView(scheme.scenario, samples))
    estimate = scheme.reconstruct(scheme.encoder.observe(DownlinkView(scheme.scenario, samples)), side, 1.0)
    wanted = (estimate.abs() - truth.abs()).square()
    same_way = (estimate.conj() * truth).real > 0  # a network may answer with negative magnitudes
    torch.testing.assert_close((estimate - truth).abs().square()[same_way], wanted[same_way], rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"magnitude_compression": 0}, "magnitude_compression: 0 is not in [1, 1024]"),
        ({"entry_bits": 9}, "entry_bits: 9 is not in [2, 8]"),
        ({"sign_ratio": 1.5}, "sign_ratio: 1.5 is not in [0, 1]"),
        ({"layers": "mine"}, "layers: 'mine' is not one of paper, released"),
        ({"core": "rnn"}, "core: 'rnn' is not one of c-cnn, cnn"),
        ({"uplink": "guessed"}, "uplink: 'guessed' is not one of perfect, none"),
        ({"combiner_blocks": -1}, "combiner_blocks: -1 is not in [0, 8]"),
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
