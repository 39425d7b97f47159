"""Latencies as a histogram of fixed buckets: its size does not grow with the number of reports."""

from __future__ import annotations

import numpy as np

EDGES_MS = np.geomspace(0.01, 1e6, 321)
"""Bounds of the buckets [ms], 40 a decade: quantiles are right to 3 %."""


class LatencyHistogram:
    """Latencies from a chunk's arrival to when it was decoded [ms]."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(EDGES_MS) + 1, np.int64)
        self._sum_ms = 0.0

    @property
    def count(self) -> int:
        """Latencies that were added."""
        return int(self._counts.sum())

    def add(self, latency_ms: float, count: int = 1) -> None:
        """Count a latency `count` times."""
        self._counts[int(np.searchsorted(EDGES_MS, latency_ms))] += count
        self._sum_ms += latency_ms * count

    def merge(self, other: LatencyHistogram) -> None:
        """Add another histogram's latencies."""
        self._counts += other._counts
        self._sum_ms += other._sum_ms

    def figures(self) -> dict[str, float | None]:
        """Mean, median and 99th percentile [ms]; None where there are none."""
        if not self.count:
            return {"mean": None, "p50": None, "p99": None}
        return {"mean": self._sum_ms / self.count, "p50": self._quantile(0.5), "p99": self._quantile(0.99)}

    def _quantile(self, share: float) -> float:
        """By linear interpolation within a bucket."""
        below = np.concatenate([[0], self._counts.cumsum()])
        wanted = share * below[-1]
        bucket = int(np.searchsorted(below[1:], wanted))
        low, high = (float(EDGES_MS[min(max(i, 0), len(EDGES_MS) - 1)]) for i in (bucket - 1, bucket))
        return low + (high - low) * float(wanted - below[bucket]) / float(self._counts[bucket])
