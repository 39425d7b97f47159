"""`pilot_lmmse` and `predictive_lmmse` at the same bits, and what wrong bits do to the second.

python -m csiemu.experiments.predictive [--ues N] [--bits 8 10 ...] [--memories 1 0.9 ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from csiemu.training.recipes import Design
from csiemu.training.run import build, calibrate
from csiemu.training.schemes import training_of
from shared.channels.streams import Split
from shared.checkpoints import Checkpoint, CheckpointStore, shipped_checkpoints
from shared.conditions import RunConditions
from shared.link.evaluation import BATCH, evaluate, outcomes, over_the_link
from shared.metrics import COLUMNS, summarise
from shared.schemes import Scheme
from shared.schemes.pilots import PilotConfig
from shared.schemes.predictive_lmmse import PredictiveConfig

SEED = 1
"""Of the tables."""

PILOTS = "hyperrnn/3"
"""The checkpoint whose downlink pilots are sent."""

WRONG = 0.002
"""Share of the bits that are flipped on the way, for the second table."""


def main() -> None:
    """Print both tables, Markdown: NMSE (dB), ratio of sums."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ues", type=int, default=5000, help="frames of the evaluation")
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 10, 12, 14, 16, 20, 24], help="of a report")
    parser.add_argument("--memories", type=float, nargs="+", default=[1.0, 0.95, 0.9, 0.8, 0.6], help="at 12 bits")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pilots = CheckpointStore(shipped_checkpoints()).load_named(PILOTS)
    print("| bits a report | plain, t = 8 | all slots | predictive, t = 8 | all slots |")
    print("|---" * 5 + "|")
    for bits in options.bits:
        configs = {"pilot_lmmse": PilotConfig(feedback_bits=bits), "predictive_lmmse": PredictiveConfig(bits)}
        schemes = (made(name, config, pilots) for name, config in configs.items())
        both = (evaluate(scheme, RunConditions(scheme.scenario), ues=options.ues) for scheme in schemes)
        print(f"| {bits} | {' | '.join(cell for found in both for cell in cells_of(found))} |", flush=True)
    print(f"\n| memory | t = 8 | all slots | {WRONG:.1%} of the bits wrong, t = 8 | all slots |")
    print("|---" * 5 + "|")
    for memory in options.memories:
        scheme = made("predictive_lmmse", PredictiveConfig(feedback_bits=12, memory=memory), pilots)
        both = (disturbed(scheme, options.ues, share) for share in (0.0, WRONG))
        print(f"| {memory:g} | {' | '.join(cell for found in both for cell in cells_of(found))} |", flush=True)


def made(name: str, config: PilotConfig, pilots: Checkpoint) -> Scheme:
    """The scheme of these sizes, its tables made."""
    scheme = build(Design(name, config=config), SEED, pilots).eval()
    calibrate(training_of(scheme), SEED)
    return scheme


def disturbed(scheme: Scheme, ues: int, share: float) -> dict[str, Any]:
    """Figures as `evaluate` has them, with a share of the received bits flipped."""
    conditions, flips = RunConditions(scheme.scenario), np.random.default_rng(0)
    by_slot, of_frames = np.zeros((scheme.scenario.slots, len(COLUMNS))), np.zeros(len(COLUMNS))
    for part in torch.arange(ues).split(BATCH):
        samples = conditions.samples(Split.TEST, part, 0)
        reports = over_the_link(scheme, conditions, samples)
        wrong = (flips.random(reports.shape) < share).astype(np.uint8)
        found = outcomes(scheme, conditions, samples, reports ^ wrong)
        by_slot += found.moments().sum(axis=0)
        of_frames += found.frame_moments().sum(axis=0)
    return summarise(by_slot, of_frames)


def cells_of(found: dict[str, Any]) -> Iterable[str]:
    """Of the last slot, and of all."""
    for row in (found["by_slot"][-1], found):
        yield f"{row['ratio_of_sums_db']:.2f} ± {row['ratio_of_sums_se_db']:.2f}"


if __name__ == "__main__":
    main()
