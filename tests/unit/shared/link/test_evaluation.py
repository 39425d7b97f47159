from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Samples, Split
from shared.conditions import RunConditions
from shared.errors import InvalidInput
from shared.link import evaluation
from shared.link.air import Air
from shared.link.evaluation import evaluate, outcomes, over_the_link
from shared.link.payload import PayloadLayout
from shared.metrics import Outcomes
from shared.schemes import Scheme

MakeScheme = Callable[..., Scheme]
MakeSamples = Callable[..., Samples]

SCENARIO = "multipath-p2:antennas=4,slots=3"
KINDS: dict[str, dict[str, Any]] = {
    "hyperrnn": {"feedback_bits": 6},
    "dldnn": {"feedback_bits": 6, "uplink_reading": "none"},
    "genie_lmmse": {"feedback_bits": 0, "uplink_reading": "genie"},
}
FIGURES = ("nmse_db", "ratio_of_sums_db", "mean_of_db", "sgcs")
kinds = pytest.mark.parametrize("kind", KINDS)


def build(make_scheme: MakeScheme, kind: str, scenario: str = SCENARIO) -> Scheme:
    return make_scheme(kind, scenario, **KINDS[kind])


def conditions(scheme: Scheme, seed: int = 0, delay: int = 0) -> RunConditions:
    """The scheme's own world."""
    return RunConditions(scheme.scenario, seed, Air(delay=delay))


def evaluated(scheme: Scheme, samples: Samples, delay: int = 0) -> Outcomes:
    """Outcomes of frames, each payload packed and unpacked."""
    wanted = conditions(scheme, samples.seed, delay)
    return outcomes(scheme, wanted, samples, over_the_link(scheme, wanted, samples))


@kinds
def test_evaluation_is_deterministic(make_scheme: MakeScheme, kind: str) -> None:
    scheme = build(make_scheme, kind)
    assert evaluate(scheme, conditions(scheme), ues=20) == evaluate(scheme, conditions(scheme), ues=20)


@kinds
def test_batch_size_does_not_change_the_figures(
    make_scheme: MakeScheme, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond float32 rounding."""
    scheme = build(make_scheme, kind)
    whole = evaluate(scheme, conditions(scheme), ues=20, frames=2)
    for batch in (7, 40):
        monkeypatch.setattr(evaluation, "BATCH", batch)
        parts = evaluate(scheme, conditions(scheme), ues=20, frames=2)
        for name in ("settings", "feedback_bits_histogram"):
            assert parts[name] == whole[name]
        for a, b in zip([whole, *whole["by_slot"]], [parts, *parts["by_slot"]], strict=True):
            others = (
                "settings",
                "feedback_bits_histogram",
                "by_slot",
                "truncation_floor_db",
            )  # no figures, and nothing is cut off
            assert {k: v for k, v in a.items() if k not in others} == pytest.approx(
                {k: v for k, v in b.items() if k not in others}, rel=1e-4, abs=1e-4
            )


def test_figures_are_those_of_every_ue_and_frame(make_scheme: MakeScheme, monkeypatch: pytest.MonkeyPatch) -> None:
    """(ue, frame) pairs one by one, and their averages with NumPy."""
    monkeypatch.setattr(evaluation, "BATCH", 4)
    scheme = build(make_scheme, "hyperrnn")
    found = evaluate(scheme, conditions(scheme, 9), split=Split.VALIDATION, ues=5, frames=3)
    singles = [
        evaluated(scheme, Samples(9, Split.VALIDATION, torch.tensor([ue]), torch.tensor([frame])))
        for ue, frame in itertools.product(range(5), range(3))
    ]
    error, power = (np.concatenate([getattr(s, name) for s in singles]) for name in ("error", "power"))
    assert error.shape == (15, 3)
    assert (found["reports"], found["frames"]) == (45, 15)
    assert [slot["reports"] for slot in found["by_slot"]] == [15] * 3
    assert found["nmse_db"] == pytest.approx(10 * np.log10(np.mean(error / power)), abs=1e-4)
    assert found["ratio_of_sums_db"] == pytest.approx(10 * np.log10(error.sum() / power.sum()), abs=1e-4)
    for slot in found["by_slot"]:
        of_slot = (error / power)[:, slot["slot"] - 1]
        assert slot["nmse_db"] == pytest.approx(10 * np.log10(of_slot.mean()), abs=1e-4)


def test_settings_say_what_was_evaluated(make_scheme: MakeScheme) -> None:
    scheme = build(make_scheme, "dldnn")
    found = evaluate(scheme, conditions(scheme, 3, 1), split=Split.TRAIN, ues=2, frames=2)
    assert found["settings"] == {
        "scenario": SCENARIO,
        "seed": 3,
        "split": "train",
        "ues": 2,
        "frames": 2,
        "delay_slots": 1,
        "air": "delay=1",
        "domain": "spatial, one subcarrier",
    }


@pytest.mark.parametrize(("seed", "changed"), [(1, {}), (0, {"split": Split.EMULATE}), (0, {"frames": 2})])
def test_other_samples_give_other_figures(make_scheme: MakeScheme, seed: int, changed: dict[str, Any]) -> None:
    scheme = build(make_scheme, "dldnn")
    ours = evaluate(scheme, conditions(scheme), ues=20)
    theirs = evaluate(scheme, conditions(scheme, seed), ues=20, **changed)
    for name in FIGURES:
        assert ours[name] != theirs[name]


def test_noise_makes_an_estimate_worse(make_scheme: MakeScheme) -> None:
    quiet, noisy = (build(make_scheme, "genie_lmmse", f"{SCENARIO},snr_db={snr_db}") for snr_db in (10, -10))
    figures = [evaluate(scheme, conditions(scheme), ues=50)["nmse_db"] for scheme in (quiet, noisy)]
    assert figures[1] > figures[0] + 3


def test_scenario_of_the_evaluation_may_differ(make_scheme: MakeScheme) -> None:
    """From that which a trained scheme was built for; a reference is refused in another."""
    scheme, other = build(make_scheme, "hyperrnn"), RunConditions(Scenario.parse(f"{SCENARIO},snr_db=-10"))
    own, noisy = (evaluate(scheme, wanted, ues=50) for wanted in (conditions(scheme), other))
    assert noisy["settings"]["scenario"] == f"{SCENARIO},snr_db=-10.0"
    assert all(own[name] != noisy[name] for name in FIGURES)
    with pytest.raises(InvalidInput, match=r"scenario snr_db: -10\.0; this genie_lmmse was built for"):
        evaluate(build(make_scheme, "genie_lmmse"), other, ues=50)


def test_evaluation_leaves_training_mode(make_scheme: MakeScheme) -> None:
    """Batch statistics neither used nor changed."""
    scheme = build(make_scheme, "dldnn")
    expected = evaluate(scheme, conditions(scheme), ues=20)
    state = {name: value.clone() for name, value in scheme.state_dict().items()}
    assert evaluate(scheme.train(), conditions(scheme), ues=20) == expected
    assert all(torch.equal(value, state[name]) for name, value in scheme.state_dict().items())


@kinds
def test_estimates_come_from_packed_bits(
    make_scheme: MakeScheme, make_samples: MakeSamples, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every report is packed; other bits after unpacking make another estimate."""
    scheme, samples = build(make_scheme, kind), make_samples(5)
    before = evaluated(scheme, samples)
    packed: list[tuple[int, int]] = []
    pack, unpack = PayloadLayout.pack_bits, PayloadLayout.unpack_bits

    def watched(layout: PayloadLayout, reports: NDArray[np.uint8]) -> bytes:
        payload = pack(layout, reports)
        packed.append((reports.shape[0] * reports.shape[1], len(payload)))
        return payload

    def cleared(layout: PayloadLayout, payload: bytes, reports: int) -> NDArray[np.uint8]:
        return unpack(layout, bytes(len(payload)), reports)

    monkeypatch.setattr(PayloadLayout, "pack_bits", watched)
    assert np.array_equal(evaluated(scheme, samples).error, before.error)
    assert packed == [(15, -(-15 * scheme.layout.bits // 8))]
    monkeypatch.setattr(PayloadLayout, "unpack_bits", cleared)
    after = evaluated(scheme, samples)
    assert np.array_equal(after.power, before.power)
    assert (after.error != before.error).all()


def test_delay_compares_with_the_later_channel(
    make_scheme: MakeScheme, make_samples: MakeSamples, over_the_wire: Callable[..., Any]
) -> None:
    scheme, samples = build(make_scheme, "hyperrnn"), make_samples(12)
    _, estimates = over_the_wire(scheme, samples)
    for delay in (0, 2):
        expected = Outcomes.measure(estimates, DownlinkView(scheme.scenario, samples).truth("spatial", delay))
        found = evaluated(scheme, samples, delay)
        np.testing.assert_allclose(found.error, expected.error, rtol=1e-5)
        np.testing.assert_allclose(found.sgcs, expected.sgcs, rtol=1e-4, atol=1e-6)


def test_delay_makes_an_estimate_older(make_scheme: MakeScheme) -> None:
    """It costs what the fading does in the meantime, and nothing where fading stands still."""
    moving, still = (build(make_scheme, "genie_lmmse", f"{SCENARIO},fading_correlation={rho}") for rho in (0.9, 1))
    by_delay = [evaluate(moving, conditions(moving, delay=delay), ues=100)["nmse_db"] for delay in (0, 1, 4)]
    assert by_delay[0] + 0.3 < by_delay[1]
    assert by_delay[1] + 0.3 < by_delay[2]
    now, later = (evaluate(still, conditions(still, delay=delay), ues=20)["nmse_db"] for delay in (0, 4))
    assert later == pytest.approx(now, abs=1e-4)
