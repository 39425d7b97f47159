from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COMMAND = """
class Settings:
    def __init__(self, **_): ...

def run(settings):
    exec("raise KeyboardInterrupt")  # as a module that is being made
"""
MAIN = "import sys\nfrom shared.commands import run_command\nsys.exit(run_command('main', 'interrupted', []))\n"


def test_an_interrupted_command_ends_with_130(root: Path, tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(COMMAND)
    (tmp_path / "main.py").write_text(MAIN)
    paths = os.pathsep.join([str(tmp_path), str(root)])
    line, environment = [sys.executable, "-m", "main"], {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
