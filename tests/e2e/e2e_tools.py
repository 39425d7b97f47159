"""Processes of ours, started and killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.checkpoints import CheckpointStore

Spawn = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def spawn(tmp_path: Path, small_store: CheckpointStore) -> Iterator[Spawn]:
    """`spawn("gnb_server", grpc_port=0, ...)`: a module with options, its output in NAME.log; killed at the end."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(module: str, **settings: Any) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", module, "--checkpoints", str(small_store.root)]
        line += [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        with (tmp_path / f"{module}-{len(processes)}.log").open("wb") as log:
            processes.append(subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


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
