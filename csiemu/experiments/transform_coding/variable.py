"""`gmtc` with one step for all UEs, from packed payloads: the finest step at which reports have so many bits on
average, the distortion there, and what the gNB expects of it; beside reports that all have at most so many bits.

python -m csiemu.experiments.transform_coding.variable [CHECKPOINT ...] [--checkpoints DIR] [--bits B ...] [--ues N]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from shared.channels.streams import Samples, Split
from shared.checkpoints import CheckpointStore, default_checkpoints
from shared.conditions import RunConditions
from shared.errors import InvalidInput
from shared.link.evaluation import outcomes, over_the_link
from shared.link.rate import Rate
from shared.schemes.gmtc import Gmtc

CHUNK = 512
"""UEs at once; the first chunk chooses the step."""

COLUMNS = (
    "checkpoint",
    "step",
    "mean bits",
    "p5",
    "p95",
    "NMSE (dB)",
    "as the gNB expects",
    "no report longer than",
    "mean bits then",
    "NMSE then (dB)",
)


@dataclass(frozen=True)
class Measured:
    """Of N reports: bits, squared errors over powers, and what the gNB expects these to be; [N] each."""

    bits: NDArray[np.int64]
    ratios: NDArray[np.float64]
    expected: NDArray[np.float64]

    def nmse(self) -> str:
        """Mean of ratios and its standard error [dB]."""
        error = 10 / np.log(10) * self.ratios.std(ddof=1) / len(self.ratios) ** 0.5 / self.ratios.mean()
        return f"{10 * np.log10(self.ratios.mean()):.2f} ± {error:.2f}"


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
        scheme = CheckpointStore(options.checkpoints).load_named(name).scheme
        if not isinstance(scheme, Gmtc):
            raise InvalidInput(f"checkpoint: {name} is a {scheme.name}; wanted gmtc")
        for bits in options.bits:
            step = finest(scheme, bits, options.ues)
            at_step, within = (measured(scheme, rate, options.ues) for rate in (Rate(step=step), Rate(bits=bits)))
            low, high = np.percentile(at_step.bits, (5, 95))
            cells = [name, str(step), f"{at_step.bits.mean():,.1f}", f"{low:,.0f}", f"{high:,.0f}", at_step.nmse()]
            cells += [f"{10 * np.log10(at_step.expected.mean()):.2f}", f"{bits:,}"]
            cells += [f"{within.bits.mean():,.1f}", within.nmse()]
            print(f"| {' | '.join(cells)} |", flush=True)


def finest(scheme: Gmtc, bits: float, ues: int) -> int:
    """The finest step at which the first UEs' reports have at most so many bits on average."""
    low, high = 0, scheme.steps - 1
    while low < high:
        middle = (low + high + 1) // 2
        fits = measured(scheme, Rate(step=middle), min(ues, CHUNK)).bits.mean() <= bits
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


@torch.inference_mode()
def measured(scheme: Gmtc, rate: Rate, ues: int) -> Measured:
    """Of the reports of UEs 0 .. ues - 1 at a rate."""
    conditions, found = RunConditions(scheme.scenario), []
    for ue in torch.arange(ues).split(CHUNK):
        samples = Samples(0, Split.TEST, ue, torch.zeros_like(ue))
        sent = over_the_link(scheme, conditions, samples, rate)
        fields = {name: torch.from_numpy(values) for name, values in scheme.layout.fields_of(sent[:, 0]).items()}
        expected = scheme.decoder.distortion(fields)[0].double().numpy()
        ratios = outcomes(scheme, conditions, samples, sent).ratio
        found.append((scheme.layout.lengths(sent).ravel(), np.asarray(ratios, np.float64).ravel(), expected))
    return Measured(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


if __name__ == "__main__":
    main()
