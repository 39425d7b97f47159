"""Table of docs/channels.md: what truncation costs in each world, and how much of the downlink the uplink shows.

python -m csiemu.experiments.channels [frames]
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from csiemu.benchmarks.channels import PRESETS
from csiemu.dataset.inspect import resemblance
from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Link, Scenario
from shared.channels.streams import Samples, Split
from shared.channels.wideband import require_wideband
from shared.metrics import energy

_AT_ONCE = 100


def main() -> None:
    """Print the table, frames 0 .. frames-1 of the test split, seed 0; the floor from the first fifth of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("frames", type=int, nargs="?", default=2000)
    frames = parser.parse_args().frames
    torch.set_num_threads(1)
    ue = torch.arange(frames)
    samples = Samples(0, Split.TEST, ue, torch.zeros_like(ue))
    print("| preset | truncation floor (dB) | magnitudes of a UE's links | of two UEs | complex, a UE's links |")
    print("|---|---|---|---|---|")
    for preset in PRESETS:
        world = require_wideband(Scenario.parse(preset), "this table")
        slot = torch.arange(1)
        downlink, uplink = (world.angular_delay(samples, link, slot).numpy() for link in (Link.DOWNLINK, Link.UPLINK))
        parts = (samples.take(part) for part in ue[: frames // 5].split(_AT_ONCE))
        truths = [DownlinkView(world, part).truth("angular-delay") for part in parts]
        kept = torch.cat([energy(truth.channel, axes=2) / truth.total for truth in truths])
        floor = 10 * (1 - kept).double().mean().log10()
        figures = (
            resemblance(np.abs(downlink), np.abs(uplink)),
            resemblance(np.abs(downlink), np.roll(np.abs(uplink), 1, axis=0)),
            resemblance(downlink, uplink),
        )
        print(f"| `{preset}` | {floor:.1f} | {' | '.join(f'{value:.2f}' for value in figures)} |", flush=True)


if __name__ == "__main__":
    main()
