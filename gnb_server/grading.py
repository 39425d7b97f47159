"""Were alarms right? The emulator knows the truth, and says what no gNB could.

The truth of a window of frames is the mean of ||e||^2 / ||h||^2 over it (an NMSE, mean of ratios; of precoders of
1 - SGCS). It is *bad* where it is worse than the reference of the fleet's first version by more than a margin. An alarm
is right if the window that raised it is bad, or else false; a bad window without an alarm on at its end is missed.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gnb_server.monitoring.alarms import KEPT, Alarm
from gnb_server.monitoring.indicators import WINDOW
from gnb_server.sessions import Lease

RATIOS_KEPT = 8192
"""Newest frames of a fleet whose ratios are kept: a window of an indicator that few frames have is a long one."""

Expected = Callable[[str, int], float | None]
"""Mean ratio of the frames of a version's reference (name, number); None if there are none."""


@dataclass(frozen=True)
class Grade:
    """Of an alarm.

    Attributes:
        verdict: of the window that raised it. nmse_db: of that window. usual_nmse_db: of the reference.
        reports_late: from the first report of the first bad window in a row to the alarm; None of a false one.
    """

    verdict: Literal["right", "false"]
    nmse_db: float
    usual_nmse_db: float
    reports_late: int | None


@dataclass
class _Truth:
    """Of a fleet's frames by one version, of those that are watched.

    Attributes:
        usual: mean ratio of the reference.
        ratios: of the newest frames. frames: how many there were.
        bad_since: number of the first frame of the bad windows in a row that end with the newest full one, if any.
        windows: full ones, by what became of them.
    """

    usual: float
    ratios: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    frames: int = 0
    bad_since: int | None = None
    newest_db: float | None = None
    windows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("right", "false", "missed", "quiet"), 0))


class Grader:
    """Grades alarms and windows. The serving thread adds, any thread asks.

    Args:
        expected: what the reference of a version came to.
        margin_db: how much worse than that a window has to be, to be bad [dB].
        window: frames in one.
    """

    def __init__(self, expected: Expected, margin_db: float, window: int = WINDOW) -> None:
        self._expected = expected
        self._margin = 10 ** (margin_db / 10)
        self._window = window
        self._usual: dict[str, float] = {}
        self._truths: dict[tuple[str, int], _Truth] = {}
        self._grades: dict[int, Grade] = {}
        self._lock = threading.Lock()

    def add(
        self, lease: Lease, version: int, ratios: NDArray[np.float64], raised: list[Alarm], *, alarm_on: bool
    ) -> None:
        """Take notice of frames that the watch was given: their mean ratios [n], the alarms that they have raised, and
        whether any is on.
        """
        with self._lock:
            key = lease.token, version
            if (truth := self._truths.get(key)) is None:
                usual = self._usual.get(lease.token, self._expected(lease.model, version))
                if usual is None:
                    return
                truth = self._truths[key] = _Truth(self._usual.setdefault(lease.token, usual))
            before = truth.frames // self._window
            truth.ratios = np.concatenate([truth.ratios, ratios])[-RATIOS_KEPT:]
            truth.frames += len(ratios)
            for number in range(before, truth.frames // self._window):
                self._close(truth, number * self._window, alarm_on=alarm_on)
            for alarm in raised:
                self._grade(truth, alarm, lease.conditions.scenario.slots)

    def forget(self, token: str) -> None:
        """Free what is held for a fleet; grades stay."""
        with self._lock:
            self._truths = {key: truth for key, truth in self._truths.items() if key[0] != token}
            self._usual.pop(token, None)

    def grade(self, number: int) -> dict[str, Any] | None:
        """Of an alarm by its number, for REST; None if it has none."""
        with self._lock:
            grade = self._grades.get(number)
            return None if grade is None else dataclasses.asdict(grade)

    def describe(self, token: str, version: int) -> dict[str, Any] | None:
        """What the windows of a fleet's frames by a version came to, for REST; None if there are none."""
        with self._lock:
            truth = self._truths.get((token, version))
            if truth is None:
                return None
            return {"nmse_db": truth.newest_db, "usual_nmse_db": _db(truth.usual), "windows": dict(truth.windows)}

    def _close(self, truth: _Truth, first: int, *, alarm_on: bool) -> None:
        """Judge a full window from its first frame on."""
        mean = self._mean(truth, first, first + self._window)
        truth.newest_db, bad = _db(mean), mean > truth.usual * self._margin
        if not bad:
            truth.bad_since = None
        elif truth.bad_since is None:
            truth.bad_since = first
        outcome = ("right" if bad else "false") if alarm_on else ("missed" if bad else "quiet")
        truth.windows[outcome] += 1

    def _grade(self, truth: _Truth, alarm: Alarm, slots: int) -> None:
        first, last = alarm.finding.first_frame, alarm.finding.last_frame
        mean = self._mean(truth, first, last + 1)
        right = mean > truth.usual * self._margin
        began = first if truth.bad_since is None else truth.bad_since
        late = (last + 1 - began) * slots if right else None
        self._grades[alarm.number] = Grade("right" if right else "false", _db(mean), _db(truth.usual), late)
        while len(self._grades) > KEPT:
            del self._grades[next(iter(self._grades))]

    @staticmethod
    def _mean(truth: _Truth, first: int, stop: int) -> float:
        """Of the ratios of frames first .. stop - 1, of those that are kept."""
        kept_from = truth.frames - len(truth.ratios)
        return float(truth.ratios[max(0, first - kept_from) : max(1, stop - kept_from)].mean())


def _db(ratio: float) -> float:
    return 10 * math.log10(max(ratio, 1e-30))
