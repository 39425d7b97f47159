"""The scheme of docs/add-a-scheme.md, a package outside the repository: found by its entry point, trained, emulated."""

from __future__ import annotations

import json
from pathlib import Path

from documents import files
from e2e_tools import Environment


def test_it_is_trained_emulated_and_served(installed: Environment, tmp_path: Path) -> None:
    project = tmp_path / "signs-of-beams"
    project.mkdir()
    for name, text in files("docs/add-a-scheme.md").items():
        (tmp_path / name).write_text(text)
    installed.install(project)
    assert "signs_of_beams" in installed.run("csiemu", "train", "--help", cwd=tmp_path)
    store = ("--checkpoints", tmp_path / "checkpoints")
    sizes = ("--scenario", "multipath-p2:antennas=16", "--set", "bits=10", "--steps", 20, "--batch", 32)
    installed.run("csiemu", "train", "signs_of_beams", *sizes, "--evaluation-ues", 64, *store, cwd=tmp_path)
    options = ("--ues", 4, "--slots", 8, "--rate", "max", "--check-every", 1, "--rest-port", 0, "--json", "out.json")
    installed.run("csiemu", "emulate", *options, *store, cwd=tmp_path)  # all that the store has
    results = json.loads((tmp_path / "out.json").read_text())
    row = results["schemes"]["signs_of_beams"]
    assert (row["reports_decoded"], row["feedback_bits"]) == (32, 10)
    assert (results["lost"], results["misdecoded"], results["checked"]) == (0, 0, 32)
