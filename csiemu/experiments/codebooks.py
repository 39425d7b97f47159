"""Table of docs/codebooks.md: the codebooks of 3GPP beside the shipped networks, in SGCS per subband.

Networks estimate images of the kept delay rows; their precoders are those of the channels that these say. The last row
of a world is what the true image would give.

python -m csiemu.experiments.codebooks [--ues N] [--checkpoints DIR]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Split
from shared.channels.subbands import precoders
from shared.channels.transforms import to_spatial_frequency, zero_fill
from shared.channels.wideband import Wideband, require_wideband
from shared.checkpoints import CheckpointStore, default_checkpoints
from shared.conditions import RunConditions
from shared.link.decoding import decode_frames
from shared.link.evaluation import over_the_link
from shared.metrics import Outcomes, Truth
from shared.schemes import Scheme
from shared.schemes.codebooks import CodebookConfig, EnhancedTypeII, EnhancedTypeIIConfig, TypeI
from shared.schemes.codebooks.tables import COMBINATIONS

WORLDS = {
    "cost2100-indoor-csinet": ("csinet", "crnet", "crnet-4bit", "crnet-16", "crnet-32"),
    "cost2100-outdoor-csinet": ("crnet-outdoor",),
    "tr38901-umi-nlos": ("dualnet_mp-outdoor",),
    "tr38901-umi-nlos:array=8x2": (),
}
"""Scenarios, and the shipped networks that are trained for them."""

_AT_ONCE = 250


def main() -> None:
    """Print the table, Markdown: frame 0 of the first UEs of the test split, seed 0, all payloads packed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ues", type=int, default=2000)
    parser.add_argument("--checkpoints", type=Path, default=default_checkpoints())
    settings = parser.parse_args()
    store = CheckpointStore(settings.checkpoints)
    torch.set_num_threads(1)
    print("| scenario | scheme | bits | SGCS per subband |")
    print("|---|---|---|---|")
    for name, networks in WORLDS.items():
        conditions = RunConditions(Scenario.parse(name))
        world = require_wideband(conditions.scenario, "this table")
        schemes = dict(codebooks(world)) | {network: store.load(network).scheme for network in networks}
        found: dict[str, list[Tensor]] = {label: [] for label in [*schemes, "true image"]}
        for ues in torch.arange(settings.ues).split(_AT_ONCE):
            samples = conditions.samples(Split.TEST, ues, 0)
            view = DownlinkView(world, samples)
            truth = Truth.precoders(view.precoders())
            for label, scheme in schemes.items():
                reports = over_the_link(scheme, conditions, samples)
                estimates = decode_frames(scheme, world, samples, reports)
                found[label].append(similarity(world, scheme.domain == "precoder", estimates, truth))
            found["true image"].append(similarity(world, False, view.image(), truth))
        for label, parts in found.items():
            sgcs = torch.cat(parts).mean(1)
            bits = f"{schemes[label].layout.bits:,}" if label in schemes else "-"
            error = float(sgcs.std()) / len(sgcs) ** 0.5
            print(f"| `{name}` | {label} | {bits} | {float(sgcs.mean()):.3f} ± {error:.3f} |", flush=True)


def codebooks(world: Wideband) -> Iterator[tuple[str, Scheme]]:
    """Type I and all combinations of enhanced Type II by their names in the table."""
    ports = world.panel or CodebookConfig.ports
    yield "Type I", TypeI(world, CodebookConfig(ports=ports)).eval()
    for combination in COMBINATIONS:
        config = EnhancedTypeIIConfig(ports=ports, combination=combination)
        yield f"eType II, {combination}", EnhancedTypeII(world, config).eval()


def similarity(world: Wideband, are_precoders: bool, estimates: Tensor, truth: Truth) -> Tensor:
    """SGCS [N, T] of precoders [N, T, S, M], or of those that images [N, T, Q, M] say."""
    if not are_precoders:
        chosen = world.compared()
        image = zero_fill(estimates, world.first_rows, world.last_rows, world.subcarriers)
        channels = to_spatial_frequency(image)[..., chosen, :]
        estimates = precoders(channels, world.subband_of(chosen), world.subbands)
    return torch.from_numpy(Outcomes.measure(estimates, truth).sgcs)


if __name__ == "__main__":
    main()
