"""A gNB that serves many UEs for a while: whether each report is counted and decoded rightly, whether its memory stays
as it is, and how soon REST answers meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from csiemu.benchmarks import OnProgress
from csiemu.benchmarks.restarts import DRAIN_S, Tally
from csiemu.processes import Gnb, spawn, tail
from csiemu.rest import Rest
from csiemu.verify import recoded
from shared.checkpoints import CheckpointStore
from shared.errors import CsiError, NotReady
from shared.machine import machine

UES, SECONDS = 10_000, 300.0
"""By default."""

RATE = 0.5
"""Reports per second and UE."""

RECORD_EVERY = 3
"""Every how many frames reports are recorded, to be checked: often, so that recording is no step in the memory."""

ASKED = ("/v1/nmse", "/v1/ues", "/metrics")
"""What a client of REST asks for once a second."""

PATIENCE_S = 120.0
"""How long it may take until all UEs are served."""


def measure(
    root: Path, names: list[str], ues: int, seconds: float, seed: int, on_progress: OnProgress = lambda done, of: None
) -> dict[str, Any]:
    """Serve UEs, and look at the gNB once a second.

    Args:
        root: folder of checkpoints. names: of those that are used, one for each UE process; they may be equal.
        ues: in all, in processes of equal size. seconds: length of the measurement. seed: of the world.

    Returns:
        Settings; until all UEs were served [s]; offered and served [reports/s]; memory of the gNB and its workers [MB]
        and, over the second half, its slope [MB/min] with the standard error of least squares; times of REST [ms];
        reports sent, counted, lost, counted twice and misdecoded.

    Raises:
        NotReady: UEs were not served in time. CsiError: a process ended by itself, or not well.
    """
    each = ues // len(names)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        options = {"checkpoints": root, "record": folder / "recorded", "record_every": RECORD_EVERY}
        with Gnb(folder, **options) as gnb, contextlib.ExitStack() as stack:
            rest, begun = Rest(f"http://{gnb.rest}"), time.monotonic()
            processes = {}
            for number, name in enumerate(names):
                log, summary = folder / f"ue-{number}.log", folder / f"ue-{number}.json"
                shared = {"gnb": gnb.grpc, "checkpoints": root, "rate": RATE, "drain_s": DRAIN_S, "seed": seed}
                own = {"scheme": name, "ues": each, "ue_base": number * each, "summary": summary}
                processes[log] = spawn("ue_client", log, **shared, **own)
                stack.callback(processes[log].kill)
            while _served_ues(rest) < each * len(names):
                if time.monotonic() - begun > PATIENCE_S:
                    raise NotReady(f"gnb: it did not serve all UEs in {PATIENCE_S:g} s; wanted fewer UEs")
                time.sleep(0.5)
            served_after_s = time.monotonic() - begun
            found = _watched(gnb, rest, seconds, on_progress)
            for process in processes.values():
                process.terminate()
            for log, process in processes.items():
                if process.wait(2 * DRAIN_S):
                    raise CsiError(f"a UE process ended with {process.returncode}; its log ends:\n{tail(log)}")
        sent = sum(json.loads(file.read_text())["sent"] for file in folder.glob("ue-*.json"))
        tally = Tally.of(gnb.store)
        wrong, checked = recoded(CheckpointStore(root), sorted((folder / "recorded").glob("*.npz")))
    return {
        "settings": {"checkpoints": names, "ues": ues, "seconds": seconds, "seed": seed, **machine()},
        "served_after_s": served_after_s,
        "offered_per_s": each * len(names) * RATE,
        **found,
        "sent": sent,
        **dataclasses.asdict(tally),
        "lost": sent - tally.reports + tally.twice,
        "misdecoded": wrong,
        "checked": checked,
    }


def _served_ues(rest: Rest) -> int:
    """How many UEs have had an ack."""
    with contextlib.suppress(NotReady):
        return sum(row["next_sequence"] > 0 for row in rest.get("/v1/ues?limit=100000")["ues"])
    return 0


def _watched(gnb: Gnb, rest: Rest, seconds: float, on_progress: OnProgress) -> dict[str, Any]:
    """Memory, times of REST and rate over so many seconds, looked at once a second."""
    at, memory = [], []
    waits: dict[str, list[float]] = {path: [] for path in ASKED}
    before, begun = _reports(rest), time.monotonic()
    for number in range(max(4, round(seconds))):
        time.sleep(max(0.0, begun + number - time.monotonic()))
        at.append(time.monotonic() - begun)
        memory.append(gnb.memory_mb())
        for path, found in waits.items():
            asked = time.monotonic()
            urllib.request.urlopen(f"{rest.url}{path}", timeout=60).read()
            found.append(1e3 * (time.monotonic() - asked))
        on_progress(number + 1, round(seconds))
    served_per_s = (_reports(rest) - before) / (time.monotonic() - begun)
    half = len(at) // 2
    line = stats.linregress(np.array(at[half:]) / 60, memory[half:])
    return {
        "served_per_s": served_per_s,
        "memory_mb": memory,
        "memory_mb_per_min": line.slope,
        "memory_mb_per_min_se": line.stderr,
        "rest_ms": {
            path: dict(zip(("p50", "p99"), np.percentile(found, (50, 99)).tolist(), strict=True))
            for path, found in waits.items()
        },
    }


def _reports(rest: Rest) -> int:
    return int(rest.get("/v1/nmse")["overall"]["reports"])
