"""A command: its settings from the command line, its errors as one line, its exit code."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shared.errors import CsiError
from shared.stopping import handled_by, stopping


def run_command(name: str, module: str, arguments: list[str]) -> int:
    """Parse the options of a command and run it.

    Args:
        name: the command, for help, usage and log.
        module: where its `Settings`, one field an option, and `run(settings)` are; imported here.

    Returns:
        The exit code: what `run` returns (None is 0), 2 after an error that is the user's to read, 130 after SIGINT or
        SIGTERM, unless the command has its own way to end (`shared.stopping`).
    """
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {name} %(levelname)s %(message)s")
    try:
        with handled_by(signal.SIG_DFL):  # no exception may break off an import halfway
            # one thread a process: contended threads are many times slower; scale by processes
            os.environ.setdefault("OMP_NUM_THREADS", "1")
            importlib.import_module("torch").set_num_threads(1)  # also where the variable says otherwise
            command = importlib.import_module(module)
        with stopping(), printing():
            return int(command.run(command.Settings(_cli_parse_args=arguments, _cli_prog_name=name)) or 0)
    except ValidationError as error:
        return complain("\n".join(_sentence(item["loc"], item.get("input"), item["msg"]) for item in error.errors()))
    except (CsiError, OSError) as error:  # an OSError names the file
        return complain(str(error))
    except KeyboardInterrupt:
        exec("")  # one that came out of an `exec` of text ends `python -m` as by SIGINT, unless another `exec` follows
        return 130


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Ends the process without a word when nobody reads any more what it prints (`csiemu checkpoints | head`)."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        sys.exit(128 + signal.SIGPIPE)


def complain(message: str) -> int:
    """Print an error; returns its exit code."""
    print(f"csiemu: {message}", file=sys.stderr)
    return 2


def write_json(path: Path, content: Any) -> None:
    """Write a file of results, in a folder that need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def _sentence(where: tuple[int | str, ...], value: object, message: str) -> str:
    name = ".".join(str(part) for part in where).replace("_", "-")
    value = str(value) if isinstance(value, Path) else value
    return f"{name}: {value!r}: {message.removeprefix('Value error, ')}"
