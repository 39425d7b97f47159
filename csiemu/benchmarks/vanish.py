"""Fleets that attach, send part of a frame and vanish, one after the other: what a gNB still holds of them."""

from __future__ import annotations

import asyncio
import os
import tempfile
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

UES = 1000
"""Of a fleet."""

SLOTS = 3
"""Of a frame that a fleet sends before it vanishes."""

EVICT_S = 1.0
"""After which the gNB evicts a fleet."""

SETTLED_S = 10.0
"""After which memory is read."""

PARTS = 5
"""Memory is read so many times, after as many cycles each."""


def measure(root: Path, name: str, cycles: int, ues: int, on_progress: OnProgress) -> dict[str, Any]:
    """Memory [MB] along the cycles.

    Args:
        root: folder of checkpoints. name: checkpoint that all use.
        cycles: fleets. ues: of each.
    """
    checkpoint = CheckpointStore(root).load(name, ends=("encoder",))
    with tempfile.TemporaryDirectory() as folder, Gnb(Path(folder), checkpoints=root, evict_s=EVICT_S) as gnb:
        memory = asyncio.run(_cycles(gnb, checkpoint, cycles, ues, on_progress))
    done = [cycles * part // PARTS for part in range(1, PARTS + 1)]
    slope = float(np.polyfit(done, memory, 1)[0])
    settings = {"checkpoint": name, "cycles": cycles, "ues": ues, "evict_s": EVICT_S, "cores": os.cpu_count()}
    return {"settings": settings, "cycles": done, "memory_mb": memory, "kb_per_cycle": 1e3 * slope}


async def _cycles(gnb: Gnb, checkpoint: Checkpoint, cycles: int, ues: int, on_progress: OnProgress) -> list[float]:
    memory = []
    for part in range(PARTS):
        for _ in range(cycles * (part + 1) // PARTS - cycles * part // PARTS):
            async with grpc.aio.insecure_channel(gnb.grpc) as channel:
                stub = pb_grpc.CsiFeedbackStub(channel)
                lease = await attached(stub, checkpoint, ues)
                reports = _part_of_a_frame(checkpoint, lease)
                async for _ in stub.Feedback(reports, metadata=(("fleet-token", lease.token),)):
                    break
        await asyncio.sleep(SETTLED_S)
        memory.append(gnb.memory_mb())
        on_progress(part + 1, PARTS)
    return memory


async def _part_of_a_frame(checkpoint: Checkpoint, lease: pb.AttachResponse) -> AsyncIterator[pb.FeedbackRequest]:
    async for chunk in chunks(checkpoint, lease, SLOTS):
        yield chunk
        await asyncio.Event().wait()
