"""Of what is offered beyond a gNB's capacity the rest waits, and is counted as waiting; below it nothing does."""

from __future__ import annotations

import pytest

from csiemu.benchmarks import overload
from shared.checkpoints import CheckpointStore


def test_below_and_beyond_the_capacity(small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "SHARES", (0.1, 20.0))
    told: list[tuple[int, int]] = []
    found = overload.measure(small_store.root, "rnn", 64, 4.0, lambda done, of: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    low, high = found["offered"]
    for row in (low, high):
        assert row["offered_per_s"] == pytest.approx(row["share"] * found["capacity_per_s"])
        assert row["memory_mb"] > 0
    assert low["served_per_s"] > 0
    assert low["delay_p50_ms"] <= low["delay_p99_ms"]
    assert high["behind"] > low["behind"] >= 0
    assert high["delay_p50_ms"] is None or high["delay_p50_ms"] > low["delay_p50_ms"]
