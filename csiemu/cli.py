"""The command line: one settings class per command, its fields are the options (and environment variables)."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import NoReturn

from pydantic import ValidationError

from shared.errors import CsiError

COMMANDS = {
    "emulate": ("csiemu.emulate", "run a gNB and UEs as processes, watch NMSE live, check every promise at the end"),
    "gnb": ("csiemu.gnb", "run a gNB: gRPC for UEs, REST for results and models"),
    "ue": ("csiemu.ue", "run a fleet of UEs"),
    "train": ("csiemu.train", "train a scheme and write a checkpoint"),
    "evaluate": ("csiemu.evaluate", "measure a checkpoint offline, beside its card"),
    "checkpoints": ("csiemu.list_checkpoints", "list checkpoints with their reference figures"),
    "dataset generate": ("csiemu.dataset.generate", "write channels to a data file"),
    "dataset inspect": ("csiemu.dataset.inspect", "statistics and pictures of a data file"),
    "bench": ("csiemu.bench", "benchmarks"),
}
"""Command -> (module with `Settings` and `run`, one line of help)."""


def main(command: str | None = None) -> NoReturn:
    """Entry point of `csiemu` and, with `command`, of `python -m ue_client` and `python -m gnb_server`."""
    arguments = sys.argv[1:]
    if command is None:
        if not arguments or arguments[0] in ("-h", "--help"):
            print("usage: csiemu COMMAND [options]\n\ncommands (each has --help):")
            print("\n".join(f"  {name:<17} {text}" for name, (_, text) in COMMANDS.items()))
            sys.exit(0 if arguments else 2)
        words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
        command, arguments = " ".join(arguments[:words]), arguments[words:]
    sys.exit(_run(command, arguments))


def _run(command: str, arguments: list[str]) -> int:
    if command not in COMMANDS:
        return _complain(f"command: '{command}' is unknown; commands are {', '.join(COMMANDS)}")
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {command} %(levelname)s %(message)s")
    # one thread a process: contended threads are many times slower; scale by processes
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    module = importlib.import_module(COMMANDS[command][0])
    try:
        return int(module.run(module.Settings(_cli_parse_args=arguments, _cli_prog_name=f"csiemu {command}")) or 0)
    except ValidationError as error:
        return _complain("\n".join(_sentence(item["loc"], item.get("input"), item["msg"]) for item in error.errors()))
    except (CsiError, OSError) as error:  # an OSError names the file
        return _complain(str(error))
    except KeyboardInterrupt:
        return 130


def _sentence(where: tuple[int | str, ...], value: object, message: str) -> str:
    name = ".".join(str(part) for part in where).replace("_", "-")
    return f"{name}: {value!r}: {message}"


def _complain(message: str) -> int:
    print(f"csiemu: {message}", file=sys.stderr)
    return 2
