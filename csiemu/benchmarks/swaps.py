"""Versions with different encoders swapped back and forth under full load, gNB and UEs killed (`kill -9`) at random
moments: every report is to be counted once, and decoded by the version for the encoder that made it.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csiemu.benchmarks import OnProgress
from csiemu.processes import Gnb, end, spawn
from csiemu.rest import Rest
from csiemu.verify import recoded
from gnb_server.store import Store
from shared.checkpoints import CheckpointStore
from shared.errors import CsiError, NotReady
from shared.machine import machine

FLEETS = 2
"""UE processes."""

RECORD_EVERY = 10
"""Every how many frames reports are recorded, to be checked."""

PATIENCE_S = 120.0
"""How long a swap may take."""

KILL_WITHIN_S = 1.0
"""After a swap was asked for, at a random moment, something is killed."""


@dataclass
class _Ues:
    """A UE process, and how to start it again with its lease."""

    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes]


class _Run:
    """A gNB and UE processes that can be killed."""

    def __init__(self, folder: Path, root: Path, name: str, ues: int, seed: int) -> None:
        self.folder, self.name = folder, name
        self._options = {"checkpoints": root, "record": folder / "recorded", "record_every": RECORD_EVERY}
        self.gnb = Gnb(folder, **self._options)
        self.rest = Rest(f"http://{self.gnb.rest}")
        self.fleets = [self._ues(number, root, ues // FLEETS, seed) for number in range(FLEETS)]

    def _ues(self, number: int, root: Path, ues: int, seed: int) -> _Ues:
        options = {
            "gnb": self.gnb.grpc,
            "scheme": self.name,
            "checkpoints": root,
            "ues": ues,
            "ue_base": number * ues,
            "seed": seed,
            "rate": "max",
            "token_file": self.folder / f"token-{number}",
            "drain_s": PATIENCE_S,
        }

        def start() -> subprocess.Popen[bytes]:
            starts = len(list(self.folder.glob(f"ue-{number}-*.log")))
            return spawn("ue_client", self.folder / f"ue-{number}-{starts}.log", **options)

        return _Ues(start, start())

    def kill(self, what: str) -> None:
        """`kill -9`, and start again."""
        if what == "gNB":
            self.gnb.process.kill()
            self.gnb.process.wait()
            ports = {"grpc_port": self.gnb.grpc.rpartition(":")[2], "rest_port": self.gnb.rest.rpartition(":")[2]}
            self.gnb = Gnb(self.folder, **self._options, **ports)
            return
        fleet = self.fleets[int(what)]
        fleet.process.kill()
        fleet.process.wait()
        fleet.process = fleet.start()

    def load(self, version: int) -> None:
        """Ask for a version, as often as it takes while the gNB is away."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.rest.post(f"/v2/repository/models/{self.name}/load", {"parameters": {"version": version}})
                return
            except NotReady:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def switched(self, version: int, ues: int) -> bool:
        """Whether all UEs are attached and on a version."""
        with contextlib.suppress(NotReady):
            found = self.rest.get(f"/v2/models/{self.name}")["parameters"]["ues"]
            return bool(found["by_version"] == {str(version): ues})
        return False

    def close(self) -> None:
        """End what runs."""
        for fleet in self.fleets:
            end(fleet.process, PATIENCE_S)
        end(self.gnb.process)


def measure(
    root: Path,
    name: str,
    versions: tuple[int, int],
    ues: int,
    swaps: int,
    kills: int,
    seed: int,
    on_progress: OnProgress,
) -> dict[str, Any]:
    """Swap, kill, and check.

    Args:
        root: folder of checkpoints. name, versions: two of a model, that take turns.
        ues: in all. swaps, kills: how many; kills are spread at random, half of them of the gNB.
        seed: of the world and of the moments.

    Returns:
        Settings, reports counted, lost and misdecoded, frames by version, and how long swaps took [s].
    """
    chance = random.Random(seed)
    marked = sorted(chance.sample(range(swaps), kills))
    victims = {swap: "gNB" if n % 2 else str(chance.randrange(FLEETS)) for n, swap in enumerate(marked)}
    store = CheckpointStore(root)
    took: list[float] = []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        run = _Run(folder, root, name, ues, seed)
        try:
            for number in range(swaps):
                version = versions[(number + 1) % 2]
                run.load(version)
                begun = time.monotonic()
                if number in victims:
                    time.sleep(chance.uniform(0, KILL_WITHIN_S))
                    run.kill(victims[number])
                while not run.switched(version, ues):
                    _check_alive(run)
                    if time.monotonic() - begun > PATIENCE_S:
                        raise NotReady(f"swap {number} to version {version}: not done after {PATIENCE_S:g} s")
                    time.sleep(0.02)
                took.append(time.monotonic() - begun)
                on_progress(number + 1, swaps)
            for fleet in run.fleets:
                end(fleet.process, PATIENCE_S)
            codes = [fleet.process.returncode for fleet in run.fleets]
            reached = sum(row["next_sequence"] for row in run.rest.get("/v1/ues?limit=100000")["ues"])
            by_version = {
                str(row["version"]): row["frames"]
                for row in run.rest.get("/v1/nmse?by=version")["schemes"]
                if row["version"]
            }
        finally:
            run.close()
        results = Store(run.gnb.store, "default", 1)
        counted = sum(results.counted().values())
        results.close()
        wrong, checked = recoded(store, sorted((folder / "recorded").glob("*.npz")))
    return {
        "settings": {"checkpoint": name, "versions": versions, "ues": ues, "seed": seed, **machine()},
        "swaps": swaps,
        "kills": {"gNB": sum(v == "gNB" for v in victims.values()), "UEs": sum(v != "gNB" for v in victims.values())},
        "reports": counted,
        "lost": reached - counted,
        "misdecoded": wrong,
        "checked": checked,
        "frames_by_version": by_version,
        "swap_s": {f"p{q}": float(np.percentile(took, q)) for q in (50, 100)},
        "ues_ended_with": codes,
    }


def _check_alive(run: _Run) -> None:
    for fleet in run.fleets:
        if fleet.process.poll() is not None:
            raise CsiError(f"a UE process ended with {fleet.process.returncode}; its logs are gone with the run")
