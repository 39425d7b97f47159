"""`python -m training NAME ...`: train on a machine that has only torch, numpy, scipy and safetensors.

`csiemu train` is the same with a progress bar.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from shared.checkpoints import CheckpointStore
from training.recipes import RECIPES, design, recipe
from training.run import train
from training.trainer import Progress, Recipe


def main() -> None:
    """Parse the options and train."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("name", help="design or scheme")
    parser.add_argument("--as", dest="save_as", help="checkpoint name (default: NAME)")
    parser.add_argument("--version", type=int, default=1)
    parser.add_argument("--store", type=Path, default=Path("checkpoints"))
    parser.add_argument("--state", type=Path, help="folder of resumable state (default: runs/training/NAME-VERSION)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--freeze-encoder-from", metavar="NAME")
    parser.add_argument("--start-from", metavar="NAME")
    parser.add_argument("--frozen-from", metavar="NAME")
    parser.add_argument("--pilots-from", metavar="NAME")
    parser.add_argument("--recipe", help=f"{', '.join(RECIPES)} (default: the design's)")
    parser.add_argument("--epochs", type=int)
    for field in dataclasses.fields(Recipe):
        kind = {"type": type(field.default)} if field.type != "bool" else {"action": argparse.BooleanOptionalAction}
        parser.add_argument(f"--{field.name.replace('_', '-')}", default=None, **kind)
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = CheckpointStore(options.store)

    def show(progress: Progress) -> None:
        if progress.step % 500 == 0:
            print(f"step {progress.step} {progress.nmse_db:.3f} dB {progress.seconds:.0f} s", flush=True)

    name = options.save_as or options.name
    chosen = design(options.name)
    given = {f.name: value for f in dataclasses.fields(Recipe) if (value := getattr(options, f.name)) is not None}
    checkpoint = train(
        name,
        options.version,
        chosen,
        recipe(options.recipe or chosen.recipe, given, options.epochs),
        store=store,
        state=options.state or Path(f"runs/training/{name}-{options.version}"),
        device=options.device,
        freeze_encoder_from=store.load_named(options.freeze_encoder_from) if options.freeze_encoder_from else None,
        start_from=store.load_named(options.start_from) if options.start_from else None,
        frozen_from=store.load_named(options.frozen_from) if options.frozen_from else None,
        pilots_from=store.load_named(options.pilots_from) if options.pilots_from else None,
        on_progress=show,
    )
    print(f"{checkpoint.name}/{checkpoint.version}: {checkpoint.card['evaluation']['by_slot'][-1]}")


if __name__ == "__main__":
    main()
