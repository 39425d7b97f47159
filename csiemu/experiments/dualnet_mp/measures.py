"""Averages of the error that the DualNet-MP paper and its authors' code report, over the test split.

python -m csiemu.experiments.dualnet_mp.measures [NAME[/VERSION] ...]    a checkpoint's, of as many UEs as its card's
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from csiemu.experiments.grid import Figures
from shared.channels.streams import Samples, Split
from shared.checkpoints import Checkpoint, CheckpointStore, default_checkpoints
from shared.conditions import RunConditions
from shared.link import evaluation as link
from shared.metrics import Outcomes

SHIPPED = ("dualnet_mp", "dualnet_mp-outdoor", "dualnet_mp-mdpq-outdoor")


def evaluation_samples(ues: int) -> Iterator[Samples]:
    """Frame 0 of each UE of the test split, seed 0, some at a time."""
    for ue in torch.arange(ues).split(500):
        yield Samples(0, Split.TEST, ue, torch.zeros_like(ue))


def outcomes(checkpoint: Checkpoint) -> Outcomes:
    """[UEs], as many as its card's figures are of, each payload packed and unpacked."""
    scheme, conditions = checkpoint.scheme, RunConditions(checkpoint.scenario)
    parts = [
        link.outcomes(scheme, conditions, samples, link.over_the_link(scheme, conditions, samples)).measured
        for samples in evaluation_samples(checkpoint.card["evaluation"]["settings"]["ues"])
    ]
    return Outcomes.of(np.concatenate(parts, axis=1)[..., 0])


def authors_decibels(found: Outcomes) -> NDArray[np.float64]:
    """What the released code averages over samples [dB]: 20 log10((r + ||e||) / (r + ||H||)), with e and H in the kept
    rows and r the norm of what was cut off. Norms of parts that are orthogonal are added there, not their squares.
    """
    squares = (np.maximum(found.total - found.power, 0), found.error, found.power)
    cut, error, power = (np.sqrt(square) for square in squares)
    return 20 * np.log10((cut + error) / (cut + power))


FIGURES: Figures = {
    "feedback bits": lambda checkpoint: f"{checkpoint.scheme.layout.bits:,}",
    "eq. 16 (dB)": lambda checkpoint: f"{checkpoint.card['evaluation']['nmse_sf_db']:.2f}",
    "released code's average (dB)": lambda checkpoint: f"{authors_decibels(outcomes(checkpoint)).mean():.2f}",
}
"""Columns of the figures' tables, beside the mean of ratios in the truncated domain."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=SHIPPED, metavar="NAME[/VERSION]")
    names = parser.parse_args().names
    print(f"| checkpoint | {' | '.join(FIGURES)} |\n{'|---' * (1 + len(FIGURES))}|")
    torch.set_num_threads(1)
    for name in names:
        checkpoint = CheckpointStore(default_checkpoints()).load_named(name)
        print(f"| {name} | {' | '.join(figure(checkpoint) for figure in FIGURES.values())} |", flush=True)


if __name__ == "__main__":
    main()
