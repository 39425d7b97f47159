"""UEs, or a gNB, whose machine goes without a word, behind a wire that nothing passes any more."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from protos.csi_feedback.v1 import csi_feedback_pb2_grpc as pb_grpc
from shared.checkpoints import CheckpointStore
from tests.integration.live_fleet import LiveFleet
from tests.integration.live_fleet import until as until_true
from ue_client import channel

Gnb = Any
"""As `conftest` has it."""


class Wire:
    """A proxy on the way to a gNB; once cut, it passes nothing on and closes nothing. With another event at `cut` it
    serves who connects anew.
    """

    def __init__(self, target: str) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._target = target.rsplit(":", 1)
        self.cut = threading.Event()
        self.sockets = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # until it is closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection((self._target[0], int(self._target[1])))
                self.sockets += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, sink, self.cut), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket, cut: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while (data := source.recv(65536)) and not cut.is_set():
                sink.sendall(data)

    def close(self) -> None:
        for each in self.sockets:
            each.close()


@pytest.fixture
def gnb(start_gnb: Callable[..., Gnb], monkeypatch: pytest.MonkeyPatch) -> Gnb:
    monkeypatch.setattr("gnb_server.rpc.PING_S", 1)
    monkeypatch.setattr("gnb_server.rpc.PONG_S", 1)
    monkeypatch.setattr("gnb_server.rpc.LEAST_PING_S", 0)
    return start_gnb(evict_s=1.0)


@pytest.fixture
def wire(gnb: Gnb) -> Iterator[Wire]:
    made = Wire(gnb.grpc)
    yield made
    made.close()


def until(gnb: Gnb, status: str) -> None:
    deadline = time.monotonic() + 60
    while {row["status"] for row in gnb.call("/v1/ues")[1]["ues"]} != {status}:
        assert time.monotonic() < deadline, f"no UE is {status}"
        time.sleep(0.05)


def test_ues_that_vanish_are_gone_and_come_back_to_their_lease(
    gnb: Gnb, wire: Wire, small_store: CheckpointStore
) -> None:
    checkpoint = small_store.load("hyperrnn")
    encoder_id, size = bytes.fromhex(checkpoint.encoder_id), checkpoint.scheme.layout.chunk_bytes(2)

    def chunk(first_ue: int, slot: int) -> pb.FeedbackRequest:
        return pb.FeedbackRequest(
            encoder_id=encoder_id,
            first_ue=first_ue,
            ue_count=2,
            first_slot=slot,
            slot_count=1,
            payload=bytes(size),
        )

    def stream(stub: pb_grpc.CsiFeedbackStub, token: str, slot: int, held: threading.Event) -> Any:
        def requests() -> Iterator[pb.FeedbackRequest]:
            yield chunk(0, slot)
            held.wait(60)

        return stub.Feedback(requests(), metadata=(("fleet-token", token),))

    held = threading.Event()
    with grpc.insecure_channel(wire.address) as through:
        stub = pb_grpc.CsiFeedbackStub(through)
        lease = gnb.attach(stub)
        answers = stream(stub, lease.token, 0, held)
        assert next(answers).ack.slot_count == 1
        until(gnb, "idle")
        wire.cut.set()
        until(gnb, "gone")
        held.set()
    time.sleep(2.5)  # evicted, too
    held.clear()
    with gnb.stub() as stub:
        again = gnb.attach(stub, token=lease.token)
        assert list(again.next_sequence) == [1, 1]
        answers = stream(stub, lease.token, 1, held)
        assert next(answers).ack.slot_count == 1
        assert gnb.call("/v1/nmse")[1]["overall"]["reports"] == 4
        held.set()


def test_ues_look_again_for_a_gnb_that_vanishes(gnb: Gnb, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their stream has no deadline: without an answer to a ping they would wait for acks for ever."""
    options = dict(channel._OPTIONS) | {"grpc.keepalive_time_ms": 1000, "grpc.http2.ping_timeout_ms": 1000}
    monkeypatch.setattr(channel, "_OPTIONS", tuple(options.items()))

    def reports() -> int:
        return int(gnb.call("/v1/nmse")[1]["overall"]["reports"])

    live = LiveFleet(dataclasses.replace(gnb, grpc=wire.address), ues=2, rate=50.0)
    until_true(lambda: reports() > 100)
    wire.cut.set()
    time.sleep(0.5)  # what was under way has come or never will
    before, wire.cut = reports(), threading.Event()
    until_true(lambda: reports() > before + 100)
    counts = live.stop().counts
    assert counts.connects > 1
    assert counts.sent == counts.acked == reports()
