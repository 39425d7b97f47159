"""Loads servers of others with the payloads that a gNB would get, and measures them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.util
import itertools
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray

from csiemu.benchmarks.peers.decoder import Request, free_port
from csiemu.benchmarks.peers.ray_serve import METHOD
from csiemu.processes import START_S, cpu_seconds, end, family, spawn, tail
from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from shared.checkpoints import Checkpoint
from shared.errors import InvalidInput, NotReady
from ue_client.channel import NO_PROXY

Send = Callable[[Request], Awaitable[object]]
"""Has a request answered."""

PEERS = {"ray-serve": "ray", "litserve": "litserve"}
"""Servers that are measured, and the package that each is."""

REPORTS = (1, 50)
"""Reports a request: one, as a UE sends them, and as many UEs as one packs together."""

WARM_S = 2.0
"""Before a measurement begins."""


def check(peers: Iterable[str]) -> None:
    """Raises InvalidInput for servers that are not known, or not installed."""
    for name in peers:
        if name not in PEERS:
            raise InvalidInput(f"peers: '{name}' is none of {', '.join(PEERS)}")
        if importlib.util.find_spec(PEERS[name]) is None:
            raise InvalidInput(f"peers: {name} is not installed; pip install 'csi-feedback-emulator[peers]'")


def measure(
    root: Path, checkpoint: Checkpoint, reports: NDArray[np.uint8], peer: str, at_once: int, seconds: float
) -> tuple[float, float]:
    """Decodes per second of a server's CPU time, with that of all its processes, and of wall time. Every UE, or as many
    as a request has, sends the report of its next slot once the one before is answered.

    Args:
        root: folder of checkpoints.
        reports: bits of the UEs' frame 0, [T, ues, bits]. at_once: of them in a request.
    """
    ues, pack = reports.shape[1], checkpoint.scheme.layout.pack_bits
    fleets = [
        [Request(first, len(each), slot, pack(each)) for slot, each in enumerate(reports[:, first : first + at_once])]
        for first in range(0, ues, at_once)
    ]
    with tempfile.TemporaryDirectory() as folder:
        port, log = free_port(), Path(folder) / "log"
        asked = {"scheme": checkpoint.name, "precision": checkpoint.scheme.precision, "ues": ues, "batch": len(fleets)}
        module = f"csiemu.benchmarks.peers.{'ray_serve' if peer == 'ray-serve' else 'lit_serve'}"
        server = spawn(module, log, checkpoints=root, port=port, folder=folder, **asked)
        try:
            _wait_for(server, port)
            connect = by_grpc if peer == "ray-serve" else by_http
            return asyncio.run(_load(connect(port), fleets, seconds, server.pid))
        except (NotReady, ExceptionGroup) as error:
            cause = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            raise NotReady(f"{peer}: {cause}; its log ends:\n{tail(log)}") from cause
        finally:
            started = family(server.pid)
            end(server)
            for pid in started:  # whatever does not end with it
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    """Until it listens. Raises NotReady if it does not."""
    deadline = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise NotReady("it does not start")


async def _load(
    connecting: contextlib.AbstractAsyncContextManager[Send], fleets: list[list[Request]], seconds: float, pid: int
) -> tuple[float, float]:
    done = 0

    async def frames(requests: list[Request]) -> None:
        nonlocal done
        for request in itertools.cycle(requests):
            await send(request)
            done += request.ue_count

    async with connecting as send, asyncio.TaskGroup() as group:
        sending = [group.create_task(frames(requests)) for requests in fleets]
        await asyncio.sleep(WARM_S)
        before, begun, cpu = done, time.monotonic(), cpu_seconds(pid)
        await asyncio.sleep(seconds)
        found = done - before
        rates = found / (cpu_seconds(pid) - cpu), found / (time.monotonic() - begun)
        for task in sending:
            task.cancel()
    return rates


@contextlib.asynccontextmanager
async def by_grpc(port: int) -> AsyncIterator[Send]:
    """Requests as one FeedbackRequest each."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=NO_PROXY) as channel:
        decode = channel.unary_unary(METHOD, pb.FeedbackRequest.SerializeToString, pb.Ack.FromString)

        async def send(request: Request) -> object:
            first_ue, ue_count, slot, payload = request
            return await decode(
                pb.FeedbackRequest(first_ue=first_ue, ue_count=ue_count, first_slot=slot, slot_count=1, payload=payload)
            )

        yield send


@contextlib.asynccontextmanager
async def by_http(port: int) -> AsyncIterator[Send]:
    """Requests as JSON, the payload in base64."""
    import aiohttp  # comes with the extra `peers`

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), raise_for_status=True) as session:

        async def send(request: Request) -> object:
            first_ue, ue_count, slot, payload = request
            body = {"ue": first_ue, "ues": ue_count, "slot": slot, "payload": base64.b64encode(payload).decode()}
            async with session.post(f"http://127.0.0.1:{port}/predict", json=body) as answer:
                return await answer.read()

        yield send
