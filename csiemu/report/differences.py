"""Two runs side by side: figures of the same scheme, their differences with standard errors, and what else differs.

Where both runs have the same world (scenario, seed, delay, UE ids) they share channels, and the difference is known far
better than each of its sides: it is paired. Its standard error is by UEs, which are independent: with r_u the share of
UE u in the difference of the two means, to the first order, its square is U / (U - 1) sum r_u^2 (Cochran, Sampling
Techniques, 6.3, for a ratio of sums). Of other worlds, or of few UEs, the squares of both standard errors are added,
which is never too little where channels are shared.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csiemu.report.reading import Row, Run
from shared.metrics import COLUMNS

FEWEST_UES = 16
"""For a standard error by UEs."""

_COUNT, _RATIO, _SGCS = (COLUMNS.index(name) for name in ("count", "ratio", "sgcs"))

_DB = 10 / math.log(10)

WORLD = ("scenario", "seed", "delay_slots")


@dataclass(frozen=True)
class Difference:
    """Second run minus first.

    Attributes:
        value: [dB] of NMSE.
        standard_error: None where a run has too few frames.
        paired: over how many UEs; 0: the runs count as independent.
    """

    value: float
    standard_error: float | None
    paired: int


@dataclass(frozen=True)
class Pair:
    """Rows of `Run.rows` that belong together.

    Attributes:
        nmse: mean of ratios [dB]; None of precoders. sgcs: as a number.
        bits: feedback bits of a report, their means.
    """

    first: Row
    second: Row
    nmse: Difference | None
    sgcs: Difference
    bits: float


@dataclass(frozen=True)
class Comparison:
    """Two runs.

    Attributes:
        pairs: what both have. only_first, only_second: rows without a counterpart.
        settings: what differs: name -> values in both, None where a run does not say.
    """

    first: Run
    second: Run
    pairs: list[Pair]
    only_first: list[Row]
    only_second: list[Row]
    settings: dict[str, tuple[Any, Any]]

    def to_json(self) -> dict[str, Any]:
        """For a file of results."""
        return {
            "first": self.first.place,
            "second": self.second.place,
            "pairs": [
                {
                    "first": pair.first,
                    "second": pair.second,
                    "difference": {
                        "nmse_db": pair.nmse and dataclasses.asdict(pair.nmse),
                        "sgcs": dataclasses.asdict(pair.sgcs),
                        "feedback_bits": pair.bits,
                    },
                }
                for pair in self.pairs
            ],
            "only_first": self.only_first,
            "only_second": self.only_second,
            "settings": self.settings,
        }


def compare_runs(first: Run, second: Run) -> Comparison:
    """Bring rows together by scheme, version, world and air; those left by ever less of it."""
    left, right = _with_reports(first), _with_reports(second)
    pairs: list[tuple[Row, Row]] = []
    for names in (
        ("scheme", "version", *WORLD, "air"),
        ("scheme", "version", *WORLD),
        ("scheme", "version"),
        ("scheme",),
    ):
        for row in list(left):
            if (other := _match(row, left, right, names)) is not None:
                pairs.append((row, other))
                left, right = ([r for r in rows if r is not found] for rows, found in ((left, row), (right, other)))
    return Comparison(
        first,
        second,
        [_pair(first, second, *pair) for pair in pairs],
        left,
        right,
        _differing(_about(first), _about(second)),
    )


def _with_reports(run: Run) -> list[Row]:
    return [row for row in run.rows if row["version"] is not None and row["reports"]]


def _match(row: Row, left: list[Row], right: list[Row], names: tuple[str, ...]) -> Row | None:
    """The one on the right that agrees with a row in `names`, if there is no other on either side."""
    wanted = [row.get(name) for name in names]
    alike = [[other for other in rows if [other.get(name) for name in names] == wanted] for rows in (left, right)]
    if [len(rows) for rows in alike] == [1, 1] and alike[1][0]["domain"] == row["domain"]:
        return alike[1][0]
    return None


def _pair(first_run: Run, second_run: Run, first: Row, second: Row) -> Pair:
    frames = None
    if all(first[name] == second[name] for name in WORLD):
        frames = _by_ue(first_run, first), _by_ue(second_run, second)
    nmse = None
    if first["nmse_db"] is not None:
        nmse = _difference(first, second, "nmse_db", "nmse_se_db", frames, _RATIO)
    sgcs = _difference(first, second, "sgcs", "sgcs_se", frames, _SGCS)
    return Pair(first, second, nmse, sgcs, second["feedback_bits"] - first["feedback_bits"])


_Frames = dict[int, NDArray[np.float64]]
"""UE id -> sums of frame means, [COLUMNS]."""


def _by_ue(run: Run, row: Row) -> _Frames:
    """Of the UEs that a row is of."""
    found: _Frames = {}
    for fleet in run.fleets:
        for (version, air_from), totals in fleet.totals.items():
            conditions = fleet.lease.by_frame.at(air_from).to_json()
            alike = (fleet.lease.model, version) == (row["scheme"], row["version"])
            if alike and all(conditions.get(name) == row.get(name) for name in (*WORLD, "air")):
                sums = totals.sums[:, -1]
                found |= {ue: of_ue for ue, of_ue in zip(fleet.lease.ues, sums, strict=True) if of_ue[_COUNT]}
    return found


def _difference(
    first: Row, second: Row, value: str, error: str, frames: tuple[_Frames, _Frames] | None, column: int
) -> Difference:
    """Of a figure, which is the mean of a column of the sums."""
    difference = second[value] - first[value]
    if frames is not None:
        ues = sorted(frames[0].keys() | frames[1].keys())
        if len(ues) >= FEWEST_UES and frames[0].keys() & frames[1].keys():
            shares = [_shares(of_run, ues, column, relative=value == "nmse_db") for of_run in frames]
            spread = np.square(shares[1] - shares[0]).sum() * len(ues) / (len(ues) - 1)
            return Difference(difference, math.sqrt(spread), len(ues))
    errors = [row[error] for row in (first, second)]
    return Difference(difference, None if None in errors else math.hypot(*errors), 0)


def _shares(frames: _Frames, ues: list[int], column: int, *, relative: bool) -> NDArray[np.float64]:
    """What each UE [U] adds to the error of a mean, to the first order; with `relative`, of the mean in dB."""
    sums = np.array([frames.get(ue, np.zeros(len(COLUMNS))) for ue in ues])
    counts, values = sums[:, _COUNT], sums[:, column]
    mean = values.sum() / counts.sum()
    shares = (values - mean * counts) / counts.sum()
    return shares * _DB / mean if relative else shares


def _about(run: Run) -> dict[str, Any]:
    """What a run was made with, and how it ended."""
    checks = {name: run.results[name] for name in ("lost", "misdecoded", "dropped", "unacked")} if run.results else {}
    return {
        **run.settings,
        **{f"machine: {name}": value for name, value in run.machine.items()},
        **{f"decoder of {c['model']}/{c['version']}": c["sha256"][:16] for c in run.checkpoints},
        **{f"reports {name}": value for name, value in checks.items()},
    }


def _differing(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = dict.fromkeys([*first, *second])
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}
