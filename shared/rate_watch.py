"""Is a rate of reports that is asked for held? Judged over a sliding window, by UEs of what is acknowledged and by the
gNB of what it has served.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_S, LEAST_S = 10.0, 5.0
"""How much of the past is judged [s], and how much there has to be."""

WINDOW_SLOTS, LEAST_SLOTS = 10, 3
"""The same in slots, of rates so low that these take longer."""

SHORT, FULL = 0.95, 0.98
"""Of what is due: less than the first is short, and so much as the second is full again. One slot's reports may be on
their way in any case.
"""

BUCKETS, RECENT = 20, 4
"""The window moves in so many steps; what limits just now is seen in the last ones."""


@dataclass
class _Bucket:
    """What a part of the window brought: reports, and seconds that the sender waited for acks, if it says so."""

    number: int
    reports: int = 0
    ack_wait_s: float | None = None


class RateWatch:
    """Watches one rate. Any thread may call.

    Attributes:
        asked_per_s: reports per second that are asked for.
        held: whether they are served; None until there is enough to judge by.

    Args:
        ues: that the reports are of, one of each a slot.
        clock: monotonic [s].
    """

    def __init__(self, asked_per_s: float, ues: int, clock: Callable[[], float]) -> None:
        self.asked_per_s = asked_per_s
        self.held: bool | None = None
        self._slot_reports = ues
        self._clock = clock
        slot_s = ues / asked_per_s
        self._window_s = max(WINDOW_S, WINDOW_SLOTS * slot_s)
        self._least_s = max(LEAST_S, LEAST_SLOTS * slot_s)
        self._begun: float | None = None
        self._unanswered = 0  # chunks
        self._says_waits = False
        self._buckets: deque[_Bucket] = deque(maxlen=BUCKETS)
        self._lock = threading.Lock()

    def sent(self, ack_wait_s: float | None = None) -> None:
        """Note a chunk on its way, and how long its sender has waited for acks since the one before [s], if that is
        known. From the first one on reports are due.
        """
        with self._lock:
            if self._begun is None:
                self._begun = self._clock()
            self._unanswered += 1
            if ack_wait_s is not None:
                bucket = self._bucket()
                bucket.ack_wait_s = (bucket.ack_wait_s or 0.0) + ack_wait_s
                self._says_waits = True

    def answered(self, served: int) -> None:
        """Note that a chunk is answered, and how many of its reports were served."""
        with self._lock:
            self._unanswered -= 1
            self._bucket().reports += served

    def _bucket(self) -> _Bucket:
        """That of now."""
        number = self._number(self._clock())
        if not self._buckets or self._buckets[-1].number != number:
            self._buckets.append(_Bucket(number))
        return self._buckets[-1]

    def judge(self) -> bool:
        """Look at the window; returns whether `held` has changed otherwise than from unknown to held."""
        if self._begun is None:
            return False
        with self._lock:
            served, span = self._served()
        due, before = self.asked_per_s * span, self.held
        if span < self._least_s:
            return False
        share = SHORT if before is not False else FULL
        self.held = served >= share * due - self._slot_reports
        return self.held != (before is not False)

    def __str__(self) -> str:
        """What is asked for and served, for people to read."""
        asked, served = (f"{per_s:,.{0 if per_s >= 100 else 1}f}" for per_s in (self.asked_per_s, self.served_per_s))
        return f"asked for {asked} reports/s, served {served}"

    @property
    def served_per_s(self) -> float:
        """Reports per second over the window."""
        with self._lock:
            served, span = self._served()
        return served / span if span else 0.0

    @property
    def waits_for_acks(self) -> bool | None:
        """Whether the sender waited for acks most of the time lately, or still does, so that the receiver limits, or
        else the sender; None if it does not say.
        """
        with self._lock:
            recent, span = self._window(RECENT)
            waits = [bucket.ack_wait_s for bucket in recent if bucket.ack_wait_s is not None]
            if not self._says_waits or not span:
                return None
            return sum(waits) >= span / 2 if waits else self._unanswered > 0

    def _number(self, now: float) -> int:
        return math.floor(now * BUCKETS / self._window_s)

    def _served(self) -> tuple[int, float]:
        """Reports in the window, and its length [s]."""
        recent, span = self._window()
        return sum(bucket.reports for bucket in recent), span

    def _window(self, buckets: int = BUCKETS) -> tuple[list[_Bucket], float]:
        """What the window that ends now has, or a part of it, and its length [s]."""
        now = self._clock()
        first = self._number(now) - buckets + 1
        start = max(first * self._window_s / BUCKETS, now if self._begun is None else self._begun)
        return [bucket for bucket in self._buckets if bucket.number >= first], now - start
