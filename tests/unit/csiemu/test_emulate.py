"""What an emulation says of UEs that send nothing, and which checkpoints it takes by itself."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from csiemu import emulate
from gnb_server.repository import Repository
from shared.checkpoints import CheckpointStore


@pytest.fixture
def running() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def fleet_of(scheme: str, process: subprocess.Popen[bytes], log: Path) -> emulate._Ues:
    return emulate._Ues(scheme, 20.0, process, log.with_suffix(".json"), log.with_suffix(".npz"), log)


def test_who_waits_for_what(tmp_path: Path, running: subprocess.Popen[bytes]) -> None:
    logs = {
        "rnn": "2026-01-01 10:00:00,000 csiemu ue INFO a\n"
        "2026-01-01 10:00:01,000 csiemu ue WARNING waiting for the gNB at [::1]:5: store: disk full\n",
        "dldnn": "",
        "crnet": "2026-01-01 10:00:00,000 csiemu ue INFO UEs 0..3 attached to the gNB at [::1]:5\n",
        "csinet": "2026-01-01 10:00:00,000 csiemu ue INFO it sends\n",
        "type1": '2026-01-01 10:00:00,000 csiemu ue INFO it sends\n{"sent": 3}\n',  # and is about to end
    }
    for scheme, text in logs.items():
        (tmp_path / f"{scheme}.log").write_text(text)
    fleets = [fleet_of(scheme, running, tmp_path / f"{scheme}.log") for scheme in logs]
    recent = {"schemes": [{"scheme": "csinet", "reports": 3}, {"scheme": "crnet", "reports": 0}]}
    assert emulate._waiting(fleets, recent) == [
        "rnn: no reports in the last 5 s: waiting for the gNB at [::1]:5: store: disk full",
        "dldnn: no reports in the last 5 s: starting",
        "crnet: no reports in the last 5 s: UEs 0..3 attached to the gNB at [::1]:5",
    ]


def test_who_has_ended_waits_for_nothing(tmp_path: Path, running: subprocess.Popen[bytes]) -> None:
    running.kill()
    running.wait()
    assert emulate._waiting([fleet_of("rnn", running, tmp_path / "none.log")], {"schemes": []}) == []


@pytest.mark.parametrize(
    ("asked", "air", "target_csi"),
    [
        ([], None, None),
        (["--air", "loss=0.1", "--delay-slots", "2", "--target-csi", "5"], "loss=0.1,delay=2", 5),
        (["--air", "delay=2"], "delay=2", None),
    ],
)
def test_what_ues_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str], air: str | None, target_csi: int | None
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(emulate, "spawn", lambda module, log, **options: given.update(options))
    settings = emulate.Settings(_cli_parse_args=asked)
    emulate._start_ues(settings, tmp_path, "rnn", 20.0, {}, 0, "gnb:1")
    assert (given["air"], given["target_csi"]) == (air, target_csi)


def test_bad_checkpoints_are_left_out_and_named(small_store: CheckpointStore, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for name in ("rnn", "dldnn", "crnet", "uplink_only"):  # the last has nothing to train
        shutil.copytree(small_store.root / name, tmp_path / name)
    shutil.copytree(tmp_path / "rnn", tmp_path / "rnn.bak")
    (tmp_path / "dldnn" / "1" / "card.json").write_text("{")
    printed = io.StringIO()
    settings = emulate.Settings(checkpoints=tmp_path, _cli_parse_args=[])
    assert emulate.report_rates(settings, store, Console(file=printed, width=500)) == {"rnn": 20.0, "crnet": 2.0}
    assert printed.getvalue().startswith("left out: checkpoint dldnn/1: card.json cannot be read: ")
    assert printed.getvalue().count("\n") == 1


def test_an_index_with_bad_ones_among_good(small_store: CheckpointStore, tmp_path: Path) -> None:
    for name in ("rnn", "dldnn", "hyperrnn"):
        shutil.copytree(small_store.root / name, tmp_path / name)
    shutil.copytree(tmp_path / "dldnn", tmp_path / "dldnn.bak")
    (tmp_path / "dldnn" / "2").mkdir()
    (tmp_path / "notes.txt").touch()
    repository = Repository(CheckpointStore(tmp_path))
    for name in ("rnn", "hyperrnn"):
        repository.load(name, 1)
        (tmp_path / name / "1" / "card.json").write_text("{")  # in service, whatever lies there now
    (tmp_path / "hyperrnn" / "2" / "card.json").write_text("[]")
    rows = {(row["name"], row["version"]): (row["state"], row["reason"]) for row in repository.index()}
    assert len(rows) == len(repository.index())
    assert {key for key, (state, _) in rows.items() if state == "READY"} == {("rnn", "1"), ("hyperrnn", "1")}
    assert rows["rnn", "1"][1].startswith("serves new frames; on disk: checkpoint rnn/1: card.json cannot be read: ")
    assert rows["dldnn", "1"] == ("UNAVAILABLE", "not loaded")
    assert rows["hyperrnn", "3"] == ("UNAVAILABLE", "not loaded")
    assert "card.json lacks" in rows["hyperrnn", "2"][1]
    assert rows["dldnn", "2"] == ("UNAVAILABLE", "has no card.json")
    assert rows["dldnn.bak", ""][0] == rows["notes.txt", ""][0] == "UNAVAILABLE"
    assert "not the name" in rows["dldnn.bak", ""][1]
