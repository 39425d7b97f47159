"""What a fleet does while the gNB is away."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from protos.csi_feedback.v1 import csi_feedback_pb2_grpc as pb_grpc
from shared.checkpoints import CheckpointStore
from shared.errors import NotFound
from ue_client.fleet import UeFleet
from ue_client.settings import Settings

NOBODY = "127.0.0.1:1"


class Counting(UeFleet):
    """Counts attempts to attach."""

    attempts = 0

    async def _attach(self, stub: pb_grpc.CsiFeedbackStub) -> None:
        self.attempts += 1
        await super()._attach(stub)


@pytest.fixture
def fleet(small_store: CheckpointStore) -> Counting:
    return Counting(Settings(gnb=NOBODY, scheme="rnn", checkpoints=small_store.root), small_store.load("rnn"))


def test_who_is_stopped_with_reports_to_bring_in_goes_on_trying_patiently(fleet: Counting) -> None:
    fleet._pending[0, 0] = object()  # type: ignore[assignment]  # any chunk will do

    async def away() -> None:
        fleet.stop()
        await asyncio.wait_for(fleet._attach_patiently(), 1.5)

    with pytest.raises(TimeoutError):
        asyncio.run(away())
    assert 2 <= fleet.attempts <= 4  # after 0, 0.2, 0.6 and 1.4 s


def test_who_is_stopped_with_nothing_to_bring_in_ends(fleet: Counting) -> None:
    async def away() -> Any:
        asyncio.get_running_loop().call_later(0.1, fleet.stop)
        return await asyncio.wait_for(fleet.run(), 10)

    with pytest.raises(NotFound, match=f"gnb: {NOBODY} cannot be reached"):
        asyncio.run(away())


class Silent(pb_grpc.CsiFeedbackServicer):
    """A gNB that takes calls and does not answer the first attach, nor any detach."""

    def __init__(self) -> None:
        self.attaches = self.detaches = 0

    async def Attach(self, request: pb.AttachRequest, context: Any) -> pb.AttachResponse:
        self.attaches += 1
        if self.attaches == 1:
            await asyncio.Event().wait()
        return pb.AttachResponse(token="t", ue_count=request.ue_count, feedback_bits=20, slots_per_frame=8)

    async def Detach(self, request: pb.DetachRequest, context: Any) -> pb.DetachResponse:
        self.detaches += 1
        await asyncio.Event().wait()
        return pb.DetachResponse()


def test_calls_that_are_not_answered_end_at_their_deadlines(
    small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ue_client.fleet.ATTACH_S", 0.3)
    monkeypatch.setattr("ue_client.fleet.DETACH_S", 0.3)
    silent = Silent()

    async def live() -> None:
        server = grpc.aio.server()
        pb_grpc.add_CsiFeedbackServicer_to_server(silent, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        settings = Settings(gnb=f"127.0.0.1:{port}", scheme="rnn", checkpoints=small_store.root)
        fleet = Counting(settings, small_store.load("rnn", ends=("encoder",)))
        await fleet._attach_patiently()
        assert fleet.lease == ("t", 0)
        await fleet._detach()
        await server.stop(None)

    asyncio.run(asyncio.wait_for(live(), 30))
    assert (silent.attaches, silent.detaches) == (2, 1)
