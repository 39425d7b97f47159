"""True channels of open frames: drawn once a frame, the same whether it comes whole or slot by slot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gnb_server.evaluator import Evaluator
from gnb_server.sessions import Lease
from shared.channels.scenario import Scenario
from shared.conditions import RunConditions
from shared.metrics import Domain

SLOTS = 3


@pytest.mark.parametrize(
    ("domain", "scenario"), [("spatial", "multipath-p2:antennas=8"), ("angular-delay", "cost2100-indoor-csinet")]
)
def test_truth_is_drawn_once_a_frame(domain: Domain, scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And held until its last slot, of the UEs whose frames are open alone."""
    separator = "," if ":" in scenario else ":"
    conditions = RunConditions(Scenario.parse(f"{scenario}{separator}slots={SLOTS}"), seed=5)
    lease, rows = Lease("t", "m", conditions, 10, 6), (np.array([0]), np.array([3, 4]))
    whole = [Evaluator().truth(lease, domain, some, 7, range(SLOTS)) for some in rows]
    drawn: list[list[int]] = []
    draw = Evaluator._drawn

    def counting(lease: Lease, domain: Domain, rows: Any, *others: Any) -> Any:
        drawn.append(rows.tolist())
        return draw(lease, domain, rows, *others)

    monkeypatch.setattr(Evaluator, "_drawn", staticmethod(counting))
    evaluator = Evaluator()
    for slot in range(SLOTS):
        for some, expected in zip(rows, whole, strict=True):
            truth = evaluator.truth(lease, domain, some, 7, range(slot, slot + 1))
            for name in ("channel", "total", "subcarriers"):
                of_slot = getattr(expected, name)[slot : slot + 1]
                torch.testing.assert_close(getattr(truth, name), of_slot, rtol=0, atol=0)
    assert drawn == [[0], [3, 4]]
    assert not evaluator._held
