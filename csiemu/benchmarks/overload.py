"""What becomes of reports when more are offered than a gNB can serve, and when fewer are.

First the capacity: fleets that always have a few chunks on their way. Then the same fleets offer shares of it, by a
clock that waits for nobody: a report's delay counts from when it was due, so what waits at a UE because the gNB is
behind has waited, too. A fresh gNB for each share.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from csiemu.benchmarks import OnProgress
from csiemu.benchmarks.flood import attached, chunks
from csiemu.processes import Gnb
from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from protos.csi_feedback.v1 import csi_feedback_pb2_grpc as pb_grpc
from shared.checkpoints import Checkpoint, CheckpointStore
from shared.errors import NotReady
from shared.machine import machine
from ue_client.channel import NO_PROXY

SHARES = (0.5, 0.8, 1.0, 1.5, 2.0, 4.0)
"""Offered load, in capacities."""

FLEETS = 8
"""That share the UEs."""

WINDOW = 4
"""Chunks of a fleet on their way, at most; those behind them wait at the UE."""

WARM_S = 1.0
"""Before anything is counted: caches fill."""


def measure(
    root: Path,
    name: str,
    ues: int,
    seconds: float,
    on_progress: OnProgress = lambda done, of: None,
) -> dict[str, Any]:
    """Capacity [reports/s], and for each of `SHARES` what was offered and served [reports/s], the delay of those served
    (p50, p99 [ms]), how many were due and not served at the end, and the most memory [MB].

    Args:
        root: folder of checkpoints. name: checkpoint that all use.
        ues: UEs, in `FLEETS` fleets.
        seconds: length of each measurement.

    Raises:
        NotReady: nothing was acknowledged in that time.
    """
    checkpoint = CheckpointStore(root).load(name, ends=("encoder",))
    capacity = _offer(root, checkpoint, ues, seconds, None)["served_per_s"]
    if not capacity:
        raise NotReady(f"gnb: it acknowledged nothing in {seconds:g} s; wanted more seconds, or a machine at rest")
    rows = []
    for done, share in enumerate(SHARES, start=1):
        on_progress(done, len(SHARES) + 1)
        rows.append({"share": share, **_offer(root, checkpoint, ues, seconds, share * capacity)})
    on_progress(len(SHARES) + 1, len(SHARES) + 1)
    settings = {"checkpoint": name, "fleets": FLEETS, "ues": ues, "seconds": seconds}
    return {"settings": settings, "machine": machine(), "capacity_per_s": capacity, "offered": rows}


def _offer(root: Path, checkpoint: Checkpoint, ues: int, seconds: float, rate: float | None) -> dict[str, Any]:
    """A gNB under so many reports a second of all UEs together; None: as many as it takes."""
    with tempfile.TemporaryDirectory() as folder, Gnb(Path(folder), checkpoints=root) as gnb:
        return asyncio.run(_run(gnb, checkpoint, ues, seconds, rate))


async def _run(gnb: Gnb, checkpoint: Checkpoint, ues: int, seconds: float, rate: float | None) -> dict[str, Any]:
    each = ues // FLEETS
    fleets = [_Fleet(checkpoint, each, None if rate is None else each * FLEETS / rate) for _ in range(FLEETS)]
    async with grpc.aio.insecure_channel(gnb.grpc, options=NO_PROXY) as channel:
        stub = pb_grpc.CsiFeedbackStub(channel)
        leases = [await attached(stub, checkpoint, each) for _ in fleets]
        begun = time.monotonic()
        starts = [begun + (0.0 if rate is None else place * each / rate) for place in range(FLEETS)]
        sending = [
            asyncio.create_task(fleet.send(stub, lease, start))
            for fleet, lease, start in zip(fleets, leases, starts, strict=True)
        ]
        counted_from, ends, peak = begun + WARM_S, begun + WARM_S + seconds, 0.0
        while time.monotonic() < ends:
            peak = max(peak, gnb.memory_mb())
            await asyncio.sleep(0.2)
            for task in sending:
                if task.done():
                    task.result()
        for task in sending:
            task.cancel()
        await asyncio.wait(sending)
    acked = [(at, delay) for fleet in fleets for at, delay in fleet.served if at < ends]
    served = [delay for at, delay in acked if at >= counted_from]
    found = {"served_per_s": len(served) * each / seconds, "memory_mb": peak}
    if rate is None:
        return found
    p50, p99 = (1e3 * np.percentile(served, (50, 99))).tolist() if served else (None, None)
    due = sum(fleet.due_by(ends, start) for fleet, start in zip(fleets, starts, strict=True))
    behind = (due - len(acked)) * each
    return {"offered_per_s": rate, **found, "delay_p50_ms": p50, "delay_p99_ms": p99, "behind": behind}


class _Fleet:
    """UEs that send a report each every `period` seconds, in one chunk.

    Attributes:
        served: of each chunk that was acknowledged, when [s, monotonic], and how long after it was due [s].
    """

    def __init__(self, checkpoint: Checkpoint, ues: int, period: float | None) -> None:
        self.served: list[tuple[float, float]] = []
        self._checkpoint = checkpoint
        self._period = period
        self._window = asyncio.Semaphore(WINDOW)
        self._due: deque[float] = deque()

    def due_by(self, now: float, start: float) -> int:
        """Chunks that were due until now."""
        assert self._period is not None
        return max(0, int((now - start) // self._period) + 1)

    async def send(self, stub: pb_grpc.CsiFeedbackStub, lease: pb.AttachResponse, start: float) -> None:
        """Send until cancelled."""
        metadata = (("fleet-token", lease.token),)
        async for answer in stub.Feedback(self._chunks(lease, start), metadata=metadata):
            if answer.HasField("ack"):
                self._window.release()
                now = time.monotonic()
                self.served.append((now, now - self._due.popleft()))

    async def _chunks(self, lease: pb.AttachResponse, start: float) -> AsyncIterator[pb.FeedbackRequest]:
        reports = chunks(self._checkpoint, lease, 1)
        for number in itertools.count():
            due = time.monotonic() if self._period is None else start + number * self._period
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            await self._window.acquire()
            self._due.append(due)
            yield await anext(reports)
