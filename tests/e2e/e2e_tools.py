"""Waiting for processes and asking them; an environment of its own with our wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Spawn = Callable[..., subprocess.Popen[bytes]]


def wait_for(condition: Callable[[], Any], patience_s: float = 120.0) -> Any:
    """The condition's value once it is true; a limit only against hanging for ever."""
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


def ready(path: Path) -> dict[str, str]:
    """Addresses of a gNB once it is up."""
    return dict(json.loads(wait_for(lambda: path.exists() and path.read_text())))


def get(rest: str, path: str) -> Any:
    with urllib.request.urlopen(f"http://{rest}{path}", timeout=30) as answer:
        return json.load(answer)


@dataclass(frozen=True)
class Environment:
    """A virtual environment without pip."""

    folder: Path

    def run(self, command: str, *arguments: object, cwd: Path, status: int = 0, **variables: object) -> str:
        """What a command of the environment prints, in a folder, without our PYTHONPATH and variables."""
        kept = {name: v for name, v in os.environ.items() if not name.startswith(("PYTHON", "CSIEMU_"))}
        done = subprocess.run(
            [str(self.folder / "bin" / command), *map(str, arguments)],
            cwd=cwd,
            env=kept | {name: str(value) for name, value in variables.items()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def install(self, what: Path) -> None:
        """A wheel, or the folder of a project."""
        pip("--python", self.folder / "bin" / "python", "install", "--no-deps", "--no-build-isolation", what)


def pip(*arguments: object) -> None:
    """The pip of the tests, without a network."""
    line = [sys.executable, "-m", "pip", *map(str, arguments), "--no-index", "--quiet", "--disable-pip-version-check"]
    subprocess.run(line, check=True)
