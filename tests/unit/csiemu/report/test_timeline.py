"""Figures of intervals from snapshots of totals."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from csiemu.report.timeline import Snapshot, timeline
from tests.unit.csiemu.report.making import SLOTS, MadeRun

UES = 3


def ratios(*of_frames: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Frames of UES UEs, each of one ratio."""
    return np.tile(np.array(of_frames)[None, :, None], (UES, 1, SLOTS))


@pytest.fixture
def made(tmp_path: Path) -> MadeRun:
    return MadeRun(tmp_path)


def test_intervals(made: MadeRun) -> None:
    """0.1 in the first 2 s, 0.01 in the next 4; then another version, and reports are dropped."""
    made.snapshot(10.0, [("rnn", None, ratios())])
    made.snapshot(12.0, [("rnn", 1, ratios(0.1, 0.1))])
    made.snapshot(16.0, [("rnn", 1, ratios(0.1, 0.1, 0.01))])
    fates = {"air_lost": 5, "air_detected": 2, "air_corrupted": 1}
    made.snapshot(17.0, [("rnn", 1, ratios(0.1, 0.1, 0.01)), ("rnn", 2, ratios(0.5))], dropped=2, **fates)
    found = timeline(made.store.snapshots())
    assert found.times == [10.0, 12.0, 16.0, 17.0]
    first, second, third = found.series["rnn", 1, None]
    assert first is not None
    assert second is not None
    assert third is None
    assert (first.start, first.end, second.start, second.end) == (10.0, 12.0, 12.0, 16.0)
    assert first.figures["nmse_db"] == pytest.approx(-10)
    assert second.figures["nmse_db"] == pytest.approx(-20)
    assert second.figures["sgcs"] == pytest.approx(0.99)
    assert second.figures["nmse_se_db"] == pytest.approx(0, abs=1e-4)
    assert first.reports_per_s == UES * 2 * SLOTS / 2
    assert second.reports_per_s == UES * SLOTS / 4
    assert [interval and interval.figures["reports"] for interval in found.series["rnn", 2, None]] == [
        None,
        None,
        UES * SLOTS,
    ]
    assert found.counts == {"dropped": [0, 0, 4], "erased": [0, 0, 14], "corrupted": [0, 0, 2]}  # in both rows
    assert found.attached == [UES, UES, 2 * UES]


def test_scenarios_of_a_version_are_added(made: MadeRun) -> None:
    made.snapshot(0.0, [])
    made.snapshot(1.0, [("rnn", 1, ratios(0.1)), ("rnn", 1, ratios(0.3))])
    (interval,) = timeline(made.store.snapshots()).series["rnn", 1, None]
    assert interval is not None
    assert interval.figures["nmse_db"] == pytest.approx(10 * np.log10(0.2))


def test_airs_of_a_version_are_apart(made: MadeRun) -> None:
    """An interval in which the air changed has both."""
    before, after = ratios(0.1), ratios(0.1, 0.1)
    made.snapshot(0.0, [])
    made.snapshot(1.0, [("rnn", 1, before)], airs=[""])
    made.snapshot(2.0, [("rnn", 1, after), ("rnn", 1, ratios(1.0))], airs=["", "loss=1.0"])
    made.snapshot(3.0, [("rnn", 1, after), ("rnn", 1, ratios(1.0, 1.0, 1.0))], airs=["", "loss=1.0"])
    found = timeline(made.store.snapshots()).series
    assert list(found) == [("rnn", 1, ""), ("rnn", 1, "loss=1.0")]
    figures = {
        key[2]: [interval and round(interval.figures["nmse_db"], 3) for interval in of_key]
        for key, of_key in found.items()
    }
    assert figures == {"": [-10.0, -10.0, None], "loss=1.0": [None, 0.0, 0.0]}


@pytest.mark.parametrize("count", [1, 2, 11, 12, 300])
def test_there_are_few_intervals_and_nothing_is_left_out(made: MadeRun, count: int) -> None:
    for step in range(count):
        made.snapshot(5.0 + step, [("rnn", 1, ratios(*[0.1] * step))])
    found = timeline(made.store.snapshots(), points=10)
    intervals = [interval for interval in found.series.get(("rnn", 1, None), []) if interval is not None]
    assert len(found.times) <= 11
    assert (found.times[0], found.times[-1]) == (5.0, 4.0 + count)
    assert sum(interval.figures["reports"] for interval in intervals) == UES * SLOTS * (count - 1)
    assert all(earlier.end == later.start for earlier, later in itertools.pairwise(intervals))


def test_of_no_snapshots_nothing_is_known() -> None:
    snapshots: list[Snapshot] = []
    assert timeline(snapshots).series == {}
