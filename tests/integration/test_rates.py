"""Reports of lengths of their own over real sockets: rates that are asked for, changed and held while UEs send."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from csiemu.verify import misdecoded, recoded
from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from shared.checkpoints import CheckpointStore
from shared.errors import InvalidInput
from shared.link.rate import Rate
from tests.integration.live_fleet import LiveFleet, until
from ue_client.command import save_record

UES = 8

Gnb = Any
"""As `conftest` has it."""

StartGnb = Callable[..., Gnb]


def figures(gnb: Gnb, window: str = "") -> dict[str, Any]:
    found: dict[str, Any] = gnb.call(f"/v1/nmse{window}")[1]["schemes"][0]
    return found


def lengths(gnb: Gnb, ue: int = 0) -> list[int]:
    return [report["feedback_bits"] for report in gnb.call(f"/v1/ues/{ue}/reports?limit=1000")[1]["reports"]]


def test_chunks_of_mixed_lengths_are_counted_to_the_bit(
    start_gnb: StartGnb, small_store: CheckpointStore, tmp_path: Path
) -> None:
    gnb = start_gnb(record=tmp_path / "recorded")
    fleet = gnb.run_ues(scheme="gmtc", ues=UES, slots=20, record=tmp_path / "sent.npz")
    row, layout = figures(gnb), small_store.load("gmtc").scheme.layout
    save_record(fleet)
    with np.load(tmp_path / "sent.npz") as file:
        sent = layout.lengths(file["payload"][:, : layout.bits])
    assert row["reports"] == len(sent) == 20 * UES
    assert len(set(sent.tolist())) > 20
    assert row["feedback_bits"] == pytest.approx(sent.mean())
    assert row["feedback_bits_total"] == sent.sum()
    assert [row[f"feedback_bits_{name}"] for name in ("p5", "p95", "most")] == [
        *np.percentile(sent, (5, 95), method="inverted_cdf"),
        sent.max(),
    ]
    assert sum(part["reports"] for part in row["feedback_bits_histogram"]) == len(sent)
    assert sent.sum() / 8 < row["wire_bytes_total"] < sent.sum() / 8 + 20 * 60
    one = gnb.call("/v1/ues/3")[1]
    assert one["feedback_bits_total"] == sum(lengths(gnb, 3))
    gnb.stop()
    again = start_gnb()
    assert figures(again, "?whole_run=true")["feedback_bits_histogram"] == row["feedback_bits_histogram"]
    assert misdecoded(small_store, tmp_path / "sent.npz", sorted((tmp_path / "recorded").glob("*.npz"))) == (0, 160)


def test_no_report_is_longer_than_is_asked_for_at_the_attach(start_gnb: StartGnb) -> None:
    gnb = start_gnb()
    gnb.run_ues(scheme="gmtc", ues=UES, slots=20, bits=110)
    row = figures(gnb)
    assert row["feedback_bits_most"] <= 110
    assert row["feedback_bits"] > 90
    gnb.run_ues(scheme="gmtc", ues=1, slots=20, step=60)
    assert max(lengths(gnb, UES)) < row["feedback_bits_p5"]


def test_a_rate_that_changes_while_ues_send(start_gnb: StartGnb, tmp_path: Path, small_store: CheckpointStore) -> None:
    gnb = start_gnb(record=tmp_path / "recorded")
    live = LiveFleet(gnb, scheme="gmtc", ues=UES, rate=40.0, record=tmp_path / "sent.npz")
    until(lambda: lengths(gnb) if gnb.call("/v1/nmse")[1]["overall"]["reports"] else None)
    assert gnb.call("/v1/fleets/5/rate")[1]["asked"] == []
    status, answer = gnb.call("/v1/fleets/5/rate", {"bits": 100})
    assert status == 200
    assert answer["rate"] == {"bits": 100, "step": None, "target_nmse_db": None}
    assert answer["asked"] == [{"first_ue": 0, "ue_count": UES, "bits": 100, "step": 191}]
    until(lambda: figures(gnb, "?window=0.5")["feedback_bits_most"] in range(80, 101))
    assert gnb.call("/v1/fleets/0/rate", {"step": 155})[0] == 200
    until(lambda: (figures(gnb, "?window=0.5")["feedback_bits_p5"] or 0) > 100)
    assert gnb.call("/v1/fleets/0/rate", {})[1]["asked"] == []
    assert [event["text"] for event in gnb.call("/v1/events")[1]["events"] if event["kind"] == "rate"] == [
        "UEs 0..7: bits 100",
        "UEs 0..7: step 155",
        "UEs 0..7: its own",
    ]
    fleet = live.stop()
    assert fleet.counts.sent == fleet.counts.acked == gnb.call("/v1/nmse")[1]["overall"]["reports"]
    gnb.stop()
    save_record(fleet)
    wrong, compared = misdecoded(small_store, tmp_path / "sent.npz", sorted((tmp_path / "recorded").glob("*.npz")))
    assert wrong == 0
    assert compared > 0


def test_a_target_is_held_by_what_the_gnb_knows(start_gnb: StartGnb) -> None:
    """Within a decibel: the small mixture knows its errors less well than a trained one."""
    gnb = start_gnb()
    live = LiveFleet(gnb, scheme="gmtc", ues=UES, rate=20.0, target_nmse=-7.0)
    until(lambda: figures(gnb)["reports"] > 40 * UES if gnb.call("/v1/nmse")[1]["schemes"] else None)
    asked = gnb.call("/v1/fleets/0/rate")[1]
    assert asked["rate"]["target_nmse_db"] == -7.0
    assert len({run["step"] for run in asked["asked"]}) > 1
    loose = figures(gnb, "?window=1")
    assert loose["nmse_db"] == pytest.approx(-7, abs=1)
    gnb.call("/v1/fleets/0/rate", {"target_nmse_db": -10.0})
    reached = figures(gnb)["reports"]
    until(lambda: figures(gnb)["reports"] > reached + 40 * UES)
    tight = figures(gnb, "?window=1")
    assert tight["nmse_db"] == pytest.approx(-10, abs=1)
    assert tight["feedback_bits"] > loose["feedback_bits"] + 20
    live.stop()


@pytest.mark.parametrize("asked", [{"bits": 110}, {"target_nmse": -8.0}, {"bits": 110, "target_nmse": -12.0}, {}])
def test_what_must_have_been_sent_at_a_rate(
    start_gnb: StartGnb, small_store: CheckpointStore, tmp_path: Path, asked: dict[str, Any]
) -> None:
    gnb = start_gnb(record=tmp_path / "recorded")
    gnb.run_ues(scheme="gmtc", ues=UES, slots=40, **asked)
    gnb.stop()
    recorded = sorted((tmp_path / "recorded").glob("*.npz"))
    rate = Rate(asked.get("bits"), None, asked.get("target_nmse"))
    assert recoded(small_store, recorded, rate) == (0, 40 * UES)
    wrong, compared = recoded(small_store, recorded, Rate(bits=90))
    assert 0 < wrong <= compared == 40 * UES


def test_a_rate_outlives_the_gnb(start_gnb: StartGnb) -> None:
    gnb = start_gnb()
    with gnb.stub() as stub:
        attached = gnb.attach(stub, "gmtc", rate=pb.Rate(bits=120))
        assert [(run.first_ue, run.ue_count, run.bits, run.step) for run in attached.rates] == [(0, 2, 120, 191)]
    gnb.stop()
    again = start_gnb()
    with again.stub() as stub:
        returned = again.attach(stub, "gmtc", token=attached.token)
        assert [run.bits for run in returned.rates] == [120]
        assert not again.attach(stub, "crnet").rates


@pytest.mark.parametrize(
    ("scheme", "body", "code", "says"),
    [
        ("gmtc", {"bits": 79}, 409, "bits: 79; this gmtc takes 80 to 500 a report"),
        ("gmtc", {"bits": 501}, 409, "bits: 501; this gmtc takes 80 to 500 a report"),
        ("gmtc", {"step": 192}, 409, "step: 192; gmtc has steps 0 to 191"),
        ("gmtc", {"bits": 0}, 400, "bits: 0"),
        ("gmtc", {"target_nmse_db": 3}, 400, "target_nmse_db: 3"),
        ("gmtc", {"rate": 3}, 400, "rate"),
        ("crnet", {"bits": 100}, 409, "rate: all reports of this crnet have"),
    ],
)
def test_rates_that_are_refused(start_gnb: StartGnb, scheme: str, body: dict[str, Any], code: int, says: str) -> None:
    gnb = start_gnb()
    with gnb.stub() as stub:
        gnb.attach(stub, scheme)
        status, answer = gnb.call("/v1/fleets/0/rate", body)
        assert status == code
    assert says in answer["error"]


def test_rates_of_fleets_that_are_not_there(start_gnb: StartGnb) -> None:
    gnb = start_gnb()
    assert gnb.call("/v1/fleets/7/rate") == (404, {"error": "ue: 7 is unknown; /v1/ues lists them"})
    gnb.run_ues(scheme="gmtc", ues=2, slots=2)
    assert gnb.call("/v1/fleets/1/rate", {"bits": 100}) == (
        409,
        {"error": "ue: 1; its fleet has gone: it is finished"},
    )


def test_an_attach_with_a_rate_that_cannot_be_is_refused(start_gnb: StartGnb) -> None:
    gnb = start_gnb()
    with gnb.stub() as stub, pytest.raises(grpc.RpcError, match="bits: 5; this gmtc takes 80 to 500 a report"):
        gnb.attach(stub, "gmtc", rate=pb.Rate(bits=5))
    with pytest.raises(InvalidInput, match="rate: all reports of this crnet have"):
        gnb.run_ues(scheme="crnet", ues=1, slots=1, bits=100)
