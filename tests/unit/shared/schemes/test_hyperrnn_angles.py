from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from csiemu.training.schemes import training_of
from csiemu.training.trainer import Recipe, Trainer
from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Samples, Split
from shared.channels.uplink import UplinkView
from shared.errors import InvalidInput
from shared.schemes import Scheme
from shared.schemes.angles import path_powers
from shared.schemes.hyperrnn_angles import AngleConfig

MakeScheme = Callable[..., Scheme]
MakeSamples = Callable[..., Samples]
OverTheWire = Callable[[Scheme, Samples], tuple[bytes, Tensor]]

SCENARIO = "multipath-p2:antennas=8,slots=3"

KINDS: dict[str, dict[str, Any]] = {
    "tables and LMMSE": {},
    "tables": {"lmmse": False},
    "signs": {"report": "signs", "lmmse": False},
    "steering vectors": {"steering": True, "hypernetwork_width": 16},
}
kinds = pytest.mark.parametrize("kind", KINDS)


def built(make_scheme: MakeScheme, kind: str, **options: Any) -> Scheme:
    return make_scheme("hyperrnn_angles", SCENARIO, **KINDS[kind], **options)


@kinds
def test_slots_one_by_one_are_the_path_of_training(
    make_scheme: MakeScheme, make_samples: MakeSamples, kind: str
) -> None:
    scheme, samples = built(make_scheme, kind), make_samples(6)
    decoder = scheme.decoder
    side = decoder.side_information(UplinkView(scheme.scenario, samples))
    observation = scheme.encoder.observe(DownlinkView(scheme.scenario, samples))
    state, estimates, reports = decoder.initial_state(6), [], []
    for t in range(3):
        fields = scheme.encoder.encode(observation[:, t])
        reports.append(decoder.quantizer.decode(fields))
        estimate, state = decoder.step(fields, side[:, t], state)
        estimates.append(estimate)
    assert scheme.layout.bits == 20
    torch.testing.assert_close(torch.stack(estimates, 1), decoder(torch.stack(reports, 1), side))


@kinds
def test_estimates_are_on_the_manifold(make_scheme: MakeScheme, make_samples: MakeSamples, kind: str) -> None:
    """Combinations of as many steering vectors as there are paths."""
    scheme, samples = built(make_scheme, kind), make_samples(4)
    side = scheme.decoder.side_information(UplinkView(scheme.scenario, samples))
    estimate = scheme.decoder(torch.randn(4, 3, 20 if kind == "signs" else 4), side)
    vectors = scheme.decoder.vectors(side[..., :2])
    projected = vectors @ torch.linalg.lstsq(vectors, estimate[..., None]).solution
    torch.testing.assert_close(projected[..., 0], estimate, rtol=0, atol=1e-3)


def test_training_begins_at_the_lmmse_estimate(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    scheme = built(make_scheme, "tables and LMMSE", perturbed=False)
    reference = make_scheme("pilot_lmmse", SCENARIO, perturbed=False)
    reference.encoder.pilots.load_state_dict(scheme.encoder.pilots.state_dict())
    side = scheme.decoder.side_information(UplinkView(scheme.scenario, make_samples(5)))
    received = torch.randn(5, 3, 4)
    torch.testing.assert_close(scheme.decoder(received, side), reference.decoder(received, side[..., :2]))


@kinds
def test_it_learns(make_scheme: MakeScheme, kind: str) -> None:
    """Everything has a gradient, and 60 steps lower the loss."""
    scheme = built(make_scheme, kind, perturbed=False)
    trainer = Trainer(scheme, Recipe(steps=60, batch=32, frames=320, warmup=0, slope=1, final_slope=1))
    trainer.run(report_every=20)
    assert all(parameter.grad is not None for parameter in scheme.parameters())
    assert trainer.history[-1]["loss"] < trainer.history[0]["loss"]


def test_side_information_is_sines_ascending_and_powers(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    world = Scenario.parse("multipath-p2:antennas=32,slots=3,snr_db=40")
    view = UplinkView(world, make_samples(50))
    scheme = make_scheme("hyperrnn_angles", "multipath-p2:antennas=32,slots=3,snr_db=40")
    sine, power = scheme.decoder.side_information(view).chunk(2, dim=-1)
    assert (sine.diff(dim=-1) >= 0).all()
    truth = view.path_sines().sort(-1).values
    apart = truth[:, 1] - truth[:, 0] > 0.1
    torch.testing.assert_close(sine[apart, -1], truth[apart], rtol=0, atol=0.01)
    # all of the uplink's power is in its paths, where these are apart
    expected = view.channel().abs().square().sum(-1).cumsum(1)[apart, -1] / 3 / 32
    torch.testing.assert_close(power.exp().sum(-1)[apart, -1], expected, rtol=0.3, atol=0.02)


def test_powers_are_of_the_slots_so_far(make_samples: MakeSamples) -> None:
    """Of one path, whose amplitude is 1, then 2, then 3: the mean power is 1, then 2.5, then 14/3."""
    world = Scenario.parse("multipath-p2:antennas=64,slots=3,paths=1")
    received = torch.arange(1, 4)[None, :, None] * torch.ones(1, 3, 64, dtype=torch.complex64)
    found = path_powers(world, received, torch.zeros(1, 3, 1))
    torch.testing.assert_close(found.flatten(), torch.tensor([1, 2.5, 14 / 3]), rtol=0.05, atol=0)


@kinds
def test_the_quantiser_is_one_for_both_ends(make_scheme: MakeScheme, make_samples: MakeSamples, kind: str) -> None:
    scheme = built(make_scheme, kind)
    training_of(scheme).calibrate(DownlinkView(scheme.scenario, make_samples(100, split=Split.TRAIN)))
    assert scheme.encoder.quantizer.fields() == scheme.decoder.quantizer.fields()
    ours, theirs = scheme.encoder.quantizer.state_dict(), scheme.decoder.quantizer.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_configuration_names_what_it_refuses() -> None:
    with pytest.raises(InvalidInput, match="lmmse: needs report=tables; signs of a DNN are no received pilots"):
        AngleConfig(report="signs")
    with pytest.raises(InvalidInput, match="report: 'floats' is not tables or signs"):
        AngleConfig(report="floats")
    with pytest.raises(InvalidInput, match=r"hypernetwork_width: 0 is not in \[1, 8192\]"):
        AngleConfig(hypernetwork_width=0)


@kinds
def test_what_is_predicted_is_as_if_expected_pilots_had_come(
    make_scheme: MakeScheme, make_samples: MakeSamples, kind: str
) -> None:
    """Of an estimator RNN that corrects nothing yet the LMMSE prediction, fading as it is correlated; without LMMSE
    there is none.
    """
    scheme, samples = built(make_scheme, kind, perturbed=False), make_samples(6)
    decoder = scheme.decoder
    side = decoder.side_information(UplinkView(scheme.scenario, samples))[:, 0]
    fields = scheme.encoder.encode(scheme.encoder.observe(DownlinkView(scheme.scenario, samples))[:, 0])
    with torch.no_grad():
        estimate, state = decoder.step(fields, side, decoder.initial_state(6))
        found = decoder.predicted(side, state)
    if not decoder.lmmse:
        assert found is None
    else:
        assert estimate.any()
        torch.testing.assert_close(found[0], 0.99 * estimate)
        assert found[1]["slots"].tolist() == [[2]] * 6
        assert not torch.equal(found[1]["estimator"], state["estimator"])
