"""The monitoring in a live gNB: an alarm where the scenario or the link is wrong, none in the control, graded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from shared.checkpoints import CheckpointStore
from tests.integration.live_fleet import LiveFleet, until

StartGnb = Callable[..., Any]
"""As `conftest` has it."""

WRONG = "cost2100-outdoor-csinet:antennas=8,first_rows=8,slots=2"


@contextmanager
def fleet(gnb: Any, **settings: Any) -> Iterator[LiveFleet]:
    running = LiveFleet(gnb, scheme="crnet", ues=64, rate="max", window=1, **settings)
    try:
        yield running
    finally:
        running.stop()


def watched(gnb: Any, frames: int) -> Any:
    """What is watched, once so many frames were judged."""

    def found() -> Any:
        answer = gnb.call("/v1/alarms")[1]
        rows = answer["watched"]
        assert all("not watched" not in row["state"] for row in rows), rows
        return answer if rows and rows[0]["frames"] >= frames else None

    return until(found, 120)


@pytest.mark.parametrize("what", [{"scenario": WRONG}, {"air": "ber=0.1"}])
def test_alarm_where_something_is_wrong(start_gnb: StartGnb, what: dict[str, str]) -> None:
    gnb = start_gnb()
    with fleet(gnb, **what):
        answer = watched(gnb, 1000)
        until(lambda: any(event["kind"] == "alarm" for event in gnb.call("/v1/events")[1]["events"]))
        metrics = gnb.call("/metrics")[1]
    alarms = answer["alarms"]
    assert {alarm["model"] for alarm in alarms} == {"crnet"}
    assert all(abs(alarm["value"] - alarm["usual"]) > alarm["limit"] for alarm in alarms)
    assert all(alarm["emulator_truth"]["verdict"] in ("right", "false") for alarm in alarms)
    assert 'csiemu_alarms_on{indicator="' in metrics

    def noted(kind: str) -> list[dict[str, Any]]:
        return [event for event in gnb.call("/v1/events")[1]["events"] if event["kind"] == kind]

    assert {event["by"] for event in noted("alarm")} == {"monitoring"}
    until(lambda: all(alarm["cleared_at"] for alarm in gnb.call("/v1/alarms")[1]["alarms"]))
    until(lambda: len(noted("alarm cleared")) == len(noted("alarm")))
    texts = [alarm["text"] for alarm in gnb.call("/v1/alarms")[1]["alarms"]]
    assert sorted(event["text"] for event in noted("alarm")) == sorted(texts)
    gone = [
        text
        for event in noted("alarm cleared")
        if (text := event["text"]).endswith("; the fleet has gone or is silent")
    ]
    assert {text.partition(";")[0] for text in gone} <= set(texts)
    assert gone


def test_control(start_gnb: StartGnb) -> None:
    """No alarm of a healthy fleet; with target CSI, whose bits are counted apart."""
    gnb = start_gnb(false_alarms=1e-6)
    with fleet(gnb, target_csi=2):
        answer = watched(gnb, 1000)
        [row] = gnb.call("/v1/nmse")[1]["schemes"]
    assert answer["alarms"] == []
    [seen] = answer["watched"]
    assert seen["emulator_truth"]["windows"]["quiet"] >= 5
    assert seen["emulator_truth"]["windows"]["missed"] == 0
    assert (seen["target_bits"], seen["target_reports"] > 0) == (8 + 64 * 16, True)
    assert "target" in {each["indicator"] for each in seen["indicators"]}
    assert row["feedback_bits_most"] < seen["target_bits"] or row["feedback_bits"] == row["feedback_bits_most"]


def test_off_by_option(start_gnb: StartGnb) -> None:
    gnb = start_gnb(monitoring=False)
    gnb.run_ues(scheme="crnet", ues=4, slots=4)
    assert gnb.call("/v1/alarms")[1] == {"alarms": [], "watched": []}


def test_target_that_is_none_is_refused(start_gnb: StartGnb, small_store: CheckpointStore) -> None:
    """Of another length, or not with the last slot of a frame; nothing is stored, and the fleet goes on."""
    gnb, checkpoint = start_gnb(), small_store.load("hyperrnn")
    payload, encoder_id = bytes(2 * 8 * 20 // 8), bytes.fromhex(checkpoint.encoder_id)
    with gnb.stub() as stub:
        lease = gnb.attach(stub)
        for slots, target, problem in ((8, b"abc", "target: payload: 3 bytes"), (4, bytes(66), "last slot of a frame")):
            sent = payload[: len(payload) * slots // 8]
            chunk = pb.FeedbackRequest(encoder_id=encoder_id, ue_count=2, slot_count=slots, payload=sent, target=target)
            with pytest.raises(grpc.RpcError, match=problem):
                list(stub.Feedback(iter([chunk]), metadata=(("fleet-token", lease.token),)))
        whole = pb.FeedbackRequest(
            encoder_id=encoder_id, ue_count=2, slot_count=8, payload=payload, target=bytes(2 * (8 + 16 * 16) // 8)
        )
        [answer] = stub.Feedback(iter([whole]), metadata=(("fleet-token", lease.token),))
    assert answer.ack.slot_count == 8
    [seen] = gnb.call("/v1/alarms")[1]["watched"]
    assert (seen["state"], seen["target_reports"]) == ("waits for its reference", 2)
