"""`--late drop` between processes: every report that was sent is decoded or dropped, whatever is killed meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from e2e_tools import Spawn, get, ready, wait_for

from csiemu.verify import misdecoded
from gnb_server.store import Store
from shared.checkpoints import CheckpointStore

UES, SLOTS = 6, 203  # ends within a frame


def handled(rest: str) -> int:
    """Reports that a gNB has stored as decoded or dropped."""
    overall = get(rest, "/v1/nmse")["overall"]
    return int(overall["reports"] + overall["dropped"])


def test_gnb_killed_while_reports_are_dropped(spawn: Spawn, small_store: CheckpointStore, tmp_path: Path) -> None:
    """A batch takes 50 ms or more, so that what comes while one is in hand is late, and what comes after it is not."""

    def start(port: int) -> subprocess.Popen[bytes]:
        options: dict[str, Any] = {"store": f"sqlite:///{tmp_path / 'gnb.sqlite'}", "record": tmp_path / "recorded"}
        options |= {"late": "drop", "late_s": 0.06, "fault": "slow", "ready_file": tmp_path / "ready.json"}
        return spawn("gnb_server", grpc_port=port, rest_port=0, **options)

    gnb = start(0)
    addresses = ready(tmp_path / "ready.json")
    summary, record = tmp_path / "ue.json", tmp_path / "ue.npz"
    options = {"scheme": "hyperrnn", "ues": UES, "slots": SLOTS, "rate": 60, "summary": summary, "record": record}
    ue = spawn("ue_client", gnb=addresses["grpc"], **options)
    for reports in (40 * UES, 120 * UES):
        rest = addresses["rest"]
        wait_for(lambda rest=rest, reports=reports: handled(rest) >= reports)
        gnb.kill()
        gnb.wait()
        (tmp_path / "ready.json").unlink()
        gnb = start(int(addresses["grpc"].rsplit(":", 1)[1]))
        addresses = ready(tmp_path / "ready.json")
    assert ue.wait() == 0
    overall = get(addresses["rest"], "/v1/nmse")["overall"]
    gnb.send_signal(signal.SIGTERM)
    assert gnb.wait() == 0

    sent = json.loads(summary.read_text())
    store = Store(f"sqlite:///{tmp_path / 'gnb.sqlite'}", "default", 1)
    decoded, dropped = sum(store.counted().values()), sum(store.dropped().values())
    store.close()
    assert sent["sent"] == sent["acked"] == decoded + dropped == UES * SLOTS
    assert (overall["reports"], overall["dropped"], sent["dropped"]) == (decoded, dropped, dropped)
    assert dropped > 0
    with np.load(record, allow_pickle=False) as file:
        assert int((file["decoder_version"] == 0).sum()) == dropped
    recorded = sorted((tmp_path / "recorded").glob("*.npz"))
    assert misdecoded(small_store, record, recorded)[0] == 0


def test_an_emulation_that_drops(small_store: CheckpointStore, tmp_path: Path) -> None:
    """What is dropped is not lost: the emulation ends well, and says how much it was."""
    line = [sys.executable, "-m", "csiemu", "emulate", "--checkpoints", str(small_store.root), "--rest-port", "0"]
    line += ["--out", str(tmp_path / "out"), "--json", str(tmp_path / "out.json"), "--schemes", "rnn", "--ues", "2"]
    line += ["--slots", "80", "--rate", "max", "--late", "drop", "--late-s", "0.01", "--fault", "slow"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "out.json").read_text())
    row = results["schemes"]["rnn"]
    assert (results["lost"], results["dropped"], results["misdecoded"]) == (0, row["reports_dropped"], 0)
    assert row["reports_sent"] == row["reports_decoded"] + row["reports_dropped"] == 160
    assert row["reports_dropped"] > 0
    assert f"lost 0, dropped {results['dropped']}, unacked 0" in " ".join(done.stdout.split())
