"""What the grader hears of the frames that the watch is given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gnb_server.grading import Grader
from gnb_server.monitoring.watch import Frames
from gnb_server.serving.monitoring import Monitoring
from gnb_server.sessions import Lease
from shared.channels.scenario import Scenario
from shared.conditions import AirChange, RunConditions
from shared.link.air import UNDISTURBED, Air

CHANGES = AirChange(2, Air(delay=1)), AirChange(4, UNDISTURBED)
LEASE = Lease("secret", "crnet", RunConditions(Scenario.parse("multipath-p2")), 0, 4, CHANGES)


@pytest.mark.parametrize(("frames", "graded"), [((0, 1, 4, 5), True), ((2, 3), False)])
def test_frames_with_a_feedback_delay_are_not_graded(frames: tuple[int, ...], graded: bool) -> None:
    """The reference of what is usual has none."""
    watch: Any = SimpleNamespace(add=lambda *_: [], alarms=SimpleNamespace(on=lambda *_: []))
    monitoring = Monitoring(watch, Grader(lambda name, version: 0.1, margin_db=3.0, window=1))
    for frame in frames:
        monitoring.add(LEASE, frame, Frames(1, np.arange(4), np.zeros((1, 4))), np.full(4, 0.1))
    described = monitoring.grader.describe("secret", 1)
    assert (described is not None) == graded
    assert described is None or sum(described["windows"].values()) == 4 * len(frames)
