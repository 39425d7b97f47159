"""Coders of the outdoor images of COST 2100 by the rule of the line of sight that they were made for, on both rules.

python -m csiemu.experiments.line_of_sight [--checkpoints DIR] [--out DIR] [--ues N]
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import torch

from csiemu.experiments.crnet.arms import SCENARIOS
from csiemu.training.recipes import DESIGNS, recipe
from csiemu.training.run import train
from shared.channels.cost2100 import Cost2100
from shared.channels.cost2100.paths import LosPower
from shared.channels.scenario import Scenario
from shared.checkpoints import Checkpoint, CheckpointStore, default_checkpoints
from shared.conditions import RunConditions
from shared.link.evaluation import evaluate

PRESET = SCENARIOS["outdoor"]
RULES = get_args(LosPower)
FITTED = "transform-outdoor"
"""The design that is fitted for each rule."""


def main() -> None:
    """Print the table, Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=Path, default=default_checkpoints())
    parser.add_argument("--out", type=Path, default=Path("runs/line-of-sight"), help="folder of what is fitted")
    parser.add_argument("--ues", type=int, default=5000, help="of the evaluation")
    options = parser.parse_args()
    torch.set_num_threads(1)
    preset = Scenario.parse(PRESET)
    assert isinstance(preset, Cost2100)
    worlds = [dataclasses.replace(preset, los_power=rule) for rule in RULES]
    print(f"| checkpoint | made for | feedback bits | {' | '.join(f'NMSE, {rule} (dB)' for rule in RULES)} |")
    print("|---" * (3 + len(RULES)) + "|")
    there = stored(CheckpointStore(options.checkpoints), worlds)
    for checkpoint in itertools.chain(there, fitted(options.out, worlds, options.ues)):
        cells = [f"{checkpoint.name}/{checkpoint.version}", str(checkpoint.card["scenario"])]
        cells.append(f"{checkpoint.card['feedback_bits']:,}")
        for world in worlds:
            found = evaluate(checkpoint.scheme, RunConditions(world), ues=options.ues)
            cells.append(f"{found['nmse_db']:.2f} ± {found['nmse_se_db']:.2f}")
        print(f"| {' | '.join(cells)} |", flush=True)


def stored(store: CheckpointStore, worlds: Sequence[Scenario]) -> Iterator[Checkpoint]:
    """The latest versions of the checkpoints that were made for one of the worlds."""
    for name in store.names():
        version = store.versions(name)[-1]
        if Scenario.parse(store.card(name, version)["scenario"]) in worlds:
            yield store.load(name, version)


def fitted(folder: Path, worlds: Sequence[Scenario], ues: int) -> Iterator[Checkpoint]:
    """`FITTED` for each of the worlds, as it stands in the folder or made anew."""
    for rule, world in zip(RULES, worlds, strict=True):
        store, name = CheckpointStore(folder), f"{FITTED}-{rule}"
        if name not in store.names():
            design = dataclasses.replace(DESIGNS[FITTED], scenario=str(world))
            state = folder / "states" / name
            train(name, 1, design, recipe(design.recipe, {}), store=store, state=state, evaluation_ues=ues)
        yield store.load(name)


if __name__ == "__main__":
    main()
