"""Processes of ours, started and killed; our wheel in an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import Environment, Spawn, pip

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


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our wheel, built from a copy of the sources."""
    source = tmp_path_factory.mktemp("source")
    for name in ("shared", "ue_client", "gnb_server", "protos", "csiemu", "checkpoints"):
        shutil.copytree(root / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(root / name, source)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", source / "dist", source)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel in an environment of its own. Its dependencies are those of the tests' environment, by a .pth file;
    .pth files there, such as that of our editable installation, count for nothing here.
    """
    environment = Environment(tmp_path_factory.mktemp("environment"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment.folder)], check=True)
    (packages,) = environment.folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    environment.install(wheel)
    return environment
