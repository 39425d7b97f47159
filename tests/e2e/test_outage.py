"""A store that cannot be written for a while: UEs wait, nothing is lost, and the gNB says what is the matter."""

from __future__ import annotations

import json
import resource
import signal
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import Spawn, get, ready, wait_for
from prometheus_client.parser import text_string_to_metric_families

from csiemu.benchmarks.postgres import Postgres, programs
from csiemu.benchmarks.restarts import Tally

UES, SLOTS = 4, 160


def is_ready(rest: str) -> bool:
    try:
        return bool(get(rest, "/v2/health/ready")["ready"])
    except urllib.error.HTTPError as error:
        if error.code != 503:
            raise
        return False


def store_writable(rest: str) -> float:
    with urllib.request.urlopen(f"http://{rest}/metrics", timeout=30) as answer:
        families = {family.name: family for family in text_string_to_metric_families(answer.read().decode())}
    return float(families["csiemu_store_writable"].samples[0].value)


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
    assert store_writable(rest) == 0.0
    resource.prlimit(gnb.pid, resource.RLIMIT_FSIZE, before)
    wait_for(lambda: is_ready(rest))
    assert store_writable(rest) == 1.0
    assert ue.wait() == 0
    sent = json.loads((tmp_path / "ue.json").read_text())
    assert sent["sent"] == sent["acked"] == get(rest, "/v1/nmse")["overall"]["reports"] == SLOTS * UES
    assert sent["connects"] == 1  # it was held up, not sent away
    log = (tmp_path / "gnb_server-0.log").read_text()
    assert log.count("cannot be written") == 1
    assert "can be written again" in log
    assert "Traceback" not in log
    assert "Task was destroyed" not in log


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT])
def test_postgresql_goes_away_and_comes_back(spawn: Spawn, tmp_path: Path, number: signal.Signals) -> None:
    """UEs wait, the gNB says so, and goes on by itself; every report is counted once."""
    if (binaries := programs()) is None:
        pytest.skip("PostgreSQL is not installed")
    with tempfile.TemporaryDirectory() as folder, Postgres(binaries, Path(folder)) as postgres:
        gnb = spawn("gnb_server", grpc_port=0, rest_port=0, store=postgres.url, ready_file=tmp_path / "ready.json")
        rest = ready(tmp_path / "ready.json")["rest"]
        grpc, summary = ready(tmp_path / "ready.json")["grpc"], tmp_path / "ue.json"
        ue = spawn("ue_client", gnb=grpc, scheme="rnn", ues=UES, slots=SLOTS, rate=40, summary=summary)
        wait_for(lambda: get(rest, "/v1/nmse")["overall"]["reports"] >= 10 * UES)
        postgres.stop(number)
        wait_for(lambda: not is_ready(rest))
        held = get(rest, "/v1/nmse")["overall"]["reports"]
        assert held < SLOTS * UES
        assert get(rest, "/v1/nmse")["overall"]["reports"] == held
        postgres.start()
        assert ue.wait() == 0
        wait_for(lambda: is_ready(rest))
        gnb.terminate()
        assert gnb.wait() == 0
        assert Tally.of(postgres.url) == Tally(SLOTS * UES, 0, 0)
    sent = json.loads(summary.read_text())
    assert (sent["sent"], sent["acked"], sent["connects"]) == (SLOTS * UES, SLOTS * UES, 1)


def test_a_gnb_starts_while_postgresql_is_away(spawn: Spawn, tmp_path: Path) -> None:
    """It waits, says so once, and serves when the server is there; it can be ended meanwhile, and does not wait for
    ever.
    """
    if (binaries := programs()) is None:
        pytest.skip("PostgreSQL is not installed")
    with tempfile.TemporaryDirectory() as folder, Postgres(binaries, Path(folder)) as postgres:
        postgres.stop(signal.SIGKILL)
        away = {"grpc_port": 0, "rest_port": 0, "store": postgres.url}
        impatient, ended = spawn("gnb_server", **away, store_wait_s=0), spawn("gnb_server", **away)
        gnb = spawn("gnb_server", **away, ready_file=tmp_path / "ready.json")
        logs = [tmp_path / f"gnb_server-{number}.log" for number in range(3)]
        assert impatient.wait() == 2
        for log in logs[1:]:
            wait_for(lambda log=log: "60 s at most" in log.read_text())
        ended.terminate()
        assert ended.wait() == 0
        assert gnb.poll() is None
        postgres.start()
        rest = ready(tmp_path / "ready.json")["rest"]
        assert is_ready(rest)
        gnb.terminate()
        assert gnb.wait() == 0
    for log in logs:
        assert log.read_text().count("cannot be reached: ") == 1
        assert "Traceback" not in log.read_text()
