"""How a run went: its figures over a sliding window, at each time at which a snapshot of its totals was kept."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from shared.metrics import COLUMNS, averages

Snapshot = tuple[float, list[dict[str, Any]]]
"""When [s since 1970], and the rows of `Monitor.snapshot`."""

NAMED = ("scheme", "version", "encoder_id", "preset", "air")
"""What a series is of; air None: of several, or not known."""

SHOWN = ("reports", "nmse_db", "ratio_of_sums_db", "sgcs")
"""Figures of a series."""

_Key = tuple[str, int, str, str, str | None]

_K = TypeVar("_K", bound=tuple[Any, ...])


def course(snapshots: list[Snapshot], window_s: float, since: float = 0.0) -> dict[str, Any]:
    """Figures of what came in during the `window_s` seconds before each snapshot that is later than `since`; where the
    one before is older than that, since the one before.

    Returns:
        `times` [K] in seconds since 1970, `reports_per_s` and `dropped_per_s` [K] over all schemes, and `series`: by
        NAMED their SHOWN figures, [K] each, None where nothing was decoded.
    """
    at = [time for time, _ in snapshots]
    sums = [_by_key(rows) for _, rows in snapshots]
    dropped = [sum(row["dropped"] for row in rows) for _, rows in snapshots]
    places = [place for place in range(1, len(at)) if at[place] > since]
    answer: dict[str, Any] = {"times": [at[place] for place in places], "reports_per_s": [], "dropped_per_s": []}
    series: dict[_Key, dict[str, list[Any]]] = {}
    for number, place in enumerate(places):
        before = min(max(bisect_right(at, at[place] - window_s) - 1, 0), place - 1)
        span, came = at[place] - at[before], 0.0
        for key, (reports, frames) in added(sums[before], sums[place]).items():
            if reports[0] > 0:
                came += float(reports[0])
                lists = series.setdefault(key, {name: [None] * len(places) for name in SHOWN})
                figures = averages(reports, frames)
                for name in SHOWN:
                    lists[name][number] = figures[name]
        answer["reports_per_s"].append(came / span)
        answer["dropped_per_s"].append((dropped[place] - dropped[before]) / span)
    named = [dict(zip(NAMED, key, strict=True)) | series[key] for key in sorted(series, key=str)]
    return answer | {"series": named}


def added(before: Mapping[_K, NDArray[np.float64]], after: Mapping[_K, NDArray[np.float64]]) -> dict[_K, Any]:
    """What came in between two snapshots, by keys that begin with scheme and version; sums have the number of reports
    first. Nothing of those of which a sum has shrunk: between them a gNB process began that tells other airs apart.
    """
    fewer = {key[:2] for key, total in before.items() if key not in after or after[key].flat[0] < total.flat[0]}
    return {key: total - before.get(key, 0) for key, total in after.items() if key[:2] not in fewer}


def _by_key(rows: list[dict[str, Any]]) -> dict[_Key, NDArray[np.float64]]:
    """Sums of reports and of frame means, [2, COLUMNS], of all that a version has decoded."""
    found: dict[_Key, NDArray[np.float64]] = {}
    for row in rows:
        if row["version"] is not None:
            key = (row["scheme"], row["version"], row["encoder_id"], row["preset"], row.get("air"))
            found[key] = found.get(key, np.zeros((2, len(COLUMNS)))) + np.array([row["reports"], row["frames"]])
    return found
