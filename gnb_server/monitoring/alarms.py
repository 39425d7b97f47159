"""Alarms: raised by a window beyond its limit, cleared by windows within it."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gnb_server.monitoring.windows import Finding
from gnb_server.sessions import Lease

KEPT = 256
"""Alarms that are shown, the newest."""

QUIET = 2
"""Windows in a row within the limit that clear an alarm."""


@dataclass
class Alarm:
    """An indicator of a fleet's reports by one version that is not as usual.

    Attributes:
        number: in this process, from 1.
        finding: of the window that raised it.
        report: reports of the fleet by this version that were watched until then.
        raised_at, cleared_at: seconds since 1970; None while it is on.
        ended: why it is not on any more.
    """

    number: int
    lease: Lease
    version: int
    finding: Finding
    report: int
    raised_at: float
    cleared_at: float | None = None
    ended: str = ""
    quiet: int = 0

    @property
    def text(self) -> str:
        """For people."""
        found, ues = self.finding, self.lease.ues
        whose = f"UEs {ues.start} to {ues.stop - 1}" if len(ues) > 1 else f"UE {ues.start}"
        return f"{whose}: {found.indicator.said(found.value, found.usual)}"

    def to_json(self) -> dict[str, Any]:
        """For REST."""
        found = self.finding
        return {
            "number": self.number,
            "model": self.lease.model,
            "version": self.version,
            "first_ue": self.lease.first_ue,
            "ue_count": self.lease.ue_count,
            "indicator": found.indicator.name,
            "meaning": found.indicator.text,
            "text": self.text,
            "unit": found.indicator.unit,
            "value": found.value,
            "usual": found.usual,
            "limit": found.limit,
            "report": self.report,
            "raised_at": self.raised_at,
            "cleared_at": self.cleared_at,
            "ended": self.ended,
        }


Key = tuple[str, int]
"""Token of a fleet, version."""


class Alarms:
    """The alarms of this process. The serving thread adds, any thread asks.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._all: deque[Alarm] = deque(maxlen=KEPT)
        self._on: dict[Key, dict[str, Alarm]] = {}
        self._raised: Counter[tuple[str, int, str]] = Counter()
        self._numbers = 0
        self._news: deque[tuple[str, Alarm]] = deque(maxlen=2 * KEPT)

    def take(self, lease: Lease, version: int, finding: Finding, report: int) -> Alarm | None:
        """Take notice of a window; returns the alarm that it raises."""
        name = finding.indicator.name
        with self._lock:
            on = self._on.setdefault((lease.token, version), {})
            alarm = on.get(name)
            if alarm is not None:
                alarm.quiet = 0 if finding.exceeds else alarm.quiet + 1
                if alarm.quiet == QUIET:
                    self._end(alarm, "as usual again")
                    del on[name]
                return None
            if not finding.exceeds:
                return None
            self._numbers += 1
            alarm = on[name] = Alarm(self._numbers, lease, version, finding, report, self._clock())
            self._all.append(alarm)
            self._raised[lease.model, version, name] += 1
            self._news.append(("alarm", alarm))
            return alarm

    def on(self, token: str, version: int) -> list[str]:
        """Indicators of a fleet's reports by a version that have an alarm on."""
        with self._lock:
            return list(self._on.get((token, version), {}))

    def forget(self, token: str) -> None:
        """End the alarms of a fleet that has gone."""
        with self._lock:
            for key in [key for key in self._on if key[0] == token]:
                for alarm in self._on.pop(key).values():
                    self._end(alarm, "the fleet has gone or is silent")

    def _end(self, alarm: Alarm, reason: str) -> None:
        alarm.cleared_at, alarm.ended = self._clock(), reason
        self._news.append(("alarm cleared", alarm))

    def newest(self) -> list[Alarm]:
        """Those that are kept, the newest first."""
        with self._lock:
            return [dataclasses.replace(alarm) for alarm in reversed(self._all)]

    def counts(self) -> dict[tuple[str, int, str], tuple[int, int]]:
        """How many were raised, and how many are on, by model, version and indicator."""
        with self._lock:
            on = Counter((a.lease.model, a.version, name) for found in self._on.values() for name, a in found.items())
            return {key: (raised, on[key]) for key, raised in self._raised.items()}

    def news(self) -> tuple[str, Alarm] | None:
        """The oldest change that `noted` has not taken off: what has happened, and to which alarm."""
        with self._lock:
            return self._news[0] if self._news else None

    def noted(self) -> None:
        """Take off the oldest change."""
        with self._lock:
            if self._news:
                self._news.popleft()
