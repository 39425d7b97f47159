"""A fleet of UEs: measure, encode, pack, send; keep what is not acked; come back when the gNB was away."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
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
from shared.link.encoding import encode_frames, target_channels
from shared.link.rate import OWN, Rate, Rates
from shared.link.target import TargetCoder
from shared.rate_watch import RateWatch
from ue_client.channel import Channels
from ue_client.encoders import Encoders, Run, checked, fetch
from ue_client.settings import Settings

RETRY_FIRST_S, RETRY_MOST_S = 0.2, 2.0
"""Waits between attempts to reach the gNB, doubling from the first to the most."""

ATTACH_S, DETACH_S = 60.0, 10.0
"""Deadlines of the calls: an attach may wait for the gNB to load a model and to rebuild open frames."""

MOST_BYTES, MOST_REPORTS = 2**20, 2**16
"""Of a chunk: its payload, far from the 4 MiB that gRPC takes (an ack has 4 bytes a report), and what a gNB takes."""

PHASES, PHASE_UES = 4, 64
"""With a rate, UEs spread their sending over the slot: into so many parts of equal length, if so many UEs are left for
each. More than `chunk_ues` a part are spread further.
"""

ASKED_FOR = "asked-for"
"""Stands behind the token in its file until there is a lease of it."""

WATCH_S = 1.0
"""How often it is looked whether the rate is held."""

_COMES_BACK = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}
"""Statuses after which the gNB may be reached again."""

_BROKEN = _COMES_BACK | {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}
"""The same of a stream. The gNB says neither: gRPC does, INTERNAL where a stream ends while a message is being written,
whatever it ended with: who comes back to a gNB that has refused hears why.
"""


class NotAcked(CsiError):
    """The fleet was to end, and did so with reports that are not acked."""


@dataclass
class Counts:
    """What a fleet did.

    Attributes:
        sent: reports handed to gRPC, each counted once. acked: reports acknowledged. resent: sent again.
        dropped: reports acknowledged as dropped: they came too late to be decoded.
        unacked: reports that were measured and, when the fleet ended, not acknowledged.
        connects: streams opened.
        seconds: from the first report sent to the newest ack.
        not_held_after_s: from the first report sent to when the rate was found not to be held; None: it has been.
        nmse_sum: sum of the acks' NMSE. waits: the newest round-trip times [s].
    """

    sent: int = 0
    acked: int = 0
    resent: int = 0
    dropped: int = 0
    unacked: int = 0
    connects: int = 0
    nmse_sum: float = 0.0
    seconds: float = 0.0
    not_held_after_s: float | None = None
    waits: deque[float] = field(default_factory=lambda: deque(maxlen=100_000))


@dataclass
class _Pending:
    """A chunk on its way: its message, reports, when its channels were measured and when it was sent last (0: not yet)
    [s, monotonic].
    """

    request: pb.FeedbackRequest
    bits: NDArray[np.uint8]
    measured_at: float
    sent_at: float = 0.0
    attempts: int = 0


@dataclass(frozen=True)
class _Block:
    """UEs whose reports are sent together: rows first .. first + ues - 1, so many slots a chunk, by one encoder."""

    first: int
    ues: int
    slots: int
    encoder: Checkpoint


Recorded = dict[str, list[NDArray[Any]]]
"""Name -> parts of a column with one row per report."""


class UeFleet:
    """The UEs of one process, that begin with the encoder of `checkpoint`."""

    def __init__(self, settings: Settings, checkpoint: Checkpoint) -> None:
        self.settings = settings
        self.model = checkpoint.name
        asked = settings.conditions(checkpoint)
        checkpoint.scheme.check_scenario(asked.scenario, asked.delay_slots)
        self.rate = Rate(settings.bits, settings.step, settings.target_nmse)
        checkpoint.scheme.check_rate(self.rate)
        self.conditions = dataclasses.replace(asked, scenario=asked.scenario.pinned())
        self.slots = asked.scenario.slots
        self.counts = Counts()
        self.recorded: Recorded = {"ue": [], "sequence": [], "encoder_id": [], "decoder_version": [], "payload": []}
        self._channels = Channels(settings)
        self._encoders = Encoders(checkpoint, settings.ues)
        self._rates: Rates | None = None  # of each UE; None: the scheme's own
        self._switching: asyncio.Task[None] | None = None
        self._token, self._new_token = self._kept_token()
        self._first_ue: int | None = None  # before the first attach
        self._limit: asyncio.Timeout | None = None  # of `run`
        self._stopping = asyncio.Event()
        self._pending: dict[tuple[int, int], _Pending] = {}  # (first_ue, first_slot) -> chunk, in order of sending
        self._parts = 1 if settings.rate == "max" else min(PHASES, max(1, settings.ues // PHASE_UES))
        self._produced = asyncio.Semaphore(settings.window * self._parts)
        self._watch: RateWatch | None = None  # of the stream's reports, where there is a rate
        self._to_send: asyncio.Queue[_Pending | pb.SwitchStatus | None] = asyncio.Queue()
        self._first_slot = 0  # later for who returns to the lease of another process
        self._next_frame = 0  # the first that is not planned yet
        self._frames: dict[tuple[int, int], NDArray[np.uint8]] = {}  # block -> payload bits of the planned frame
        self._finished = False  # nothing more will be produced
        self._begun: float | None = None  # when the first report was sent

    @property
    def lease(self) -> tuple[str, int]:
        """Token and first UE id; empty and 0 before the first attach."""
        return self._token, self._first_ue or 0

    def stop(self) -> None:
        """Measure no more; for `drain_s` what was measured is still brought to its acks. Again: end at once."""
        patience = 0.0 if self._stopping.is_set() else self.settings.drain_s
        self._stopping.set()
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time() + patience)

    async def run(self) -> Counts:
        """Attach, send everything, detach.

        Raises:
            NotAcked: it was stopped, and reports are not acked. CsiError: the gNB refuses this fleet, or one of its
            chunks, for good.
        """
        try:
            async with asyncio.timeout(None) as self._limit:
                await self._live()
        except TimeoutError:
            if self._all_done:  # only the detach was not answered
                return self.counts
            raise NotAcked(f"gnb: {self._channels.address}: {self._unacked} reports were not acknowledged") from None
        finally:
            self.counts.unacked = self._unacked
        return self.counts

    async def _live(self) -> None:
        self._keep_token()
        await self._attach_patiently()
        producer, watcher = asyncio.create_task(self._produce()), asyncio.create_task(self._watch_rate())
        try:
            while not (producer.done() and not self._pending):
                try:
                    await self._stream()
                except grpc.aio.AioRpcError as error:
                    await self._recover(error)
            await producer
            await self._detach()
        finally:
            for task in (producer, watcher, self._switching):
                if task is not None:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task

    # --- connection ---

    async def _attach_patiently(self) -> None:
        """Attach (or return to the lease), waiting for a gNB that is not there."""
        wait, said = RETRY_FIRST_S, ""
        while True:
            try:
                async with self._channels.open() as channel:
                    await self._attach(pb_grpc.CsiFeedbackStub(channel))
                first = self.lease[1]
                logging.info(
                    "UEs %d..%d attached to the gNB at %s", first, first + self.settings.ues - 1, self._channels.address
                )
                return
            except grpc.aio.AioRpcError as error:
                if error.code() not in _COMES_BACK:
                    refused = as_csi_error(error)
                    if self._token and self._first_ue is None:
                        hint = f"remove {self.settings.token_file}, which has it, for a new lease"
                        raise type(refused)(f"{refused}; {hint}") from None
                    raise refused from None
                if self._first_ue is None and (problem := await self._channels.disagreement()):
                    raise InvalidInput(f"gnb: {problem}") from None
                reason = error.details() or error.code().name
                if reason != said:
                    logging.warning("waiting for the gNB at %s: %s", self._channels.address, reason)
                    said = reason
                if self._stopping.is_set() and not self._pending:
                    raise NotFound(f"gnb: {self._channels.address} cannot be reached") from None
                if self._stopping.is_set():
                    await asyncio.sleep(wait)  # it still has reports to bring in
                else:
                    await self._sleep(wait)
                wait = min(2 * wait, RETRY_MOST_S)

    async def _attach(self, stub: pb_grpc.CsiFeedbackStub) -> None:
        settings, own = self.settings, self._encoders.base
        response = await stub.Attach(
            pb.AttachRequest(
                scheme=self.model,
                scenario=str(self.conditions.scenario),
                seed=self.conditions.seed,
                encoder_id=bytes.fromhex(own.encoder_id),
                ue_count=settings.ues,
                ue_base=settings.ue_base if self._first_ue is None else self._first_ue,
                token=self._token,
                new_token="" if self._token else self._new_token,
                can_switch=settings.switch,
                rate=pb.Rate(**self.rate.to_json()),
                air=str(self.conditions.air),
                offered_reports_per_s=None if settings.rate == "max" else settings.rate,
            ),
            timeout=ATTACH_S,
        )
        first, self._token, self._first_ue = self._first_ue is None, response.token, response.first_ue
        self._keep_token()
        if not response.must_switch and response.feedback_bits != own.scheme.layout.bits:
            raise InvalidInput(
                f"feedback_bits: gNB wants {response.feedback_bits}, layout has {own.scheme.layout.bits}"
            )
        self._take_rates(response.rates)
        assigned = Run.of(response.assigned, response.first_ue)
        if first:
            self._first_slot = min(response.next_sequence, default=0)
            self._next_frame = self._first_slot // self.slots
            open_frames = Run.of(response.open, response.first_ue)
            for encoder_id in self._encoders.lacks(open_frames):
                self._encoders.hold(await self._fetched(encoder_id))
            self._encoders.resume(open_frames, [sequence // self.slots for sequence in response.next_sequence])
        if assigned and settings.switch:
            self._switch_to(assigned, list(response.assigned))
            if self._switching is not None and (first or response.must_switch):
                await self._switching
        if response.must_switch and self._encoders.base is own:
            raise Conflict(f"encoder: nothing decodes for {own.encoder_id} and the UEs could not switch to another one")

    async def _detach(self) -> None:
        """Say that the fleet is finished; everything is acked, so that a gNB that is away just now loses nothing."""
        try:
            async with self._channels.open() as channel:
                await pb_grpc.CsiFeedbackStub(channel).Detach(pb.DetachRequest(token=self._token), timeout=DETACH_S)
        except grpc.aio.AioRpcError as error:
            logging.warning("the gNB was not there for the detach: %s", error.details())
        if self.settings.token_file:
            self.settings.token_file.unlink(missing_ok=True)

    def _kept_token(self) -> tuple[str, str]:
        """Of the lease that an earlier process had, empty if there is none; and the one that a new lease is to have,
        which that process may have asked for, too.
        """
        kept = self.settings.token_file
        token, *asked = (kept.read_text().split() if kept and kept.is_file() else []) or [""]
        return ("", token) if asked else (token, secrets.token_hex(8))

    def _keep_token(self) -> None:
        """For the next process, and for nobody else: who has it has the lease. With a word behind it as long as nobody
        has answered.
        """
        if kept := self.settings.token_file:
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_name(kept.name + ".partial")
            partial.touch(0o600)
            partial.write_text(f"{self._token}\n" if self._token else f"{self._new_token} {ASKED_FOR}\n")
            partial.replace(kept)

    async def _recover(self, error: grpc.aio.AioRpcError) -> None:
        """After a broken stream: back to the lease and send all that is not acked again, or give up with the reason."""
        if error.code() not in _BROKEN:
            raise as_csi_error(error) from None
        logging.warning("the gNB went away (%s); coming back", error.details())
        await asyncio.sleep(RETRY_FIRST_S)
        await self._attach_patiently()

    # --- encoders ---

    def _switch_to(self, runs: list[Run], told: list[pb.EncoderAssignment]) -> None:
        """Begin to use other encoders, whatever was told before."""
        if self._switching is not None:
            self._switching.cancel()
        self._switching = asyncio.create_task(self._switch(runs, told))

    async def _switch(self, runs: list[Run], told: list[pb.EncoderAssignment]) -> None:
        """Fetch what is lacking, use it from the next frame on that is not planned, and say so, or why not."""
        problem = ""
        try:
            for encoder_id in self._encoders.lacks(runs):
                self._encoders.hold(await self._fetched(encoder_id))
            self._encoders.assign(runs)
        except CsiError as error:
            problem = str(error)
            logging.warning("the UEs stay with their encoders: %s", problem)
        first_slot = self._next_frame * self.slots
        self._to_send.put_nowait(pb.SwitchStatus(assigned=told, first_slot=first_slot, problem=problem))

    async def _fetched(self, encoder_id: str) -> Checkpoint:
        """An encoder from the gNB, checked. Raises CsiError."""
        wait = RETRY_FIRST_S
        while True:
            try:
                async with self._channels.open() as channel:
                    stub = pb_grpc.CsiFeedbackStub(channel)
                    card, data = await fetch(stub, self._token, encoder_id)
                return await asyncio.to_thread(checked, self.model, encoder_id, card, data, self.conditions)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _COMES_BACK:
                    raise as_csi_error(error) from None
            await asyncio.sleep(wait)
            wait = min(2 * wait, RETRY_MOST_S)

    # --- stream ---

    async def _stream(self) -> None:
        """One stream: what is pending first, then what is produced, until all is acked."""
        self._renew_queue()
        if self.settings.rate != "max":
            self._watch = RateWatch(self.settings.ues * self.settings.rate, self.settings.ues, time.monotonic)
        for chunk in self._pending.values():
            self._to_send.put_nowait(chunk)
        self.counts.connects += 1
        try:
            async with self._channels.open() as channel:
                requests, metadata = self._requests(self._to_send), (("fleet-token", self._token),)
                call = pb_grpc.CsiFeedbackStub(channel).Feedback(requests, metadata=metadata)
                async for response in call:
                    if response.HasField("ack"):
                        self._take_ack(response.ack)
                    elif response.HasField("switch_encoder") and self.settings.switch:
                        told = response.switch_encoder.assigned
                        self._switch_to(Run.of(told, self.lease[1]), list(told))
                    elif response.HasField("set_rates"):
                        self._take_rates(response.set_rates.rates)
                    if self._all_done:
                        self._to_send.put_nowait(None)
        finally:
            self._renew_queue()

    def _renew_queue(self) -> None:
        """Another queue, with what was said of encoders and no stream has taken along; the requests of a stream that
        broke end, which would wait for more for ever.
        """
        before, self._to_send = self._to_send, asyncio.Queue()
        while not before.empty():
            if isinstance(said := before.get_nowait(), pb.SwitchStatus):
                self._to_send.put_nowait(said)
        before.put_nowait(None)

    def _take_rates(self, told: Iterable[pb.RateAssignment]) -> None:
        """Encode what is not encoded yet as the gNB asks."""
        if not (runs := list(told)):
            self._rates = None
            return
        rates = Rates.of(0, 0, self.settings.ues)
        for run in runs:
            rows = slice(run.first_ue - self.lease[1], run.first_ue - self.lease[1] + run.ue_count)
            rates.bits[rows], rates.step[rows] = run.bits, run.step
        self._rates = rates

    @property
    def _unacked(self) -> int:
        return sum(chunk.request.slot_count * chunk.request.ue_count for chunk in self._pending.values())

    @property
    def _all_done(self) -> bool:
        return self._finished and not self._pending

    async def _requests(
        self, queue: asyncio.Queue[_Pending | pb.SwitchStatus | None]
    ) -> AsyncIterator[pb.FeedbackRequest]:
        if self._all_done:
            return
        while (chunk := await queue.get()) is not None:
            if isinstance(chunk, pb.SwitchStatus):
                yield pb.FeedbackRequest(switch_status=chunk)
                continue
            reports = chunk.request.ue_count * chunk.request.slot_count
            if chunk.attempts == 0:
                self.counts.sent += reports
            else:
                self.counts.resent += reports
            chunk.attempts += 1
            chunk.sent_at = time.monotonic()
            chunk.request.waited_us[:] = [max(0, round(1e6 * (chunk.sent_at - chunk.measured_at)))]
            if self._begun is None:
                self._begun = chunk.sent_at
            yield chunk.request

    def _take_ack(self, ack: pb.Ack) -> None:
        chunk = self._pending.pop((ack.first_ue, ack.first_slot), None)
        if chunk is None:
            return  # of a chunk that was acked on an earlier stream
        self.counts.acked += ack.ue_count * ack.slot_count
        self.counts.dropped += ack.dropped
        self.counts.seconds = self._since_begun()
        self.counts.waits.append(time.monotonic() - chunk.sent_at)
        if self._watch is not None:
            self._watch.answered(ack.ue_count * ack.slot_count - ack.dropped)
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
        self.recorded["encoder_id"].append(np.full(ack.ue_count * ack.slot_count, chunk.request.encoder_id.hex()))
        self.recorded["decoder_version"].append(np.tile(versions, ack.slot_count))
        self.recorded["payload"].append(chunk.bits.reshape(ack.slot_count * ack.ue_count, chunk.bits.shape[-1]))

    def _since_begun(self) -> float:
        return 0.0 if self._begun is None else time.monotonic() - self._begun

    async def _watch_rate(self) -> None:
        """Say once when the rate is not held, and what limits it, and once when it is again."""
        while True:
            await asyncio.sleep(WATCH_S)
            if (watch := self._watch) is None or not watch.judge():
                continue
            if watch.held:
                logging.warning("the rate is held again: %s", watch)
                continue
            if self.counts.not_held_after_s is None:
                self.counts.not_held_after_s = self._since_begun()
            waits = self._produced.locked() or watch.waits_for_acks
            limits = "the gNB limits: reports wait for its acks" if waits else "this process limits: it encodes no more"
            logging.warning("the rate is not held: %s; %s", watch, limits)

    # --- measuring ---

    async def _produce(self) -> None:
        """Chunks in the order of their slots, paced and spread over these, at most `window` of each part of a slot
        without ack.
        """
        settings, slots = self.settings, self.slots
        first_slot = slot = self._first_slot
        blocks: list[_Block] = []
        try:
            if settings.rate != "max" and not self._stopping.is_set():  # what it takes to load a world is no age
                blocks = self._plan(slot // slots)
                await self._frame_bits(slot // slots, blocks[0])
            started = time.monotonic()
            while settings.slots is None or slot < settings.slots:
                if settings.rate != "max":
                    due = started + (slot - first_slot) / settings.rate
                    await self._sleep(due - time.monotonic())
                if self._stopping.is_set() or (
                    settings.duration is not None and time.monotonic() - started >= settings.duration
                ):
                    break
                if slot // slots == self._next_frame:
                    blocks = self._plan(slot // slots)
                count = slots - slot % slots if settings.rate == "max" else 1
                if settings.slots is not None:
                    count = min(count, settings.slots - slot)
                for block in blocks:
                    if settings.rate != "max":
                        measured_at = due + block.first / settings.ues / settings.rate
                        await self._sleep(measured_at - time.monotonic())
                    for at in range(slot, slot + count, block.slots):
                        asked_at = time.monotonic()
                        await self._produced.acquire()
                        now = time.monotonic()
                        bits = await self._frame_bits(slot // slots, block)
                        part = np.ascontiguousarray(bits[at % slots :][: min(block.slots, slot + count - at)])
                        target = await self._target(at + len(part), block)
                        begun = now if settings.rate == "max" else measured_at
                        self._enqueue(block, at, part, target, begun, now - asked_at)
                slot += count
        finally:
            self._finished = True
            if not self._pending:
                self._to_send.put_nowait(None)

    async def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), seconds)

    def _blocks(self, frame: int) -> Iterator[_Block]:
        """How a frame's reports are sent: as large chunks as may be, all of one encoder."""
        for first, ues, encoder in self._encoders.plan(frame):
            reports = min(MOST_REPORTS, max(1, 8 * MOST_BYTES // max(1, encoder.scheme.layout.bits)))
            slots = min(self.slots, reports) if self.settings.rate == "max" else 1
            most = min(self.settings.chunk_ues, reports // slots, -(-self.settings.ues // self._parts))
            for start in range(first, first + ues, most):
                yield _Block(start, min(most, first + ues - start), slots, encoder)

    def _enqueue(
        self, block: _Block, slot: int, bits: NDArray[np.uint8], target: bytes, measured_at: float, ack_wait_s: float
    ) -> None:
        """Put reports, bits [slots, ues, B], on their way, with target CSI, for which acks were waited for."""
        if self._watch is not None:
            self._watch.sent(ack_wait_s)
        request = pb.FeedbackRequest(
            encoder_id=bytes.fromhex(block.encoder.encoder_id),
            first_ue=self.lease[1] + block.first,
            ue_count=block.ues,
            first_slot=slot,
            slot_count=len(bits),
            payload=block.encoder.scheme.layout.pack_bits(bits),
            target=target,
            ack_wait_us=round(1e6 * ack_wait_s),
        )
        chunk = _Pending(request, bits, measured_at)
        self._pending[request.first_ue, slot] = chunk
        self._to_send.put_nowait(chunk)

    def _plan(self, frame: int) -> list[_Block]:
        """Begin a frame: how its reports are sent."""
        self._next_frame = frame + 1
        self._frames.clear()
        return list(self._blocks(frame))

    async def _frame_bits(self, frame: int, block: _Block) -> NDArray[np.uint8]:
        """Payload bits [T, ues, B] of a block's frame; kept until the next frame."""
        if (held := self._frames.get((block.first, block.ues))) is None:
            held = await asyncio.to_thread(self._encode, frame, block)
            self._frames[block.first, block.ues] = held
        return held

    def _encode(self, frame: int, block: _Block) -> NDArray[np.uint8]:
        ues = torch.arange(block.ues) + self.lease[1] + block.first
        samples, scheme = self.conditions.samples(Split.EMULATE, ues, frame), block.encoder.scheme
        rates = None
        if self._rates is not None and scheme.least_bits is not None:
            rates = self._rates[block.first : block.first + block.ues].or_else(scheme.rates(OWN, block.ues))
        return encode_frames(scheme, self.conditions.scenario, samples, rates).swapaxes(0, 1)

    async def _target(self, stop: int, block: _Block) -> bytes:
        """Target CSI of a block's UEs, if the frame that ends before a slot is one that has it; else nothing."""
        every, frame = self.settings.target_csi, stop // self.slots - 1
        if not every or stop % self.slots or frame % every:
            return b""
        return await asyncio.to_thread(self._describe, frame, block)

    def _describe(self, frame: int, block: _Block) -> bytes:
        ues = torch.arange(block.ues) + self.lease[1] + block.first
        samples, scheme = self.conditions.samples(Split.EMULATE, ues, frame), block.encoder.scheme
        channels = target_channels(scheme, self.conditions.scenario, samples)
        return TargetCoder(scheme.domain, channels.shape[1:]).encode(channels, samples)


def as_csi_error(error: grpc.aio.AioRpcError) -> CsiError:
    """What the gNB said, as one of our errors."""
    classes = {Kind.NOT_FOUND.grpc_status: NotFound, Kind.CONFLICT.grpc_status: Conflict}
    return classes.get(error.code().name, InvalidInput)(f"the gNB refused: {error.details()}")
