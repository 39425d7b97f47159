"""Decodes per second of server CPU time over gRPC, as a share of what the same decoder does in a plain loop.

The peer ("ceiling") is the decoder in this process: side information and payload fields at hand, batches of the same
UEs, one thread, fp32. The gNB is a process of its own, loaded over a real socket by UEs that send the packed payloads
of their first frame again and again, a frame of all UEs in a chunk. `decode_only` has evaluator, store and world off
(side information of the first frame is kept); `everything` has them on. Server CPU time is the gNB process's user and
system time, so that the load generator's share of the machine does not count.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
from numpy.typing import NDArray

from csiemu.benchmarks import machine
from csiemu.processes import Gnb
from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from protos.csi_feedback.v1 import csi_feedback_pb2_grpc as pb_grpc
from shared.channels.streams import Samples, Split
from shared.checkpoints import Checkpoint, CheckpointStore
from shared.link.decoding import decode_slot, side_information
from shared.link.encoding import encode_frames
from shared.link.payload import pack_bits
from ue_client.channel import NO_PROXY

WINDOW = 4
"""Chunks in flight."""


def measure(root: Path, schemes: list[str], ues: int, seconds: float, rounds: int) -> dict[str, Any]:
    """All figures of all schemes: medians over `rounds` interleaved rounds.

    Args:
        root: folder of checkpoints.
        ues: UEs, in one fleet; also the ceiling's batch.
        seconds: length of each measurement.
    """
    store = CheckpointStore(root)
    results: dict[str, Any] = {}
    for name in schemes:
        checkpoint = store.load(name)
        rates: dict[str, list[float]] = {"ceiling": [], "decode_only": [], "everything": []}
        walls: dict[str, list[float]] = {"decode_only": [], "everything": []}
        for _ in range(rounds):
            rates["ceiling"].append(_ceiling(checkpoint, ues, seconds))
            for mode in walls:
                by_cpu, by_wall = asyncio.run(_served(root, checkpoint, ues, seconds, evaluate=mode == "everything"))
                rates[mode].append(by_cpu)
                walls[mode].append(by_wall)
        medians = {mode: statistics.median(values) for mode, values in rates.items()}
        results[name] = {
            **{f"{mode}_per_cpu_s": median for mode, median in medians.items()},
            **{f"{mode}_per_s": statistics.median(values) for mode, values in walls.items()},
            "share_of_ceiling": medians["decode_only"] / medians["ceiling"],
            "share_of_ceiling_everything": medians["everything"] / medians["ceiling"],
        }
    settings = {"ues": ues, "seconds": seconds, "rounds": rounds, "threads": 1, "precision": "fp32"}
    return {"settings": settings, "machine": machine(), "schemes": results}


def _reports(checkpoint: Checkpoint, samples: Samples) -> NDArray[np.uint8]:
    """Bits of the UEs' first frame, [T, ues, bits]."""
    return encode_frames(checkpoint.scheme, checkpoint.scenario, samples).swapaxes(0, 1)


def _samples(ues: int) -> Samples:
    return Samples(0, Split.EMULATE, torch.arange(ues), torch.zeros(ues, dtype=torch.int64))


def _ceiling(checkpoint: Checkpoint, ues: int, seconds: float) -> float:
    """Decodes per second of CPU time in a plain loop."""
    scheme, samples = checkpoint.scheme, _samples(ues)
    side = side_information(scheme, checkpoint.scenario, samples)
    fields = [scheme.layout.fields_of(reports) for reports in _reports(checkpoint, samples)]
    done, ends, started = 0, time.monotonic() + seconds, time.process_time()
    while time.monotonic() < ends:
        state = scheme.decoder.initial_state(ues)
        for t in range(checkpoint.scenario.slots):
            _, state = decode_slot(scheme, fields[t], side[:, t], state)
            done += ues
    return done / (time.process_time() - started)


async def _served(
    root: Path, checkpoint: Checkpoint, ues: int, seconds: float, *, evaluate: bool
) -> tuple[float, float]:
    """Decodes per second of the gNB's CPU time, and of wall time."""
    slots = checkpoint.scenario.slots
    payload = pack_bits(_reports(checkpoint, _samples(ues)))
    encoder_id = bytes.fromhex(checkpoint.encoder_id)
    with tempfile.TemporaryDirectory() as folder, Gnb(Path(folder), checkpoints=root, evaluate=evaluate) as gnb:
        async with grpc.aio.insecure_channel(gnb.grpc, options=NO_PROXY) as channel:
            stub = pb_grpc.CsiFeedbackStub(channel)
            request = pb.AttachRequest(
                scheme=checkpoint.name, scenario=str(checkpoint.scenario), encoder_id=encoder_id, ue_count=ues
            )
            token = (await stub.Attach(request)).token
            window = asyncio.Semaphore(WINDOW)
            stopping = False

            async def requests() -> AsyncIterator[pb.FeedbackRequest]:
                slot = 0
                while not stopping:
                    await window.acquire()
                    yield pb.FeedbackRequest(
                        encoder_id=encoder_id, ue_count=ues, first_slot=slot, slot_count=slots, payload=payload
                    )
                    slot += slots

            done, warm = 0, False
            begun, cpu = time.monotonic(), 0.0
            async for _ in stub.Feedback(requests(), metadata=(("fleet-token", token),)):
                window.release()
                done += ues * slots
                now = time.monotonic()
                if not warm and now - begun > 1.0:  # the first second warms caches
                    done, warm, begun, cpu = 0, True, now, gnb.cpu_seconds()
                elif warm and not stopping and now - begun >= seconds:
                    stopping = True
                    by_cpu, by_wall = done / (gnb.cpu_seconds() - cpu), done / (now - begun)
                    break
    return by_cpu, by_wall
