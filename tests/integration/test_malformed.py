"""Bytes that are no protobuf message: INVALID_ARGUMENT from every service, a line in the log, and the rest goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from protos.csi_feedback.v1 import csi_feedback_pb2 as pb

OURS, HEALTH = "/csi_feedback.v1.CsiFeedback", "/grpc.health.v1.Health"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection"
MALFORMED = b"\xff\xff\xff"


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("unary_unary", f"{OURS}/Attach"),
        ("unary_unary", f"{OURS}/Detach"),
        ("stream_stream", f"{OURS}/Feedback"),
        ("unary_unary", f"{HEALTH}/Check"),
        ("unary_stream", f"{HEALTH}/Watch"),
        ("stream_stream", f"{REFLECTION}/ServerReflectionInfo"),
    ],
)
def test_every_method(gnb: Any, caplog: pytest.LogCaptureFixture, kind: str, method: str) -> None:
    with gnb.stub() as stub, grpc.insecure_channel(gnb.grpc) as channel:
        metadata = (("fleet-token", gnb.attach(stub).token),)
        call = getattr(channel, kind)(method)
        for _ in range(3):
            data = iter([MALFORMED]) if kind.startswith("stream") else MALFORMED
            with pytest.raises(grpc.RpcError) as caught:
                list(call(data, timeout=30, metadata=metadata))
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details() == f"{method}: the request is not a protobuf message of the type wanted"
    gnb.stop()
    assert {record.getMessage() for record in caplog.records} == {caught.value.details()}
    assert all((record.levelno, record.exc_info) == (logging.WARNING, None) for record in caplog.records)


def test_chunks_before_a_malformed_one_count(gnb: Any, caplog: pytest.LogCaptureFixture) -> None:
    """They are acked or sent again, once; the same fleet goes on."""
    with gnb.stub() as stub, grpc.insecure_channel(gnb.grpc) as channel:
        lease = gnb.attach(stub)
        metadata = (("fleet-token", lease.token),)
        encoder_id = bytes.fromhex(gnb.call("/v2/models/hyperrnn")[1]["parameters"]["card"]["encoder_id"])

        def chunk(slot: int) -> bytes:
            request = pb.FeedbackRequest(encoder_id=encoder_id, first_ue=lease.first_ue, ue_count=2, first_slot=slot)
            request.slot_count, request.payload = 1, bytes(5)
            return request.SerializeToString()

        def sent() -> Iterator[bytes]:
            yield chunk(0)
            assert acked.wait(30)
            yield MALFORMED
            yield chunk(1)  # what comes behind is not read

        acked = threading.Event()
        call = channel.stream_stream(f"{OURS}/Feedback")
        stream = call(sent(), metadata=metadata)
        assert pb.FeedbackResponse.FromString(next(stream)).ack.slot_count == 1
        acked.set()
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert gnb.attach(stub, token=lease.token).next_sequence == [1, 1]
        assert len(list(call(iter([chunk(0), chunk(1)]), metadata=metadata))) == 2
    assert gnb.call("/v1/nmse")[1]["overall"]["reports"] == 4
    assert len(caplog.records) == 1


def test_what_is_no_method_or_too_long_is_grpcs_to_say(gnb: Any, caplog: pytest.LogCaptureFixture) -> None:
    with grpc.insecure_channel(gnb.grpc) as channel:
        for method, data, code in (
            (f"{OURS}/Atach", b"", grpc.StatusCode.UNIMPLEMENTED),
            (f"{OURS}/Detach", bytes(5 << 20), grpc.StatusCode.RESOURCE_EXHAUSTED),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(method)(data, timeout=30)
            assert caught.value.code() == code
    assert caplog.records == []


@pytest.mark.parametrize("field", ["scheme", "scenario", "token", "encoder_id"])
def test_long_values_are_not_echoed(gnb: Any, field: str) -> None:
    long: Any = b"x" * 100_000 if field == "encoder_id" else "x" * 100_000
    with gnb.stub() as stub:
        with pytest.raises(grpc.RpcError) as caught:
            gnb.attach(stub, **{field: long})
        assert caught.value.code() in {
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.FAILED_PRECONDITION,
        }
        assert len(caught.value.details()) < 500
