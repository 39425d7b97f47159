"""Processes of ours, started and killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import Spawn

from shared.checkpoints import CheckpointStore


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
