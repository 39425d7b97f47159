"""What a fleet does while the gNB is away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

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
