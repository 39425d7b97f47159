from __future__ import annotations

import numpy as np
import pytest

from gnb_server.monitoring.indicators import INDICATORS, NAMES
from gnb_server.monitoring.windows import Windows

J = len(NAMES)
WINDOW = 40


def usual(count: int = 1000) -> np.ndarray:
    """Of indicators that are normal about 3 with deviation 2; `bits` are not known."""
    found = np.tile([[3.0], [2.0], [float(count)]], J)
    found[:2, NAMES.index("bits")] = np.nan
    return found


def healthy(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(3, 2, (J, frames))


def test_mean_of_each_window() -> None:
    values = healthy(3 * WINDOW + 7)
    windows = Windows(usual(), 0.01, WINDOW)
    found = [f for f in windows.add(values) if f.indicator.name == "spread"]
    assert [(f.first_frame, f.last_frame) for f in found] == [(0, 39), (40, 79), (80, 119)]
    index = NAMES.index("spread")
    assert [f.value for f in found] == pytest.approx(values[index, :120].reshape(3, WINDOW).mean(axis=1).tolist())
    assert windows.frames == 127
    assert windows.newest["spread"] == found[-1]
    assert "bits" not in windows.newest


@pytest.mark.parametrize("pieces", [1, 7, 40, 999])
def test_pieces_do_not_matter(pieces: int) -> None:
    values = healthy(400)
    values[NAMES.index("target"), np.arange(400) % 3 > 0] = np.nan
    once, often = Windows(usual(), 0.01, WINDOW), Windows(usual(), 0.01, WINDOW)
    expected = once.add(values)
    found = [f for first in range(0, 400, pieces) for f in often.add(values[:, first : first + pieces])]
    assert {(f.indicator.name, f.last_frame) for f in found} == {(f.indicator.name, f.last_frame) for f in expected}
    values_of = {(f.indicator.name, f.last_frame): f.value for f in expected}
    assert all(f.value == pytest.approx(values_of[f.indicator.name, f.last_frame]) for f in found)


def test_sparse_indicators_have_windows_of_fewer_frames() -> None:
    values = healthy(400)
    index = NAMES.index("target")
    values[index, np.arange(400) % 5 > 0] = np.nan
    found = [f for f in Windows(usual(), 0.01, WINDOW).add(values) if f.indicator.name == "target"]
    assert [(f.first_frame, f.last_frame) for f in found][:2] == [(0, 45), (50, 95)]


@pytest.mark.parametrize("false_alarms", [0.05, 0.2])
def test_false_alarms_are_as_many_as_asked_for(false_alarms: float) -> None:
    """Of 4,000 windows of healthy frames, against a reference that is itself of a sample."""
    beyond, rounds = np.zeros(2), 100
    for seed in range(rounds):
        generator = np.random.default_rng(seed)
        sample = generator.normal(3, 2, (J, 1000))
        reference = np.stack([sample.mean(axis=1), sample.std(axis=1, ddof=1), np.full(J, 1000.0)])
        findings = Windows(reference, false_alarms, WINDOW).add(generator.normal(3, 2, (J, 40 * WINDOW)))
        of_every_frame = [f for f in findings if not f.indicator.sparse]
        last = {f.last_frame for f in of_every_frame if f.exceeds}
        beyond += len(last), 40
    share = sum(not indicator.sparse for indicator in INDICATORS) / J
    assert beyond[0] / beyond[1] == pytest.approx(false_alarms * share, rel=0.25)


def test_changes_are_noticed() -> None:
    """A shift of two deviations is noticed at once; a better NMSE is no reason for an alarm, a worse one is."""
    up, down = (Windows(usual(), 1e-3, WINDOW).add(healthy(WINDOW) + shift) for shift in (4.0, -4.0))
    assert {f.indicator.name for f in up if f.exceeds} == set(NAMES) - {"bits"}
    one_sided = {indicator.name for indicator in INDICATORS if indicator.one_sided}
    assert {f.indicator.name for f in down if f.exceeds} == set(NAMES) - {"bits"} - one_sided


def test_what_does_not_matter_exceeds_no_limit() -> None:
    """Indicators that never vary: of precoders the norm, of most schemes the bits."""
    constant = np.tile([[3.0], [0.0], [1000.0]], J)
    almost = np.array([3 + 0.9 * indicator.least for indicator in INDICATORS])
    beyond = np.array([3 + 1.1 * indicator.least for indicator in INDICATORS])
    for values, exceeds in ((almost, False), (beyond, True)):
        found = Windows(constant, 0.5, WINDOW).add(np.tile(values[:, None], WINDOW))
        assert {f.indicator.name for f in found} == set(NAMES)
        assert all(f.exceeds == exceeds for f in found)
