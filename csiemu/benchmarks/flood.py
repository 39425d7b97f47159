"""A gNB under a flood: many fleets send as fast as they can and hang up, while UEs of good manners come and go.

What is measured: the time from a fresh fleet's attach to its first ack, during the flood and after it; the gNB's memory
before, at most and after; what it decoded; how long it takes to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from csiemu.benchmarks import OnProgress
from csiemu.processes import Gnb
from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from protos.csi_feedback.v1 import csi_feedback_pb2_grpc as pb_grpc
from shared.checkpoints import Checkpoint, CheckpointStore

UES, FRESH_UES = 64, 8
"""Of a flooding and of a fresh fleet."""
EVERY_S = 1.0
"""How often a fresh fleet comes."""

FRESH_AFTER = 5
"""Fresh fleets after the flood."""

SETTLED_S = 8.0
"""When memory is read after the flood."""


def measure(
    root: Path,
    name: str,
    fleets: int,
    ues: int,
    seconds: float,
    on_progress: OnProgress = lambda done, of: None,
) -> dict[str, Any]:
    """All figures; times in seconds, memory in MB.

    Args:
        root: folder of checkpoints. name: checkpoint that all use.
        fleets, ues: flooding fleets, and UEs of each.
        seconds: length of the flood.
        on_progress: is told how many seconds have passed.
    """
    checkpoint = CheckpointStore(root).load(name, ends=("encoder",))
    with tempfile.TemporaryDirectory() as folder, Gnb(Path(folder), checkpoints=root) as gnb:
        found = asyncio.run(_flood(gnb, checkpoint, fleets, ues, seconds, on_progress))
        begun = time.monotonic()
        gnb.process.terminate()
        gnb.process.wait()
        found["ended_in_s"] = time.monotonic() - begun
    settings = {"checkpoint": name, "fleets": fleets, "ues": ues, "seconds": seconds, "cores": os.cpu_count()}
    return {"settings": settings, **found}


async def _flood(
    gnb: Gnb, checkpoint: Checkpoint, fleets: int, ues: int, seconds: float, on_progress: OnProgress
) -> dict[str, Any]:
    telling = asyncio.create_task(_tell(on_progress, round(seconds + FRESH_AFTER * EVERY_S + SETTLED_S)))
    for _ in range(3):  # models, stores and threads are there
        await _first_ack(gnb, checkpoint)
    before, peak = gnb.memory_mb(), 0.0
    flooding = [asyncio.create_task(_send(gnb, checkpoint, ues, seconds)) for _ in range(fleets)]
    during, ends = [], time.monotonic() + seconds
    while time.monotonic() < ends:
        during.append(await _first_ack(gnb, checkpoint))
        peak = max(peak, gnb.memory_mb())
        await asyncio.sleep(EVERY_S)
    acked = sum(await asyncio.gather(*flooding))
    after = []
    for _ in range(FRESH_AFTER):
        after.append(await _first_ack(gnb, checkpoint))
        await asyncio.sleep(EVERY_S)
    await asyncio.sleep(SETTLED_S)
    telling.cancel()
    return {
        "first_ack_during_s": during,
        "first_ack_after_s": after,
        "acked_per_s": acked / seconds,
        "memory_before_mb": before,
        "memory_peak_mb": peak,
        "memory_after_mb": gnb.memory_mb(),
    }


async def _tell(on_progress: OnProgress, seconds: int) -> None:
    for passed in range(seconds + 1):
        on_progress(passed, seconds)
        await asyncio.sleep(1)


async def attached(stub: pb_grpc.CsiFeedbackStub, checkpoint: Checkpoint, ues: int) -> pb.AttachResponse:
    """The lease of so many UEs."""
    encoder_id = bytes.fromhex(checkpoint.encoder_id)
    request = pb.AttachRequest(
        scheme=checkpoint.name, scenario=str(checkpoint.scenario), encoder_id=encoder_id, ue_count=ues
    )
    return await stub.Attach(request)


async def chunks(checkpoint: Checkpoint, lease: pb.AttachResponse, slots: int) -> AsyncIterator[pb.FeedbackRequest]:
    """Reports of zeros, so many slots at once, without end."""
    first, payload = 0, bytes(checkpoint.scheme.layout.chunk_bytes(lease.ue_count * slots))
    while True:
        yield pb.FeedbackRequest(
            encoder_id=bytes.fromhex(checkpoint.encoder_id),
            first_ue=lease.first_ue,
            ue_count=lease.ue_count,
            first_slot=first,
            slot_count=slots,
            payload=payload,
        )
        first += slots


async def _first_ack(gnb: Gnb, checkpoint: Checkpoint) -> float:
    """Seconds from the attach of a fresh fleet to its first ack."""
    async with grpc.aio.insecure_channel(gnb.grpc) as channel:
        stub = pb_grpc.CsiFeedbackStub(channel)
        begun = time.monotonic()
        lease = await attached(stub, checkpoint, FRESH_UES)
        async for _ in stub.Feedback(chunks(checkpoint, lease, 1), metadata=(("fleet-token", lease.token),)):
            return time.monotonic() - begun
    return float("inf")


async def _send(gnb: Gnb, checkpoint: Checkpoint, ues: int, seconds: float) -> int:
    """Send frames as fast as the gNB takes them, then hang up; returns the reports that it acknowledged."""
    acked = 0
    async with grpc.aio.insecure_channel(gnb.grpc) as channel:
        stub = pb_grpc.CsiFeedbackStub(channel)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                lease = await attached(stub, checkpoint, ues)
                reports = chunks(checkpoint, lease, lease.slots_per_frame)
                async for answer in stub.Feedback(reports, metadata=(("fleet-token", lease.token),)):
                    acked += answer.ack.ue_count * answer.ack.slot_count
    return acked
