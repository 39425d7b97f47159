"""Codebooks over gRPC and REST: precoders have SGCS, and no NMSE anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from shared.channels.scenario import Scenario
from shared.channels.streams import Split
from shared.checkpoints import CheckpointStore
from shared.conditions import RunConditions
from shared.link.evaluation import evaluate
from shared.metrics import OF_ERRORS

WORLD = "cost2100-indoor-csinet:slots=2"


@pytest.fixture
def gnb(start_gnb: Callable[..., Any], shipped: CheckpointStore, tmp_path: Path) -> Any:
    return start_gnb(checkpoints=shipped.root, record=tmp_path / "rec", record_whole_band=True)


@pytest.mark.parametrize(("scheme", "bits"), [("etype2", 277), ("type1", 32)])
def test_wire_equals_offline(gnb: Any, shipped: CheckpointStore, tmp_path: Path, scheme: str, bits: int) -> None:
    fleet = gnb.run_ues(scheme=scheme, ues=5, slots=8, seed=5, ue_base=0, scenario=WORLD)
    conditions = RunConditions(Scenario.parse(WORLD), 5)
    offline = evaluate(shipped.load(scheme).scheme, conditions, split=Split.EMULATE, ues=5, frames=4)
    row = gnb.call(f"/v1/nmse?scheme={scheme}")[1]["schemes"][0]
    ue = gnb.call("/v1/nmse?ue=0")[1]["schemes"][0]
    assert row["domain"] == "precoder per subband: a direction without scale, SGCS over subbands and no NMSE"
    assert row["feedback_bits"] == bits
    for figures in (row, *row["by_slot"], ue, offline):
        assert {name: figures[name] for name in OF_ERRORS} == dict.fromkeys(OF_ERRORS)
    for name in ("sgcs", "sgcs_se", "rho"):
        assert row[name] == pytest.approx(offline[name], abs=1e-4)
    assert (fleet.counts.acked, fleet.counts.nmse_sum) == (40, 0)  # acks have NaN
    reports = gnb.call("/v1/ues/0/reports")[1]["reports"]
    assert len(reports) == 8
    assert np.mean([report["sgcs"] for report in reports]) == pytest.approx(ue["sgcs"], abs=1e-6)
    assert {report[name] for report in reports for name in ("nmse", "nmse_db", "nmse_sf_db")} == {None}
    text = gnb.call("/metrics")[1]
    assert f'csiemu_sgcs{{encoder_id="{row["encoder_id"]}"' in text
    assert "csiemu_nmse_db{" not in text
    gnb.stop()
    with np.load(next((tmp_path / "rec").glob("*.npz")), allow_pickle=False) as file:
        assert file["estimate"].shape == file["truth"].shape == (40, 13, 32)
        similarity = np.abs((file["estimate"].conj() * file["truth"]).sum(-1)) ** 2
        assert similarity.mean() == pytest.approx(row["sgcs"], abs=1e-4)
        assert np.array_equal(file["estimate_whole_band"][:, [0, 19, 20, 256]], file["estimate"][:, [0, 0, 1, 12]])


def test_a_chunk_that_was_stored_is_acknowledged_again(gnb: Any) -> None:
    with gnb.stub() as stub:
        lease = gnb.attach(stub, "type1", ue_count=1)
        encoder = bytes.fromhex(CheckpointStore(gnb.checkpoints).load("type1").encoder_id)
        for _ in range(2):
            chunk = pb.FeedbackRequest(
                encoder_id=encoder, first_ue=lease.first_ue, ue_count=1, slot_count=1, payload=bytes(4)
            )
            ack = next(stub.Feedback(iter([chunk]), metadata=(("fleet-token", lease.token),))).ack
            assert len(ack.nmse) == 1
            assert math.isnan(ack.nmse[0])
    assert gnb.call("/v1/nmse")[1]["overall"]["reports"] == 1


def test_what_is_no_pmi_is_refused(gnb: Any) -> None:
    with gnb.stub() as stub:
        lease = gnb.attach(stub, "etype2", ue_count=1)
        encoder = bytes.fromhex(CheckpointStore(gnb.checkpoints).load("etype2").encoder_id)
        chunk = pb.FeedbackRequest(
            encoder_id=encoder, first_ue=lease.first_ue, ue_count=1, slot_count=1, payload=bytes(35)
        )
        with pytest.raises(grpc.RpcError) as refused:
            list(stub.Feedback(iter([chunk]), metadata=(("fleet-token", lease.token),)))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "payload i17: 0 coefficients; wanted 1 to 28" in refused.value.details()


def test_shape_of_an_estimate(gnb: Any) -> None:
    status, answer = gnb.call("/v2/models/etype2")
    assert status == 200
    assert answer["outputs"][0]["shape"] == [-1, 13, 32, 2]
