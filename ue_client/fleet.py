"""A fleet of UEs: measure, encode, pack, send; keep what is not acked; come back when the gNB was away."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import torch
from numpy.typing import NDArray

from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from protos.csi_feedback.v1 import csi_feedback_pb2_grpc as pb_grpc
from shared.channels.streams import Split
from shared.checkpoints import Checkpoint
from shared.errors import Conflict, CsiError, InvalidInput, Kind, NotFound
from shared.link.encoding import encode_frames
from shared.link.payload import pack_bits
from ue_client.settings import Settings

RETRY_FIRST_S, RETRY_MOST_S = 0.2, 2.0
"""Waits between attempts to reach the gNB, doubling from the first to the most."""

ATTACH_S, DETACH_S = 60.0, 10.0
"""Deadlines of the calls: an attach may wait for the gNB to load a model and to rebuild open frames."""

_COMES_BACK = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}
"""Statuses after which the gNB may be reached again; a broken stream may have UNKNOWN, too."""


@dataclass
class Counts:
    """What a fleet did.

    Attributes:
        sent: reports handed to gRPC, each counted once. acked: reports acknowledged. resent: sent again.
        connects: streams opened.
        nmse_sum: sum of the acks' NMSE. waits: the newest round-trip times [s].
    """

    sent: int = 0
    acked: int = 0
    resent: int = 0
    connects: int = 0
    nmse_sum: float = 0.0
    waits: deque[float] = field(default_factory=lambda: deque(maxlen=100_000))


@dataclass
class _Pending:
    """A chunk on its way: its message, reports, when it was sent last (0: not yet)."""

    request: pb.FeedbackRequest
    bits: NDArray[np.uint8]
    sent_at: float = 0.0
    attempts: int = 0


Recorded = dict[str, list[NDArray[Any]]]
"""Name -> parts of a column with one row per report."""


class UeFleet:
    """The UEs of one process."""

    def __init__(self, settings: Settings, checkpoint: Checkpoint) -> None:
        self.settings = settings
        self.checkpoint = checkpoint
        self.scheme = checkpoint.scheme
        asked = settings.conditions(checkpoint)
        self.scheme.check_scenario(asked.scenario, asked.delay_slots)
        self.conditions = dataclasses.replace(asked, scenario=asked.scenario.pinned())
        self.slots = asked.scenario.slots
        self.counts = Counts()
        self.recorded: Recorded = {"ue": [], "sequence": [], "decoder_version": [], "payload": []}
        self._token = ""
        self._first_ue = 0
        self._stopping = asyncio.Event()
        self._pending: dict[tuple[int, int], _Pending] = {}  # (first_ue, first_slot) -> chunk, in order of sending
        self._produced = asyncio.Semaphore(settings.window)
        self._to_send: asyncio.Queue[_Pending | None] = asyncio.Queue()
        self._frames: dict[tuple[int, int], tuple[int, NDArray[np.uint8]]] = {}
        self._finished = False  # nothing more will be produced

    @property
    def lease(self) -> tuple[str, int]:
        """Token and first UE id; empty and 0 before the first attach."""
        return self._token, self._first_ue

    def stop(self) -> None:
        """Measure no more; what was sent is still brought to its acks."""
        self._stopping.set()

    async def run(self) -> Counts:
        """Attach, send everything, detach.

        Raises:
            CsiError: the gNB refuses this fleet, or one of its chunks, for good.
        """
        await self._attach_patiently()
        producer = asyncio.create_task(self._produce())
        try:
            while not (producer.done() and not self._pending):
                try:
                    await self._stream()
                except grpc.aio.AioRpcError as error:
                    await self._recover(error)
            await producer
            await self._detach()
        finally:
            producer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await producer
        return self.counts

    # --- connection ---

    def _channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.settings.gnb)

    async def _attach_patiently(self) -> None:
        """Attach (or return to the lease), waiting for a gNB that is not there."""
        wait, said = RETRY_FIRST_S, False
        while True:
            try:
                async with self._channel() as channel:
                    await self._attach(pb_grpc.CsiFeedbackStub(channel))
                return
            except grpc.aio.AioRpcError as error:
                if error.code() not in _COMES_BACK:
                    raise as_csi_error(error) from None
                if not said:
                    logging.warning("waiting for the gNB at %s: %s", self.settings.gnb, error.details())
                    said = True
                if self._stopping.is_set() and not self._pending:
                    raise NotFound(f"gnb: {self.settings.gnb} cannot be reached") from None
                if self._stopping.is_set():
                    await asyncio.sleep(wait)  # it still has reports to bring in
                else:
                    await self._sleep(wait)
                wait = min(2 * wait, RETRY_MOST_S)

    async def _attach(self, stub: pb_grpc.CsiFeedbackStub) -> None:
        settings = self.settings
        response = await stub.Attach(
            pb.AttachRequest(
                scheme=self.checkpoint.name,
                scenario=str(self.conditions.scenario),
                seed=self.conditions.seed,
                encoder_id=bytes.fromhex(self.checkpoint.encoder_id),
                ue_count=settings.ues,
                ue_base=self._first_ue if self._token else settings.ue_base,
                delay_slots=self.conditions.delay_slots,
                token=self._token,
            ),
            timeout=ATTACH_S,
        )
        self._token, self._first_ue = response.token, response.first_ue
        if response.feedback_bits != self.scheme.layout.bits:
            raise InvalidInput(
                f"feedback_bits: gNB wants {response.feedback_bits}, layout has {self.scheme.layout.bits}"
            )

    async def _detach(self) -> None:
        """Say that the fleet is finished; everything is acked, so that a gNB that is away just now loses nothing."""
        try:
            async with self._channel() as channel:
                await pb_grpc.CsiFeedbackStub(channel).Detach(pb.DetachRequest(token=self._token), timeout=DETACH_S)
        except grpc.aio.AioRpcError as error:
            logging.warning("the gNB was not there for the detach: %s", error.details())

    async def _recover(self, error: grpc.aio.AioRpcError) -> None:
        """After a broken stream: back to the lease and send all that is not acked again, or give up with the reason."""
        if error.code() not in _COMES_BACK | {grpc.StatusCode.UNKNOWN}:
            raise as_csi_error(error) from None
        logging.warning("the gNB went away (%s); coming back", error.details())
        await asyncio.sleep(RETRY_FIRST_S)
        await self._attach_patiently()

    # --- stream ---

    async def _stream(self) -> None:
        """One stream: what is pending first, then what is produced, until all is acked."""
        self._to_send = asyncio.Queue()
        for chunk in self._pending.values():
            self._to_send.put_nowait(chunk)
        self.counts.connects += 1
        async with self._channel() as channel:
            call = pb_grpc.CsiFeedbackStub(channel).Feedback(self._requests(), metadata=(("fleet-token", self._token),))
            async for response in call:
                self._take_ack(response.ack)
                if self._all_done:
                    self._to_send.put_nowait(None)

    @property
    def _all_done(self) -> bool:
        return self._finished and not self._pending

    async def _requests(self) -> AsyncIterator[pb.FeedbackRequest]:
        queue = self._to_send
        if self._all_done:
            return
        while (chunk := await queue.get()) is not None:
            reports = chunk.request.ue_count * chunk.request.slot_count
            if chunk.attempts == 0:
                self.counts.sent += reports
            else:
                self.counts.resent += reports
            chunk.attempts += 1
            chunk.sent_at = time.monotonic()
            yield chunk.request

    def _take_ack(self, ack: pb.Ack) -> None:
        chunk = self._pending.pop((ack.first_ue, ack.first_slot), None)
        if chunk is None:
            return  # of a chunk that was acked on an earlier stream
        self.counts.acked += ack.ue_count * ack.slot_count
        self.counts.waits.append(time.monotonic() - chunk.sent_at)
        nmse = np.array(ack.nmse)
        self.counts.nmse_sum += float(np.nansum(nmse))
        self._record(chunk, ack)
        self._produced.release()

    def _record(self, chunk: _Pending, ack: pb.Ack) -> None:
        frame = ack.first_slot // self.slots
        if self.settings.record is None or frame % self.settings.record_every:
            return
        versions = np.broadcast_to(np.array(ack.decoder_version, np.int64), ack.ue_count)
        self.recorded["ue"].append(np.tile(np.arange(ack.ue_count) + ack.first_ue, ack.slot_count))
        self.recorded["sequence"].append(np.repeat(np.arange(ack.slot_count) + ack.first_slot, ack.ue_count))
        self.recorded["decoder_version"].append(np.tile(versions, ack.slot_count))
        self.recorded["payload"].append(chunk.bits.reshape(ack.slot_count * ack.ue_count, self.scheme.layout.bits))

    # --- measuring ---

    async def _produce(self) -> None:
        """Chunks in the order of their slots, paced, at most `window` of them without ack."""
        settings, slots = self.settings, self.slots
        started = time.monotonic()
        whole_frames = settings.rate == "max"
        slot = 0
        try:
            while settings.slots is None or slot < settings.slots:
                if settings.rate != "max":
                    await self._sleep(started + slot / settings.rate - time.monotonic())
                if self._stopping.is_set() or (
                    settings.duration is not None and time.monotonic() - started >= settings.duration
                ):
                    break
                count = slots if whole_frames else 1
                if settings.slots is not None:
                    count = min(count, settings.slots - slot)
                for first, ues in self._blocks():
                    await self._produced.acquire()
                    bits = await self._frame_bits(slot // slots, first, ues)
                    self._enqueue(first, ues, slot, np.ascontiguousarray(bits[slot % slots : slot % slots + count]))
                slot += count
        finally:
            self._finished = True
            if not self._pending:
                self._to_send.put_nowait(None)

    async def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), seconds)

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """(first row, UEs) of each chunk of a slot."""
        for first in range(0, self.settings.ues, self.settings.chunk_ues):
            yield first, min(self.settings.chunk_ues, self.settings.ues - first)

    def _enqueue(self, first: int, ues: int, slot: int, bits: NDArray[np.uint8]) -> None:
        """Put reports, bits [slots, ues, B], on their way."""
        request = pb.FeedbackRequest(
            encoder_id=bytes.fromhex(self.checkpoint.encoder_id),
            first_ue=self._first_ue + first,
            ue_count=ues,
            first_slot=slot,
            slot_count=len(bits),
            payload=pack_bits(bits),
        )
        chunk = _Pending(request, bits)
        self._pending[request.first_ue, slot] = chunk
        self._to_send.put_nowait(chunk)

    async def _frame_bits(self, frame: int, first: int, ues: int) -> NDArray[np.uint8]:
        """Payload bits [T, ues, B] of a block's frame; kept until the block asks for another frame."""
        key = (first, ues)
        held = self._frames.get(key)
        if held is None or held[0] != frame:
            bits = await asyncio.to_thread(self._encode, frame, first, ues)
            held = self._frames[key] = (frame, bits)
        return held[1]

    def _encode(self, frame: int, first: int, ues: int) -> NDArray[np.uint8]:
        samples = self.conditions.samples(Split.EMULATE, torch.arange(ues) + self._first_ue + first, frame)
        return encode_frames(self.scheme, self.conditions.scenario, samples).swapaxes(0, 1)


def as_csi_error(error: grpc.aio.AioRpcError) -> CsiError:
    """What the gNB said, as one of our errors."""
    classes = {Kind.NOT_FOUND.grpc_status: NotFound, Kind.CONFLICT.grpc_status: Conflict}
    return classes.get(error.code().name, InvalidInput)(f"the gNB refused: {error.details()}")
