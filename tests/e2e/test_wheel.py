"""The wheel, installed away from the sources, in a folder that holds packages of our names."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from e2e_tools import Environment

PACKAGES = ("shared", "ue_client", "gnb_server", "protos", "csiemu")


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder that nothing can be imported from."""
    for name in (*PACKAGES, "training", "benchmarks", "numpy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('imported from the current folder')")
    return tmp_path


def test_what_is_in_it(wheel: Path, root: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        there = {name: archive.getinfo(name).file_size for name in archive.namelist()}
    assert {name.split("/")[0] for name in there if ".dist-info" not in name} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= there.keys()
    assert any(name.endswith("licenses/LICENSE") for name in there)
    page = {str(path.relative_to(root)) for path in (root / "gnb_server" / "page").rglob("*") if path.is_file()}
    assert page <= there.keys()
    assert "gnb_server/page/vendor/uplot/LICENSE" in page
    shipped = {f"csiemu/{path.relative_to(root)}": path.stat().st_size for path in root.glob("checkpoints/*/*/*.[js]*")}
    assert len(shipped) > 50
    assert {name: size for name, size in there.items() if name.startswith("csiemu/checkpoints/")} == shipped


def test_emulation_in_any_folder(installed: Environment, trap: Path) -> None:
    show = f"import {', '.join(PACKAGES)}; print(*(m.__file__ for m in ({', '.join(PACKAGES)})), sep='\\n')"
    for file in installed.run("python", "-P", "-c", show, cwd=trap).splitlines():
        assert Path(file).is_relative_to(installed.folder)
    options = ("--schemes", "hyperrnn", "--ues", 4, "--slots", 8, "--rate", "max", "--rest-port", 0)
    installed.run("csiemu", "emulate", *options, "--check-every", 1, "--json", "out.json", cwd=trap)
    results = json.loads((trap / "out.json").read_text())
    assert results["schemes"]["hyperrnn"]["reports_decoded"] == 32
    assert (results["lost"], results["misdecoded"], results["checked"]) == (0, 0, 32)
    assert Path(results["settings"]["checkpoints"]).is_relative_to(installed.folder)
    installed.run("csiemu", "report", results["files"], "--out", "report.html", cwd=trap)
    assert "hyperrnn/1" in (trap / "report.html").read_text()


def test_training_writes_where_it_is_told_to(installed: Environment, trap: Path) -> None:
    line = ("csiemu", "train", "hyperrnn", "--start-from", "hyperrnn/2", "--steps", 0, "--evaluation-ues", 16)
    said = installed.run(*line, cwd=trap, status=2)
    assert "belongs to the installed package" in said
    assert "--checkpoints or CSIEMU_CHECKPOINTS" in said
    installed.run(*line, cwd=trap, CSIEMU_CHECKPOINTS=trap / "mine")
    card = json.loads((trap / "mine" / "hyperrnn" / "1" / "card.json").read_text())
    assert card["training"]["recipe"]["steps"] == 2500  # of the hyperrnn/2 that came with the wheel
