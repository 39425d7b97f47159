"""Fleets that send as fast as they can and hang up leave nothing behind, and let others have their turn."""

from __future__ import annotations

import math

from csiemu.benchmarks import flood
from shared.checkpoints import CheckpointStore


def test_a_flood(small_store: CheckpointStore) -> None:
    found = flood.measure(small_store.root, "hyperrnn", fleets=60, ues=64, seconds=4.0)
    acks = [*found["first_ack_during_s"], *found["first_ack_after_s"]]
    assert len(acks) >= 7
    assert all(math.isfinite(ack) for ack in acks)
    assert found["acked_per_s"] > 0
    assert found["memory_peak_mb"] - found["memory_before_mb"] < 100
    assert found["memory_after_mb"] - found["memory_before_mb"] < 150
