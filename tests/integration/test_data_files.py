"""Fleets on channels from data files: UE and gNB must have the same file, with all that the scheme needs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from csiemu.training.recipes import Design, design
from csiemu.training.run import train
from csiemu.training.trainer import Recipe
from shared.channels.scenario import Scenario
from shared.checkpoints import CheckpointStore
from shared.errors import Conflict, NotFound

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


def test_a_delay_beyond_the_slots_of_the_file(gnb: Any, data: Path) -> None:
    code, details = refused(gnb, "dldnn", WORLD, delay_slots=1)
    assert (code, "slot" in details) == (CODE.INVALID_ARGUMENT, True)
