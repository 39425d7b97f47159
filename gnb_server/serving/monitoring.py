"""The watch beside the grader: what a gNB can know of stored frames, and whether it was right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnb_server.grading import Grader
from gnb_server.monitoring.watch import Frames, Watch
from gnb_server.sessions import Lease

AT_ONCE = 50
"""Frames that are judged before it is asked whether an alarm is on."""


@dataclass(frozen=True)
class Monitoring:
    """Both, told of the same frames in the same order. The grader hears of the watch, never the other way round."""

    watch: Watch
    grader: Grader

    def add(self, lease: Lease, frame: int, frames: Frames, ratios: NDArray[np.float64]) -> None:
        """Judge stored frames of one number, whose mean true ratios are [n]. With a feedback delay nothing is graded:
        the reference has none.
        """
        delayed = lease.by_frame.at(frame).delay_slots > 0
        for first in range(0, len(ratios), AT_ONCE):
            some = slice(first, first + AT_ONCE)
            raised = self.watch.add(lease, frames.version, frames.values[:, some])
            if not delayed:
                on = bool(self.watch.alarms.on(lease.token, frames.version))
                self.grader.add(lease, frames.version, ratios[some], raised, alarm_on=on)

    def forget(self, token: str) -> None:
        """Free what is held for a fleet."""
        self.watch.forget(token)
        self.grader.forget(token)

    def describe(self) -> dict[str, Any]:
        """Alarms, the newest first, and what is watched; for REST."""
        alarms = [
            {**alarm.to_json(), "emulator_truth": self.grader.grade(alarm.number)}
            for alarm in self.watch.alarms.newest()
        ]
        watched = []
        for row in self.watch.describe():
            token = row.pop("token")
            watched.append({**row, "emulator_truth": self.grader.describe(token, row["version"])})
        return {"alarms": alarms, "watched": watched}
