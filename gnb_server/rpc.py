"""The gRPC skin: protobuf messages in and out, errors as gRPC status codes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from ipaddress import ip_address, ip_network
from typing import Final, Literal, NoReturn
from urllib.parse import unquote

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gnb_server.handlers import Attachment, Handlers
from gnb_server.hardening import shorten
from gnb_server.malformed import MalformedIsInvalid
from gnb_server.serving.admission import MAX_CHUNK_REPORTS
from gnb_server.serving.chunks import Ack, Chunk
from gnb_server.sessions import Assignment, Fleet
from gnb_server.swaps import SwitchStatus
from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from protos.csi_feedback.v1 import csi_feedback_pb2_grpc as pb_grpc
from shared.errors import Conflict, CsiError, InvalidInput, SequenceGap
from shared.link.rate import Rate
from shared.tls import Identity

SERVICE = pb.DESCRIPTOR.services_by_name["CsiFeedback"].full_name
GRPC_PREFIX_BYTES = 5
"""gRPC puts a flag and a length before each message."""

IN_FLIGHT = 64
"""Chunks of a stream that may wait for their ack; further ones wait in the socket."""


MOST_OF_A_MESSAGE = 400
"""Characters of an error that are sent: beyond 16 kB none of it would arrive."""

PIECE_BYTES = 2**20
"""Of a file that is streamed, in a message."""

PING_S, PONG_S = 60, 20
"""How often a connection is tried whose other end is silent, and how long the answer may take: then it is closed, for
the machine there may have gone without a word.
"""

LEAST_PING_S = 10
"""UEs may try theirs so often."""

_Answer = asyncio.Future[Ack] | CsiError | Literal["assigned", "rates"] | None
"""What a stream answers next: an ack to wait for, an error that ends it, what UEs are assigned, what their reports may
take; None: no more.
"""

_ASSIGNED: Final = "assigned"
_RATES: Final = "rates"


class CsiFeedbackService(pb_grpc.CsiFeedbackServicer):
    """`CsiFeedback` of the proto file."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    async def Attach(self, request: pb.AttachRequest, context: grpc.aio.ServicerContext) -> pb.AttachResponse:
        try:
            rate = _rate(request.rate)
        except CsiError as error:
            await _abort(context, error)
        attachment = Attachment(
            model=request.scheme,
            scenario=request.scenario,
            seed=request.seed,
            encoder_id=request.encoder_id.hex(),
            ue_count=request.ue_count,
            ue_base=request.ue_base if request.HasField("ue_base") else None,
            delay_slots=request.delay_slots,
            token=request.token,
            new_token=request.new_token,
            client=client_of(context.peer()),
            can_switch=request.can_switch,
            rate=rate,
            air=request.air,
            offered_per_s=request.offered_reports_per_s if request.HasField("offered_reports_per_s") else None,
        )
        try:
            fleet, model = await asyncio.to_thread(self._handlers.attach, attachment)
        except CsiError as error:
            await _abort(context, error)
        return pb.AttachResponse(
            token=fleet.lease.token,
            first_ue=fleet.lease.first_ue,
            ue_count=fleet.lease.ue_count,
            next_sequence=fleet.next_sequence.tolist(),
            feedback_bits=model.layout.bits,
            slots_per_frame=fleet.slots,
            assigned=_assignments(fleet, fleet.assignments()),
            open=_assignments(fleet, fleet.open_frames()),
            rates=_asked(fleet),
            must_switch=model.encoder_id != attachment.encoder_id,
        )

    async def Detach(self, request: pb.DetachRequest, context: grpc.aio.ServicerContext) -> pb.DetachResponse:
        try:
            await asyncio.to_thread(self._handlers.detach, request.token)
        except CsiError as error:
            await _abort(context, error)
        return pb.DetachResponse()

    async def FetchEncoder(
        self, request: pb.FetchEncoderRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.FetchEncoderResponse]:
        try:
            card, data = await asyncio.to_thread(self._handlers.encoder, request.token, request.encoder_id.hex())
        except CsiError as error:
            await _abort(context, error)
        yield pb.FetchEncoderResponse(header=pb.EncoderHeader(card=card, size=len(data)))
        for start in range(0, len(data), PIECE_BYTES):
            yield pb.FetchEncoderResponse(data=data[start : start + PIECE_BYTES])

    async def Feedback(
        self, request_iterator: AsyncIterator[pb.FeedbackRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.FeedbackResponse]:
        token = dict(context.invocation_metadata() or ()).get("fleet-token", "")
        try:
            fleet, stream = await asyncio.to_thread(self._handlers.open_stream, str(token))
        except CsiError as error:
            await _abort(context, error)
        answers: asyncio.Queue[_Answer] = asyncio.Queue()
        in_flight = asyncio.Semaphore(IN_FLIGHT)
        loop = asyncio.get_running_loop()

        def on_assigned() -> None:
            loop.call_soon_threadsafe(answers.put_nowait, _ASSIGNED)

        fleet.on_assigned = on_assigned
        if fleet.problem is None:  # assigned since the attach
            answers.put_nowait(_ASSIGNED)

        def on_rates() -> None:
            loop.call_soon_threadsafe(answers.put_nowait, _RATES)

        fleet.on_rates = on_rates
        if fleet.asked is not None and not fleet.asked.told:
            answers.put_nowait(_RATES)

        async def read() -> None:
            """Chunks into the serving queue, as far as the fleet has room there, and their futures into `answers`."""
            waiting: deque[tuple[asyncio.Future[Ack], Chunk]] = deque()
            try:
                async for request in request_iterator:
                    try:
                        if request.HasField("switch_status"):
                            await asyncio.to_thread(self._handlers.swaps.switched, fleet, _status(request))
                            continue
                        chunk = _chunk(request)
                        await self._room(waiting, chunk)
                        await in_flight.acquire()
                        future = asyncio.wrap_future(self._handlers.submit(fleet, stream, chunk))
                    except CsiError as error:
                        answers.put_nowait(error)
                        return
                    waiting.append((future, chunk))
                    answers.put_nowait(future)
            finally:
                answers.put_nowait(None)

        reader = asyncio.create_task(read())
        try:
            while (item := await answers.get()) is not None:
                if isinstance(item, CsiError):
                    raise item
                if item is _ASSIGNED:
                    yield pb.FeedbackResponse(
                        switch_encoder=pb.SwitchEncoder(assigned=_assignments(fleet, fleet.assignments()))
                    )
                elif item is _RATES:
                    yield pb.FeedbackResponse(set_rates=pb.SetRates(rates=_asked(fleet)))
                elif isinstance(item, asyncio.Future):
                    ack = await item
                    in_flight.release()
                    yield _ack(ack)
        except CsiError as error:
            await _abort(context, error)
        finally:
            reader.cancel()
            if fleet.on_assigned is on_assigned:
                fleet.on_assigned = None
            if fleet.on_rates is on_rates:
                fleet.on_rates = None
            _consume(answers)
            asyncio.get_running_loop().run_in_executor(None, self._handlers.close_stream, fleet, stream)

    async def _room(self, waiting: deque[tuple[asyncio.Future[Ack], Chunk]], chunk: Chunk) -> None:
        """Wait until a fleet's share of the serving queue has room for a chunk: the rest stays in the socket."""
        while waiting:
            if not waiting[0][0].done():
                most_reports, most_bytes = self._handlers.share()
                reports = chunk.reports + sum(other.reports for _, other in waiting)
                size = len(chunk.payload) + sum(len(other.payload) for _, other in waiting)
                if reports <= most_reports and size <= most_bytes:
                    return
                await asyncio.wait([waiting[0][0]])
            waiting.popleft()


def _consume(answers: asyncio.Queue[_Answer]) -> None:
    """Take notice of what the chunks behind a failed one came to; the UE sends them again."""
    while not answers.empty():
        if isinstance(item := answers.get_nowait(), asyncio.Future):
            item.add_done_callback(lambda future: future.cancelled() or future.exception())


def _assignments(fleet: Fleet, runs: list[Assignment]) -> list[pb.EncoderAssignment]:
    """Runs of a fleet's UEs with the encoders of their versions."""
    return [
        pb.EncoderAssignment(
            first_ue=fleet.lease.first_ue + run.first,
            ue_count=run.count,
            encoder_id=bytes.fromhex(fleet.facts[run.version].encoder_id),
            version=run.version,
        )
        for run in runs
    ]


def _rate(rate: pb.Rate) -> Rate:
    """Raises InvalidInput."""
    given = {name: getattr(rate, name) for name in ("bits", "step", "target_nmse_db") if rate.HasField(name)}
    return Rate(**given)


def _asked(fleet: Fleet) -> list[pb.RateAssignment]:
    """What a fleet's UEs are asked for; they are told with this."""
    if (asked := fleet.asked) is None:
        return []
    asked.told = True
    first_ue = fleet.lease.first_ue
    return [
        pb.RateAssignment(first_ue=first_ue + first, ue_count=count, bits=bits, step=step)
        for first, count, bits, step in asked.runs()
    ]


def _status(request: pb.FeedbackRequest) -> SwitchStatus:
    status = request.switch_status
    told = [(run.first_ue, run.ue_count, run.encoder_id.hex()) for run in status.assigned]
    return SwitchStatus(status.first_slot, shorten(status.problem, MOST_OF_A_MESSAGE), told)


def _chunk(request: pb.FeedbackRequest) -> Chunk:
    if len(request.encoder_id) != 8:
        raise InvalidInput(f"encoder_id: {len(request.encoder_id)} bytes; wanted 8")
    waited = [us / 1e6 for us in request.waited_us]
    if len(waited) not in (0, 1, request.slot_count):
        raise InvalidInput(f"waited_us: {len(waited)} values; wanted none, one or {request.slot_count}, one a slot")
    return Chunk(
        encoder_id=request.encoder_id.hex(),
        first_ue=request.first_ue,
        ue_count=request.ue_count,
        first_slot=request.first_slot,
        slot_count=request.slot_count,
        payload=request.payload,
        wire_bytes=request.ByteSize() + GRPC_PREFIX_BYTES,
        waited_s=tuple(waited if len(waited) != 1 else waited * min(request.slot_count, MAX_CHUNK_REPORTS)),
        ack_wait_s=request.ack_wait_us / 1e6 if request.HasField("ack_wait_us") else None,
        target=request.target,
    )


def _ack(ack: Ack) -> pb.FeedbackResponse:
    versions = ack.versions.tolist()
    return pb.FeedbackResponse(
        ack=pb.Ack(
            first_ue=ack.chunk.first_ue,
            ue_count=ack.chunk.ue_count,
            first_slot=ack.chunk.first_slot,
            slot_count=ack.chunk.slot_count,
            decoder_version=versions[:1] if len(set(versions)) == 1 else versions,
            nmse=ack.nmse.ravel().tolist(),
            dropped=ack.dropped,
        )
    )


async def _abort(context: grpc.aio.ServicerContext, error: CsiError) -> NoReturn:
    trailing = (("expected-sequence", str(error.expected)),) if isinstance(error, SequenceGap) else ()
    await context.abort(grpc.StatusCode[error.kind.grpc_status], shorten(str(error), MOST_OF_A_MESSAGE), trailing)
    raise AssertionError("abort raises")


def client_of(peer: str) -> str:
    """Whose connection it is: its IPv4 address, or the /64 network of its IPv6 address, which is one site's.

    Args:
        peer: as gRPC names it, `ipv4:192.0.2.1:50000` or `ipv6:%5B2001:db8::1%5D:50000`.
    """
    address = ip_address(unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]"))
    if address.version == 4:
        return str(address)
    return str(address.ipv4_mapped or ip_network((address, 64), strict=False))


def bracketed(host: str) -> str:
    """As it stands before `:port`: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def server_credentials(identity: Identity | None, client_ca: bytes | None) -> grpc.ServerCredentials | None:
    """For TLS, mutual if there are authorities of UEs; None: in the clear."""
    if identity is None:
        return None
    pair = (identity.key, identity.certificate)
    return grpc.ssl_server_credentials([pair], client_ca, require_client_auth=client_ca is not None)


class GrpcServer:
    """The server with health and reflection."""

    def __init__(
        self, handlers: Handlers, host: str, port: int, credentials: grpc.ServerCredentials | None = None
    ) -> None:
        # with so_reuseport two gNBs could share a port's UEs; with bdp_probe the windows of HTTP/2's flow control would
        # grow to what a connection can carry: megabytes of reports for each, before any of them is read
        options = (
            ("grpc.so_reuseport", 0),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.keepalive_time_ms", 1000 * PING_S),
            ("grpc.http2.ping_timeout_ms", 1000 * PONG_S),
            ("grpc.http2.max_pings_without_data", 0),  # no limit
            ("grpc.http2.min_ping_interval_without_data_ms", 1000 * LEAST_PING_S),
        )
        self._server = grpc.aio.server(interceptors=[MalformedIsInvalid()], options=options)
        pb_grpc.add_CsiFeedbackServicer_to_server(CsiFeedbackService(handlers), self._server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        try:
            address = f"{bracketed(host)}:{port}"
            if credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise Conflict(f"grpc_port: {host}:{port} cannot be had: {error}") from None

    async def start(self) -> None:
        """Listen, and say so."""
        await self._server.start()
        await self.say(ready=True)
        logging.info("gRPC on port %d", self.port)

    async def say(self, *, ready: bool) -> None:
        """Tell whether UEs can attach and their reports are stored."""
        status = health_pb2.HealthCheckResponse
        for name in ("", SERVICE):
            await self._health.set(name, status.SERVING if ready else status.NOT_SERVING)

    async def stop(self) -> None:
        """Say that we go, then end streams."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace=1.0)
