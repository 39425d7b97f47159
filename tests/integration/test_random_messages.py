"""Random and mutated gRPC messages: every call ends with a code of the proto file, good UEs go on, nothing piles up."""

from __future__ import annotations

import collections
import logging
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from gnb_server.hardening import limit_repeats
from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from shared.checkpoints import CheckpointStore

CODE = grpc.StatusCode
NAMED = {CODE.OK, CODE.INVALID_ARGUMENT, CODE.NOT_FOUND, CODE.FAILED_PRECONDITION, CODE.OUT_OF_RANGE}
SCHEMES = ("hyperrnn", "rnn", "dldnn", "genie_lmmse", "uplink_only", "crnet", "dualnet_mp")
EDGES = (0, 1, 2, 3, 7, 8, 9, 255, 65_536, 65_537, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


def mutated(message: Message, rng: random.Random) -> bytes:
    """Fields changed, or the bytes of the whole, or only noise; sometimes as it was."""
    how = rng.random()
    if how < 0.05:
        return message.SerializeToString()
    if how < 0.55:
        for _ in range(rng.randint(1, 2)):
            mutate_field(message, rng)
        return message.SerializeToString()
    data = bytearray(rng.randbytes(rng.randrange(64)) if how < 0.65 else message.SerializeToString())
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(data))
        match rng.randrange(4):
            case 0:
                data[at : at + 1] = rng.randbytes(1)
            case 1:
                del data[at:]
            case 2:
                data[at:at] = rng.randbytes(rng.randint(1, 12))
            case 3:
                del data[at : at + rng.randint(1, 4)]
    return bytes(data)


def mutate_field(message: Message, rng: random.Random) -> None:
    field = rng.choice(message.DESCRIPTOR.fields)
    kind = type(field).TYPE_STRING, type(field).TYPE_BYTES, type(field).TYPE_UINT64
    found: Any = getattr(message, field.name)
    if rng.random() < 0.1:
        message.ClearField(field.name)
    elif field.message_type and field.is_repeated:
        mutate_field(found.add(), rng)
    elif field.is_repeated:  # numbers
        found.extend(rng.choice((rng.choice(EDGES), rng.getrandbits(64))) for _ in range(rng.randrange(5)))
    elif field.message_type:
        found.SetInParent()
        mutate_field(found, rng)
    elif field.type == field.TYPE_BOOL:
        setattr(message, field.name, not found)
    elif field.type == kind[0]:
        cut = rng.randint(0, len(found))
        other = rng.choice(("", "x" * rng.randrange(5000), "ä\0\n☃", "../..", *SCHEMES, "nan", "=", ":antennas=0"))
        setattr(message, field.name, rng.choice((other, found[:cut] + other + found[cut:])))
    elif field.type == kind[1]:
        setattr(message, field.name, rng.choice((rng.randbytes(len(found)), rng.randbytes(rng.randrange(80)))))
    else:
        bits = 64 if field.type == kind[2] else 32
        step = found + rng.randint(-3, 3)
        setattr(message, field.name, rng.choice((rng.choice(EDGES), rng.getrandbits(bits), step)) % 2**bits)


class Fleet:
    """Two UEs over raw bytes: what is sent need not be a message."""

    def __init__(self, gnb: Any, channel: grpc.Channel, scheme: str) -> None:
        checkpoint = CheckpointStore(gnb.checkpoints).load(scheme)
        self.layout, self.slots = checkpoint.scheme.layout, checkpoint.scenario.slots
        self.encoder_id, self.sent = bytes.fromhex(checkpoint.encoder_id), 0
        self.request = pb.AttachRequest(
            scheme=scheme, scenario=str(checkpoint.scenario), seed=3, encoder_id=self.encoder_id, ue_count=2
        )
        self._channel = channel
        self.attach()

    def unary(self, method: str, data: bytes) -> tuple[grpc.StatusCode, bytes]:
        try:
            return CODE.OK, self._channel.unary_unary(f"/csi_feedback.v1.CsiFeedback/{method}")(data, timeout=60)
        except grpc.RpcError as error:
            return error.code(), error.details().encode()

    def stream(self, *data: bytes, token: str | None = None) -> tuple[grpc.StatusCode, int]:
        """Code and number of acks."""
        method = self._channel.stream_stream("/csi_feedback.v1.CsiFeedback/Feedback")
        call = method(iter(data), metadata=(("fleet-token", token or self.lease.token),), timeout=60)
        acks = 0
        try:
            for _ in call:
                acks += 1
        except grpc.RpcError as error:
            return error.code(), acks
        return CODE.OK, acks

    def attach(self) -> None:
        code, answer = self.unary("Attach", self.request.SerializeToString())
        assert code == CODE.OK, answer
        self.lease = pb.AttachResponse.FromString(answer)
        self.request.token = self.lease.token

    def chunk(self) -> pb.FeedbackRequest:
        """The next slot of the UE that is behind, or of both."""
        return pb.FeedbackRequest(
            encoder_id=self.encoder_id,
            first_ue=self.lease.first_ue,
            ue_count=2,
            first_slot=min(self.lease.next_sequence),
            slot_count=1,
            payload=bytes(self.layout.chunk_bytes(2)),
        )

    def send(self) -> None:
        """A good chunk, which is acked."""
        assert self.stream(self.chunk().SerializeToString()) == (CODE.OK, 1)
        self.sent += 2
        for ue in range(2):
            self.lease.next_sequence[ue] += 1


@pytest.fixture
def filtered_log() -> Iterator[None]:
    """The process's log as `csiemu gnb` has it."""
    limit_repeats()
    yield
    for handler in logging.getLogger().handlers:
        handler.filters.clear()


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("count", [2_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_random_messages(gnb: Any, caplog: pytest.LogCaptureFixture, filtered_log: None, count: int) -> None:
    rng, codes, before = random.Random(count), collections.Counter[tuple[str, grpc.StatusCode]](), 0
    with grpc.insecure_channel(gnb.grpc) as channel:
        good = [Fleet(gnb, channel, scheme) for scheme in SCHEMES]
        bad = [Fleet(gnb, channel, scheme) for scheme in SCHEMES]
        for number in range(count):
            fleet = rng.choice(bad)
            match rng.choices(("Attach", "Detach", "Feedback"), (3, 1, 6))[0]:
                case "Attach" as method:
                    code, _ = fleet.unary(
                        method, mutated(pb.AttachRequest.FromString(fleet.request.SerializeToString()), rng)
                    )
                case "Detach" as method:
                    code, _ = fleet.unary(method, mutated(pb.DetachRequest(token=f"{fleet.lease.token}?"), rng))
                case _ as method:
                    code, acks = fleet.stream(mutated(fleet.chunk(), rng), token=rng.choice((None, None, None, "none")))
                    if acks or (code == CODE.INVALID_ARGUMENT and fleet.request.scheme == "genie_lmmse"):
                        fleet.attach()  # to know what it stands at, or after floats that are no channel
            codes[method, code] += 1
            if number % 10 == 0:
                good[number // 10 % len(good)].send()
            if number == count // 10:
                before = resident()
        for fleet in bad:
            fleet.attach()
            fleet.send()
    assert resident() - before < 150 << 20
    print(codes, resident() - before)
    assert {code for _, code in codes} <= NAMED
    for method, wanted in (("Attach", NAMED - {CODE.OUT_OF_RANGE}), ("Detach", {CODE.NOT_FOUND}), ("Feedback", NAMED)):
        assert wanted <= {code for called, code in codes if called == method}  # or nothing was tried
    for fleet in good:
        row = gnb.call(f"/v1/ues/{fleet.lease.first_ue}")[1]
        assert row["reports"] == fleet.sent / 2
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.WARNING] == []
    assert all(record.exc_info is None for record in caplog.records)
    assert len(caplog.records) < 50 * (1 + count // 2_000)  # rate-limited


def test_an_estimate_that_overflows_is_the_clients_mistake(gnb: Any, caplog: pytest.LogCaptureFixture) -> None:
    with grpc.insecure_channel(gnb.grpc) as channel:
        fleet = Fleet(gnb, channel, "genie_lmmse")
        chunk = fleet.chunk()
        chunk.payload = struct.pack(">f", 3e38) * (len(chunk.payload) // 4)
        assert fleet.stream(chunk.SerializeToString()) == (CODE.INVALID_ARGUMENT, 0)
        fleet.attach()  # its state is restored without that report
        fleet.send()
    assert caplog.records == []
