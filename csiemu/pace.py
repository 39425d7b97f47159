"""What was asked for and what was served, how old estimates were, and what that cost: the part of `csiemu emulate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from csiemu.output import number
from shared.settings import Rate


def pace(rate: Rate, ues: int, sent: dict[str, Any]) -> dict[str, Any]:
    """Of a fleet's UEs that were to send `rate` reports a second each, by the summary of their process: reports a
    second asked for (None: no rate) and served, and whether the rate was held, or after how long it was not.
    """
    late_s = sent["not_held_after_s"]
    return {
        "asked_per_s": None if rate == "max" else rate * ues,
        "served_per_s": (sent["acked"] - sent["dropped"]) / sent["seconds"] if sent["seconds"] else None,
        "rate_held": None if rate == "max" else late_s is None,
        "not_held_after_s": late_s,
    }


def not_held(recent: dict[str, Any]) -> Iterator[str]:
    """A line for each row of the gNB's figures whose rate is not held now."""
    for row in recent["schemes"]:
        if row["rate_held"] is False:
            asked, served = number(row["offered_reports_per_s"], 0), number(row["reports_per_s"], 0)
            yield f"{row['scheme']}: the rate is not held: asked for {asked} reports/s, served {served}"


def median_and_tail(delay: dict[str, float | None]) -> str:
    """Median and 99th percentile [ms]."""
    return f"{number(delay['p50'], 1)} / {number(delay['p99'], 1)}"


def pace_table(results: dict[str, Any]) -> Table:
    """Rows of the results of an emulation: a scheme, or, where several decoded for it, each of its versions."""
    table = Table(
        "scheme",
        "asked/s",
        "served/s",
        "rate held",
        "queue p50/p99 (ms)",
        "age p50/p99 (ms)",
        "NMSE, own slot (dB)",
        "NMSE, aged (dB)",
        "SGCS, aged",
    )
    for name, row in results["schemes"].items():
        held = {None: "-", True: "yes", False: f"no, after {number(row['not_held_after_s'], 1)} s"}[row["rate_held"]]
        rates = number(row["asked_per_s"], 0), number(row["served_per_s"], 0), held
        if len(row["versions"]) < 2:
            table.add_row(name, *rates, *_delays(row))
            continue
        table.add_row(name, *rates, *5 * [""])
        for version in row["versions"]:
            table.add_row(of_version(version), *3 * [""], *_delays(version))
    return table


def of_version(row: dict[str, Any]) -> str:
    """What a row below that of its scheme is of."""
    return ", ".join([f"  version {row['version']}", *filter(None, (row.get("air") or "").split(","))])


def _delays(row: dict[str, Any]) -> list[str]:
    if "queue_ms" not in row:  # the gNB said nothing at the end
        return 5 * ["-"]
    return [
        median_and_tail(row["queue_ms"]),
        median_and_tail(row["age_ms"]),
        number(row["nmse_db"]),
        number(row["aged_nmse_db"]),
        number(row["aged_sgcs"], 3),
    ]
