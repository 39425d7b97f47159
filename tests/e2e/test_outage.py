"""A store whose disk is full for a while: UEs wait, nothing is lost, and the gNB says what is the matter."""

from __future__ import annotations

import json
import resource
import urllib.error
from pathlib import Path
from typing import Any

from e2e_tools import Spawn, get, ready, wait_for

UES, SLOTS = 4, 160


def is_ready(rest: str) -> bool:
    try:
        return bool(get(rest, "/v2/health/ready")["ready"])
    except urllib.error.HTTPError as error:
        if error.code != 503:
            raise
        return False


def test_a_full_disk(spawn: Spawn, tmp_path: Path) -> None:
    """The process may write no file any further: to SQLite that is a full disk."""
    options: dict[str, Any] = {"store": f"sqlite:///{tmp_path / 'gnb.sqlite'}", "ready_file": tmp_path / "ready.json"}
    gnb = spawn("gnb_server", grpc_port=0, rest_port=0, **options)
    addresses = ready(tmp_path / "ready.json")
    ue = spawn(
        "ue_client", gnb=addresses["grpc"], scheme="rnn", ues=UES, slots=SLOTS, rate=40, summary=tmp_path / "ue.json"
    )
    rest = addresses["rest"]
    wait_for(lambda: get(rest, "/v1/nmse")["overall"]["reports"] >= 10 * UES)
    assert is_ready(rest)
    before = resource.prlimit(gnb.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    wait_for(lambda: not is_ready(rest))
    held = get(rest, "/v1/nmse")["overall"]["reports"]
    assert held < SLOTS * UES
    assert get(rest, "/v1/nmse")["overall"]["reports"] == held
    assert ue.poll() is None
    resource.prlimit(gnb.pid, resource.RLIMIT_FSIZE, before)
    wait_for(lambda: is_ready(rest))
    assert ue.wait() == 0
    sent = json.loads((tmp_path / "ue.json").read_text())
    assert sent["sent"] == sent["acked"] == get(rest, "/v1/nmse")["overall"]["reports"] == SLOTS * UES
    assert sent["connects"] == 1  # it was held up, not sent away
    log = (tmp_path / "gnb_server-0.log").read_text()
    assert log.count("cannot be written") == 1
    assert "can be written again" in log
    assert "Traceback" not in log
    assert "Task was destroyed" not in log
