"""Fleets on channels from data files: UE and gNB must have the same file, with all that the scheme needs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import h5py
import numpy as np
import pytest
import scipy.io
import torch

from csiemu.training.recipes import Design, design
from csiemu.training.run import train
from csiemu.training.trainer import Recipe
from shared.channels.files.layouts import LAYOUTS, Channels, Shape
from shared.channels.scenario import Link, Scenario
from shared.channels.streams import Samples, Split
from shared.channels.wideband import Wideband
from shared.checkpoints import CheckpointStore
from shared.conditions import RunConditions
from shared.errors import Conflict, NotFound
from shared.link.evaluation import evaluate

CODE = grpc.StatusCode
SIZES = "antennas=4,slots=2,subcarriers=9,first_rows=3,last_rows=1"
WORLD = f"file:{SIZES},file=x.npz"


def write(path: Path, *, seed: int = 0, slots: int = 2, uplink: bool = True, antennas: int = 4) -> None:
    parts = np.random.default_rng(seed).normal(size=(4, 40, slots, 4, antennas))
    images = {"downlink": parts[0] + 1j * parts[1], "uplink": parts[2] + 1j * parts[3]}
    if not uplink:
        del images["uplink"]
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, **{key: image.astype(np.complex64) for key, image in images.items()})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders: data with x.npz, and checkpoints with hyperrnn/1 and dldnn/1 for it, not trained at all."""
    folder = tmp_path_factory.mktemp("trained")
    write(folder / "data" / "x.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CSIEMU_DATA", str(folder / "data"))
        for name in ("hyperrnn", "dldnn"):
            train(
                name,
                1,
                Design(name, WORLD, design(name).config),
                Recipe(steps=0),
                store=CheckpointStore(folder / "checkpoints"),
                state=folder / "state",
                evaluation_ues=4,
            )
    return folder / "data", folder / "checkpoints"


@pytest.fixture
def data(trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of data files of gNB and UEs."""
    monkeypatch.setenv("CSIEMU_DATA", str(trained[0]))
    return trained[0]


@pytest.fixture
def gnb(start_gnb: Callable[..., Any], trained: tuple[Path, Path], data: Path) -> Any:
    return start_gnb(checkpoints=trained[1])


def refused(gnb: Any, design: str, scenario: str, **fields: Any) -> tuple[grpc.StatusCode, str]:
    """How an attach is refused."""
    with gnb.stub() as stub, pytest.raises(grpc.RpcError) as caught:
        gnb.attach(stub, design, scenario=scenario, **fields)
    return caught.value.code(), caught.value.details()


def test_a_fleet_with_the_same_file(gnb: Any) -> None:
    for name in ("hyperrnn", "dldnn"):
        assert gnb.run_ues(scheme=name, ues=3, slots=8).counts.acked == 24
    card = CheckpointStore(gnb.checkpoints).card("dldnn", 1)
    assert card["scenario"] == str(Scenario.parse(WORLD).pinned()) != WORLD
    rows = gnb.call("/v1/nmse")[1]
    assert rows["overall"]["reports"] == 48
    assert all(-3 < row["nmse_db"] < 30 for row in rows["schemes"])  # an untrained guess, and no NaN


def test_a_fleet_with_another_file(gnb: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Scenario.parse(WORLD).pinned()
    write(tmp_path / "other" / "x.npz", seed=1)
    monkeypatch.setenv("CSIEMU_DATA", str(tmp_path / "other"))
    with pytest.raises(Conflict, match="sha256"):  # the checkpoint's own scenario: the fleet does not even start
        gnb.run_ues(scheme="dldnn", ues=1, slots=2)
    theirs = Scenario.parse(WORLD).pinned()
    monkeypatch.setenv("CSIEMU_DATA", str(data))
    code, details = refused(gnb, "dldnn", str(theirs))
    assert code == CODE.FAILED_PRECONDITION
    assert details == f"scenario sha256: {theirs.sha256}; the files here have {mine.sha256}"  # type: ignore[attr-defined]  # a DataFile
    with gnb.stub() as stub:
        lease = gnb.attach(stub, "dldnn", scenario=str(mine))
        code, _ = refused(gnb, "dldnn", str(theirs), token=lease.token)
        assert code == CODE.FAILED_PRECONDITION
    assert gnb.run_ues(scheme="dldnn", ues=2, slots=4).counts.acked == 8


def test_a_process_of_ues_with_another_file(gnb: Any, tmp_path: Path) -> None:
    """It attaches with the hash of its own file, whatever the file is called."""
    write(tmp_path / "other" / "x.npz", seed=1)
    options = ["--gnb", gnb.grpc, "--checkpoints", str(gnb.checkpoints), "--scheme", "dldnn", "--slots", "2"]
    finished = subprocess.run(
        [sys.executable, "-m", "ue_client", *options, "--scenario", WORLD],
        env={**os.environ, "CSIEMU_DATA": str(tmp_path / "other")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.returncode == 2
    assert "scenario sha256: " in finished.stderr.splitlines()[-1]


def test_a_file_that_lacks_what_is_needed(gnb: Any, data: Path) -> None:
    write(data / "down.npz", uplink=False)
    write(data / "one.npz", slots=1)
    write(data / "wide.npz", antennas=8)
    (data / "text.mat").write_text("text\n" * 200)
    for name, scenario, code, says in (
        ("hyperrnn", f"file:{SIZES},file=down.npz", CODE.INVALID_ARGUMENT, "no uplink; this hyperrnn reads it"),
        (
            "dldnn",
            f"file:{SIZES},file=one.npz",
            CODE.INVALID_ARGUMENT,
            "slots, delay_slots: 2 + 0; the file has 1 slots a sample",
        ),
        ("dldnn", f"file:{SIZES},file=wide.npz", CODE.INVALID_ARGUMENT, "wide.npz: downlink: shape [40, 2, 4, 8]"),
        ("dldnn", f"file:{SIZES},file=text.mat", CODE.INVALID_ARGUMENT, "text.mat: not a readable .mat or .npz"),
        ("dldnn", f"file:{SIZES},file=absent.mat", CODE.NOT_FOUND, "'absent.mat' is not in"),
        ("dldnn", f"file:{SIZES},file=../x.npz", CODE.INVALID_ARGUMENT, "'../x.npz' is not the name"),
        ("dldnn", f"file:{SIZES},file={'x' * 300}.npz", CODE.INVALID_ARGUMENT, "up to 255 bytes"),
        ("dldnn", f"file:{SIZES}", CODE.INVALID_ARGUMENT, "scenario file: empty"),
        ("dldnn", f"{WORLD},sha256=0123456789abcdef", CODE.FAILED_PRECONDITION, "sha256: 0123456789abcdef; the files"),
    ):
        found, details = refused(gnb, name, scenario)
        assert (found, says in details) == (code, True), details
    with gnb.stub() as stub:
        assert gnb.attach(stub, "dldnn", scenario=f"file:{SIZES},file=down.npz").first_ue == 0
    assert gnb.run_ues(scheme="dldnn", ues=2, slots=4, scenario=f"file:{SIZES},file=down.npz").counts.acked == 8


def test_a_gnb_whose_file_is_not_that_of_the_training(gnb: Any, tmp_path: Path, monkeypatch: Any) -> None:
    mine = str(Scenario.parse(WORLD).pinned())
    monkeypatch.setenv("CSIEMU_DATA", str(tmp_path / "other"))
    code, details = refused(gnb, "dldnn", mine)
    assert (code, "'x.npz' is not in" in details) == (CODE.NOT_FOUND, True)
    write(tmp_path / "other" / "x.npz", seed=1)
    assert gnb.call("/v2/repository/models/dldnn/load", {})[0] == 200  # its decoder takes nothing from the file
    assert gnb.call("/v2/repository/models/hyperrnn/load", {})[0] == 409
    code, details = refused(gnb, "dldnn", mine)
    assert (code, "sha256" in details) == (CODE.FAILED_PRECONDITION, True)
    with pytest.raises(NotFound):
        gnb.run_ues(scheme="dldnn", ues=1, slots=2, scenario=f"file:{SIZES},file=absent.npz")


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Folder of data with the public pair of files, of checkpoints with crnet/1 for it, not trained; the scenario."""
    folder = tmp_path_factory.mktemp("public")
    world = Scenario.parse("cost2100-indoor-csinet")
    assert isinstance(world, Wideband)
    ue = torch.arange(40)
    samples = Samples(1, Split.TEST, ue, torch.zeros_like(ue))
    full = world.angular_delay(samples, Link.DOWNLINK, torch.arange(1), full=True)
    frequency = torch.fft.fft(full[:, 0], dim=1).transpose(1, 2).numpy()
    arrays = LAYOUTS["csinet"].encode(Channels(full[:, :, :32].numpy(), None, frequency), Shape(32, 0, 32))
    (folder / "data").mkdir()
    scipy.io.savemat(folder / "data" / "DATA_Htestin.mat", {"HT": arrays["HT"]})
    scipy.io.savemat(folder / "data" / "DATA_HtestFin_all.mat", {"HF_all": arrays["HF_all"]})
    scenario = "file:file=DATA_Htestin.mat"  # the other file is found
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CSIEMU_DATA", str(folder / "data"))
        train(
            "crnet",
            1,
            Design("crnet", scenario, design("crnet").config),
            Recipe(steps=0),
            store=CheckpointStore(folder / "checkpoints"),
            state=folder / "state",
            evaluation_ues=4,
        )
    return folder / "data", folder / "checkpoints", scenario


def test_the_public_pair_of_files_is_one_scenario(
    public: tuple[Path, Path, str], start_gnb: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Card, gNB and the formulas of the public evaluators agree on what HF_all says."""
    data, checkpoints, scenario = public
    monkeypatch.setenv("CSIEMU_DATA", str(data))
    gnb = start_gnb(checkpoints=checkpoints)
    assert gnb.run_ues(scheme="crnet", ues=4, slots=1).counts.acked == 4
    live = gnb.call("/v1/nmse")[1]["schemes"][0]
    loaded = CheckpointStore(checkpoints).load("crnet", 1)
    measured = evaluate(loaded.scheme, RunConditions(Scenario.parse(scenario)), ues=4)
    card = CheckpointStore(checkpoints).card("crnet", 1)
    assert card["scenario"] == measured["settings"]["scenario"] == str(Scenario.parse(scenario).pinned())
    assert "DATA_HtestFin_all.mat" in card["scenario"]
    for figures in (live, card["evaluation"], measured):
        for name in ("rho", "nmse_sf_db", "truncation_floor_db"):
            assert figures[name] == pytest.approx(measured[name], rel=1e-4), name
    assert -20 < measured["truncation_floor_db"] < -9
    alone = evaluate(loaded.scheme, RunConditions(Scenario.parse("file:file=DATA_Htestin.mat,frequency=none")), ues=4)
    assert alone["nmse_db"] == measured["nmse_db"]
    assert alone["nmse_sf_db"] == pytest.approx(
        alone["nmse_db"], abs=1e-4
    )  # without it, nothing is known to be missing


def test_a_fleet_without_the_file_of_the_frequencies(
    public: tuple[Path, Path, str], start_gnb: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, checkpoints, scenario = public
    gnb = start_gnb(checkpoints=checkpoints)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "DATA_Htestin.mat").write_bytes((data / "DATA_Htestin.mat").read_bytes())
    monkeypatch.setenv("CSIEMU_DATA", str(tmp_path / "half"))
    code, details = refused(gnb, "crnet", f"{scenario},frequency=DATA_HtestFin_all.mat")
    assert (code, "'DATA_HtestFin_all.mat' is not in" in details) == (CODE.NOT_FOUND, True)
    assert gnb.run_ues(scheme="crnet", ues=4, slots=1, scenario="file:file=DATA_Htestin.mat").counts.acked == 4


def test_names_and_axes_cross_the_wire(gnb: Any, data: Path) -> None:
    parts = np.random.default_rng(0).normal(size=(2, 4, 4, 4, 4))
    images = (parts[0] + 1j * parts[1]).astype(np.complex64)  # as many samples as slots, rows and antennas
    (data / "été 1").mkdir()
    with h5py.File(data / "été 1" / "eigene Daten.mat", "w") as file:
        file["downlink"] = images
    name = f"file:{SIZES},test=été 1/eigene Daten.mat"
    code, details = refused(gnb, "dldnn", name)
    assert (code, "fits both orders of axes" in details) == (CODE.INVALID_ARGUMENT, True)
    assert gnb.run_ues(scheme="dldnn", ues=2, slots=4, scenario=f"{name},axes=c").counts.acked == 8


def test_a_delay_beyond_the_slots_of_the_file(gnb: Any, data: Path) -> None:
    says = "scenario slots, delay_slots: 2 + 1; the file has 2 slots a sample"
    for fields in ({"delay_slots": 1}, {"air": "delay=1"}):
        assert refused(gnb, "dldnn", WORLD, **fields) == (CODE.INVALID_ARGUMENT, says)
    with gnb.stub() as stub:
        gnb.attach(stub, "dldnn", scenario=WORLD)
        assert gnb.call("/v1/fleets/0/air", {"air": "loss=0.1,delay=1"}) == (400, {"error": says})
        assert gnb.call("/v1/fleets/0/air")[1]["air"] == ""
