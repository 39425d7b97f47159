"""A gNB and UE processes that are killed (`kill -9`) and started again, and whether each report was counted once."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csiemu.processes import LOG, Gnb, end, spawn, tail
from csiemu.rest import Rest
from gnb_server.sessions import Fleet
from gnb_server.store import Store
from shared.checkpoints import CheckpointStore
from shared.errors import CsiError

WINDOW = 8
"""Chunks of a UE process without ack, at most."""

DRAIN_S = 120.0
"""How long UEs may take to bring in what they have measured."""


@dataclass
class UeProcess:
    """A UE process, and how to start it again with its lease."""

    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """`kill -9`, and start again."""
        self.process.kill()
        self.process.wait()
        self.process = self.start()


class Restarts:
    """A gNB and UE processes, which all use one checkpoint and send as fast as they can.

    Args:
        folder: for stores, logs and tokens. root: of checkpoints. name: of the one that is used.
        ues: in all, in `fleets` processes of equal size. seed: of the world.
        gnb: further options of the gNB.

    Attributes:
        most_on_the_way: reports of a UE that its process may have sent without ack: chunks are whole frames.
    """

    def __init__(self, folder: Path, root: Path, name: str, ues: int, fleets: int, seed: int, **gnb: Any) -> None:
        self.folder = folder
        self._options = {"checkpoints": root, **gnb}
        self.gnb = Gnb(folder, **self._options)
        self.rest = Rest(f"http://{self.gnb.rest}")
        self.most_on_the_way = WINDOW * CheckpointStore(root).load(name).scenario.slots
        self.fleets = [self._ues(number, root, name, ues // fleets, seed) for number in range(fleets)]

    def _ues(self, number: int, root: Path, name: str, ues: int, seed: int) -> UeProcess:
        options = {
            "gnb": self.gnb.grpc,
            "scheme": name,
            "checkpoints": root,
            "ues": ues,
            "ue_base": number * ues,
            "seed": seed,
            "rate": "max",
            "token_file": self.folder / f"token-{number}",
            "drain_s": DRAIN_S,
            "window": WINDOW,
        }

        def start() -> subprocess.Popen[bytes]:
            starts = len(list(self.folder.glob(f"ue-{number}-*.log")))
            return spawn("ue_client", self.folder / f"ue-{number}-{starts:03d}.log", **options)

        return UeProcess(start, start())

    def kill_gnb(self) -> None:
        """`kill -9`, and start again on the same ports."""
        self.gnb.process.kill()
        self.gnb.process.wait()
        ports = {"grpc_port": self.gnb.grpc.rpartition(":")[2], "rest_port": self.gnb.rest.rpartition(":")[2]}
        self.gnb = Gnb(self.folder, **self._options, **ports)

    def reached(self) -> dict[int, int]:
        """How many reports of each UE the gNB says that it has. Raises NotReady."""
        return {row["ue"]: row["next_sequence"] for row in self.rest.get("/v1/ues?limit=100000")["ues"]}

    def check_alive(self) -> None:
        """Raises CsiError if a process has ended by itself."""
        logs = [self.folder / LOG, *(max(self.folder.glob(f"ue-{n}-*.log")) for n in range(len(self.fleets)))]
        for process, log in zip((self.gnb.process, *(fleet.process for fleet in self.fleets)), logs, strict=True):
            if process.poll() is not None:
                raise CsiError(f"a process ended with {process.returncode}; {log} ends:\n{tail(log)}")

    def end_ues(self) -> list[int | None]:
        """Let UEs bring in what they have measured, and end them; returns their exit codes."""
        for fleet in self.fleets:
            fleet.process.terminate()
        for fleet in self.fleets:
            fleet.process.wait(2 * DRAIN_S)
        return [fleet.process.returncode for fleet in self.fleets]

    def close(self) -> None:
        """End what runs, at once."""
        for fleet in self.fleets:
            fleet.process.kill()
            fleet.process.wait()
        end(self.gnb.process)


@dataclass(frozen=True)
class Tally:
    """What a store has: reports in its sums, those that UEs have got past and are not in them, and those that are in
    them more than once.
    """

    reports: int
    lost: int
    twice: int

    @classmethod
    def of(cls, url: str) -> Tally:
        """Of the run of a gNB that has ended, UE by UE."""
        store = Store(url, "default", 1)
        reports = lost = twice = 0
        facts = store.versions()
        for lease, encoder_id, _ in store.leases():
            fleet = Fleet(lease, encoder_id)
            fleet.facts, fleet.open = facts.get(lease.model, {}), None
            store.restore(fleet)
            counted = sum(totals.sums[:, :-1, 0].sum(axis=1) for totals in fleet.totals.values())
            missing = fleet.next_sequence - fleet.dropped - counted
            reports += int(np.sum(counted))
            lost += int(np.maximum(missing, 0).sum())
            twice += int(np.maximum(-missing, 0).sum())
        store.close()
        return cls(reports, lost, twice)
