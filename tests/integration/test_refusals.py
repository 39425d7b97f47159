"""Bad input: one clear error with the right status, and the service goes on."""

from __future__ import annotations

import asyncio
import math
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from gnb_server.app import serve
from gnb_server.settings import Settings
from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from protos.csi_feedback.v1 import csi_feedback_pb2_grpc as pb_grpc
from shared.checkpoints import CheckpointStore
from shared.errors import Conflict

CODE = grpc.StatusCode


def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"scheme": "nonsense"}, CODE.NOT_FOUND, "'nonsense' is unknown"),
        ({"scheme": "../hyperrnn"}, CODE.INVALID_ARGUMENT, "not a name"),
        ({"encoder_id": b"12345678"}, CODE.FAILED_PRECONDITION, "encoder_id"),
        ({"encoder_id": b""}, CODE.FAILED_PRECONDITION, "encoder_id: empty"),
        ({"scenario": "moon"}, CODE.NOT_FOUND, "multipath-p2"),
        (
            {"scenario": "multipath-p2:antennas=16,fading_correlation=nan"},
            CODE.INVALID_ARGUMENT,
            "fading_correlation: nan",
        ),
        ({"scenario": "multipath-p2:antennas=16,speed=3"}, CODE.INVALID_ARGUMENT, "speed_kmh"),
        ({"scenario": "multipath-p2"}, CODE.INVALID_ARGUMENT, "antennas: 64"),
        ({"ue_count": 0}, CODE.INVALID_ARGUMENT, "ue_count: 0"),
        ({"ue_base": 2**32 - 1}, CODE.INVALID_ARGUMENT, "2^32"),
        ({"delay_slots": 5000}, CODE.INVALID_ARGUMENT, "air delay: 5000 is not in [0, 1024]"),
        ({"offered_reports_per_s": 0.0}, CODE.INVALID_ARGUMENT, "offered_reports_per_s: 0.0 is not in [1e-06, 1e+06]"),
        ({"offered_reports_per_s": float("nan")}, CODE.INVALID_ARGUMENT, "offered_reports_per_s: nan is not in"),
        ({"token": "0123"}, CODE.NOT_FOUND, "'0123' is unknown"),
    ],
)
def test_attach(gnb: Any, fields: dict[str, Any], code: grpc.StatusCode, says: str) -> None:
    with gnb.stub() as stub:
        found, details = refused(lambda: gnb.attach(stub, **fields))
    assert found == code
    assert says in details
    assert gnb.run_ues(scheme="hyperrnn", ues=2, slots=8).counts.acked == 16


def test_a_world_that_cannot_be_made_here(gnb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused when it is asked for, not when the first report has come."""
    monkeypatch.setitem(sys.modules, "sionna.phy.channel.tr38901", None)  # as if it were not installed
    with gnb.stub() as stub:
        found, details = refused(lambda: gnb.attach(stub, scenario="tr38901-umi-nlos:antennas=16,slots=8"))
    assert (found, "csi-feedback-emulator[sionna]" in details) == (CODE.INVALID_ARGUMENT, True)


def test_ids_never_collide(gnb: Any) -> None:
    with gnb.stub() as stub:
        assert gnb.attach(stub, ue_base=10).first_ue == 10
        code, details = refused(lambda: gnb.attach(stub, ue_base=11))
        assert (code, "overlap" in details) == (CODE.FAILED_PRECONDITION, True)
        leased = [gnb.attach(stub, ue_count=3).first_ue for _ in range(3)]
    assert leased == [12, 15, 18]


def test_a_token_returns_to_its_own_lease_only(gnb: Any) -> None:
    with gnb.stub() as stub:
        lease = gnb.attach(stub)
        assert gnb.attach(stub, token=lease.token).first_ue == lease.first_ue
        code, details = refused(lambda: gnb.attach(stub, token=lease.token, seed=4))
    assert code == CODE.FAILED_PRECONDITION
    assert "seed: 4; the lease of this token has 3" in details


class Ue:
    """Two UEs that send what they are told."""

    def __init__(self, gnb: Any, stub: pb_grpc.CsiFeedbackStub, scheme: str = "hyperrnn") -> None:
        checkpoint = CheckpointStore(gnb.checkpoints).load(scheme)
        self.stub, self.encoder_id = stub, bytes.fromhex(checkpoint.encoder_id)
        self.lease = gnb.attach(stub, scheme)
        self.bytes = checkpoint.scheme.layout.chunk_bytes

    def send(self, *chunks: dict[str, Any], token: str | None = None) -> list[pb.Ack]:
        def requests() -> Iterator[pb.FeedbackRequest]:
            for chunk in chunks:
                full = {
                    "encoder_id": self.encoder_id,
                    "first_ue": self.lease.first_ue,
                    "ue_count": 2,
                    "slot_count": 1,
                    "payload": bytes(self.bytes(chunk.get("ue_count", 2) * chunk.get("slot_count", 1))),
                    **chunk,
                }
                yield pb.FeedbackRequest(**full)

        metadata = (("fleet-token", self.lease.token if token is None else token),)
        return [answer.ack for answer in self.stub.Feedback(requests(), metadata=metadata)]


@pytest.mark.parametrize(
    ("chunk", "code", "says"),
    [
        ({"encoder_id": b"12345678"}, CODE.FAILED_PRECONDITION, "the versions of hyperrnn decode for"),
        ({"encoder_id": b"1234"}, CODE.INVALID_ARGUMENT, "4 bytes; wanted 8"),
        ({"payload": b"abc"}, CODE.INVALID_ARGUMENT, "3 bytes for 2 reports of 20 bits; wanted 5"),
        ({"payload": bytes(6)}, CODE.INVALID_ARGUMENT, "wanted 5"),
        ({"ue_count": 1, "payload": b"\0\0\x01"}, CODE.INVALID_ARGUMENT, "padding"),
        ({"first_slot": 3}, CODE.OUT_OF_RANGE, "expected 0"),
        ({"first_slot": 7, "slot_count": 2}, CODE.INVALID_ARGUMENT, "one frame"),
        ({"slot_count": 0, "payload": b""}, CODE.INVALID_ARGUMENT, "slot_count"),
        ({"first_ue": 999}, CODE.INVALID_ARGUMENT, "leases"),
        ({"waited_us": [1, 2]}, CODE.INVALID_ARGUMENT, "waited_us: 2 values; wanted none, one or 1, one a slot"),
        ({"ue_count": 3}, CODE.INVALID_ARGUMENT, "leases"),
        ({"first_slot": 2**63}, CODE.INVALID_ARGUMENT, "last frame"),
    ],
)
def test_chunk(gnb: Any, chunk: dict[str, Any], code: grpc.StatusCode, says: str) -> None:
    with gnb.stub() as stub:
        ue = Ue(gnb, stub)
        found, details = refused(lambda: ue.send(chunk))
        assert found == code
        assert says in details
        assert len(ue.send({"slot_count": 8})) == 1  # the same UEs go on
    assert gnb.call("/v1/nmse")[1]["overall"]["reports"] == 16


def test_gap_says_what_is_expected(gnb: Any) -> None:
    with gnb.stub() as stub:
        ue = Ue(gnb, stub)
        ue.send({"slot_count": 4})
        with pytest.raises(grpc.RpcError) as caught:
            ue.send({"first_slot": 6})
        assert ("expected-sequence", "4") in [tuple(item) for item in caught.value.trailing_metadata()]


def test_repeats_count_once(gnb: Any) -> None:
    with gnb.stub() as stub:
        ue = Ue(gnb, stub)
        first = ue.send({"slot_count": 4})
        again = ue.send({"slot_count": 4}, {"first_slot": 2, "slot_count": 4}, {"slot_count": 1})
    assert list(again[0].nmse) == pytest.approx(list(first[0].nmse))
    assert list(again[1].nmse)[:4] == pytest.approx(list(first[0].nmse)[4:])
    assert all(math.isfinite(value) for ack in again for value in ack.nmse)
    assert gnb.call("/v1/nmse")[1]["overall"]["reports"] == 12


def test_unknown_token_and_unknown_stream(gnb: Any) -> None:
    with gnb.stub() as stub:
        ue = Ue(gnb, stub)
        assert refused(lambda: ue.send({}, token="feed"))[0] == CODE.NOT_FOUND
        assert refused(lambda: stub.Detach(pb.DetachRequest(token="feed")))[0] == CODE.NOT_FOUND
        assert len(ue.send({})) == 1


def test_a_new_stream_fences_the_old_one(gnb: Any) -> None:
    with gnb.stub() as stub:
        ue, acked = Ue(gnb, stub), threading.Event()

        def old() -> Iterator[pb.FeedbackRequest]:
            chunk = {"encoder_id": ue.encoder_id, "first_ue": ue.lease.first_ue, "ue_count": 2, "slot_count": 1}
            yield pb.FeedbackRequest(**chunk, payload=bytes(5))
            assert acked.wait(30)
            ue.send({"first_slot": 1})
            yield pb.FeedbackRequest(**chunk, first_slot=2, payload=bytes(5))

        stream = stub.Feedback(old(), metadata=(("fleet-token", ue.lease.token),))
        assert next(stream).ack.first_slot == 0
        acked.set()
        code, details = refused(lambda: list(stream))
        assert (code, "newer stream" in details) == (CODE.FAILED_PRECONDITION, True)
        assert len(ue.send({"first_slot": 2})) == 1


def test_nan_payload(gnb: Any) -> None:
    with gnb.stub() as stub:
        ue = Ue(gnb, stub, "genie_lmmse")
        nan = struct.pack(">8f", *[0.0] * 7, math.nan)
        code, details = refused(lambda: ue.send({"payload": nan}))
        assert (code, "NaN" in details) == (CODE.INVALID_ARGUMENT, True)
        assert len(ue.send({"payload": struct.pack(">8f", *[0.5] * 8)})) == 1


def test_one_bad_fleet_does_not_hurt_another(gnb: Any) -> None:
    with gnb.stub() as stub:
        good, bad = Ue(gnb, stub), Ue(gnb, stub)
        for slot in range(8):
            refused(lambda: bad.send({"first_slot": 5}))
            assert len(good.send({"first_slot": slot})) == 1


def test_a_fleet_that_has_detached_is_over(gnb: Any) -> None:
    with gnb.stub() as stub:
        ue = Ue(gnb, stub)
        ue.send({"slot_count": 3})
        stub.Detach(pb.DetachRequest(token=ue.lease.token))
        for call in (lambda: ue.send({"first_slot": 3}), lambda: gnb.attach(stub, token=ue.lease.token)):
            code, details = refused(call)
            assert (code, "has detached" in details) == (CODE.FAILED_PRECONDITION, True)
        assert gnb.call("/v1/ues")[1]["ues"][0]["status"] == "finished"


def test_a_port_that_is_taken(gnb: Any, start_gnb: Callable[..., Any], tmp_path: Path) -> None:
    """Two gNBs would share its UEs without a word."""
    for field, address in (("grpc_port", gnb.grpc), ("rest_port", gnb.rest)):
        port = int(address.rsplit(":", 1)[1])
        chosen = {"grpc_port": 0, "rest_port": 0, field: port, "store": f"sqlite:///{tmp_path / 'other.sqlite'}"}
        with pytest.raises(Conflict, match=f"{field}: .*:{port} cannot be had"):
            asyncio.run(serve(Settings(**{"checkpoints": gnb.checkpoints, **chosen})))


def test_who_leases_the_last_ids_does_not_use_up_those_of_others(gnb: Any) -> None:
    with gnb.stub() as stub:
        gnb.attach(stub, ue_base=2**32 - 2)
        gnb.attach(stub, ue_base=4)
        assert [gnb.attach(stub, ue_count=count).first_ue for count in (3, 2, 2)] == [0, 6, 8]
        code, details = refused(lambda: gnb.attach(stub, ue_base=2**32 - 1))
        assert (code, "beyond 2^32" in details) == (CODE.INVALID_ARGUMENT, True)


def test_a_client_has_only_so_many_fleets_of_a_run(gnb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnb_server.handlers.MAX_UES", 9)
    with gnb.stub() as stub:
        lease = gnb.attach(stub)
        code, details = refused(lambda: gnb.attach(stub, ue_count=3))
        said = "client 127.0.0.1 has leased 2 UE ids to 1 fleets of this run, at most 4 to 8192 are allowed"
        assert (code, said in details) == (CODE.RESOURCE_EXHAUSTED, True)
        gnb.attach(stub)
        assert gnb.attach(stub, token=lease.token).first_ue == lease.first_ue


def test_a_stream_cancelled_while_its_chunk_is_decoded(start_gnb: Callable[..., Any]) -> None:
    """The chunk counts, and the gNB goes on."""
    gnb = start_gnb(fault="slow")  # batches take long enough to be caught in the middle
    with gnb.stub() as stub:
        ue, other = Ue(gnb, stub), Ue(gnb, stub)
        for slot in range(8):
            chunk = pb.FeedbackRequest(
                encoder_id=ue.encoder_id, first_ue=ue.lease.first_ue, ue_count=2, first_slot=slot, slot_count=1
            )
            chunk.payload = bytes(5)
            stream = stub.Feedback(iter([chunk]), metadata=(("fleet-token", ue.lease.token),))
            time.sleep(0.02)
            stream.cancel()
            while gnb.call("/v1/ues")[1]["ues"][0]["next_sequence"] <= slot:
                again = stub.Feedback(iter([chunk]), metadata=(("fleet-token", ue.lease.token),))
                assert len(list(again)) == 1
        assert len(other.send({"slot_count": 8})) == 1
    assert gnb.call("/v1/nmse")[1]["overall"]["reports"] == 32
