"""The part of an emulation's table that says what was asked for, what was served, and how old estimates were."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from csiemu.pace import not_held, pace, pace_table

DELAYS = {
    "queue_ms": {"p50": 1.04, "p99": 20.0},
    "age_ms": {"p50": 5.0, "p99": None},
    "nmse_db": -12.0,
    "aged_nmse_db": -7.5,
    "aged_sgcs": 0.9,
}


def sent(acked: int, seconds: float, not_held_after_s: float | None = None) -> dict[str, Any]:
    return {"acked": acked, "dropped": 10, "seconds": seconds, "not_held_after_s": not_held_after_s}


@pytest.mark.parametrize(
    ("rate", "summary", "expected"),
    [
        (20.0, sent(1290, 10.0), (640.0, 128.0, True, None)),
        (20.0, sent(110, 2.0, 5.5), (640.0, 50.0, False, 5.5)),
        ("max", sent(110, 2.0), (None, 50.0, None, None)),
        (20.0, sent(0, 0.0), (640.0, None, True, None)),
    ],
)
def test_asked_and_served(rate: Any, summary: dict[str, Any], expected: tuple[Any, ...]) -> None:
    found = pace(rate, 32, summary)
    assert tuple(found[name] for name in ("asked_per_s", "served_per_s", "rate_held", "not_held_after_s")) == expected


def printed(schemes: dict[str, Any]) -> list[list[str]]:
    """Cells of the rows."""
    screen = Console(file=io.StringIO(), width=400)
    screen.print(pace_table({"schemes": schemes}))
    lines = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]  # a StringIO
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]


def test_a_row_for_each_scheme_or_version() -> None:
    first = {**pace(20.0, 32, sent(110, 2.0, 5.5)), "versions": [DELAYS], **DELAYS}
    second = {
        **pace("max", 32, sent(110, 2.0)),
        "versions": [{"version": 1, **DELAYS}, {"version": 2, "air": "delay=2", **DELAYS}],
    }
    silent = {**pace(20.0, 32, sent(0, 0.0)), "versions": []}
    delays = ["1.0 / 20.0", "5.0 / -", "-12.00", "-7.50", "0.900"]
    assert printed({"a": first, "b": second, "c": silent}) == [
        ["a", "640", "50", "no, after 5.5 s", *delays],
        ["b", "-", "50", "-", *5 * [""]],
        ["version 1", *3 * [""], *delays],
        ["version 2, delay=2", *3 * [""], *delays],
        ["c", "640", "-", "yes", *5 * ["-"]],
    ]


def test_rows_that_are_not_held_now() -> None:
    row = {"scheme": "a", "rate_held": False, "offered_reports_per_s": 640.0, "reports_per_s": 400.4}
    rows = [row, {**row, "scheme": "b", "rate_held": True}, {**row, "scheme": "c", "rate_held": None}]
    assert list(not_held({"schemes": rows})) == ["a: the rate is not held: asked for 640 reports/s, served 400"]
