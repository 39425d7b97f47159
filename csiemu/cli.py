"""The command `csiemu`: finds the command that is asked for and runs it."""

from __future__ import annotations

import sys
from typing import NoReturn

from shared.commands import complain, printing, run_command

COMMANDS = {
    "emulate": ("csiemu.emulate", "run a gNB and UEs as processes, watch NMSE live, check every promise at the end"),
    "gnb": ("gnb_server.command", "run a gNB: gRPC for UEs, REST for results and models"),
    "ue": ("ue_client.command", "run a fleet of UEs"),
    "swap": ("csiemu.swap", "put another version of a model into service on a gNB that runs"),
    "train": ("csiemu.train", "train a scheme and write a checkpoint"),
    "evaluate": ("csiemu.evaluate", "measure a checkpoint offline, beside its card"),
    "checkpoints": ("csiemu.list_checkpoints", "list checkpoints with their reference figures"),
    "report": ("csiemu.report.command", "write a run's figures, plots, events and settings as one page"),
    "compare": ("csiemu.report.compare", "show the figures of two runs side by side, and what else differs"),
    "export": ("csiemu.export", "write a run's single reports as CSV or Parquet"),
    "dataset generate": ("csiemu.dataset.generate", "write channels to a data file"),
    "dataset inspect": ("csiemu.dataset.inspect", "statistics and pictures of a data file"),
    "experiment": ("csiemu.experiment", "tables and figures of the papers, and planes of bits and distortion"),
    "bench": ("csiemu.bench", "benchmarks"),
}
"""Command -> (module with `Settings` and `run`, one line of help)."""

VARIABLES = """
Options are also environment variables: CSIEMU_GNB_REST_PORT is --rest-port of `csiemu gnb`, CSIEMU_DATASET_WORKERS is
--workers of `csiemu dataset generate`. CSIEMU_CHECKPOINTS names the folder of checkpoints for all commands, CSIEMU_DATA
that of data files."""


def main() -> NoReturn:
    """Entry point of `csiemu`."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        with printing():
            print("usage: csiemu COMMAND [options]\n\ncommands (each has --help):")
            print("\n".join(f"  {name:<17} {text}" for name, (_, text) in COMMANDS.items()))
            print(VARIABLES)
        sys.exit(0 if arguments else 2)
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    command = " ".join(arguments[:words])
    if command not in COMMANDS:
        sys.exit(complain(f"command: '{command}' is unknown; commands are {', '.join(COMMANDS)}"))
    sys.exit(run_command(f"csiemu {command}", COMMANDS[command][0], arguments[words:]))
