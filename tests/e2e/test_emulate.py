"""The command as a user runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import get, ready, wait_for

from shared.checkpoints import CheckpointStore


def emulate(store: CheckpointStore, folder: Path, *options: str, status: int = 0) -> Any:
    line = [sys.executable, "-m", "csiemu", "emulate", "--checkpoints", str(store.root), "--rest-port", "0"]
    line += ["--out", str(folder / "out"), "--json", str(folder / "out.json"), *options]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads((folder / "out.json").read_text())


def test_same_seed_same_figures(small_store: CheckpointStore, tmp_path: Path) -> None:
    options = ("--schemes", "hyperrnn,dldnn", "--ues", "4", "--slots", "80", "--rate", "max", "--seed", "3")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    config = tmp_path / "run.yaml"
    config.write_text("schemes: [hyperrnn, dldnn]\nues: 4\nslots: 80\nrate: max\nseed: 99\n")
    first = emulate(small_store, tmp_path / "a", *options)
    second = emulate(small_store, tmp_path / "b", "--config", str(config), "--seed", "3")
    assert set(first["schemes"]) == {"hyperrnn", "dldnn"}
    for name, row in first["schemes"].items():
        assert row["reports_sent"] == row["reports_decoded"] == 320
        assert row["feedback_bits"] == 20
        assert row["wire_bytes"] > 2.5
        assert second["schemes"][name]["nmse_db"] == pytest.approx(row["nmse_db"], abs=0.01)
    assert first["lost"] == first["misdecoded"] == 0
    assert first["checked"] == 64  # frame 0 of 10


@pytest.mark.parametrize(("fault", "figure"), [("lose", "lost"), ("misdecode", "misdecoded")])
def test_checks_can_fail(small_store: CheckpointStore, tmp_path: Path, fault: str, figure: str) -> None:
    options = ("--schemes", "rnn", "--ues", "2", "--slots", "80", "--rate", "max", "--fault", fault)
    results = emulate(small_store, tmp_path, *options, status=1)
    assert results[figure] > 0


@pytest.mark.parametrize("early", [True, False])
def test_ctrl_c_ends_well(small_store: CheckpointStore, tmp_path: Path, early: bool) -> None:
    line = [sys.executable, "-m", "csiemu", "emulate", "--checkpoints", str(small_store.root), "--rest-port", "0"]
    line += ["--out", str(tmp_path / "out"), "--json", str(tmp_path / "out.json"), "--schemes", "rnn", "--ues", "2"]
    process = subprocess.Popen([*line, "--duration", "600"])
    ready_file = tmp_path / "out" / "gnb.json"
    rest = ready(ready_file)["rest"]
    if early:
        wait_for((tmp_path / "out" / "ue-rnn.log").exists)
    else:
        wait_for(lambda: get(rest, "/v1/nmse")["overall"]["reports"] > 10)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 0
    assert json.loads((tmp_path / "out.json").read_text())["lost"] == 0
    left = subprocess.run(["pgrep", "-f", str(tmp_path / "out")], capture_output=True, text=True, check=False).stdout
    assert not left


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--schemes", "nonsense"], "'nonsense' is unknown"),
        (["--ues", "0"], "ues: '0'"),
        (["--rate", "nan"], "rate"),
        (["--scenario", "moon"], "'moon' is unknown"),
        (["--config", "/does/not/exist"], "/does/not/exist"),
        (["--sauce", "1"], "sauce"),
    ],
)
def test_bad_options(small_store: CheckpointStore, tmp_path: Path, options: list[str], says: str) -> None:
    line = [sys.executable, "-m", "csiemu", "emulate", "--checkpoints", str(small_store.root), *options]
    done = subprocess.run([*line, "--out", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_an_earlier_run_is_not_mixed_with_this_one(small_store: CheckpointStore, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "csiemu", "emulate", "--checkpoints", str(small_store.root), "--schemes", "rnn"]
    line += ["--ues", "2", "--slots", "8", "--rate", "max", "--rest-port", "0", "--out", str(tmp_path / "out")]
    assert subprocess.run(line, capture_output=True, check=False).returncode == 0
    again = subprocess.run(line, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert f"out: {tmp_path / 'out'} holds an earlier run" in again.stderr
