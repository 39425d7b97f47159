"""Reports of many UEs as a file, over a real socket and by the command."""

from __future__ import annotations

import csv
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from shared.commands import run_command


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


@pytest.fixture
def gnb(start_gnb: Callable[..., Any]) -> Any:
    """With the reports of three UEs of rnn and two of crnet."""
    started = start_gnb()
    started.run_ues(scheme="rnn", ues=3, slots=16, seed=7)
    started.run_ues(scheme="crnet", ues=2, slots=4)
    return started


def test_the_file_says_what_single_reports_say(gnb: Any, tmp_path: Path) -> None:
    status, text = gnb.call("/v1/reports.csv")
    assert status == 200
    rows = rows_of(text)
    assert len(rows) == 3 * 16 + 2 * 4
    for ue, scheme in ((1, "rnn"), (4, "crnet")):
        answer = gnb.call(f"/v1/ues/{ue}/reports")[1]
        mine = [row for row in rows if row["ue"] == str(ue)]
        assert {row["scheme"] for row in mine} == {scheme}
        for row, report in zip(mine, answer["reports"], strict=True):
            for name in ("scenario", "encoder_id"):
                assert row[name] == answer[name]
            assert int(row["seed"]) == answer["seed"]
            for name in ("sequence", "slot", "frame", "decoder_version", "feedback_bits"):
                assert int(row[name]) == report[name]
            for name in ("nmse", "nmse_db", "nmse_sf_db", "sgcs", "rho", "latency_ms", "received_at"):
                assert float(row[name]) == report[name]
    some = rows_of(gnb.call("/v1/reports.csv?scheme=rnn&first_ue=1&ues=3&limit=20")[1])
    assert [int(row["ue"]) for row in some] == [1] * 16 + [2] * 4
    assert rows_of(gnb.call("/v1/reports.csv?since=1e12")[1]) == []
    with urllib.request.urlopen(f"http://{gnb.rest}/v1/reports.parquet") as answer:
        assert answer.headers["content-type"] == "application/vnd.apache.parquet"
        (tmp_path / "reports.parquet").write_bytes(answer.read())
    table = pyarrow.parquet.read_table(tmp_path / "reports.parquet")
    assert table["nmse"].to_pylist() == [float(row["nmse"]) for row in rows]


@pytest.mark.parametrize("when", ["while the gNB runs", "when it has ended"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_command_writes_the_same(gnb: Any, tmp_path: Path, when: str, ending: str) -> None:
    with urllib.request.urlopen(f"http://{gnb.rest}/v1/reports.csv?scheme=rnn&first_ue=1&ues=1") as answer:
        expected = rows_of(answer.read().decode())
    if when == "when it has ended":
        gnb.stop()
    out = tmp_path / "new" / f"reports.{ending}"
    line = [str(tmp_path / "gnb.sqlite"), "--out", str(out), "--scheme", "rnn", "--first-ue", "1", "--ues", "1"]
    assert run_command("csiemu export", "csiemu.export", line) == 0
    found = rows_of(out.read_text()) if ending == "csv" else pyarrow.parquet.read_table(out).to_pylist()
    assert [{name: "" if value is None else str(value) for name, value in row.items()} for row in found] == expected


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("csv?scheme=../x", 400, "scheme"),
        ("csv?ues=0", 400, "ues"),
        ("csv?limit=0", 400, "limit"),
        ("csv?since=-1", 400, "since"),
        ("csv?ue=1", 400, "ue: no such parameter"),
        ("xlsx", 400, "file_format: 'xlsx'"),
    ],
)
def test_what_cannot_be_asked_for(gnb: Any, query: str, status: int, says: str) -> None:
    found, answer = gnb.call(f"/v1/reports.{query}")
    assert found == status
    assert says in answer["error"]


def test_a_gnb_without_pyarrow(gnb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, answer = gnb.call("/v1/reports.parquet")
    assert status == 501
    assert "pip install 'csi-feedback-emulator[parquet]'" in answer["error"]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("nowhere", "run: nowhere is no folder of csiemu emulate"),
        (".", "it has no gnb.sqlite"),
        ("sqlite:///nowhere", "run: sqlite:///nowhere is no folder"),
        ("{store}#monday", "run: 'monday'; "),
        ("{store}#monday", "has the runs default"),
    ],
)
def test_runs_that_are_not_there(
    gnb: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, place: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path / "..")
    line = [place.format(store=tmp_path / "gnb.sqlite"), "--out", str(tmp_path / "reports.csv")]
    assert run_command("csiemu export", "csiemu.export", line) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "reports.csv").exists()
