"""Versions with different encoders swapped back and forth under full load, gNB and UEs killed (`kill -9`) at random
moments: every report is to be counted once, and decoded by the version for the encoder that made it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from csiemu.benchmarks import OnProgress
from csiemu.benchmarks.restarts import Restarts, Tally
from csiemu.verify import recoded
from shared.checkpoints import CheckpointStore
from shared.errors import NotReady
from shared.machine import machine

FLEETS = 2
"""UE processes."""

RECORD_EVERY = 10
"""Every how many frames reports are recorded, to be checked."""

PATIENCE_S = 120.0
"""How long a swap may take."""

KILL_WITHIN_S = 1.0
"""After a swap was asked for, at a random moment, something is killed."""


class _Run(Restarts):
    """Processes, and versions of their model."""

    def __init__(self, folder: Path, root: Path, name: str, ues: int, seed: int) -> None:
        self.name = name
        super().__init__(folder, root, name, ues, FLEETS, seed, record=folder / "recorded", record_every=RECORD_EVERY)

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
        Settings, reports counted, lost, counted twice and misdecoded, frames by version, and how long swaps took [s].
    """
    chance = random.Random(seed)
    marked = sorted(chance.sample(range(swaps), kills))
    victims = {swap: None if n % 2 else chance.randrange(FLEETS) for n, swap in enumerate(marked)}  # None: the gNB
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
                    victim = victims[number]
                    run.kill_gnb() if victim is None else run.fleets[victim].kill()
                while not run.switched(version, ues):
                    run.check_alive()
                    if time.monotonic() - begun > PATIENCE_S:
                        raise NotReady(f"swap {number} to version {version}: not done after {PATIENCE_S:g} s")
                    time.sleep(0.02)
                took.append(time.monotonic() - begun)
                on_progress(number + 1, swaps)
            codes = run.end_ues()
            by_version = {
                str(row["version"]): row["frames"]
                for row in run.rest.get("/v1/nmse?by=version")["schemes"]
                if row["version"]
            }
        finally:
            run.close()
        tally = Tally.of(run.gnb.store)
        wrong, checked = recoded(store, sorted((folder / "recorded").glob("*.npz")))
    return {
        "settings": {"checkpoint": name, "versions": versions, "ues": ues, "seed": seed, **machine()},
        "swaps": swaps,
        "kills": {"gNB": sum(v is None for v in victims.values()), "UEs": sum(v is not None for v in victims.values())},
        **dataclasses.asdict(tally),
        "misdecoded": wrong,
        "checked": checked,
        "frames_by_version": by_version,
        "swap_s": {f"p{q}": float(np.percentile(took, q)) for q in (50, 100)},
        "ues_ended_with": codes,
    }
