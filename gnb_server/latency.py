"""Latencies as a histogram of fixed buckets: its size does not grow with the number of reports."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

RECENT_S = 10.0
"""What is recent: so long, up to twice as long."""

EDGES_MS: list[float] = np.geomspace(0.01, 1e6, 321).tolist()
"""Bounds of the buckets [ms], 40 a decade: quantiles are right to 3 %."""


class LatencyHistogram:
    """Durations [ms], such as latencies from a chunk's arrival to when it was decoded. Only buckets that have some are
    held: those of a short time are few.
    """

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._sum_ms = 0.0

    @property
    def count(self) -> int:
        """Latencies that were added."""
        return self._counts.total()

    def add(self, latency_ms: float, count: int = 1) -> None:
        """Count a latency `count` times."""
        self._counts[bisect_left(EDGES_MS, latency_ms)] += count
        self._sum_ms += latency_ms * count

    def merge(self, other: LatencyHistogram) -> None:
        """Add another histogram's latencies."""
        self._counts.update(other._counts)
        self._sum_ms += other._sum_ms

    def figures(self) -> dict[str, float | None]:
        """Mean, median and 99th percentile [ms]; None where there are none."""
        if not self.count:
            return {"mean": None, "p50": None, "p99": None}
        return {"mean": self._sum_ms / self.count, "p50": self._quantile(0.5), "p99": self._quantile(0.99)}

    def _quantile(self, share: float) -> float:
        """By linear interpolation within a bucket."""
        wanted, buckets = share * self.count, sorted(self._counts)
        reached = list(accumulate(self._counts[bucket] for bucket in buckets))
        place = bisect_left(reached, wanted)
        bucket, count = buckets[place], self._counts[buckets[place]]
        low, high = (EDGES_MS[min(max(i, 0), len(EDGES_MS) - 1)] for i in (bucket - 1, bucket))
        return low + (high - low) * (wanted - reached[place] + count) / count


@dataclass
class Delays:
    """Of reports: from their chunk's arrival to when they were decoded, and of that until its turn came; and from when
    their channel was measured to when they were decoded, of those whose UE says how long it waited.
    """

    latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    queue: LatencyHistogram = field(default_factory=LatencyHistogram)
    age: LatencyHistogram = field(default_factory=LatencyHistogram)

    def merge(self, other: Delays) -> None:
        """Add those of other reports."""
        self.latency.merge(other.latency)
        self.queue.merge(other.queue)
        self.age.merge(other.age)

    def figures(self) -> dict[str, dict[str, float | None]]:
        """As REST names them [ms]."""
        return {"latency_ms": self.latency.figures(), "queue_ms": self.queue.figures(), "age_ms": self.age.figures()}


class RecentDelays:
    """Delays of the last RECENT_S, up to twice as long. Times are of a monotonic clock [s]."""

    def __init__(self) -> None:
        self._spans: deque[tuple[float, Delays]] = deque(maxlen=2)

    def at(self, now: float) -> Delays:
        """To add to."""
        if not self._spans or now - self._spans[-1][0] >= RECENT_S:
            self._spans.append((now, Delays()))
        return self._spans[-1][1]

    def since(self, now: float) -> tuple[Delays, float]:
        """All of them, and since when they are [s ago]."""
        recent = [(started, delays) for started, delays in self._spans if now - started < 2 * RECENT_S]
        merged = Delays()
        for _, delays in recent:
            merged.merge(delays)
        return merged, now - recent[0][0] if recent else 0.0
