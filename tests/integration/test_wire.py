"""What the gNB reports over the wire is what offline evaluation of the same checkpoint, seed and slots gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from csiemu.verify import misdecoded
from shared.channels.scenario import Link
from shared.channels.streams import Samples, Split
from shared.channels.transforms import to_spatial_frequency
from shared.channels.wideband import Wideband
from shared.checkpoints import CheckpointStore
from shared.conditions import RunConditions
from shared.link.air import Air
from shared.link.evaluation import evaluate
from shared.link.precision import CHANGE
from ue_client.command import save_record


@pytest.mark.parametrize("scheme", ["hyperrnn", "rnn", "dldnn", "genie_lmmse", "uplink_only", "crnet", "dualnet_mp"])
@pytest.mark.parametrize("rate", ["max", 2000.0])
def test_wire_equals_offline(gnb: Any, small_store: CheckpointStore, scheme: str, rate: Any) -> None:
    fleet = gnb.run_ues(scheme=scheme, ues=7, slots=40, seed=5, ue_base=0, rate=rate, chunk_ues=3)
    checkpoint = small_store.load(scheme)
    offline = evaluate(
        checkpoint.scheme,
        RunConditions(checkpoint.scenario, 5),
        split=Split.EMULATE,
        ues=7,
        frames=40 // checkpoint.scenario.slots,
    )
    row = gnb.call(f"/v1/nmse?scheme={scheme}")[1]["schemes"][0]
    for figure in ("nmse_db", "ratio_of_sums_db", "mean_of_db", "sgcs", "nmse_se_db", "rho", "nmse_sf_db"):
        assert row[figure] == pytest.approx(offline[figure], abs=0.01 if "db" in figure else 1e-4)
    for slot, ours in zip(row["by_slot"], offline["by_slot"], strict=True):
        assert slot["nmse_db"] == pytest.approx(ours["nmse_db"], abs=0.01)
    assert row["reports"] == fleet.counts.sent == fleet.counts.acked == 280
    assert fleet.counts.nmse_sum / 280 == pytest.approx(10 ** (row["nmse_db"] / 10), rel=1e-4)
    assert row["feedback_bits"] == checkpoint.scheme.layout.bits
    assert row["wire_bytes"] > row["feedback_bits"] / 8


def test_delay_is_named_and_scored(gnb: Any, small_store: CheckpointStore) -> None:
    gnb.run_ues(scheme="hyperrnn", ues=4, slots=16, seed=5, ue_base=0, delay_slots=3)
    checkpoint = small_store.load("hyperrnn")
    offline = evaluate(
        checkpoint.scheme, RunConditions(checkpoint.scenario, 5, Air(delay=3)), split=Split.EMULATE, ues=4, frames=2
    )
    row = gnb.call("/v1/nmse")[1]["schemes"][0]
    assert row["delay_slots"] == 3
    assert row["nmse_db"] == pytest.approx(offline["nmse_db"], abs=0.01)


def test_other_scenario_of_the_same_size(gnb: Any) -> None:
    gnb.run_ues(scheme="rnn", ues=2, slots=8, scenario="multipath-p8:antennas=16")
    gnb.run_ues(scheme="rnn", ues=2, slots=8)
    rows = gnb.call("/v1/nmse?scheme=rnn")[1]["schemes"]
    assert {row["scenario"] for row in rows} == {"multipath-p8:antennas=16", "multipath-p2:antennas=16"}


def test_swap_at_a_frame_boundary(gnb: Any, small_store: CheckpointStore) -> None:
    """After a load, frames that begin are decoded with the new version; both versions give their offline figures."""
    gnb.run_ues(scheme="hyperrnn", ues=3, slots=16, seed=5, ue_base=0)
    status, answer = gnb.call("/v2/repository/models/hyperrnn/load", {"parameters": {"version": 2}})
    assert (status, answer["version"]) == (200, "2")
    gnb.run_ues(scheme="hyperrnn", ues=3, slots=16, seed=5, ue_base=100)
    assert {row["decoder_version"] for row in gnb.call("/v1/ues/1/reports")[1]["reports"]} == {1}
    assert {row["decoder_version"] for row in gnb.call("/v1/ues/101/reports")[1]["reports"]} == {2}
    assert gnb.call("/v1/nmse")[1]["schemes"][0]["decoder_versions"] == {"1": 48, "2": 48}


def test_two_encoders_of_a_model_at_once(
    start_gnb: Callable[..., Any], small_store: CheckpointStore, tmp_path: Path
) -> None:
    """UEs of either that do not switch are served side by side, whatever is loaded meanwhile; both give their offline
    figures.
    """
    gnb = start_gnb(record=tmp_path / "recorded")
    with ThreadPoolExecutor(2) as pool:
        fleets = {
            version: pool.submit(
                gnb.run_ues,
                scheme="hyperrnn",
                version=version,
                ues=5,
                ue_base=100 * version,
                slots=800,
                seed=5,
                window=16,
                switch=False,
                record=tmp_path / f"sent-{version}.npz",
            )
            for version in (1, 3)
        }
        while not all(fleet.done() for fleet in fleets.values()):
            for version in (3, 1):
                assert gnb.call("/v2/repository/models/hyperrnn/load", {"parameters": {"version": version}})[0] == 200
        for fleet in fleets.values():
            save_record(fleet.result())
    rows = {row["encoder_id"]: row for row in gnb.call("/v1/nmse")[1]["schemes"]}
    gnb.stop()
    for version in fleets:
        row = rows[small_store.load("hyperrnn", version).encoder_id]
        assert (row["reports"], row["decoder_versions"]) == (4000, {str(version): 4000})
        recorded = sorted((tmp_path / "recorded").glob(f"hyperrnn-{100 * version}-*.npz"))
        assert misdecoded(small_store, tmp_path / f"sent-{version}.npz", recorded) == (0, 4000)


def test_recorded_payloads_decode_again(
    start_gnb: Callable[..., Any], small_store: CheckpointStore, tmp_path: Path
) -> None:
    for fault, expected in (("none", 0), ("misdecode", 1)):
        folder = tmp_path / fault
        gnb = start_gnb(record=folder, fault=fault, store=f"sqlite:///{tmp_path / fault}.sqlite")
        fleet = gnb.run_ues(scheme="hyperrnn", ues=4, slots=512, record=tmp_path / f"{fault}.npz")
        save_record(fleet)
        gnb.stop()
        wrong, compared = misdecoded(small_store, tmp_path / f"{fault}.npz", sorted(folder.glob("*.npz")))
        assert compared == 2048
        assert (wrong > 0) == bool(expected)


def test_what_bfloat16_decoded_decodes_again(
    start_gnb: Callable[..., Any], small_store: CheckpointStore, tmp_path: Path
) -> None:
    root = shutil.copytree(small_store.root, tmp_path / "checkpoints")
    store = CheckpointStore(root)
    store.annotate(store.load("hyperrnn", 1), {CHANGE: 0.0})
    estimates = {}
    for precision in ("fp32", "bf16"):
        folder, record = tmp_path / precision, tmp_path / f"{precision}-sent.npz"
        gnb = start_gnb(checkpoints=root, record=folder, precision=precision, store=f"sqlite:///{folder}.sqlite")
        save_record(gnb.run_ues(scheme="hyperrnn", ues=4, slots=64, record=record))
        assert gnb.call("/v2/models/hyperrnn")[1]["parameters"]["precision"] == precision
        gnb.stop()
        recorded = sorted(folder.glob("*.npz"))
        assert misdecoded(store, record, recorded) == (0, 256)
        with np.load(recorded[0]) as columns:
            estimates[precision] = columns["estimate"]
    assert 1e-5 < np.linalg.norm(estimates["bf16"] - estimates["fp32"]) / np.linalg.norm(estimates["fp32"]) < 2e-2


def test_reports_of_no_bits_decode_again(
    start_gnb: Callable[..., Any], small_store: CheckpointStore, tmp_path: Path
) -> None:
    gnb = start_gnb(record=tmp_path / "rec")
    save_record(gnb.run_ues(scheme="uplink_only", ues=2, slots=16, record=tmp_path / "sent.npz"))
    gnb.stop()
    assert misdecoded(small_store, tmp_path / "sent.npz", sorted((tmp_path / "rec").glob("*.npz"))) == (0, 32)


def test_swaps_while_frames_are_in_flight(
    start_gnb: Callable[..., Any], small_store: CheckpointStore, tmp_path: Path
) -> None:
    """Every ack names the version that decoded its chunk, with many chunks queued while versions change."""
    gnb = start_gnb(record=tmp_path / "recorded")
    options = {"scheme": "hyperrnn", "ues": 5, "slots": 1600, "window": 32, "record": tmp_path / "sent.npz"}
    with ThreadPoolExecutor(1) as pool:
        living = pool.submit(gnb.run_ues, **options)
        while not living.done():
            for version in (2, 1):
                gnb.call("/v2/repository/models/hyperrnn/load", {"parameters": {"version": version}})
        save_record(living.result())
    versions = gnb.call("/v1/nmse")[1]["schemes"][0]["decoder_versions"]
    gnb.stop()
    assert set(versions) == {"1", "2"}
    recorded = sorted((tmp_path / "recorded").glob("*.npz"))
    assert misdecoded(small_store, tmp_path / "sent.npz", recorded) == (0, 8000)


def test_record_has_payload_estimate_and_truth(start_gnb: Callable[..., Any], tmp_path: Path) -> None:
    gnb = start_gnb(record=tmp_path / "rec")
    gnb.run_ues(scheme="rnn", ues=16, slots=64)
    stored = [row["nmse"] for row in gnb.call("/v1/ues/0/reports")[1]["reports"]]
    gnb.stop()
    with np.load(next((tmp_path / "rec").glob("*.npz")), allow_pickle=False) as file:
        error = np.abs(file["estimate"] - file["truth"]) ** 2
        assert file["payload"].shape == (len(file["ue"]), 20)
        ratios = error.sum(1) / (np.abs(file["truth"]) ** 2).sum(1)
        mine = file["ue"] == 0
        order = np.argsort(file["sequence"][mine])
    np.testing.assert_allclose(stored, ratios[mine][order], rtol=1e-4)


@pytest.mark.parametrize("scheme", ["crnet", "dualnet_mp", "rnn"])
def test_estimates_of_the_whole_band(start_gnb: Callable[..., Any], tmp_path: Path, scheme: str) -> None:
    """Zero filling and inverse DFT at the gNB: against the true channel at every subcarrier they have `nmse_sf_db`."""
    gnb = start_gnb(record=tmp_path / "rec", record_whole_band=True)
    fleet = gnb.run_ues(scheme=scheme, ues=4, slots=8, seed=2)
    reported = gnb.call("/v1/nmse")[1]["schemes"][0]["nmse_sf_db"]
    gnb.stop()
    world, ratios = fleet.conditions.scenario, []
    with np.load(next((tmp_path / "rec").glob("*.npz")), allow_pickle=False) as file:
        for ue, sequence, estimate in zip(file["ue"], file["sequence"], file["estimate_whole_band"], strict=True):
            samples = Samples(2, Split.EMULATE, torch.tensor([ue]), torch.tensor([sequence // world.slots]))
            slot = torch.tensor([sequence % world.slots])
            if isinstance(world, Wideband):
                truth = to_spatial_frequency(world.angular_delay(samples, Link.DOWNLINK, slot, full=True))[0, 0].numpy()
            else:
                truth = world.spatial(samples, Link.DOWNLINK, slot)[0].numpy()
            assert estimate.shape == truth.shape
            ratios.append((np.abs(estimate - truth) ** 2).sum() / (np.abs(truth) ** 2).sum())
    assert len(ratios) == 32
    assert 10 * np.log10(np.mean(ratios)) == pytest.approx(reported, abs=0.01)
