"""SIGINT and SIGTERM: the first brings in what can be, within a limit; the second ends the process at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e_tools import Spawn, get, ready, wait_for

from shared.checkpoints import CheckpointStore

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGTERM)])
def test_ues_of_a_gnb_that_hangs(spawn: Spawn, tmp_path: Path, signals: tuple[signal.Signals, ...]) -> None:
    gnb = spawn("gnb_server", grpc_port=0, rest_port=0, store=f"sqlite:///{tmp_path}/s", ready_file=tmp_path / "r")
    addresses = ready(tmp_path / "r")
    drain_s = 0.5 if len(signals) == 1 else 3600
    ue = spawn("ue_client", gnb=addresses["grpc"], scheme="rnn", drain_s=drain_s, summary=tmp_path / "ue.json")
    wait_for(lambda: get(addresses["rest"], "/v1/nmse")["overall"]["reports"] > 100)
    gnb.send_signal(signal.SIGSTOP)
    time.sleep(0.5)  # the UEs send on
    for number in signals:
        ue.send_signal(number)
    assert ue.wait(120) == 1
    counts = json.loads((tmp_path / "ue.json").read_text())
    assert counts["unacked"] >= counts["sent"] - counts["acked"]
    log = (tmp_path / "ue_client-1.log").read_text()
    assert f"{counts['unacked']} reports were not acknowledged" in log
    assert "Traceback" not in log


HANGING = """
import asyncio, sys, time
from gnb_server import command
from shared.commands import run_command

async def serve(settings):
    try:
        print("ready", flush=True)
        await asyncio.sleep(3600)
    finally:
        print("asked", flush=True)
        if "hangs" in sys.argv:
            time.sleep(3600)

command.serve = serve
sys.exit(run_command("csiemu gnb", "gnb_server.command", ["--checkpoints", sys.argv[1]]))
"""


@pytest.mark.parametrize("hangs", [True, False])
def test_a_gnb_that_does_not_come_to_its_end(small_store: CheckpointStore, root: Path, hangs: bool) -> None:
    line = [sys.executable, "-c", HANGING, str(small_store.root), *(["hangs"] if hangs else [])]
    with subprocess.Popen(line, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "asked\n"
        if hangs:
            process.send_signal(signal.SIGINT)
        assert process.wait(120) == (-signal.SIGINT if hangs else 0)


def test_an_emulation_whose_gnb_hangs(small_store: CheckpointStore, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "csiemu", "emulate", "--checkpoints", str(small_store.root), "--rest-port", "0"]
    line += ["--out", str(tmp_path / "out"), "--json", str(tmp_path / "out.json"), "--schemes", "rnn,dldnn"]
    with subprocess.Popen([*line, "--duration", "600"], stdout=subprocess.PIPE, text=True) as process:
        rest = ready(tmp_path / "out" / "gnb.json")["rest"]
        wait_for(lambda: len([r for r in get(rest, "/v1/nmse")["schemes"] if r["reports"] > 100]) == 2)
        (gnb,) = subprocess.run(
            ["pgrep", "-f", f"gnb_server.*{tmp_path}/out"], capture_output=True, text=True
        ).stdout.split()
        os.kill(int(gnb), signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        printed = process.communicate(timeout=240)[0]
    assert process.returncode == 1
    results = json.loads((tmp_path / "out.json").read_text())
    assert set(results["schemes"]) == {"rnn", "dldnn"}
    assert results["unacked"] == sum(row["reports_unacked"] for row in results["schemes"].values()) > 0
    assert len(results["failed"]) == 2
    assert f"unacked {results['unacked']}," in printed
    left = subprocess.run(["pgrep", "-f", str(tmp_path / "out")], capture_output=True, text=True, check=False).stdout
    assert not left


@pytest.mark.parametrize("number", SIGNALS)
def test_an_evaluation(small_store: CheckpointStore, number: signal.Signals) -> None:
    line = [sys.executable, "-m", "csiemu", "evaluate", "rnn", "--ues", "10000000", "--checkpoints"]
    with subprocess.Popen([*line, str(small_store.root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for(lambda: process.poll() is not None or b"numba" in Path(f"/proc/{process.pid}/maps").read_bytes())
        process.send_signal(number)
        printed = process.communicate(timeout=120)
    assert process.returncode in (130, -number)  # by the signal while it is being imported
    assert printed == (b"", b"")


@pytest.mark.parametrize("module", ["csiemu train", "csiemu.training"])
def test_a_training_keeps_its_state(tmp_path: Path, module: str) -> None:
    """A service manager's SIGTERM is a terminal's Ctrl-C."""
    options = ["--checkpoints", str(tmp_path), "--state", str(tmp_path / "state"), "--save-every", "5"]
    sizes = ["--steps", "100000", "--batch", "32", "--scenario", "multipath-p2:antennas=8"]
    line = [sys.executable, "-m", *module.split(), "rnn", *options, *sizes]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for((tmp_path / "state" / "state.json").exists)
        process.send_signal(signal.SIGTERM)
        printed = process.communicate(timeout=120)
    assert (process.returncode, printed[1]) == (130, "")
    assert json.loads((tmp_path / "state" / "state.json").read_text())["step"] > 0
    assert not list((tmp_path / "state").glob("*.partial"))


def test_a_data_set_keeps_its_shards(tmp_path: Path) -> None:
    """SIGTERM to all of its processes."""
    options = ["--preset", "cost2100-indoor-csinet", "--count", "100000", "--shard", "2", "--workers", "1"]
    line = [sys.executable, "-m", "csiemu", "dataset", "generate", *options, "--out", str(tmp_path / "x.mat")]
    parts = tmp_path / "x.mat.parts"
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        wait_for(lambda: len(list(parts.glob("[0-9]*[0-9]"))) > 2)
        os.killpg(process.pid, signal.SIGTERM)
        printed = process.communicate(timeout=120)
    assert (process.returncode, printed[1]) == (130, "")
    assert not list(parts.glob("*.partial"))
