"""Transform coding beside the shipped networks at the same feedback bits: what is missing is fitted, then the table.

python -m csiemu.experiments.transform_coding.fixed [--out DIR] [--ues N]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch

from csiemu.training.recipes import DESIGNS, recipe
from csiemu.training.run import train
from shared.checkpoints import CheckpointStore, shipped_checkpoints

FITTED, OF_OWN_LENGTHS = "transform", "gmtc"
"""What the table is of, and what it is not, as its reports are of no fixed length."""

COLUMNS = (
    "design",
    "scenario",
    "feedback bits",
    "vectors",
    "NMSE (dB)",
    "rho",
    "encoder, decoder (MMACs)",
    "network of as many bits",
    "its NMSE (dB)",
    "its MMACs",
)


def main() -> None:
    """Print the table, Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/transform"), help="folder of checkpoints")
    parser.add_argument("--ues", type=int, default=5000, help="of the evaluation")
    options = parser.parse_args()
    torch.set_num_threads(1)
    store, shipped = CheckpointStore(options.out), CheckpointStore(shipped_checkpoints())
    others = [shipped.card(name, shipped.versions(name)[-1]) for name in shipped.names()]
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for name, design in DESIGNS.items():
        if design.scheme != FITTED:
            continue
        if name not in store.names():
            state = store.root / "states" / name
            train(name, 1, design, recipe(design.recipe, {}), store=store, state=state, evaluation_ues=options.ues)
        card = store.card(name, 1)
        print(f"| {' | '.join(row(name, card, others))} |", flush=True)


def row(name: str, card: dict[str, Any], others: list[dict[str, Any]]) -> list[str]:
    """The cells of a design, and of the best network of its scenario and bits, if there is one."""

    def alike(other: dict[str, Any]) -> bool:
        return other["scheme"] not in (FITTED, OF_OWN_LENGTHS) and all(
            other[field] == card[field] for field in ("scenario", "feedback_bits")
        )

    cells = [name, card["scenario"], f"{card['feedback_bits']:,}", str(card["config"]["components"])]
    cells += [_decibels(card), f"{card['evaluation']['rho']:.3f}", _macs(card)]
    rivals = sorted(filter(alike, others), key=lambda other: other["evaluation"]["nmse_db"])
    if not rivals:
        return [*cells, "-", "-", "-"]
    return [*cells, f"{rivals[0]['name']}/{rivals[0]['version']}", _decibels(rivals[0]), _macs(rivals[0])]


def _decibels(card: dict[str, Any]) -> str:
    figures = card["evaluation"]
    return f"{figures['nmse_db']:.2f} ± {figures['nmse_se_db']:.2f}"


def _macs(card: dict[str, Any]) -> str:
    cost = [card["complexity"].get(end, {}).get("macs", math.nan) for end in ("encoder", "decoder")]
    return ", ".join(f"{macs / 1e6:.2f}" for macs in cost)


if __name__ == "__main__":
    main()
