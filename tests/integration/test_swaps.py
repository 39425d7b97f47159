"""Swaps of both ends over real sockets: UEs fetch the new encoder and use it from a frame's beginning on."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from csiemu.verify import misdecoded
from gnb_server.swaps import CANNOT_SWITCH, Swaps
from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from shared.checkpoints import CheckpointStore
from shared.errors import Conflict
from tests.integration.live_fleet import LiveFleet, until
from ue_client.command import save_record
from ue_client.fleet import UeFleet

UES = 6

Gnb = Any
"""As `conftest` has it."""


def load(gnb: Gnb, version: int, model: str = "hyperrnn") -> None:
    answer = gnb.call(f"/v2/repository/models/{model}/load", {"parameters": {"version": version}})
    assert answer[0] == 200, answer


def encoder_ids(store: CheckpointStore) -> dict[int, str]:
    return {version: store.card("hyperrnn", version)["encoder_id"] for version in (1, 2, 3)}


class Killed(UeFleet):
    """Ends without a word."""

    async def _detach(self) -> None:
        pass


def switches_of(gnb: Gnb) -> set[str]:
    return {row["switch"] for row in gnb.call("/v1/ues")[1]["ues"]}


def versions_of(gnb: Gnb) -> list[int]:
    return [row["decoder_version"] for row in gnb.call("/v1/ues")[1]["ues"]]


def events(gnb: Gnb) -> list[str]:
    return [event["kind"] for event in gnb.call("/v1/events")[1]["events"]]


def test_ues_fetch_the_new_encoder_and_nothing_is_lost(
    start_gnb: Callable[..., Gnb], small_store: CheckpointStore, tmp_path: Path
) -> None:
    gnb = start_gnb(record=tmp_path / "recorded")
    live = LiveFleet(gnb, scheme="hyperrnn", ues=UES, record=tmp_path / "sent.npz", chunk_ues=4)
    until(lambda: gnb.call("/v1/nmse")[1]["overall"]["reports"] > 0)
    load(gnb, 3)
    until(lambda: set(versions_of(gnb)) == {3})
    until(lambda: "retired" in events(gnb))
    load(gnb, 2)  # another decoder for the encoder of version 1
    until(lambda: set(versions_of(gnb)) == {2})
    fleet = live.stop()
    gnb.stop()
    assert fleet.counts.sent == fleet.counts.acked
    save_record(fleet)
    with np.load(tmp_path / "sent.npz") as file:
        columns = dict(file)
    assert set(columns["decoder_version"].tolist()) == {1, 2, 3}
    encoders = encoder_ids(small_store)
    for version, encoder_id in zip(columns["decoder_version"].tolist(), columns["encoder_id"].tolist(), strict=True):
        assert encoders[version] == encoder_id
    frames = np.stack([columns["ue"], columns["sequence"] // fleet.slots], axis=1)
    for frame in np.unique(frames, axis=0):
        assert len(set(columns["encoder_id"][(frames == frame).all(axis=1)])) == 1
    recorded = sorted((tmp_path / "recorded").glob("*.npz"))
    wrong, compared = misdecoded(small_store, tmp_path / "sent.npz", recorded)
    assert wrong == 0
    assert compared > 0


# --- UEs that do not switch ---


@pytest.fixture
def own_store(tmp_path: Path, small_store: CheckpointStore) -> CheckpointStore:
    """A copy, to be damaged."""
    shutil.copytree(small_store.root / "hyperrnn", tmp_path / "own" / "hyperrnn")
    return CheckpointStore(tmp_path / "own")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("file", "the gNB refused: checkpoint hyperrnn/3: encoder.safetensors has not the sha256"),
        ("wire", "checkpoint hyperrnn/3: encoder.safetensors has sha256"),
        ("size", r"encoder: \d+ bytes; at most 100 are taken"),
    ],
)
def test_ues_that_cannot_have_the_encoder_stay_and_say_why(
    start_gnb: Callable[..., Gnb],
    small_store: CheckpointStore,
    own_store: CheckpointStore,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
    says: str,
) -> None:
    """It is damaged at the gNB, or on its way, or too large: nothing is lost, and the next load tries it again."""
    gnb = start_gnb(checkpoints=own_store.root)
    load(gnb, 3)
    file = own_store.root / "hyperrnn" / "3" / "encoder.safetensors"
    data = file.read_bytes()
    with monkeypatch.context() as broken:
        if damage == "file":
            file.write_bytes(data[:-1])
        elif damage == "wire":
            broken.setattr(Swaps, "encoder", lambda *_: (json.dumps(own_store.card("hyperrnn", 3)), data[:-1]))
        else:
            broken.setattr("ue_client.encoders.MOST_BYTES", 100)
        live = LiveFleet(gnb, ues=UES, checkpoints=small_store.root)
        reason = until(lambda: switches_of(gnb) - {"", "asked"}).pop()  # at first they are not told yet
        assert re.match(says, reason)
        assert until(lambda: versions_of(gnb) == [1] * UES)
        assert {row["assigned_version"] for row in gnb.call("/v1/ues")[1]["ues"]} == {3}
        [event] = [event for event in gnb.call("/v1/events")[1]["events"] if event["kind"] == "not switched"]
        assert (event["version"], event["by"]) == ("3", "UE")
        assert reason in event["text"]
    file.write_bytes(data)
    load(gnb, 3)
    until(lambda: versions_of(gnb) == [3] * UES)
    assert switches_of(gnb) == {""}
    counts = live.stop().counts
    assert counts.sent == counts.acked == gnb.call("/v1/nmse")[1]["overall"]["reports"]


def test_ues_that_do_not_switch_are_served_on_and_shown(gnb: Gnb) -> None:
    live = LiveFleet(gnb, ues=UES, switch=False)
    until(lambda: gnb.call("/v1/nmse")[1]["overall"]["reports"] > 0)
    load(gnb, 3)
    assert switches_of(gnb) == {CANNOT_SWITCH}
    before = gnb.call("/v1/nmse")[1]["overall"]["reports"]
    until(lambda: gnb.call("/v1/nmse")[1]["overall"]["reports"] > before + 16 * UES)
    counts = live.stop().counts
    assert versions_of(gnb) == [1] * UES
    assert counts.sent == counts.acked


def test_an_old_client_is_served_on_and_shown(gnb: Gnb, small_store: CheckpointStore) -> None:
    """It knows nothing of encoders that are told: it is told none, and its open stream goes on."""
    checkpoint = small_store.load("hyperrnn")
    payload = bytes(checkpoint.scheme.layout.chunk_bytes(2))
    go_on = threading.Event()

    def chunks(first_ue: int) -> Iterator[pb.FeedbackRequest]:
        for slot in range(16):
            if slot == 3:
                go_on.wait(30)
            yield pb.FeedbackRequest(
                encoder_id=bytes.fromhex(checkpoint.encoder_id),
                first_ue=first_ue,
                ue_count=2,
                first_slot=slot,
                slot_count=1,
                payload=payload,
            )

    with gnb.stub() as stub:
        lease = gnb.attach(stub)
        assert (list(lease.assigned), lease.must_switch) == ([], False)
        answers = stub.Feedback(chunks(lease.first_ue), metadata=(("fleet-token", lease.token),))
        found = [next(answers) for _ in range(3)]
        load(gnb, 3)
        assert [row["switch"] for row in gnb.call("/v1/ues")[1]["ues"]] == [CANNOT_SWITCH] * 2
        go_on.set()
        found += answers
    assert [answer.WhichOneof("message") for answer in found] == ["ack"] * 16
    assert {version for answer in found for version in answer.ack.decoder_version} == {1}
    assert "switched" not in events(gnb)


# --- UEs that come later ---


def test_ues_whose_encoder_was_unloaded_begin_with_the_new_one(gnb: Gnb, tmp_path: Path) -> None:
    load(gnb, 1)
    assert gnb.call("/v2/repository/models/hyperrnn/unload", {})[0] == 200
    load(gnb, 3)
    with pytest.raises(Conflict, match=r"the gNB refused: model: hyperrnn/1 decodes for encoder .*, but is unloaded"):
        gnb.run_ues(ues=2, slots=8, switch=False)
    fleet = gnb.run_ues(ues=2, slots=20)
    assert fleet.counts.acked == 40
    [row] = gnb.call("/v1/nmse?by=version")[1]["schemes"]
    assert (row["version"], row["reports"], row["feedback_bits"]) == (3, 40, 12)


def test_ues_that_cannot_have_the_only_encoder_end_with_the_reason(gnb: Gnb, monkeypatch: pytest.MonkeyPatch) -> None:
    load(gnb, 1)
    assert gnb.call("/v2/repository/models/hyperrnn/unload", {})[0] == 200
    load(gnb, 3)
    monkeypatch.setattr("ue_client.encoders.MOST_BYTES", 100)
    with pytest.raises(Conflict, match=r"encoder: nothing decodes for \w{16} and the UEs could not switch"):
        gnb.run_ues(ues=2, slots=8)


@pytest.mark.parametrize("then", [3, 2])
def test_another_process_finishes_a_frame_of_the_new_encoder(
    gnb: Gnb, small_store: CheckpointStore, tmp_path: Path, then: int
) -> None:
    """It has the old encoder alone, and fetches what its UEs' open frame was begun with, whatever is loaded then."""
    load(gnb, 3)
    kept = tmp_path / "token"
    before = LiveFleet(gnb, Killed, ues=2, slots=11, rate="max", token_file=kept).done.result(60)
    assert before.counts.acked == 22
    load(gnb, then)
    fleet = gnb.run_ues(ues=2, slots=24, token_file=kept, record=tmp_path / "sent.npz")
    assert fleet.counts.acked == fleet.counts.sent == 2 * 13
    columns = {name: np.concatenate(parts) for name, parts in fleet.recorded.items() if name != "payload"}
    encoders = encoder_ids(small_store)
    for sequence, version, encoder_id in zip(
        columns["sequence"].tolist(), columns["decoder_version"].tolist(), columns["encoder_id"].tolist(), strict=True
    ):
        assert (version, encoder_id) == ((3, encoders[3]) if sequence < 16 else (then, encoders[then]))
    rows = gnb.call("/v1/nmse?by=version")[1]["schemes"]
    assert sum(row["reports"] for row in rows) == 48
    assert sum(row["frames"] for row in rows) == 6


# --- roll-outs ---


def start_canary(gnb: Gnb, **asked: Any) -> str:
    body = {"model": "hyperrnn", "version": 3, "share": 0.5, "guard": None, **asked}
    status, answer = gnb.call("/v1/rollouts", body)
    assert status == 201, answer
    return f"/v1/rollouts/{answer['number']}"


def rows_by_version(gnb: Gnb) -> dict[int, Any]:
    return {row["version"]: row for row in gnb.call("/v1/nmse?by=version")[1]["schemes"]}


@pytest.mark.parametrize("end", ["promote", "abort"])
def test_a_canary_is_ended_by_rest(gnb: Gnb, end: str) -> None:
    """Half of the UEs are on the new version, and then all or none."""
    load(gnb, 1)
    live = LiveFleet(gnb, ues=UES, chunk_ues=4)
    path = start_canary(gnb)
    until(lambda: versions_of(gnb) == [3] * 3 + [1] * 3)
    found = until(lambda: (answer := gnb.call(path)[1])["figures"]["frames_new"] >= 6 and answer)
    assert found["ues"] == {"new": 3, "assigned": 3, "old": 3, "refused": 0}
    assert found["figures"]["difference_db"] is not None
    assert (found["state"], found["by"], found["old_version"]) == ("running", "127.0.0.1", 1)
    assert gnb.call("/v2/repository/models/hyperrnn/load", {"parameters": {"version": 2}})[0] == 409
    status, ended = gnb.call(f"{path}/{end}", method="POST")
    assert (status, ended["state"]) == (200, {"promote": "promoted", "abort": "aborted"}[end])
    assert gnb.call(f"{path}/{end}", method="POST")[0] == 409
    until(lambda: versions_of(gnb) == [3 if end == "promote" else 1] * UES)
    until(lambda: "retired" in events(gnb))
    counts = live.stop().counts
    by_version = rows_by_version(gnb)
    assert counts.sent == counts.acked == sum(row["reports"] for row in by_version.values())
    assert {version: row["feedback_bits"] for version, row in by_version.items()} == {1: 20, 3: 12}
    assert sum(row["ues"] for row in by_version.values()) == UES
    kinds = [kind for kind in events(gnb) if kind not in ("switched", "retired")]
    assert kinds == ["loaded", "canary", ended["state"]]
    assert gnb.call("/v1/rollouts")[1]["rollouts"][0]["state"] == ended["state"]


def test_a_shadow_by_rest_is_ended_by_its_guard(gnb: Gnb) -> None:
    """One that decides on any difference; the figures of the decision are kept."""
    load(gnb, 1)
    live = LiveFleet(gnb, ues=UES, rate="max")
    guard = {"worse_db": 0, "better_db": 0, "standard_errors": 0, "frames": 50}
    path = start_canary(gnb, version=2, mode="shadow", guard=guard)
    ended = until(lambda: (answer := gnb.call(path)[1])["state"] != "running" and answer)
    figures = ended["figures"]
    assert ended["state"] == ("aborted" if figures["difference_db"] > 0 else "promoted")
    assert ended["reason"].startswith("guard: ")
    assert min(figures["frames_new"], figures["frames_old"]) >= 50
    counts = live.stop().counts
    assert counts.sent == counts.acked
    assert gnb.call(path)[1] | {"ues": None} == ended | {"ues": None}


def test_a_gnb_that_ends_in_a_canary_goes_on_with_it(start_gnb: Callable[..., Gnb]) -> None:
    """With the same store and ports: UEs come back, nothing is lost, figures go on."""
    gnb = start_gnb()
    load(gnb, 1)
    live = LiveFleet(gnb, ues=UES, chunk_ues=4)
    path = start_canary(gnb)
    until(lambda: gnb.call(path)[1]["figures"]["frames_new"] >= 6)
    gnb.stop()
    ports = {name: int(address.rpartition(":")[2]) for name, address in (("grpc", gnb.grpc), ("rest", gnb.rest))}
    gnb = start_gnb(grpc_port=ports["grpc"], rest_port=ports["rest"])
    found = gnb.call(path)[1]
    assert (found["state"], found["ues"]["assigned"]) == ("running", 3)
    assert found["figures"]["frames_new"] >= 3
    until(lambda: gnb.call(path)[1]["figures"]["frames_new"] >= found["figures"]["frames_new"] + 6)
    assert versions_of(gnb) == [3] * 3 + [1] * 3
    assert gnb.call(f"{path}/promote", method="POST")[0] == 200
    until(lambda: versions_of(gnb) == [3] * UES)
    counts = live.stop().counts
    assert counts.connects > 1
    rows = rows_by_version(gnb).values()
    assert counts.sent == counts.acked == sum(row["reports"] for row in rows)


# --- what may be fetched ---


def test_what_may_be_fetched(gnb: Gnb, small_store: CheckpointStore) -> None:
    """The encoders of a fleet's own model, by who has its token."""
    encoder_id = bytes.fromhex(encoder_ids(small_store)[3])
    with gnb.stub() as stub:

        def refused(token: str, wanted: bytes) -> tuple[str, str]:
            with pytest.raises(grpc.RpcError) as found:
                list(stub.FetchEncoder(pb.FetchEncoderRequest(token=token, encoder_id=wanted)))
            return found.value.code().name, found.value.details()

        token = gnb.attach(stub).token
        header, *pieces = stub.FetchEncoder(pb.FetchEncoderRequest(token=token, encoder_id=encoder_id))
        assert json.loads(header.header.card) == small_store.card("hyperrnn", 3)
        data = b"".join(piece.data for piece in pieces)
        assert header.header.size == len(data)
        assert data == small_store.part("hyperrnn", 3, "encoder")
        assert refused("", encoder_id) == (
            "NOT_FOUND",
            "fleet-token: '' is unknown to this run; attach without a token",
        )
        other = bytes.fromhex(small_store.card("rnn", 1)["encoder_id"])
        for wanted in (other, b"", encoder_id[:4], bytes(1000)):
            status, says = refused(token, wanted)
            assert (status, says.partition(":")[0]) == ("NOT_FOUND", "encoder_id")
            assert len(says) < 500
        stub.Detach(pb.DetachRequest(token=token))
        assert refused(token, encoder_id)[0] == "FAILED_PRECONDITION"
