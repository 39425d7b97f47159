"""What the long benchmarks look at: nothing lost, whatever is killed, and figures of memory and REST."""

from __future__ import annotations

import pytest

from csiemu.benchmarks import endurance, kills
from shared.checkpoints import CheckpointStore


def test_endurance(small_store: CheckpointStore) -> None:
    told: list[tuple[int, int]] = []
    found = endurance.measure(
        small_store.root, ["rnn", "hyperrnn"], 40, 6.0, 3, lambda done, of: told.append((done, of))
    )
    assert told == [(second, 6) for second in range(1, 7)]
    assert (found["lost"], found["twice"], found["misdecoded"]) == (0, 0, 0)
    assert found["reports"] == found["sent"] > 0
    assert found["offered_per_s"] == 20
    assert len(found["memory_mb"]) == 6
    assert min(found["memory_mb"]) > 0
    assert found["memory_mb_per_min_se"] >= 0
    assert all(0 < waits["p50"] <= waits["p99"] for waits in found["rest_ms"].values())


@pytest.mark.slow
def test_kills(small_store: CheckpointStore) -> None:
    found = kills.measure(small_store.root, "hyperrnn", 64, 12, 0)
    assert (found["lost"], found["twice"], found["misdecoded"]) == (0, 0, 0)
    assert found["reports"] > 0
    assert found["checked"] > 0
    assert found["ues_ended_with"] == [0, 0]
    assert sum(row["times"] for row in found["kills"].values()) >= 12
