"""Decodes per second of server CPU time over gRPC, as a share of what the same decoder does in a plain loop.

The peer ("ceiling") is the decoder in this process: side information and payload fields at hand, batches of the same
UEs, one thread, the same precision. The gNB is a process of its own, loaded over a real socket by UEs that send the
packed payloads of their first frame again and again, a frame of all UEs in a chunk. `decode_only` has evaluator, store
and world off (side information of the first frame is kept); `everything` has them on, `unwatched` all but the
monitoring, which is measured once it has its reference. Server CPU time is the user and system time of the gNB's
process and its workers, so that the load generator's share of the machine does not count. What decode workers are for
is seen by the clock on the wall: beside `unwatched`, which has none.

Servers of others (`csiemu.benchmarks.peers`) decode the same payloads by the same decoder in one process, which holds
the UEs' states, in batches of all UEs at most; like `decode_only`, they compare and store nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
from numpy.typing import NDArray

from csiemu.benchmarks import OnProgress, medians
from csiemu.benchmarks.peers import load
from csiemu.processes import Gnb
from csiemu.rest import Rest
from gnb_server.openvino import Backend
from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from protos.csi_feedback.v1 import csi_feedback_pb2_grpc as pb_grpc
from shared.channels.streams import Samples, Split
from shared.checkpoints import Checkpoint, CheckpointStore
from shared.errors import NotReady
from shared.link.decoding import decode_slot, side_information
from shared.link.encoding import encode_frames
from shared.link.precision import Precision, precision_for
from shared.machine import machine
from ue_client.channel import NO_PROXY

WINDOW = 4
"""Chunks in flight."""


def measure(
    root: Path,
    schemes: list[str],
    ues: int,
    seconds: float,
    rounds: int,
    precision: Precision = "fp32",
    workers: Sequence[int] = (),
    peers: Sequence[str] = (),
    backend: Backend = "torch",
    on_progress: OnProgress = lambda done, of: None,
) -> dict[str, Any]:
    """All figures of all schemes: medians over `rounds` interleaved rounds.

    Args:
        root: folder of checkpoints.
        ues: UEs, in one fleet; also the ceiling's batch.
        seconds: length of each measurement.
        precision: of the decoders, as far as their cards allow it.
        workers: numbers of decode workers that are measured, without the monitoring.
        peers: keys of `load.PEERS`, measured too.
        backend: of the gNB; the ceiling and the peers are torch's.
    """
    store = CheckpointStore(root)
    contenders: dict[tuple[str, str], Callable[[], tuple[float, float]]] = {}
    for name in schemes:
        checkpoint = store.load(name)
        checkpoint.scheme.precision = precision_for(checkpoint.card, precision)
        sent = _reports(checkpoint, _samples(ues))
        contenders[name, "ceiling"] = partial(_ceiling, checkpoint, ues, seconds)
        served = partial(_served, root, checkpoint, ues, seconds, backend)
        contenders[name, "decode_only"] = partial(served, evaluate=False)
        contenders[name, "everything"] = partial(served, evaluate=True, watch=True)
        contenders[name, "unwatched"] = partial(served, evaluate=True)
        for count in workers:
            contenders[name, f"workers_{count}"] = partial(served, evaluate=True, workers=count)
        for peer, at_once in itertools.product(peers, load.REPORTS):
            contenders[name, f"{peer}_{at_once}"] = partial(
                load.measure, root, checkpoint, sent, peer, at_once, seconds
            )
    results: dict[str, dict[str, Any]] = {name: {} for name in schemes}
    for (name, mode), (by_cpu, by_wall) in medians(contenders, rounds, on_progress).items():
        results[name] |= {f"{mode}_per_cpu_s": by_cpu, f"{mode}_per_s": by_wall}
    for row in results.values():
        row["share_of_ceiling"] = row["decode_only_per_cpu_s"] / row["ceiling_per_cpu_s"]
        row["cost_of_monitoring"] = 1 - row["everything_per_cpu_s"] / row["unwatched_per_cpu_s"]
        row["share_of_ceiling_everything"] = row["everything_per_cpu_s"] / row["ceiling_per_cpu_s"]
    settings: dict[str, Any] = {"ues": ues, "seconds": seconds, "rounds": rounds, "threads": 1}
    settings |= {"precision": precision, "backend": backend, "workers": list(workers), "peers": list(peers)}
    return {"settings": settings, "machine": machine(), "schemes": results}


def _reports(checkpoint: Checkpoint, samples: Samples) -> NDArray[np.uint8]:
    """Bits of the UEs' first frame, [T, ues, bits]."""
    return encode_frames(checkpoint.scheme, checkpoint.scenario, samples).swapaxes(0, 1)


def _samples(ues: int) -> Samples:
    return Samples(0, Split.EMULATE, torch.arange(ues), torch.zeros(ues, dtype=torch.int64))


def _ceiling(checkpoint: Checkpoint, ues: int, seconds: float) -> tuple[float, float]:
    """Decodes per second of CPU time, and of wall time, in a plain loop."""
    scheme, samples = checkpoint.scheme, _samples(ues)
    side = side_information(scheme, checkpoint.scenario, samples)
    fields = [scheme.layout.fields_of(reports) for reports in _reports(checkpoint, samples)]
    done, begun, started = 0, time.monotonic(), time.process_time()
    while (elapsed := time.monotonic() - begun) < seconds:
        state = scheme.decoder.initial_state(ues)
        for t in range(checkpoint.scenario.slots):
            _, state = decode_slot(scheme, fields[t], side[:, t], state)
            done += ues
    return done / (time.process_time() - started), done / elapsed


def _served(
    root: Path,
    checkpoint: Checkpoint,
    ues: int,
    seconds: float,
    backend: Backend,
    *,
    evaluate: bool,
    watch: bool = False,
    workers: int = 0,
) -> tuple[float, float]:
    """Decodes per second of a gNB's CPU time, and of wall time."""
    asked = {"evaluate": evaluate, "monitoring": watch, "workers": workers}
    options = {"checkpoints": root, "precision": checkpoint.scheme.precision, "backend": backend, **asked}
    with tempfile.TemporaryDirectory() as folder, Gnb(Path(folder), **options) as gnb:
        return asyncio.run(_load(gnb, checkpoint, ues, seconds, watch=watch))


async def _watched(gnb: Gnb) -> None:
    """Wait until the monitoring judges all that comes: it makes its reference no more."""
    rest = Rest(f"http://{gnb.rest}")
    while [row["state"] for row in (await asyncio.to_thread(rest.get, "/v1/alarms"))["watched"]] != ["watched"]:
        await asyncio.sleep(0.2)


async def _load(gnb: Gnb, checkpoint: Checkpoint, ues: int, seconds: float, *, watch: bool) -> tuple[float, float]:
    """Send frames of all UEs for so long; as `_served`."""
    slots, encoder_id = checkpoint.scenario.slots, bytes.fromhex(checkpoint.encoder_id)
    payload = checkpoint.scheme.layout.pack_bits(_reports(checkpoint, _samples(ues)))
    window = asyncio.Semaphore(WINDOW)

    async def requests() -> AsyncIterator[pb.FeedbackRequest]:
        for slot in itertools.count(0, slots):
            await window.acquire()
            yield pb.FeedbackRequest(
                encoder_id=encoder_id, ue_count=ues, first_slot=slot, slot_count=slots, payload=payload
            )

    async with grpc.aio.insecure_channel(gnb.grpc, options=NO_PROXY) as channel:
        stub = pb_grpc.CsiFeedbackStub(channel)
        request = pb.AttachRequest(
            scheme=checkpoint.name, scenario=str(checkpoint.scenario), encoder_id=encoder_id, ue_count=ues
        )
        token = (await stub.Attach(request)).token
        done, begun, cpu, warm = 0, time.monotonic(), 0.0, False
        settled = asyncio.ensure_future(_watched(gnb) if watch else asyncio.sleep(0))
        async for _ in stub.Feedback(requests(), metadata=(("fleet-token", token),)):
            window.release()
            done += ues * slots
            elapsed = time.monotonic() - begun
            if not warm and elapsed > 1.0 and settled.done():  # the first second warms caches
                done, begun, cpu, warm = 0, time.monotonic(), gnb.cpu_seconds(), True
            elif warm and elapsed >= seconds:
                return done / (gnb.cpu_seconds() - cpu), done / elapsed
    raise NotReady("gnb: its answers ended before the measurement")
