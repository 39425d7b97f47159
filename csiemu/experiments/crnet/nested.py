"""A nested CRNet at each of its rates, beside the networks that were trained for one rate and transform coders of as
many bits: all on the same UEs, every payload packed and unpacked.

python -m csiemu.experiments.crnet.nested [NAME[/VERSION]] [--ues N] [--checkpoints DIR]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from csiemu.experiments.rate_distortion.coders import fitted, measured_spectrum
from csiemu.experiments.rate_distortion.worlds import WORLDS, World
from shared.channels.scenario import Scenario
from shared.channels.wideband import require_wideband
from shared.checkpoints import Checkpoint, CheckpointStore, default_checkpoints
from shared.conditions import RunConditions
from shared.errors import InvalidInput
from shared.link.evaluation import evaluate
from shared.link.rate import Rate
from shared.schemes import Scheme
from shared.schemes.crnet import CrNet
from shared.schemes.crnet_nested import CrNetNested


def main() -> None:
    """Print the table, Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", default="crnet_nested")
    parser.add_argument("--ues", type=int, default=5000)
    parser.add_argument("--checkpoints", type=Path, default=default_checkpoints())
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = CheckpointStore(options.checkpoints)
    checkpoint = store.load_named(options.name)
    nested = checkpoint.scheme
    if not isinstance(nested, CrNetNested):
        raise InvalidInput(f"checkpoint: {options.name} is a {nested.name}; wanted a {CrNetNested.name}")
    singles = of_one_rate(store, nested.scenario)
    world = require_wideband(nested.scenario, nested.name)
    scales = next((known.scales for known in WORLDS.values() if known.scenario == str(world)), World.scales)
    spectrum = measured_spectrum(world, scales)
    ours = f"{checkpoint.name}/{checkpoint.version}"
    print(f"| feedback bits | {ours}: NMSE (dB) | network of that rate | its NMSE (dB) | transform: NMSE (dB) |")
    print("|---|---|---|---|---|")
    for bits in nested.config.rates:
        single = singles.get(bits)
        cells = [
            f"{bits:,}",
            nmse(nested, options.ues, Rate(bits=bits)),
            "-" if single is None else f"{single.name}/{single.version}",
            "-" if single is None else nmse(single.scheme, options.ues),
            nmse(fitted(world, scales, spectrum, bits).scheme, options.ues),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


def of_one_rate(store: CheckpointStore, scenario: Scenario) -> dict[int, Checkpoint]:
    """CRNets of the same scenario by their feedback bits, their latest versions."""
    found = {}
    for name in store.names():
        card = store.card(name, store.versions(name)[-1])
        if card["scheme"] == CrNet.name and str(Scenario.parse(card["scenario"])) == str(scenario):
            found[card["feedback_bits"]] = store.load(name)
    return found


def nmse(scheme: Scheme, ues: int, rate: Rate | None = None) -> str:
    """Of the test split, mean of ratios [dB], with its standard error."""
    found = evaluate(scheme, RunConditions(scheme.scenario), ues=ues, rate=rate)
    return f"{found['nmse_db']:.2f} ± {found['nmse_se_db']:.2f}"


if __name__ == "__main__":
    main()
