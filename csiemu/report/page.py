"""A run as one page that needs nothing else: no scripts, nothing that is loaded from elsewhere."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from csiemu.output import error_text, number
from csiemu.report import figures
from csiemu.report.differences import Comparison, Pair
from csiemu.report.figures import CONFIDENCE, Styles
from csiemu.report.reading import Row, Run
from csiemu.report.svg import DARK_PALETTE, PALETTE
from csiemu.report.timeline import timeline
from gnb_server.sessions import Lease
from shared.conditions import AirChange
from shared.link.rate import Rate

MARKED = ("loaded", "unloaded", "shadow", "canary", "promoted", "aborted", "refused", "not switched", "air")
"""Kinds of events that are shown in the plot over time."""

MOST_MARKS, MOST_EVENTS, MOST_FLEETS = 12, 200, 100


def report_page(run: Run) -> str:
    """The page, HTML."""
    rows = [row for row in run.rows if row["version"] is not None and row["reports"]]
    styles = Styles(rows)
    marks = _marks(run)
    results = run.results
    by_domain: dict[str, list[Row]] = {}
    for row in rows:
        by_domain.setdefault(row["domain"], []).append(row)
    course = timeline(run.snapshots)
    in_time = figures.over_time(course, [(at, label) for at, label, _ in marks], styles) if course.series else None
    return render(
        "report.html",
        title=f"Run {run.place}" + (f", {run.name}" if run.name not in ("default", run.place) else ""),
        run=run,
        origin=run.began or 0.0,
        reports=sum(row["reports"] for row in rows),
        ues=sum(fleet.lease.ue_count for fleet in run.fleets),
        dropped=sum(row["dropped"] for row in run.rows),
        passed=results is not None and results["lost"] == results["misdecoded"] == 0 and not results["failed"],
        latencies={
            name: row["round_trip_ms"].get("p50") for name, row in (results or {"schemes": {}})["schemes"].items()
        },
        by_domain=by_domain,
        plane=Markup(figures.plane(rows, styles)),
        timeline=_markup(in_time),
        marks=[(label, text) for _, label, text in marks],
        slots=_markup(figures.by_slot(rows, styles)),
        last_slots=[(row, row["by_slot"][-1]) for row in rows if len(row["by_slot"]) > 1],
        events=run.events[-MOST_EVENTS:],
        fleets=run.fleets[:MOST_FLEETS],
    )


def comparison_page(comparison: Comparison) -> str:
    """Two runs side by side, HTML."""
    by_domain: dict[str, list[Pair]] = {}
    for pair in comparison.pairs:
        by_domain.setdefault(pair.first["domain"], []).append(pair)
    return render(
        "comparison.html",
        title="Two runs side by side",
        comparison=comparison,
        by_domain=by_domain,
        plot=Markup(figures.differences(comparison.pairs)) if comparison.pairs else None,
    )


def render(template: str, **values: Any) -> str:
    """A page of `templates/`."""
    environment = Environment(
        loader=PackageLoader("csiemu.report"),
        autoescape=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"number": number, "error": error_text, "count": _count, "bits": _bits, "plain": plain}
    environment.filters |= {"interval": _interval, "when": _when, "rate": _rate, "air": _air}
    return environment.get_template(template).render(palette=PALETTE, dark_palette=DARK_PALETTE, **values)


def _markup(text: str | None) -> Markup | None:
    return None if text is None else Markup(text)


def _marks(run: Run) -> list[tuple[float, str, str]]:
    """What happened, by time: (seconds since 1970, label in the plot, what it was)."""
    happened = [
        (event["at"], f"air of {event['model']}, {event['text']}" if event["kind"] == "air" else _of_version(event))
        for event in run.events
        if event["kind"] in MARKED
    ]
    happened += [(at, "another gNB process") for at, _ in run.processes[1:]]
    newest = sorted(happened)[-MOST_MARKS:]
    return [(at, str(place), text) for place, (at, text) in enumerate(newest, start=1)]


def _of_version(event: Row) -> str:
    return f"{event['kind']} {event['model']}/{event['version']}"


def _when(seconds: float | None) -> str:
    return "-" if seconds is None else f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S %Z}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _bits(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")


def _interval(row: Row, value: str, error: str, digits: int) -> str:
    """The 95 % confidence interval of a figure."""
    low, high = (row[value] + sign * CONFIDENCE * row[error] for sign in (-1, 1))
    return f"{number(low, digits)} to {number(high, digits)}"


def _rate(rate: Rate) -> str:
    """What a fleet's reports were to take."""
    parts = {"at most {} bits": rate.bits, "step {}": rate.step, "NMSE of {:g} dB": rate.target_nmse_db}
    return ", ".join(text.format(value) for text, value in parts.items() if value is not None) or "the scheme's own"


def _air(lease: Lease) -> str:
    """What the air of a fleet was, from frame to frame."""
    changes = [AirChange(0, lease.conditions.air), *lease.air_changes]
    first, *later = (
        f"{str(air) or 'undisturbed'}" + (f" from frame {frame}" if frame else "") for frame, air in changes
    )
    return ", then ".join([first, *later])


def plain(value: Any) -> str:
    """A setting, for people to read."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)
