"""A run over cells: where it is kept, and what it came to."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from csiemu.cells.plan import Fleet, plan
from csiemu.cluster import connected
from csiemu.emulate import Settings, Stop, bit_rates, report_rates, scheduled
from csiemu.output import console, number, with_error
from csiemu.pace import of_version
from csiemu.processes import RESULTS
from gnb_server.cells import stored_figures, stored_fleets
from gnb_server.sessions import Fleet as StoredFleet
from gnb_server.settings import check_token
from gnb_server.store import Store, without_password
from shared.commands import write_json
from shared.errors import Conflict
from shared.machine import machine


def run(settings: Settings) -> int:
    """Emulate; 0 if nothing was lost or decoded wrongly and every process ended well, else 1."""
    settings.link()
    if settings.token is not None:
        check_token(settings.token.get_secret_value())
    screen = console()
    out = (settings.out or Path("runs") / f"emulate-{datetime.now():%Y%m%d-%H%M%S-%f}").absolute()
    checkpoints = settings.checkpoint_store()
    rates = report_rates(settings, checkpoints, screen)
    fleets = plan(settings, out.name, rates, bit_rates(settings, checkpoints, rates))
    first_ues: dict[str, dict[str, int]] = {}
    for fleet in fleets:
        first_ues.setdefault(fleet.cell, {})[fleet.scheme] = fleet.first_ue
    schedules = {cell: scheduled(settings, checkpoints, ues) for cell, ues in first_ues.items()}
    with connected(str(settings.ray)):
        from csiemu.cells.live import Cells, common_store  # needs Ray

        url, node = common_store(settings.store, out)
        out.mkdir(parents=True, exist_ok=True)
        with closing(Store(url, out.name, 1)) as store:  # has its tables before several gNBs would make them at once
            if taken := schedules.keys() & set(store.runs()):
                raise Conflict(f"out: the store has {min(taken)} already; wanted a folder of another name")
        screen.print(f"store: {without_password(url)}   files: {out}")
        cells, stop = Cells(settings, url, node, fleets, schedules, screen), Stop()
        stop.heard = True
        problems = cells.run(stop)
        stop.heard = False
        with closing(Store(url, out.name, 1)) as store:  # connections of before may be those of a server that was away
            results = _results(settings, store, fleets, stopped=stop.asked > 0)
    results["failed"] += [f"UEs of {f.cell}, {f.scheme}: {text}" for f, text in problems.items() if text]
    results["failed"] += cells.failed
    results |= {"misdecoded": cells.misdecoded, "checked": cells.checked, "machine": machine(), "files": str(out)}
    for name, log in cells.logs.items():
        (out / f"{name}.log").write_text(log)
    _show(results, screen)
    for file in filter(None, (out / RESULTS, settings.json_file)):
        write_json(file, results)
    return 0 if results["lost"] == results["misdecoded"] == 0 and not results["failed"] else 1


def _results(settings: Settings, store: Store, fleets: list[Fleet], *, stopped: bool) -> dict[str, Any]:
    """All figures as the store has them, of each cell and over all, and how many reports are not in it.

    Args:
        stopped: UEs were asked to end: they were to send what they had begun to.
    """
    cells: dict[str, Any] = {}
    of_all, failed = [], []
    for cell in dict.fromkeys(fleet.cell for fleet in fleets):
        stored, schemes = list(stored_fleets(store.of(cell))), {}
        of_all += stored
        figures = _stored(stored)
        for fleet in (fleet for fleet in fleets if fleet.cell == cell):
            mine = [one for one in stored if one.lease.first_ue == fleet.first_ue]
            reached = int(sum(one.next_sequence.sum() for one in mine))
            asked = reached if stopped else settings.ues * fleet.slots
            decoded = int(sum(totals.sums[:, :-1, 0].sum() for one in mine for totals in one.totals.values()))
            dropped = int(sum(one.dropped.sum() for one in mine))
            if decoded + dropped > asked:
                failed.append(f"{cell}, {fleet.scheme}: {decoded + dropped - asked} reports were counted twice")
            counts = {"reports_asked": asked, "reports_decoded": decoded, "reports_dropped": dropped}
            schemes[fleet.scheme] = {"rate": fleet.rate, **counts, **figures.get(fleet.scheme, {})}
        cells[cell] = {"schemes": schemes, "gnb_starts": len(store.of(cell).processes())}
    rows = [row for cell in cells.values() for row in cell["schemes"].values()]
    return {
        "settings": settings.model_dump(mode="json", exclude={"config", "json_file", "out", "store", "token"}),
        "cells": cells,
        "schemes": _stored(of_all),
        "lost": sum(max(0, row["reports_asked"] - row["reports_decoded"] - row["reports_dropped"]) for row in rows),
        "dropped": sum(row["reports_dropped"] for row in rows),
        "failed": failed,
    }


def _stored(fleets: list[StoredFleet]) -> dict[str, dict[str, Any]]:
    """Figures of each scheme: where all its reports have encoder and conditions in common, and in `versions` of each
    version and air.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in stored_figures(fleets)[0]:
        found[row["scheme"]] = {} if row["scheme"] in found else row
    return {
        scheme: {
            **row,
            "versions": [each for each in stored_figures(fleets, scheme, by_version=True)[0] if each["version"]],
        }
        for scheme, row in found.items()
    }


def _show(results: dict[str, Any], screen: Console) -> None:
    table = Table("cell", "gNB starts", "scheme", "asked for", "decoded", "dropped", "bits", "NMSE (dB)", "SGCS")
    totals: dict[str, list[int]] = {}
    for name, cell in results["cells"].items():
        for index, (scheme, row) in enumerate(cell["schemes"].items()):
            counts = [row[f"reports_{what}"] for what in ("asked", "decoded", "dropped")]
            totals[scheme] = [sum(pair) for pair in zip(totals.get(scheme, 3 * [0]), counts, strict=True)]
            first = ("", "") if index else (name, str(cell["gnb_starts"]))
            _add_rows(table, *first, scheme, *map(str, counts), of=row)
    table.add_section()
    for scheme, counts in totals.items():
        _add_rows(table, "all", "", scheme, *map(str, counts), of=results["schemes"].get(scheme, {}))
    screen.print(table)
    screen.print(
        f"lost {results['lost']}, dropped {results['dropped']}, misdecoded {results['misdecoded']} of"
        f" {results['checked']} reports decoded again"
    )
    for text in results["failed"]:
        screen.print(text, style="red")


def _add_rows(table: Table, *cells: str, of: dict[str, Any]) -> None:
    """A row of a scheme, and where it has had several versions or airs, one of each of them."""
    versions = of.get("versions", [])
    table.add_row(*cells, *(_figures(of) if len(versions) < 2 else []))
    for version in versions if len(versions) > 1 else []:
        table.add_row("", "", of_version(version), "", str(version["reports"]), "", *_figures(version))


def _figures(row: dict[str, Any]) -> list[str]:
    """Bits, NMSE and SGCS."""
    return [
        number(row.get("feedback_bits"), 0),
        with_error(row.get("nmse_db"), row.get("nmse_se_db")),
        number(row.get("sgcs"), 3),
    ]
