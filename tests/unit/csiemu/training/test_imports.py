"""Training must run where only torch, numpy, scipy and safetensors are installed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ALLOWED = {"torch", "numpy", "scipy", "safetensors"}
EXTRAS = {"sionna", "h5py"}
"""Imported inside functions, by those who use these worlds."""
OWN = {"shared", "csiemu"}
FOLDERS = ("shared", "csiemu/training")

BLOCKED = """
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    names = {"numba", "grpc", "fastapi", "pydantic", "pydantic_settings", "sqlalchemy", "rich", "yaml",
             "uvicorn", "typer", "starlette", "sse_starlette", "prometheus_client", "google", "protos", "ue_client",
             "gnb_server"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ImportError(f"blocked: {name}")

sys.meta_path.insert(0, Block())
try:
    import rich
except ImportError:
    pass
else:
    raise SystemExit("nothing is blocked")
import torch
import csiemu.training.__main__
from shared.channels.streams import Purpose, Samples, Split
Samples(0, Split.TRAIN, torch.arange(2), torch.arange(2)).uniform(Purpose.PLACE, 4)
own = ("shared", "csiemu")
print(*sorted(name for name in sys.modules if name.partition(".")[0] in own))
"""


def imported(path: Path) -> set[str]:
    """Modules that a file imports, in full; extras only if it does so at its top."""
    tree = ast.parse(path.read_text())
    everywhere, at_top = names_in(ast.walk(tree), path), names_in(tree.body, path)
    return {name for name in everywhere if name.partition(".")[0] not in EXTRAS or name in at_top}


def names_in(nodes: Iterable[ast.AST], path: Path) -> set[str]:
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, path
            names.add(node.module or "")
    return names


def files(root: Path) -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]


def test_modules_import_nothing_else(root: Path) -> None:
    shared = root / "shared"
    compiled = {
        shared / f"{name}.py" for name in ("channels/compiled/loops", "quantizers/loops", "schemes/angle_loops")
    }
    others = {shared / "settings.py", shared / "commands.py", *compiled}
    checked = [path for path in files(root) if path not in others]
    assert len(checked) > 20
    for path in checked:
        for name in imported(path):
            top = name.partition(".")[0]
            assert top in ALLOWED | OWN | sys.stdlib_module_names, f"{path}: {name}"
            assert top != "csiemu" or name.startswith("csiemu.training"), f"{path}: {name}"
            assert name not in ("shared.settings", "shared.commands"), path


def test_training_starts_without_the_rest(root: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", BLOCKED],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    modules = set(run.stdout.split())
    assert {"csiemu.training.run", "csiemu.training.trainer", "shared.checkpoints"} <= modules
    assert not {"shared.settings", "shared.commands"} & modules
    assert {name for name in modules if not name.startswith(("shared", "csiemu.training"))} == {"csiemu"}
