"""A campaign of three designs, killed in the middle and taken up again."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import wait_for

NAMES = ("dldnn-6", "rnn-12", "rnn-6")
PLAN = [
    {"name": "rnn", "as": "rnn-6", "set": "feedback_bits=6"},
    {"name": "rnn", "as": "rnn-12", "set": "feedback_bits=12"},
    {"name": "dldnn", "as": "dldnn-6", "set": "feedback_bits=6"},
]
SAVE_EVERY = 5


def command(folder: Path, module: str = "csiemu train", budget: int = 30) -> list[str]:
    options = ["--campaign", str(folder / "plan.json"), "--budget", str(budget), "--out", str(folder / "out")]
    sizes = ["--batch", "16", "--scenario", "multipath-p2:antennas=4,slots=2", "--evaluation-ues", "64"]
    return [sys.executable, "-m", *module.split(), *options, *sizes, "--save-every", str(SAVE_EVERY)]


def card(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / "out" / "checkpoints" / name / "1" / "card.json").read_text()))


def states(folder: Path) -> dict[str, dict[str, Any]]:
    paths = (folder / "out" / "states").glob("*-1/state.json")
    return {path.parent.name.removesuffix("-1"): json.loads(path.read_text()) for path in paths}


def test_killed_in_the_middle_and_called_again(tmp_path: Path) -> None:
    """What was saved is not done again, the schedule stays, and what is finished is left as it is."""
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    process = subprocess.Popen(command(tmp_path))
    wait_for(lambda: len(states(tmp_path)) == len(NAMES) or process.poll() is not None)
    process.kill()
    process.wait()
    before = states(tmp_path)
    assert sorted(before) == sorted(NAMES)
    assert all(0 < state["step"] < state["settings"]["recipe"]["steps"] for state in before.values())
    assert not list((tmp_path / "out").glob("*.zip"))

    bare = command(tmp_path, "csiemu.training")  # which goes on with what the other began
    printed = ""
    while len(list((tmp_path / "out").glob("*.zip"))) < len(NAMES):  # a busy machine may need another call
        printed += subprocess.run(bare, check=True, capture_output=True, text=True).stdout
    for name, state in before.items():
        assert f"{name}/1: goes on at step {state['step']} of " in printed
        assert card(tmp_path, name)["training"]["recipe"] == state["settings"]["recipe"]
        with zipfile.ZipFile(tmp_path / "out" / f"{name}-1.zip") as archive:
            assert sorted(archive.namelist()) == ["card.json", "decoder.safetensors", "encoder.safetensors"]
            assert json.loads(archive.read("card.json")) == card(tmp_path, name)
    assert not states(tmp_path)

    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    subprocess.run(bare, check=True)
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}


@pytest.mark.slow
def test_a_training_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    plan = [PLAN[0], PLAN[1] | {"start-from": "nonsense"}]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    done = subprocess.run(command(tmp_path, budget=20), check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "rnn-12/1: checkpoint: 'nonsense' is unknown" in done.stderr
    assert "campaign: 1 of 2 failed: rnn-12/1" in done.stderr
    assert "rnn-6/1: " in done.stdout
