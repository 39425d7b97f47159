"""`csiemu experiment NAME ...`: the experiments by name, each with options of its own."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

from shared.errors import NotFound

PACKAGE = "csiemu.experiments"


def names() -> list[str]:
    """Experiments, modules that can be run: `codebooks`, `crnet.table-1`, `rate-distortion`."""
    spec = importlib.util.find_spec(PACKAGE)
    root = Path(*(spec.submodule_search_locations if spec and spec.submodule_search_locations else ()))
    runnable = (path for path in sorted(root.rglob("*.py")) if 'if __name__ == "__main__":' in path.read_text())
    parts = (path.relative_to(root).with_suffix("").parts for path in runnable)
    return [".".join(part for part in found if part != "__main__").replace("_", "-") for found in parts]


class Settings:
    """The command line as it is: each experiment reads its own."""

    def __init__(self, _cli_parse_args: list[str], _cli_prog_name: str) -> None:
        self.arguments, self.command = _cli_parse_args, _cli_prog_name


def run(settings: Settings) -> None:
    """Run one as `python -m csiemu.experiments.NAME` does, or list them. Raises NotFound for a name that is none."""
    arguments = settings.arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: csiemu experiment NAME [options]\n\nexperiments (each has --help):")
        print("\n".join(f"  {name}" for name in names()))
        return
    if (name := arguments[0]) not in names():
        raise NotFound(f"experiment: '{name}' is unknown; experiments are {', '.join(names())}")
    sys.argv = [f"{settings.command} {name}", *arguments[1:]]
    runpy.run_module(f"{PACKAGE}.{name.replace('-', '_')}", run_name="__main__", alter_sys=False)
