from __future__ import annotations

import sys
from pathlib import Path

import pytest

from csiemu.experiments import line_of_sight
from csiemu.training.recipes import Design
from csiemu.training.run import train
from csiemu.training.trainer import Recipe
from shared.checkpoints import CheckpointStore
from shared.schemes.transform import TransformConfig

SMALL = "cost2100-outdoor-csinet:antennas=8,first_rows=8"


def test_coders_of_each_rule_on_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("csiemu.training.schemes.transform.TransformTraining.measured_frames", 256)
    config = TransformConfig(bits=60, components=16)
    store = CheckpointStore(tmp_path / "checkpoints")
    for name, changes in (("theirs", ",los_power=incoherent"), ("other", ",snr_db=3")):
        design = Design("transform", SMALL + changes, config)
        train(name, 1, design, Recipe(steps=0), store=store, state=tmp_path / "state", evaluation_ues=16)
    monkeypatch.setattr(line_of_sight, "PRESET", SMALL)
    monkeypatch.setattr(line_of_sight, "DESIGNS", {line_of_sight.FITTED: Design("transform", SMALL, config)})
    arguments = ["--checkpoints", str(store.root), "--out", str(tmp_path / "fitted"), "--ues", "64"]
    monkeypatch.setattr(sys, "argv", ["line_of_sight", *arguments])
    line_of_sight.main()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    rows = {cells[0]: cells[1:] for cells in lines[2:]}
    assert list(rows) == ["theirs/1", "transform-outdoor-incoherent/1", "transform-outdoor-coherent/1"]
    assert rows["theirs/1"][2:] == rows["transform-outdoor-incoherent/1"][2:]  # the same frames
    for name, column in (("incoherent", 2), ("coherent", 3)):
        figures = CheckpointStore(tmp_path / "fitted").card(f"transform-outdoor-{name}", 1)["evaluation"]
        assert rows[f"transform-outdoor-{name}/1"][column] == f"{figures['nmse_db']:.2f} ± {figures['nmse_se_db']:.2f}"
