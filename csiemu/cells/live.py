"""Cells while they run: their actors on a Ray cluster, and what is shown of them."""

from __future__ import annotations

import contextlib
import math
import secrets
import time
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console
from rich.live import Live
from rich.table import Table

from csiemu.cells.changes import Changes
from csiemu.cells.gnb import GnbActor
from csiemu.cells.messages import Ended, Place
from csiemu.cells.plan import Fleet
from csiemu.cells.ues import UesActor
from csiemu.emulate import POLL_S, WINDOW_S, Settings, Stop
from csiemu.output import number
from csiemu.processes import START_S, STORE
from csiemu.rest import Rest
from csiemu.schedule import Schedule
from gnb_server.store import sqlite_url, without_password
from shared.checkpoints import shipped_checkpoints
from shared.errors import CsiError, InvalidInput, NotReady
from shared.link.rate import Rate
from shared.stopping import STOP_S

GNB_NEEDS = {"num_cpus": 0.2, "memory": 2**30}
UES_NEED = {"num_cpus": 0.05, "memory": 2**29}
"""What a node must have left for a gNB, or a fleet of UEs [cores, bytes]: little of the cores, so that those nodes that
are left can take all.
"""


def common_store(store: str | None, out: Path) -> tuple[str, str | None]:
    """URL of the store of all cells, and the node that all have to be on, if it is a file there.

    Raises:
        InvalidInput: it is a file, and the cluster has several nodes, which would each have their own.
    """
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    if store is not None and not store.startswith("sqlite"):
        return store, None
    if len(nodes) > 1:
        said = "none is given" if store is None else f"'{without_password(store)}' is a file"
        raise InvalidInput(
            f"store: {said}, and the cluster has {len(nodes)} nodes; wanted postgresql://USER@HOST/NAME, a server that"
            " all of them reach"
        )
    return store or sqlite_url(out / STORE), nodes[0]


class Cells:
    """gNBs and their UEs as actors, which Ray starts again when they, or their nodes, have died.

    Args:
        store: URL. node: that they have to be on; None: they are spread.
        schedules: what each cell's gNB is to change when, from when on all of them have reports.

    Attributes:
        misdecoded, checked: reports whose records were decoded otherwise, and how many were compared.
        failed: changes that were not made, and why. logs: of gNBs and UEs, by name.
    """

    def __init__(
        self,
        settings: Settings,
        store: str,
        node: str | None,
        fleets: list[Fleet],
        schedules: dict[str, Schedule],
        screen: Console,
    ) -> None:
        self.misdecoded = self.checked = 0
        self.failed: list[str] = []
        self.logs: dict[str, str] = {}
        self._screen = screen
        self._rate = Rate(settings.bits, None, settings.target_nmse)
        self._token = settings.token.get_secret_value() if settings.token else secrets.token_urlsafe(32)
        self._changes = Changes(schedules, self._rest, screen.print)
        self._heard: set[str] = set()  # cells that have had reports
        where = "SPREAD" if node is None else NodeAffinitySchedulingStrategy(node, soft=False)
        kept = {"max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": where}
        # those that come with csiemu are elsewhere on another node
        checkpoints = None if settings.checkpoints == shipped_checkpoints() else settings.checkpoints.absolute()
        gnb, ues = ray.remote(GnbActor), ray.remote(UesActor)
        of_gnb = {**kept, **GNB_NEEDS, "max_concurrency": len(fleets) + 4}
        of_ues = {**kept, **UES_NEED, "max_concurrency": 2}
        options = {"checkpoints": checkpoints, **settings.gnb_options()}
        self._gnbs: dict[str, Any] = {
            cell: gnb.options(name=cell, **of_gnb).remote(cell, store, self._token, options) for cell in schedules
        }
        self._ues: dict[Fleet, Any] = {
            fleet: ues.options(**of_ues).remote(
                fleet.cell, {"checkpoints": checkpoints, **settings.ue_options(), **fleet.options()}
            )
            for fleet in fleets
        }
        self._asked: dict[str, Any] = {cell: gnb.place.remote() for cell, gnb in self._gnbs.items()}
        self._places: dict[str, Place] = {}

    def run(self, stop: Stop) -> dict[Fleet, str]:
        """Have all UEs send, then the gNBs end; returns what is wrong with each fleet, or nothing. Raises NotReady: a
        gNB cannot be started.
        """
        self._wait_for_gnbs(stop)
        runs = {ues.run.remote(): fleet for fleet, ues in self._ues.items()}
        problems: dict[Fleet, str] = {}
        said, told, limit = 0.0, 0, math.inf
        with self._live() as live:
            while runs:
                done, _ = ray.wait(list(runs), num_returns=len(runs), timeout=POLL_S)
                for run in done:
                    fleet = runs.pop(run)
                    ended = _ended(run)
                    problems[fleet] = ended.problem
                    self.logs[f"{fleet.cell}-ue-{fleet.scheme}"] = ended.log
                if told < min(stop.asked, 2) or time.monotonic() > limit:
                    self._screen.print(
                        "ending at once" if told else "stopping: UEs finish what they sent (again to end at once)"
                    )
                    self._stop(at_once=told > 0)
                    told, limit = told + 1, time.monotonic() + STOP_S
                table = self._table()
                if live is not None:
                    live.update(table, refresh=True)
                elif time.monotonic() - said > 10 * POLL_S:
                    self._screen.print(table)
                    said = time.monotonic()
                if len(self._heard) == len(self._gnbs):
                    self._changes.begin()
        self.failed = self._changes.end()
        self._finish()
        return problems

    def _live(self) -> contextlib.AbstractContextManager[Live | None]:
        if self._screen.is_terminal:
            return Live(console=self._screen, auto_refresh=False, transient=True)
        return contextlib.nullcontext()

    def _wait_for_gnbs(self, stop: Stop) -> None:
        deadline = time.monotonic() + START_S
        while len(self._places) < len(self._gnbs):
            self._look(POLL_S)
            if stop.asked:
                raise KeyboardInterrupt
            if time.monotonic() > deadline:
                raise NotReady(f"ray: {len(self._gnbs) - len(self._places)} gNBs have not started; {_room()}")

    def _look(self, patience_s: float) -> None:
        """See where gNBs are, and say of those that are elsewhere."""
        done, _ = ray.wait(list(self._asked.values()), num_returns=len(self._asked), timeout=patience_s)
        for cell, asked in self._asked.items():
            if asked not in done:
                continue
            place = _answer(asked)
            if place != self._places.get(cell):
                self._screen.print(f"{cell}: page and REST API: http://{place.rest}   gRPC: {place.grpc}")
            self._places[cell] = place
            self._asked[cell] = self._gnbs[cell].place.remote()

    def _table(self) -> Table:
        self._look(0.0)
        table = Table("cell", "node", "UEs", "asked/s", "served/s", "rate held", "reports", "dropped")
        for cell in self._gnbs:
            place = self._places[cell]
            try:
                rest = self._rest(cell)
                now, total = (rest.get(f"/v1/nmse{of}")["overall"] for of in (f"?window={WINDOW_S}", ""))
            except CsiError:
                table.add_row(cell, "its gNB is away", *6 * ["-"])
                continue
            if total["reports"]:
                self._heard.add(cell)
            held = {None: "-", True: "yes", False: "no"}[now["rate_held"]]
            ues = f"{total['ues_attached']}/{total['ues']}"
            rates = number(now["offered_reports_per_s"], 0), number(now["reports_per_s"], 0)
            table.add_row(cell, place.node, ues, *rates, held, str(total["reports"]), str(total["dropped"]))
        return table

    def _rest(self, cell: str) -> Rest:
        """Of its gNB, where it was seen last."""
        return Rest(f"http://{self._places[cell].rest}", self._token)

    def _stop(self, *, at_once: bool) -> None:
        for ues in self._ues.values():
            if at_once:
                ray.kill(ues)
            else:
                ues.stop.remote()

    def _finish(self) -> None:
        """End the gNBs, and have them check what they recorded."""
        for cell, finished in {cell: gnb.finish.remote(self._rate) for cell, gnb in self._gnbs.items()}.items():
            found = _answer(finished)
            self.misdecoded += found.misdecoded
            self.checked += found.checked
            self.logs[f"{cell}-gnb"] = found.log


def _room() -> str:
    """What actors want, and what the cluster has left."""
    left = ray.available_resources()
    return (
        f"each wants {GNB_NEEDS['num_cpus']:g} cores and {GNB_NEEDS['memory'] / 2**30:g} GiB of a node; the cluster has"
        f" {left.get('CPU', 0):g} cores and {left.get('memory', 0) / 2**30:.1f} GiB left"
    )


def _answer(asked: Any) -> Any:
    """What a gNB's actor answers. Raises NotReady."""
    try:
        return ray.get(asked)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, CsiError) else NotReady(f"ray: {_last_line(error)}") from None
    except ray.exceptions.RayError as error:
        raise NotReady(f"ray: a gNB's actor died, and cannot be started again: {_last_line(error)}") from None


def _ended(run: Any) -> Ended:
    try:
        return ray.get(run)
    except ray.exceptions.RayTaskError as error:
        return Ended(str(error.cause), "")
    except ray.exceptions.RayError as error:
        return Ended(_last_line(error), "")


def _last_line(error: Exception) -> str:
    """Of what Ray says, which has the traceback before it."""
    return str(error).strip().splitlines()[-1]
