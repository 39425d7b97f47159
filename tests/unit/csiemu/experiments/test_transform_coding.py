from __future__ import annotations

import sys
from pathlib import Path

import pytest

from csiemu.experiments import transform_coding
from csiemu.training.recipes import Design
from shared.checkpoints import CheckpointStore
from shared.schemes.transform import TransformConfig

SMALL = "cost2100-indoor-csinet:antennas=8,first_rows=8"


def test_designs_are_fitted_once_and_stand_beside_networks_of_as_many_bits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("csiemu.training.schemes.transform.TransformTraining.measured_frames", 256)
    design = Design("transform", SMALL, TransformConfig(bits=60, components=16))
    monkeypatch.setattr(transform_coding, "DESIGNS", {"transform": design, "crnet": Design("crnet")})
    monkeypatch.setattr(sys, "argv", ["transform_coding", "--out", str(tmp_path), "--ues", "32"])
    transform_coding.main()
    card = CheckpointStore(tmp_path).card("transform", 1)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 3
    cells = dict(zip(lines[0], lines[2], strict=True))
    assert cells["NMSE (dB)"].startswith(f"{card['evaluation']['nmse_db']:.2f} ")
    assert (cells["feedback bits"], cells["network of as many bits"]) == ("60", "-")
    before = (tmp_path / "transform" / "1" / "encoder.safetensors").stat().st_mtime_ns
    transform_coding.main()
    assert (tmp_path / "transform" / "1" / "encoder.safetensors").stat().st_mtime_ns == before
    rival = {**card, "scheme": "crnet", "name": "net", "version": 3}
    other = {**rival, "feedback_bits": 61}
    assert transform_coding.row("transform", card, [other, rival])[-3] == "net/3"
    assert transform_coding.row("transform", card, [other, card])[-3:] == ["-"] * 3
