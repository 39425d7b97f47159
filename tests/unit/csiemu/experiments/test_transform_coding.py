from __future__ import annotations

import sys
from pathlib import Path

import pytest

from csiemu.experiments.transform_coding import fixed, speed, variable, worth
from csiemu.training.recipes import Design
from csiemu.training.run import train
from csiemu.training.trainer import Recipe
from shared.checkpoints import CheckpointStore
from shared.errors import InvalidInput
from shared.schemes.gmtc import GmtcConfig
from shared.schemes.transform import TransformConfig

SMALL = "cost2100-indoor-csinet:antennas=8,first_rows=8"


def test_designs_are_fitted_once_and_stand_beside_networks_of_as_many_bits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("csiemu.training.schemes.transform.TransformTraining.measured_frames", 256)
    design = Design("transform", SMALL, TransformConfig(bits=60, components=16))
    monkeypatch.setattr(fixed, "DESIGNS", {"transform": design, "crnet": Design("crnet")})
    monkeypatch.setattr(sys, "argv", ["fixed", "--out", str(tmp_path), "--ues", "32"])
    fixed.main()
    card = CheckpointStore(tmp_path).card("transform", 1)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 3
    cells = dict(zip(lines[0], lines[2], strict=True))
    assert cells["NMSE (dB)"].startswith(f"{card['evaluation']['nmse_db']:.2f} ")
    assert (cells["feedback bits"], cells["network of as many bits"]) == ("60", "-")
    before = (tmp_path / "transform" / "1" / "encoder.safetensors").stat().st_mtime_ns
    fixed.main()
    assert (tmp_path / "transform" / "1" / "encoder.safetensors").stat().st_mtime_ns == before
    rival = {**card, "scheme": "crnet", "name": "net", "version": 3}
    other = {**rival, "feedback_bits": 61}
    assert fixed.row("transform", card, [other, rival])[-3] == "net/3"
    assert fixed.row("transform", card, [other, {**card, "scheme": "gmtc"}])[-3:] == ["-"] * 3


def test_lengths_of_their_own_are_counted_and_decoded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = GmtcConfig(bits=120, mixtures=2, subspace=24, components=24, ranked=8)
    recipe = Recipe(steps=2, batch=600, frames=600)
    monkeypatch.setattr("csiemu.training.schemes.gmtc.GmtcTraining.measured_frames", 256)
    store = CheckpointStore(tmp_path / "checkpoints")
    train("mine", 1, Design("gmtc", SMALL, config), recipe, store=store, state=tmp_path / "state", evaluation_ues=64)
    arguments = ["variable", "mine", "--checkpoints", str(store.root), "--bits", "60", "100", "--ues", "200"]
    monkeypatch.setattr(sys, "argv", arguments)
    variable.main()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    rows = [dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]]
    means = [float(row["mean bits"]) for row in rows]
    assert 45 < means[0] <= 60
    assert 85 < means[1] <= 100
    assert float(rows[0]["NMSE (dB)"].split()[0]) > float(rows[1]["NMSE (dB)"].split()[0]) + 2
    assert all(float(row["p5"]) < mean < float(row["p95"]) for row, mean in zip(rows, means, strict=True))
    monkeypatch.setattr(sys, "argv", ["variable", "crnet"])
    with pytest.raises(InvalidInput, match="checkpoint: crnet is a crnet; wanted gmtc"):
        variable.main()


def test_speeds_are_of_checkpoints_here_or_shipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("csiemu.training.schemes.transform.TransformTraining.measured_frames", 256)
    store, recipe = CheckpointStore(tmp_path), Recipe(steps=0)
    design = Design("transform", SMALL, TransformConfig(bits=60, components=16))
    train("mine", 1, design, recipe, store=store, state=tmp_path / "state", evaluation_ues=16)
    monkeypatch.setattr(speed, "REPORTS", 40)
    monkeypatch.setattr(sys, "argv", ["speed", "mine", "transform", "--checkpoints", str(tmp_path)])
    speed.main()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [cells[0] for cells in rows] == ["mine/1", "transform/1"]
    assert all(float(cell.replace(",", "")) > 0 for cells in rows for cell in cells[1:])


def test_what_is_left_out_is_missed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = GmtcConfig(bits=400, mixtures=3, subspace=32, components=48, ranked=8)
    monkeypatch.setattr("csiemu.training.schemes.gmtc.GmtcTraining.measured_frames", 512)
    monkeypatch.setattr(worth, "FRAMES", 512)
    store, recipe = CheckpointStore(tmp_path / "checkpoints"), Recipe(steps=2, batch=2000, frames=2000)
    train("mine", 1, Design("gmtc", SMALL, config), recipe, store=store, state=tmp_path / "state", evaluation_ues=64)
    arguments = ["worth", "mine", "--checkpoints", str(store.root), "--bits", "80", "120", "--ues", "300"]
    monkeypatch.setattr(sys, "argv", arguments)
    worth.main()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    found = {cells[0]: [float(cell) for cell in cells[1:]] for cells in lines[2:]}
    assert list(found) == list(worth.ROWS)
    everything = found.pop("all")
    assert everything[1] < everything[0] - 1
    for left_out, cells in found.items():
        assert sum(cells) > sum(everything), left_out
