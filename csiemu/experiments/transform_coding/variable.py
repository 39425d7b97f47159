"""What reports of lengths of their own would be worth: `gmtc` with one step for all UEs, from codes that are written
and read, offline. The wire has reports of one length.

python -m csiemu.experiments.transform_coding.variable [CHECKPOINT ...] [--checkpoints DIR] [--bits B ...] [--ues N]

A report is counted with its scale (8 bits) and its code's length (12 bits, so that the code's first one is implied);
the step is one for all, known to both ends.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from shared.channels.downlink import DownlinkView
from shared.channels.streams import Samples, Split
from shared.checkpoints import CheckpointStore, default_checkpoints
from shared.errors import InvalidInput
from shared.metrics import energy
from shared.quantizers import scale
from shared.schemes.gmtc import CODE, STEP_INDICES, STEPS, Gmtc

LENGTH_BITS = 12
"""Of a code's length."""

CHUNK = 500
"""UEs at once; the first chunk chooses the step."""

COLUMNS = ("checkpoint", "step", "mean bits", "p5", "p95", "NMSE (dB)", "bits of a fixed length", "its NMSE (dB)")


def main() -> None:
    """Print the table, Markdown: test split, seed 0, frame 0, mean of ratios, truncated domain."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["gmtc"], metavar="CHECKPOINT")
    parser.add_argument("--checkpoints", type=Path, default=default_checkpoints())
    parser.add_argument("--bits", type=int, nargs="*", default=[392, 776, 2056], help="mean bits, at most")
    parser.add_argument("--ues", type=int, default=5000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for name in options.names:
        checkpoint = CheckpointStore(options.checkpoints).load_named(name)
        if not isinstance(scheme := checkpoint.scheme, Gmtc):
            raise InvalidInput(f"checkpoint: {name} is a {scheme.name}; wanted gmtc")
        fixed = (f"{checkpoint.card['feedback_bits']:,}", f"{checkpoint.card['evaluation']['nmse_db']:.2f}")
        for bits in options.bits:
            step = finest(scheme, bits, options.ues)
            lengths, ratios = measured(scheme, step, options.ues)
            low, high = np.percentile(lengths, (5, 95))
            error = 10 / np.log(10) * ratios.std(ddof=1) / len(ratios) ** 0.5 / ratios.mean()
            cells = [name, str(step), f"{lengths.mean():,.1f}", f"{low:,.0f}", f"{high:,.0f}"]
            cells += [f"{10 * np.log10(ratios.mean()):.2f} ± {error:.2f}", *fixed]
            print(f"| {' | '.join(cells)} |", flush=True)


def finest(scheme: Gmtc, bits: int, ues: int) -> int:
    """The finest step at which the first UEs' reports have at most so many bits on average."""
    low, high = 0, STEPS - 1
    while low < high:
        middle = (low + high + 1) // 2
        fits = measured(scheme, middle, min(ues, CHUNK))[0].mean() <= bits
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


@torch.inference_mode()
def measured(scheme: Gmtc, step: int, ues: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Bits and squared errors over powers of the reports of UEs 0 .. ues - 1 at a step, [ues] each."""
    encoder, decoder = scheme.encoder, scheme.decoder
    known = np.zeros(STEPS)
    known[step] = 1
    for end in (encoder, decoder):
        end.code.tables.set(STEP_INDICES, known)
    lengths, ratios = [], []
    for ue in torch.arange(ues).split(CHUNK):
        view = DownlinkView(scheme.scenario, Samples(0, Split.TEST, ue, torch.zeros_like(ue)))
        images = view.image()[:, 0]
        seen = encoder.images(encoder.observe(view)[:, 0])
        codes = [encoder.code.write(kind, step, parts) for kind, parts in zip(*_analysed(scheme, seen), strict=True)]
        longest = max(map(len, codes))
        padded = np.stack([np.concatenate([np.zeros(longest - len(code), np.uint8), code]) for code in codes])
        fields = {**encoder.scale.encode(seen), CODE: torch.from_numpy(padded)}
        estimate, _ = decoder.step(fields, torch.zeros(len(ue), 0), {})
        ratios.append((energy(estimate - images, axes=2) / energy(images, axes=2)).double().numpy())
        lengths.append(np.array([scale.BITS + LENGTH_BITS + len(code) - 1 for code in codes]))
    return np.concatenate(lengths), np.concatenate(ratios)


def _analysed(scheme: Gmtc, images: torch.Tensor) -> tuple[list[int], torch.Tensor]:
    points = scheme.encoder.points(scheme.encoder.scaled(images))
    labels = scheme.encoder.rank(points).argmin(1)
    return labels.tolist(), scheme.encoder.coefficients(points, labels)


if __name__ == "__main__":
    main()
