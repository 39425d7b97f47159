from __future__ import annotations

import sys
from pathlib import Path

import pytest

from csiemu.experiments.crnet import nested
from csiemu.training.recipes import Design
from csiemu.training.run import train
from csiemu.training.trainer import Recipe
from shared.checkpoints import CheckpointStore
from shared.errors import InvalidInput
from shared.schemes.crnet import CrNetConfig
from shared.schemes.crnet_nested import NestedConfig

SMALL = "cost2100-indoor-csinet:antennas=8,first_rows=8"


def test_a_nested_net_at_each_rate_stands_beside_nets_of_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for training in ("images.ImageTraining", "transform.TransformTraining"):
        monkeypatch.setattr(f"csiemu.training.schemes.{training}.measured_frames", 300)
    store, recipe = CheckpointStore(tmp_path / "checkpoints"), Recipe(steps=0, start="linear")
    designs = {
        "any_rate": Design("crnet_nested", SMALL, NestedConfig(compression=4, entry_bits=4, rates=(72, 100, 136))),
        "at_136": Design("crnet", SMALL, CrNetConfig(entry_bits=4, allocation="greedy")),
        "at_200": Design("crnet", SMALL, CrNetConfig(entry_bits=6, allocation="greedy")),
    }
    for name, design in designs.items():
        train(name, 1, design, recipe, store=store, state=tmp_path / name, evaluation_ues=64)
    monkeypatch.setattr(sys, "argv", ["nested", "any_rate", "--checkpoints", str(store.root), "--ues", "64"])
    nested.main()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    rows = [dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]]
    assert [row["feedback bits"] for row in rows] == ["72", "100", "136"]
    ours = [float(row["any_rate/1: NMSE (dB)"].split()[0]) for row in rows]
    assert ours == sorted(ours, reverse=True)
    assert [row["network of that rate"] for row in rows] == ["-", "-", "at_136/1"]
    whole, single = (store.card(name, 1)["evaluation"] for name in ("any_rate", "at_136"))
    assert ours[-1] == pytest.approx(whole["nmse_db"], abs=0.006)
    assert rows[-1]["its NMSE (dB)"].startswith(f"{single['nmse_db']:.2f} ")
    assert all(float(row["transform: NMSE (dB)"].split()[0]) < 0 for row in rows)
    monkeypatch.setattr(sys, "argv", ["nested", "at_136", "--checkpoints", str(store.root)])
    with pytest.raises(InvalidInput, match="checkpoint: at_136 is a crnet; wanted a crnet_nested"):
        nested.main()
