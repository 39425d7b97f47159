"""Waiting for processes and asking them."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable
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
