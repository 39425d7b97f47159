"""`python -m csiemu.training NAME ...`: train on a machine that has only torch, numpy, scipy and safetensors.

`csiemu train` is the same with a progress bar.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from csiemu.training.order import Order
from csiemu.training.recipes import RECIPES
from csiemu.training.trainer import Progress, Recipe
from shared.errors import CsiError


def main() -> None:
    """Parse the options and train."""
    parser = argparse.ArgumentParser(prog="python -m csiemu.training", description=__doc__)
    parser.add_argument("name", help="design or scheme")
    parser.add_argument("--as", dest="save_as", help="checkpoint name (default: NAME)")
    parser.add_argument("--version", type=int)
    parser.add_argument("--checkpoints", type=Path, help="folder (default: checkpoints)")
    parser.add_argument("--state", type=Path, help="folder of resumable state (default: runs/training/NAME-VERSION)")
    parser.add_argument("--device", help="cpu or cuda")
    for source in ("freeze-encoder", "start", "frozen", "pilots"):
        parser.add_argument(f"--{source}-from", metavar="NAME[/VERSION]")
    parser.add_argument("--scenario", help="preset[:field=value,...] instead of the design's")
    parser.add_argument("--set", dest="sizes", help="field=value,... of the scheme's configuration")
    parser.add_argument("--recipe", help=f"{', '.join(RECIPES)} (default: the design's)")
    for number in ("epochs", "save-every", "evaluation-ues"):
        parser.add_argument(f"--{number}", type=int)
    for field in dataclasses.fields(Recipe):
        kind = {"type": type(field.default)} if field.type != "bool" else {"action": argparse.BooleanOptionalAction}
        parser.add_argument(f"--{field.name.replace('_', '-')}", default=None, **kind)
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    changes = {field.name: given.pop(field.name) for field in dataclasses.fields(Recipe) if field.name in given}
    torch.set_num_threads(1)

    def show(progress: Progress) -> None:
        if progress.step % 500 == 0:
            print(f"step {progress.step} {progress.nmse_db:.3f} dB {progress.seconds:.0f} s", flush=True)

    try:
        checkpoint = Order(**given, changes=changes).carry_out(show)
    except CsiError as error:
        parser.error(str(error))
    print(f"{checkpoint.name}/{checkpoint.version}: {checkpoint.card['evaluation']['by_slot'][-1]}")


if __name__ == "__main__":
    main()
