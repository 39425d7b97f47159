"""A gNB with real sockets in this process, and UEs' side of the protocol."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from gnb_server.app import serve
from gnb_server.settings import Settings
from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from protos.csi_feedback.v1 import csi_feedback_pb2_grpc as pb_grpc
from shared.checkpoints import CheckpointStore
from ue_client.fleet import UeFleet
from ue_client.settings import Settings as UeSettings


@dataclass
class Gnb:
    """A running gNB."""

    grpc: str
    rest: str
    checkpoints: Path
    stop: Callable[[], None]

    def call(
        self, path: str, body: Any = None, method: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """REST: status and decoded JSON (or text). A body of bytes is sent as it is."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json", **(headers or {})}
        request = urllib.request.Request(f"http://{self.rest}{path}", data, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text

    def run_ues(self, **settings: Any) -> UeFleet:
        """A whole life of a fleet."""
        chosen = UeSettings(**{"gnb": self.grpc, "checkpoints": self.checkpoints, "rate": "max", **settings})
        checkpoint = CheckpointStore(self.checkpoints).load(chosen.scheme, chosen.version)

        async def live() -> UeFleet:
            fleet = UeFleet(chosen, checkpoint)
            await fleet.run()
            return fleet

        return asyncio.run(live())

    @contextmanager
    def stub(self) -> Iterator[pb_grpc.CsiFeedbackStub]:
        """A blocking client."""
        with grpc.insecure_channel(self.grpc) as channel:
            yield pb_grpc.CsiFeedbackStub(channel)

    def attach(self, stub: pb_grpc.CsiFeedbackStub, design: str = "hyperrnn", **fields: Any) -> pb.AttachResponse:
        """Attach two UEs as they should be, but for `fields`."""
        checkpoint = CheckpointStore(self.checkpoints).load(design)
        request = {
            "scheme": design,
            "scenario": str(checkpoint.scenario),
            "seed": 3,
            "encoder_id": bytes.fromhex(checkpoint.encoder_id),
            "ue_count": 2,
        }
        return stub.Attach(pb.AttachRequest(**{**request, **fields}))


@pytest.fixture
def start_gnb(tmp_path: Path, small_store: CheckpointStore) -> Iterator[Callable[..., Gnb]]:
    """Starts a gNB with the given settings; all are stopped at the end."""
    running: list[Callable[[], None]] = []

    def start(**settings: Any) -> Gnb:
        ready = tmp_path / f"ready-{len(running)}.json"
        chosen = Settings(
            **{
                "grpc_port": 0,
                "rest_port": 0,
                "checkpoints": small_store.root,
                "store": f"sqlite:///{tmp_path / 'gnb.sqlite'}",
                "ready_file": ready,
                **settings,
            }
        )
        loop = asyncio.new_event_loop()
        task = loop.create_task(serve(chosen))
        thread = threading.Thread(target=lambda: _run(loop, task), daemon=True)
        thread.start()

        def stop() -> None:
            if thread.is_alive():
                loop.call_soon_threadsafe(task.cancel)
                thread.join(30)

        running.append(stop)
        while not ready.exists():
            thread.join(0.02)
            assert thread.is_alive(), "the gNB did not start"
        addresses = json.loads(ready.read_text())
        return Gnb(addresses["grpc"], addresses["rest"], chosen.checkpoints, stop)

    yield start
    for stop in running:
        stop()


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    try:
        loop.run_until_complete(task)
    except asyncio.CancelledError:
        pass
    finally:
        loop.close()


@pytest.fixture
def gnb(start_gnb: Callable[..., Gnb]) -> Gnb:
    return start_gnb()
