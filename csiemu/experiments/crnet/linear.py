"""What the best linear autoencoder of images reaches, by float principal components, beside the CRNet paper's figures.

python -m csiemu.experiments.crnet.linear [frames] [ues]
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor

from csiemu.experiments.crnet.arms import SCENARIOS
from csiemu.experiments.crnet.table_1 import PAPER
from csiemu.training.recipes import Design
from csiemu.training.run import build
from csiemu.training.schemes import training_of
from csiemu.training.schemes.images import ImageTraining
from shared.channels.downlink import DownlinkView
from shared.channels.streams import Samples, Split
from shared.schemes.crnet import CrNetConfig

CHUNK = 1000


def main() -> None:
    """Print the table, Markdown: components of training frames (seed 1), UEs of the test split (seed 0)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("frames", type=int, nargs="?", default=32_768, help="of training")
    parser.add_argument("ues", type=int, nargs="?", default=5000, help="of the evaluation")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| compression | scenario | linear: NMSE (dB) | CRNet, paper (dB) |\n|---|---|---|---|")
    for world, (name, scenario) in enumerate(SCENARIOS.items()):
        training = training_of(build(Design("crnet", scenario, CrNetConfig(compression=min(PAPER))), seed=1))
        assert isinstance(training, ImageTraining)
        components = training.principal_components(
            images(training, 1, Split.TRAIN, options.frames)
        )  # the strongest first
        new = images(training, 0, Split.TEST, options.ues)
        for compression, paper in PAPER.items():
            found = projected(new, components[:, : len(components) // compression])
            print(f"| 1/{compression} | {name} | {found:.2f} | {paper[world][-1]:.2f} |", flush=True)


def images(training: ImageTraining, seed: int, split: Split, count: int) -> Tensor:
    """Scaled images [count, M, 2, Q]."""
    parts = torch.arange(count).split(CHUNK)
    views = (DownlinkView(training.scheme.scenario, Samples(seed, split, ue, torch.zeros_like(ue))) for ue in parts)
    return torch.cat([training.scaled(view) for view in views])


def projected(image: Tensor, components: Tensor) -> float:
    """NMSE [dB], mean of ratios, of images [N, M, 2, Q] projected on orthonormal components [M 2 Q, n]."""
    numbers = image.flatten(1)
    error = numbers - numbers @ components @ components.mT
    return 10 * math.log10((error.square().sum(1) / numbers.square().sum(1)).mean())


if __name__ == "__main__":
    main()
