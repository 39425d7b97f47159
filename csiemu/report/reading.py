"""A run as its store and, of an emulation, its folder have it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from csiemu.processes import RESULTS
from csiemu.report.places import Place
from gnb_server.cells import stored_figures, stored_fleets
from gnb_server.sessions import Fleet
from gnb_server.store import EVENTS_KEPT
from shared.errors import InvalidInput

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    Attributes:
        place: as it was asked for. name: in its store.
        rows: figures of each scheme, version and conditions, as `/v1/nmse?by=version` has them; without latencies.
        fleets: with their sums per UE, none attached.
        events: what happened to models. snapshots: what the totals were, by time,
            from the last one before the first report on.
        processes: gNBs, by when they began. checkpoints: that decoded.
        results: of an emulation that has ended: settings and checks, as `csiemu emulate --json` writes them.
    """

    place: str
    name: str
    rows: list[Row]
    fleets: list[Fleet]
    events: list[Row]
    snapshots: list[tuple[float, list[Row]]]
    processes: list[tuple[float, Row]]
    checkpoints: list[Row]
    results: Row | None

    @property
    def began(self) -> float | None:
        """The last snapshot before the first reports, or the first one [s since 1970]."""
        return self.snapshots[0][0] if self.snapshots else None

    @property
    def seconds(self) -> float | None:
        """From the first to the last snapshot."""
        return self.snapshots[-1][0] - self.snapshots[0][0] if self.snapshots else None

    @property
    def settings(self) -> Row:
        """Of the emulation, or else of the last gNB."""
        if self.results is not None:
            return dict(self.results["settings"])
        return dict(self.processes[-1][1]["settings"]) if self.processes else {}

    @property
    def machine(self) -> Row:
        """Of the last gNB."""
        return dict(self.processes[-1][1]["machine"]) if self.processes else {}


def read_run(text: str) -> Run:
    """A RUN of a command line. Raises NotFound, and InvalidInput if there are no reports in it."""
    place = Place.parse(text)
    with place.open() as store:
        fleets = list(stored_fleets(store))
        rows, overall = stored_figures(fleets, by_version=True)
        if not overall["reports"]:
            raise InvalidInput(f"run: {text} has no reports")
        file = place.folder / RESULTS if place.folder else None
        return Run(
            place.text,
            store.run,
            rows,
            fleets,
            store.events(0, EVENTS_KEPT),
            _from_first_report(store.snapshots()),
            store.processes(),
            store.checkpoints(),
            json.loads(file.read_text()) if file and file.exists() else None,
        )


def _from_first_report(snapshots: list[tuple[float, list[Row]]]) -> list[tuple[float, list[Row]]]:
    """Without those that were taken while UEs were being started, but for the last of them."""
    without = sum(not any(row["reports"][0] for row in rows) for _, rows in snapshots)
    return snapshots[max(without - 1, 0) :]
