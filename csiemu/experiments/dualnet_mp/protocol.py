"""Which of DualNet-MP's choices matter, at a size that a CPU can train: indoor 1/8, 20,000 frames, two seeds.

One magnitude branch, trained first and then left as it is, serves all phase branches; these send the same number of
phase bits and are compared on the same UEs, payloads packed and unpacked, by paired bootstrap. Magnitude branches with
and without uplink are compared in the same way, by the error of magnitudes alone.

python -m csiemu.experiments.dualnet_mp.protocol [--only NAME] [--epochs N] [--out DIR]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from csiemu.experiments.dualnet_mp.arms import equal_bits, magnitude, phase
from csiemu.experiments.dualnet_mp.measures import evaluation_samples, outcomes
from csiemu.experiments.grid import Arm, Budget, add_place_options, all_trained, place, train_all
from shared.channels.downlink import DownlinkView
from shared.checkpoints import Checkpoint, CheckpointStore
from shared.errors import InvalidInput
from shared.link.decoding import side_information
from shared.link.encoding import encode_frames
from shared.link.payload import SCALE
from shared.schemes.dualnet_mp import DualNetMp
from shared.schemes.dualnet_mp.magnitudes import MAGNITUDE

Ratios = NDArray[np.float64]
"""[UEs], squared error over power."""

SEEDS = (1, 2)
FRAMES = 20_000
UES = 5000
RESAMPLES = 2000

SMAPE = equal_bits("smape", 8)

PHASES = {
    "SMAPE, C-CNN, SSQ": SMAPE,
    "MDPP": equal_bits("mdpp", 8),
    "MSE0": equal_bits("mse0", 8),
    "CNN": {**SMAPE, "core": "cnn"},
    "DNN": {**SMAPE, "core": "dnn"},
    "BLQ": {**SMAPE, "quantizer": "blq"},
    "SMAPE without combining network": {**SMAPE, "combiner_blocks": 0},
    "MDPQ": {**equal_bits("mdpq", 8), "mdpq_bits": (0, 0, 0, 5, 7)},
}
"""Phase branches; the first is what the others are compared with. All send 1,280 bits, MDPQ 1,229."""

MAGNITUDES = {"with uplink": {}, "without": {"uplink": "none"}, "estimated uplink, 10 dB": {"uplink": "estimated"}}
"""Magnitude branches; the first is that of the phases."""


def main() -> None:
    """Train what is missing, compare, print and write `table.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    add_place_options(parser)
    parser.add_argument("--only", default="", help="train arms whose name contains this; compare all that are there")
    parser.add_argument("--out", type=Path, default=Path("runs/experiments/dualnet_mp-protocol"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    budget, store = Budget(1.0, {"frames": FRAMES, "warmup": 100}, UES), CheckpointStore(options.out)

    def compared(arms: dict[str, list[Arm]], measure: Callable[[Checkpoint], Ratios]) -> list[str]:
        found: dict[str, dict[int, Ratios]] = {}
        bits: dict[str, int] = {}
        for label, seeds in arms.items():
            for arm, checkpoint in all_trained(seeds, store):
                found.setdefault(label, {})[arm.seed] = measure(checkpoint)
                bits[label] = checkpoint.scheme.layout.bits
        return table(found, bits)

    def magnitudes(epochs: int, **sizes: int) -> dict[str, list[Arm]]:
        return {
            label: [magnitude((), "indoor", epochs=epochs, seed=seed, **sizes, **uplink) for seed in SEEDS]
            for label, uplink in MAGNITUDES.items()
        }

    branch = magnitude((), "indoor", epochs=options.epochs)
    phases = {
        label: [phase((), "indoor", branch, epochs=options.epochs, seed=seed, **config) for seed in SEEDS]
        for label, config in PHASES.items()
    }
    whole, short = magnitudes(options.epochs), magnitudes(max(1, options.epochs // 6), magnitude_compression=32)
    all_of_them = [arm for group in (phases, whole, short) for seeds in group.values() for arm in seeds]
    train_all([arm for arm in all_of_them if options.only in arm.name], budget, store, place(options))
    lines = [f"Indoor 1/8, {FRAMES:,} frames, {options.epochs} epochs, {UES:,} UEs of the test split.", ""]
    lines += [
        "Phase branches, NMSE of the images, truncated domain:",
        "",
        *compared(phases, lambda arm: outcomes(arm).ratio),
    ]
    lines += ["", "Magnitude branches, NMSE of the magnitudes:", "", *compared(whole, magnitude_ratios)]
    lines += ["", "At CR_MAG = 1/32, a sixth of the epochs:", "", *compared(short, magnitude_ratios)]
    text = "\n".join(lines) + "\n"
    (options.out / "table.md").write_text(text)
    print(text)


def table(found: dict[str, dict[int, Ratios]], bits: dict[str, int]) -> list[str]:
    """Markdown: NMSE of each seed, and the difference from the first row, over the seeds that both have, with its 95 %
    interval.
    """
    lines = [
        "| arm | feedback bits | NMSE by seed (dB) | from the first (dB) | 95 % interval |",
        "|---|---|---|---|---|",
    ]
    if not found:
        return lines
    first = next(iter(found.values()))
    for label, seeds in found.items():
        cells = [label, f"{bits[label]:,}", ", ".join(f"{decibels(ratios):.2f}" for ratios in seeds.values()), "", ""]
        if both := seeds.keys() & first.keys():
            ours, reference = (np.mean([arm[seed] for seed in both], axis=0) for arm in (seeds, first))
            low, high = interval(ours, reference)
            cells[-2:] = f"{decibels(ours) - decibels(reference):+.2f}", f"{low:+.2f} to {high:+.2f}"
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def interval(ratios: Ratios, reference: Ratios) -> tuple[float, float]:
    """95 % interval of the difference of two NMSE [dB], UEs resampled in pairs."""
    draw = np.random.default_rng(0)
    rows = draw.integers(len(ratios), size=(RESAMPLES, len(ratios)))
    differences = 10 * np.log10(ratios[rows].mean(1) / reference[rows].mean(1))
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(low), float(high)


def decibels(ratios: Ratios) -> float:
    """Mean of ratios in dB."""
    return float(10 * np.log10(ratios.mean()))


def magnitude_ratios(checkpoint: Checkpoint) -> Ratios:
    """Squared error of decoded magnitudes, phases aside, over power."""
    scheme, scenario = checkpoint.scheme, checkpoint.scenario
    if not isinstance(scheme, DualNetMp):
        raise InvalidInput(f"checkpoint: {checkpoint.name} is a {scheme.name}; wanted dualnet_mp")
    parts = []
    for samples in evaluation_samples(UES):
        fields = scheme.layout.fields_of(encode_frames(scheme, scenario, samples)[:, 0])
        level, scale = (torch.from_numpy(fields[name]) for name in (MAGNITUDE, SCALE))
        with torch.inference_mode():
            codeword = scheme.decoder.magnitude.quantizer.from_levels(level)
            found = scheme.decoder.magnitude(codeword, side_information(scheme, scenario, samples)[:, 0])
        truth = DownlinkView(scenario, samples).image()[:, 0].abs()
        error = found[:, 0] / 2 * scheme.decoder.scale.from_levels(scale)[..., None] - truth
        parts.append((error.square().sum((-2, -1)) / truth.square().sum((-2, -1))).double().numpy())
    return np.concatenate(parts)


if __name__ == "__main__":
    main()
