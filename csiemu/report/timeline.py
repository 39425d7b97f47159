"""How a run went: figures of the intervals between snapshots of its totals."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnb_server.course import added
from shared.metrics import COLUMNS, averages

POINTS = 80
"""Intervals at most: more would be noise."""

COUNTED = {"dropped": ("dropped",), "erased": ("air_detected", "air_lost"), "corrupted": ("air_corrupted",)}
"""What happened to reports -> its counts in a snapshot; those that an earlier program kept have no air."""

Key = tuple[str, int, str | None]
"""Scheme, version and air, as `gnb_server.monitor.Monitor.snapshot` tells them apart."""

Snapshot = tuple[float, list[dict[str, Any]]]


@dataclass(frozen=True)
class Interval:
    """What came in between two snapshots, of one scheme, version and air.

    Attributes:
        start, end: seconds since 1970.
        reports_per_s: decoded.
        bits: of a report, their mean.
        figures: `shared.metrics.averages` of them.
    """

    start: float
    end: float
    reports_per_s: float
    bits: float
    figures: dict[str, Any]


@dataclass(frozen=True)
class Timeline:
    """A run by intervals.

    Attributes:
        times: [K + 1] seconds since 1970, the ends of K intervals.
        series: of each scheme, version and air its K intervals, None where it decoded nothing.
        counts: what happened to reports, such as `dropped` and `erased` on the air -> [K] how many in each.
        attached: [K] UEs at the end of each.
    """

    times: list[float]
    series: dict[Key, list[Interval | None]]
    counts: dict[str, list[int]]
    attached: list[int]


def timeline(snapshots: list[Snapshot], points: int = POINTS) -> Timeline:
    """The intervals, of like length, at most `points` of them."""
    chosen = _spread(snapshots, points)
    sums = [_by_key(rows) for _, rows in chosen]
    so_far = {
        what: [sum(row.get(name, 0) for row in rows for name in names) for _, rows in chosen]
        for what, names in COUNTED.items()
    }
    series: dict[Key, list[Interval | None]] = {}
    columns = len(COLUMNS)
    for place, (((start, _), before), ((end, _), after)) in enumerate(pairwise(zip(chosen, sums, strict=True))):
        for key, total in added(before, after).items():
            reports, frames, (bits,) = np.split(total, [columns, 2 * columns])
            if (count := float(reports[0])) > 0:
                interval = Interval(start, end, count / (end - start), bits / count, averages(reports, frames))
                series.setdefault(key, [None] * (len(chosen) - 1))[place] = interval
    return Timeline(
        [at for at, _ in chosen],
        {key: series[key] for key in sorted(series, key=str)},
        {what: [after - before for before, after in pairwise(sums)] for what, sums in so_far.items()},
        [sum(row["ues_attached"] for row in rows) for _, rows in chosen[1:]],
    )


def _spread(snapshots: list[Snapshot], points: int) -> list[Snapshot]:
    """The first, the last, and of the others those that are far enough from the one before."""
    if len(snapshots) <= points + 1:
        return snapshots
    apart = (snapshots[-1][0] - snapshots[0][0]) / points
    chosen = snapshots[:1]
    for snapshot in snapshots[1:-1]:
        if snapshot[0] - chosen[-1][0] >= apart:
            chosen.append(snapshot)
    return [*chosen, snapshots[-1]]


def _by_key(rows: list[dict[str, Any]]) -> dict[Key, NDArray[np.float64]]:
    """Sums of reports [COLUMNS], of frame means [COLUMNS] and of feedback bits, in one array, over all encoders and
    scenarios of a version and air.
    """
    found: dict[Key, NDArray[np.float64]] = {}
    for row in rows:
        if row["version"] is not None:
            key = row["scheme"], int(row["version"]), row.get("air")
            found[key] = found.get(key, 0) + np.array([*row["reports"], *row["frames"], row["feedback_bits"]])
    return found
