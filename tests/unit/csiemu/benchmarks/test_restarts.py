"""What is lost and what is counted twice is found UE by UE: one does not make up for the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from csiemu.benchmarks.restarts import Tally
from gnb_server.additions import Increment, Progress
from gnb_server.results import Stored
from gnb_server.sessions import Fleet, Lease
from gnb_server.store import Store
from shared.channels.scenario import Scenario
from shared.conditions import RunConditions
from shared.metrics import COLUMNS

SLOTS = 4


def test_lost_and_counted_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'gnb.sqlite'}"
    store = Store(url, "default", 1)
    lease = Lease("t", "rnn", RunConditions(Scenario.parse(f"multipath-p2:slots={SLOTS}")), 7, 3)
    store.lease(lease, "00" * 8)
    rows, dropped = np.arange(3), np.array([0, 0, 1])
    sums = np.zeros((SLOTS, 3, len(COLUMNS)))
    sums[..., 0] = [[1, 1, 0], [0, 1, 1], [1, 2, 1], [0, 2, 1]]  # by slot: two of UE 7 lack, two of UE 8 are twice
    part = Increment(1, rows, range(SLOTS), sums, sums[0, :0], 1.0, np.full((SLOTS, 3), 20))
    store.commit([Stored(Fleet(lease, "00" * 8), [Progress(rows, SLOTS, 1, [b""] * 3, dropped)], [part])])
    store.close()
    assert Tally.of(url) == Tally(reports=11, lost=2, twice=2)
