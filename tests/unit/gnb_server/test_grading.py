from __future__ import annotations

import numpy as np
import pytest

from gnb_server.grading import Grader
from gnb_server.monitoring.alarms import Alarm
from gnb_server.monitoring.indicators import INDICATORS
from gnb_server.monitoring.windows import Finding
from gnb_server.sessions import Lease
from shared.channels.scenario import Scenario
from shared.conditions import RunConditions

LEASE = Lease("secret", "crnet", RunConditions(Scenario.parse("multipath-p2")), 0, 4)
"""8 slots a frame."""

WINDOW = 10
USUAL, MARGIN_DB = 0.1, 3.0


def alarm(number: int, first: int, last: int) -> Alarm:
    return Alarm(number, LEASE, 1, Finding(INDICATORS[0], 2, 1, 0.5, first, last), (last + 1) * 8, 1000.0)


@pytest.fixture
def grader() -> Grader:
    return Grader(lambda name, version: USUAL * version, MARGIN_DB, WINDOW)


def add(grader: Grader, ratio: float, frames: int, *raised: Alarm, on: bool = False, version: int = 1) -> None:
    grader.add(LEASE, version, np.full(frames, ratio), list(raised), alarm_on=on)


def test_right_and_late(grader: Grader) -> None:
    """It gets bad at frame 10, is missed for two windows, and the third raises an alarm."""
    add(grader, 0.1, 10)
    add(grader, 0.5, 20)
    add(grader, 0.5, 10, alarm(1, 30, 39), on=True)
    add(grader, 0.1, 10)
    grade = grader.grade(1)
    assert grade == {
        "verdict": "right",
        "nmse_db": pytest.approx(10 * np.log10(0.5)),
        "usual_nmse_db": pytest.approx(-10),
        "reports_late": 30 * 8,
    }
    described = grader.describe("secret", 1)
    assert described is not None
    assert described["windows"] == {"right": 1, "false": 0, "missed": 2, "quiet": 2}
    assert described["nmse_db"] == pytest.approx(-10)


def test_false(grader: Grader) -> None:
    """Worse, but not by the margin."""
    add(grader, 0.19, 10, alarm(7, 0, 9), on=True)
    grade, described = grader.grade(7), grader.describe("secret", 1)
    assert grade is not None
    assert described is not None
    assert (grade["verdict"], grade["reports_late"]) == ("false", None)
    assert described["windows"] == {"right": 0, "false": 1, "missed": 0, "quiet": 0}


def test_a_later_version_is_held_to_the_first(grader: Grader) -> None:
    """Version 5's own reference would call 0.4 usual."""
    add(grader, 0.1, 10)
    add(grader, 0.4, 10, alarm(1, 0, 9), on=True, version=5)
    grade = grader.grade(1)
    assert grade is not None
    assert grade["verdict"] == "right"
    grader.forget("secret")
    assert grader.describe("secret", 5) is None
    add(grader, 0.4, 10, alarm(2, 0, 9), on=True, version=5)
    grade = grader.grade(2)
    assert grade is not None
    assert grade["verdict"] == "false"


def test_not_graded() -> None:
    """Without a reference."""
    unknown = Grader(lambda name, version: None, MARGIN_DB, WINDOW)
    add(unknown, 0.5, 10, alarm(1, 0, 9), on=True)
    assert unknown.grade(1) is None
    assert unknown.describe("secret", 1) is None
