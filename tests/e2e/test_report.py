"""From an emulation to a page that can be sent to somebody, and to a table of two runs."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.checkpoints import CheckpointStore
from shared.metrics import DOMAIN_NAMES


def csiemu(*arguments: object, status: int = 0) -> str:
    line = [sys.executable, "-m", "csiemu", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def runs(small_store: CheckpointStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`a`: hyperrnn and crnet for 10 s, swapped to another encoder after 4; `b`: hyperrnn alone."""
    folder = tmp_path_factory.mktemp("runs")
    common = ("--checkpoints", small_store.root, "--rest-port", 0, "--ues", 16)
    swapped = ("--schemes", "hyperrnn,crnet", "--duration", 10, "--swap", "hyperrnn:3@4s", "--reports-kept", 1000)
    csiemu("emulate", *common, *swapped, "--out", folder / "a")
    csiemu("emulate", *common, "--schemes", "hyperrnn", "--slots", 40, "--rate", "max", "--out", folder / "b")
    return folder


@pytest.fixture(scope="module")
def results(runs: Path) -> Any:
    return json.loads((runs / "a" / "results.json").read_text())


def text_of(page: str) -> str:
    """What people read."""
    return " ".join(re.sub(r"<[^>]+>", " ", page[page.index("<body>") :]).split())


def test_report(runs: Path, results: Any, small_store: CheckpointStore) -> None:
    assert str(runs / "a" / "report.html") in csiemu("report", runs / "a").replace("\n", "")
    page = (runs / "a" / "report.html").read_text()
    text = text_of(page)
    assert "All checks passed: lost 0, misdecoded 0" in text
    versions = {
        (name, row["version"]): row for name, scheme in results["schemes"].items() for row in scheme["versions"]
    }
    assert versions.keys() == {("hyperrnn", 1), ("hyperrnn", 3), ("crnet", 1)}
    for (name, version), row in versions.items():
        assert f"{name}/{version}" in text
        assert f"{row['nmse_db']:.2f} ± {row['nmse_se_db']:.2f}" in text
        assert f"{row['sgcs']:.4f} ± {row['sgcs_se']:.4f}" in text
        card = small_store.card(name, version)
        assert set(card["sha256"].values()) <= set(text.split())
    for said in ("1: loaded hyperrnn/3", DOMAIN_NAMES["spatial"], DOMAIN_NAMES["angular-delay"], "cores"):
        assert said in text
    assert page.count("<svg") == 3  # bits, time, slots
    assert not re.search(r"<script|<link|<img|https?://(?!www\.w3\.org/)", page)


def test_compare(runs: Path) -> None:
    out = runs / "page.html"
    printed = csiemu("compare", runs / "a", runs / "b", "--out", out, "--json", runs / "compare.json")
    (pair,) = json.loads((runs / "compare.json").read_text())["pairs"]
    difference = pair["difference"]["nmse_db"]
    assert difference["paired"] == 16
    assert difference["value"] == pytest.approx(pair["second"]["nmse_db"] - pair["first"]["nmse_db"])
    for text in (printed, text_of(out.read_text())):
        assert f"{difference['value']:+.2f} ± {difference['standard_error']:.2f}" in text
        assert "hyperrnn:3@4s" in text


def test_export(runs: Path, results: Any) -> None:
    csiemu("export", runs / "a", "--out", runs / "reports.csv", "--scheme", "crnet")
    with (runs / "reports.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    row = results["schemes"]["crnet"]
    assert len(rows) == row["reports_decoded"]
    assert 10 ** (row["nmse_db"] / 10) == pytest.approx(sum(float(row["nmse"]) for row in rows) / len(rows))


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    assert f"run: {tmp_path} is no folder of csiemu emulate" in csiemu("report", tmp_path, status=2)
