"""What a fleet does while the gNB is away."""

from __future__ import annotations

import asyncio
import gc
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from protos.csi_feedback.v1 import csi_feedback_pb2_grpc as pb_grpc
from shared.checkpoints import CheckpointStore
from shared.errors import InvalidInput, NotFound
from ue_client.fleet import MOST_BYTES, RETRY_FIRST_S, Counts, NotAcked, UeFleet
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


def test_the_address_is_what_the_file_says_now(tmp_path: Path) -> None:
    file = tmp_path / "address"
    settings = Settings(gnb_file=file)
    for address in ("10.0.0.1:5", "[::1]:50051"):
        file.write_text(address + "\n")
        assert settings.address() == address
    file.write_text("10.0.0.1")
    with pytest.raises(InvalidInput, match=r"gnb_file: '10.0.0.1' in .*; wanted host:port"):
        settings.address()
    file.unlink()
    with pytest.raises(InvalidInput, match=r"gnb_file: .*/address cannot be read"):
        settings.address()


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


# --- a way out ---


class Deaf(pb_grpc.CsiFeedbackServicer):
    """A gNB that leases ids, takes reports and acks none, or only the first chunks."""

    def __init__(self, acked: int = 0, next_sequence: int = 0) -> None:
        self.acked, self.next_sequence = acked, next_sequence
        self.attaches: list[pb.AttachRequest] = []
        self.chunks: list[pb.FeedbackRequest] = []
        self.came = asyncio.Event()

    async def Attach(self, request: pb.AttachRequest, context: Any) -> pb.AttachResponse:
        self.attaches.append(request)
        sequences = [self.next_sequence] * request.ue_count
        return pb.AttachResponse(
            token="t", first_ue=5, ue_count=request.ue_count, next_sequence=sequences, feedback_bits=20
        )

    async def Feedback(self, requests: AsyncIterator[pb.FeedbackRequest], context: Any) -> Any:
        async for request in requests:
            self.chunks.append(request)
            if len(self.chunks) <= self.acked:
                names = ("first_ue", "ue_count", "first_slot", "slot_count")
                yield pb.FeedbackResponse(ack=pb.Ack(**{name: getattr(request, name) for name in names}))
            else:
                self.came.set()

    async def Detach(self, request: pb.DetachRequest, context: Any) -> pb.DetachResponse:
        return pb.DetachResponse()


async def served(gnb: Deaf, store: CheckpointStore, do: Callable[[UeFleet], Any], **settings: Any) -> Counts:
    """What a fleet of three UEs counted with a gNB, in whose time `do` happens; it has 30 s."""
    server = grpc.aio.server()
    pb_grpc.add_CsiFeedbackServicer_to_server(gnb, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    chosen = Settings(**{"gnb": f"127.0.0.1:{port}", "scheme": "rnn", "checkpoints": store.root, "ues": 3, **settings})
    fleet = UeFleet(chosen, store.load("rnn", ends=("encoder",)))
    doing = asyncio.ensure_future(do(fleet))
    try:
        return await asyncio.wait_for(fleet.run(), 30)
    finally:
        doing.cancel()
        await server.stop(None)


@pytest.mark.parametrize("acked", [0, 2])
@pytest.mark.parametrize("times", [1, 2])
def test_what_was_not_acked_is_counted_and_said(small_store: CheckpointStore, acked: int, times: int) -> None:
    """Stopped once, the fleet waits `drain_s` for acks; stopped twice, no longer."""
    gnb = Deaf(acked)
    found: list[UeFleet] = []

    async def stop(fleet: UeFleet) -> None:
        found.append(fleet)
        await gnb.came.wait()
        while fleet.counts.acked < acked * 3 * 8:
            await asyncio.sleep(0.01)
        for _ in range(times):
            fleet.stop()

    patience = {1: 0.2, 2: 3600.0}[times]
    with pytest.raises(NotAcked, match=r"gnb: 127.0.0.1:\d+: [1-9]\d* reports were not acknowledged"):
        asyncio.run(served(gnb, small_store, stop, rate="max", drain_s=patience))
    counts = found[0].counts
    assert counts.acked == acked * 3 * 8
    assert counts.unacked >= counts.sent - counts.acked >= 3 * 8


def test_who_is_stopped_and_acked_in_time_ends_well(small_store: CheckpointStore) -> None:
    gnb = Deaf(10**9)

    async def stop(fleet: UeFleet) -> None:
        while not fleet.counts.acked:
            await asyncio.sleep(0.01)
        fleet.stop()

    counts = asyncio.run(served(gnb, small_store, stop, rate="max", drain_s=3600))
    assert counts.sent == counts.acked > 0
    assert counts.unacked == 0


def test_who_waits_for_an_attach_can_be_stopped(small_store: CheckpointStore) -> None:
    class Sleeping(Deaf):
        async def Attach(self, request: pb.AttachRequest, context: Any) -> pb.AttachResponse:
            await asyncio.Event().wait()
            raise AssertionError

    async def stop(fleet: UeFleet) -> None:
        await asyncio.sleep(0.2)
        fleet.stop()

    with pytest.raises(NotAcked, match="0 reports were not acknowledged"):
        asyncio.run(served(Sleeping(), small_store, stop, drain_s=0.2))


# --- the token that is kept ---


async def _nothing(fleet: UeFleet) -> None:
    pass


def test_a_kept_token_returns_to_the_lease(small_store: CheckpointStore, tmp_path: Path) -> None:
    kept = tmp_path / "folder" / "token"

    async def stop(fleet: UeFleet) -> None:
        await gnb.came.wait()
        assert kept.read_text() == "t\n"
        assert kept.stat().st_mode & 0o077 == 0
        for _ in range(2):
            fleet.stop()

    gnb = Deaf()
    with pytest.raises(NotAcked):
        asyncio.run(served(gnb, small_store, stop, rate="max", token_file=kept, ue_base=5))
    again = Deaf(10**9, next_sequence=11)
    counts = asyncio.run(served(again, small_store, _nothing, rate="max", token_file=kept, ue_base=5, slots=20))
    assert [request.token for request in (*gnb.attaches, *again.attaches)] == ["", "t"]
    assert [request.ue_base for request in again.attaches] == [5]
    assert [(chunk.first_ue, chunk.first_slot, chunk.slot_count) for chunk in again.chunks] == [(5, 11, 5), (5, 16, 4)]
    assert counts.acked == 3 * 9
    assert not list(kept.parent.iterdir())  # the lease is over


def test_who_was_not_answered_asks_for_the_same_lease(small_store: CheckpointStore, tmp_path: Path) -> None:
    """Again, or by the next process after a kill."""
    kept = tmp_path / "token"

    class Unheard(Deaf):
        async def Attach(self, request: pb.AttachRequest, context: Any) -> pb.AttachResponse:
            response = await super().Attach(request, context)
            if len(self.attaches) < 3:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
            return response

    gnb = Unheard(10**9)

    async def killed() -> None:
        fleet = asyncio.ensure_future(served(gnb, small_store, _nothing, token_file=kept, ue_base=5))
        while len(gnb.attaches) < 2:
            await asyncio.sleep(0.01)
        fleet.cancel()

    asyncio.run(killed())
    asyncio.run(served(gnb, small_store, _nothing, rate="max", slots=8, token_file=kept, ue_base=5))
    assert len(gnb.attaches) == 3
    [token] = {request.new_token for request in gnb.attaches}
    assert re.fullmatch("[0-9a-f]{16}", token)
    assert {request.token for request in gnb.attaches} == {""}
    assert not kept.exists()


def test_without_a_file_no_token_is_kept(small_store: CheckpointStore, tmp_path: Path) -> None:
    gnb = Deaf(10**9)
    asyncio.run(served(gnb, small_store, _nothing, rate="max", slots=8))
    assert gnb.attaches[0].token == ""
    assert not list(tmp_path.iterdir())


# --- chunks ---


@pytest.mark.parametrize("most", [1, 100, 137, 2**20])
@pytest.mark.parametrize("rate", ["max", 1e6])
def test_chunks_are_cut_by_bytes_too(
    small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, most: int, rate: Any
) -> None:
    """Every report is in one chunk, in order for its UE; none is larger, as far as it has more than one report."""
    monkeypatch.setattr("ue_client.fleet.MOST_BYTES", most)
    gnb = Deaf(10**9)
    asyncio.run(served(gnb, small_store, _nothing, rate=rate, slots=20, ues=50, chunk_ues=48, window=64))
    assert all(len(c.payload) <= most or c.ue_count * c.slot_count == 1 for c in gnb.chunks)
    assert all(c.ue_count <= 48 and c.first_slot % 8 + c.slot_count <= 8 for c in gnb.chunks)
    sent: dict[int, list[int]] = {}
    for chunk in gnb.chunks:
        for ue in range(chunk.first_ue, chunk.first_ue + chunk.ue_count):
            sent.setdefault(ue, []).extend(range(chunk.first_slot, chunk.first_slot + chunk.slot_count))
    assert sent == {ue: list(range(20)) for ue in range(5, 55)}


@pytest.mark.parametrize("rate", ["max", 20.0])
def test_images_of_8192_ues_stay_within_what_grpc_takes(small_store: CheckpointStore, rate: Any) -> None:
    """So do their acks, a float a report."""
    settings = Settings(scheme="crnet", checkpoints=small_store.root, ues=65536, chunk_ues=8192, rate=rate)
    for scheme in ("crnet", "dualnet_mp", "rnn", "uplink_only"):
        fleet = UeFleet(settings, small_store.load(scheme, ends=("encoder",)))
        blocks = list(fleet._blocks(frame=0))
        assert sum(block.ues for block in blocks) == 65536
        for block in blocks:
            reports = block.ues * block.slots
            assert reports * block.encoder.scheme.layout.bits / 8 <= MOST_BYTES
            assert reports * 4 <= 2**20


# --- a rate ---


class Noting(UeFleet):
    """Notes when what it sends was measured."""

    measured: dict[int, list[float]]

    def _enqueue(self, block: Any, slot: int, bits: Any, target: bytes, measured_at: float, ack_wait_s: float) -> None:
        self.measured = {**getattr(self, "measured", {}), slot: [*self._measured(slot), measured_at]}
        super()._enqueue(block, slot, bits, target, measured_at, ack_wait_s)

    def _measured(self, slot: int) -> list[float]:
        return getattr(self, "measured", {}).get(slot, [])


@pytest.mark.parametrize(("ues", "parts"), [(1, 1), (127, 1), (129, 2), (256, 4), (300, 4)])
def test_ues_spread_their_sending_over_the_slot(
    small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, ues: int, parts: int
) -> None:
    """In order of their ids; the slots of each are one apart."""
    monkeypatch.setattr("tests.unit.ue_client.test_fleet.UeFleet", Noting)
    gnb, found = Deaf(10**9), []

    async def keep(fleet: UeFleet) -> None:
        found.append(fleet)

    asyncio.run(served(gnb, small_store, keep, rate=20.0, slots=3, ues=ues))
    chunks = sorted({(chunk.first_ue - 5, chunk.ue_count) for chunk in gnb.chunks})
    assert len(chunks) == parts
    assert sum(count for _, count in chunks) == ues
    measured = found[0].measured
    begun = measured[0][0]
    for slot in range(3):
        expected = [begun + (slot + first / ues) / 20.0 for first, _ in chunks]
        assert measured[slot] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("status", ["UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "UNKNOWN", "INTERNAL"])
def test_comes_back_after_a_stream_that_broke(small_store: CheckpointStore, status: str) -> None:
    """Whatever gRPC says of it: INTERNAL where a message was being written."""

    class Breaking(Deaf):
        async def Feedback(self, requests: AsyncIterator[pb.FeedbackRequest], context: Any) -> Any:
            if len(self.attaches) == 1:
                await anext(aiter(requests))
                await context.abort(grpc.StatusCode[status], "broken")
            async for response in super().Feedback(requests, context):
                yield response

    counts = asyncio.run(served(Breaking(10**9), small_store, _nothing, rate="max", slots=80))
    assert (counts.connects, counts.acked, counts.unacked) == (2, 3 * 80, 0)


def test_a_refusal_ends_the_fleet(small_store: CheckpointStore) -> None:
    """At once, or when it comes back: gRPC may hide the first refusal behind a message that was being written."""

    class Refusing(Deaf):
        async def Feedback(self, requests: AsyncIterator[pb.FeedbackRequest], context: Any) -> Any:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "payload: too short")
            yield pb.FeedbackResponse()

    with pytest.raises(InvalidInput, match="the gNB refused: payload: too short"):
        asyncio.run(served(Refusing(), small_store, _nothing, rate="max", slots=80))


def test_what_a_chunk_says_of_its_age(small_store: CheckpointStore) -> None:
    """Once for all its slots; what is sent again has waited for longer."""

    class Away(Deaf):
        """Breaks the first stream off."""

        async def Feedback(self, requests: AsyncIterator[pb.FeedbackRequest], context: Any) -> Any:
            async for request in requests:
                self.chunks.append(request)
                if len(self.attaches) == 1:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
                names = ("first_ue", "ue_count", "first_slot", "slot_count")
                yield pb.FeedbackResponse(ack=pb.Ack(**{name: getattr(request, name) for name in names}))

    for rate in (20.0, "max"):
        gnb = Away()
        counts = asyncio.run(served(gnb, small_store, _nothing, rate=rate, slots=8))
        again = [chunk for chunk in gnb.chunks if chunk.first_slot == 0]
        assert len(again) == 2
        assert all(len(chunk.waited_us) == 1 and chunk.HasField("ack_wait_us") for chunk in gnb.chunks)
        assert again[1].waited_us[0] - again[0].waited_us[0] >= 1e6 * RETRY_FIRST_S
        assert counts.seconds > RETRY_FIRST_S
        assert [request.HasField("offered_reports_per_s") for request in gnb.attaches] == 2 * [rate == 20.0]
        assert all(request.offered_reports_per_s == 20.0 for request in gnb.attaches if rate == 20.0)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are judged soon."""
    monkeypatch.setattr("shared.rate_watch.LEAST_S", 0.3)
    monkeypatch.setattr("ue_client.fleet.WATCH_S", 0.05)


@pytest.mark.usefixtures("soon")
def test_a_rate_that_is_not_held_is_said_once(small_store: CheckpointStore, caplog: pytest.LogCaptureFixture) -> None:
    found: list[UeFleet] = []

    async def stop(fleet: UeFleet) -> None:
        found.append(fleet)
        while fleet.counts.not_held_after_s is None:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        fleet.stop()

    with pytest.raises(NotAcked):
        asyncio.run(served(Deaf(), small_store, stop, rate=200.0, drain_s=0.1))
    [said] = [text for text in caplog.messages if "the rate" in text]
    assert (
        said == "the rate is not held: asked for 600 reports/s, served 0.0; the gNB limits: reports wait for its acks"
    )


@pytest.mark.usefixtures("soon")
def test_a_process_that_encodes_no_more_says_so(
    small_store: CheckpointStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = UeFleet._encode

    def slowly(fleet: UeFleet, *of: Any) -> Any:
        time.sleep(0.4)
        return encode(fleet, *of)

    async def stop(fleet: UeFleet) -> None:
        while fleet.counts.not_held_after_s is None:
            await asyncio.sleep(0.01)
        fleet.stop()

    monkeypatch.setattr(UeFleet, "_encode", slowly)
    asyncio.run(served(Deaf(10**9), small_store, stop, rate=1000.0))
    [said] = [text for text in caplog.messages if "the rate" in text]
    assert said.endswith("; this process limits: it encodes no more")


def test_without_a_rate_nothing_is_judged(small_store: CheckpointStore) -> None:
    counts = asyncio.run(served(Deaf(10**9), small_store, _nothing, rate="max", slots=8))
    assert counts.not_held_after_s is None


def test_what_ues_say_to_the_encoders_of_an_attach_is_not_lost(small_store: CheckpointStore) -> None:
    """It is said before there is a stream, and goes with the one that follows."""

    class Assigning(Deaf):
        """Assigns the UEs the encoder that they have."""

        def __init__(self) -> None:
            super().__init__(10**9)
            self.said: list[pb.SwitchStatus] = []

        async def Attach(self, request: pb.AttachRequest, context: Any) -> pb.AttachResponse:
            response = await super().Attach(request, context)
            response.assigned.add(first_ue=5, ue_count=3, encoder_id=request.encoder_id, version=1)
            return response

        async def Feedback(self, requests: AsyncIterator[pb.FeedbackRequest], context: Any) -> Any:
            async def chunks() -> AsyncIterator[pb.FeedbackRequest]:
                async for request in requests:
                    if request.HasField("switch_status"):
                        self.said.append(request.switch_status)
                    else:
                        yield request

            async for response in super().Feedback(chunks(), context):
                yield response

    gnb = Assigning()
    asyncio.run(served(gnb, small_store, _nothing, rate="max", slots=16))
    [said] = gnb.said
    assert [(run.first_ue, run.ue_count, run.version) for run in said.assigned] == [(5, 3, 1)]
    assert said.problem == ""


def test_nothing_is_left_of_a_stream_that_broke(small_store: CheckpointStore, caplog: pytest.LogCaptureFixture) -> None:
    """Its requests end with it: they wait for no more reports, and nobody has to clear them away at the end."""

    class Breaking(Deaf):
        """Ends its first streams when all have come that UEs send without acks."""

        streams = 0

        async def Feedback(self, requests: AsyncIterator[pb.FeedbackRequest], context: Any) -> Any:
            self.streams += 1
            if self.streams <= 2:
                for _ in range(8):
                    await anext(aiter(requests))
                await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
            async for response in super().Feedback(requests, context):
                yield response

    left: list[asyncio.Task[Any]] = []

    async def sending() -> Counts:
        try:
            return await served(Breaking(10**9), small_store, _nothing, rate="max", slots=80)
        finally:
            gc.collect()
            await asyncio.sleep(0.1)
            left.extend(task for task in asyncio.all_tasks() if "_consume_request_iterator" in repr(task))

    counts = asyncio.run(sending())
    assert (counts.connects, counts.acked, counts.unacked) == (3, 3 * 80, 0)
    assert not left
    assert not [record.getMessage() for record in caplog.records if record.name == "asyncio"]
