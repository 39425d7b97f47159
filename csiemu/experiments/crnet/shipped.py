"""The shipped autoencoders beside the CRNet paper's: our NMSE and budget, and how fast the learning curve still fell.

python -m csiemu.experiments.crnet.shipped [--checkpoints DIR]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from csiemu.experiments.crnet.arms import EPOCHS, SCENARIOS
from csiemu.experiments.crnet.table_1 import PAPER
from csiemu.experiments.grid import slope_at_the_end
from csiemu.training.recipes import EPOCH
from shared.checkpoints import CheckpointStore, default_checkpoints

COLUMNS = {"csinet": (0, "const"), "crnet": (2, "cosine")}
"""Where the paper's table has a scheme, and by which of its recipes."""


def main() -> None:
    """Print the table, Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=Path, default=default_checkpoints())
    store = CheckpointStore(parser.parse_args().checkpoints)
    cards = {
        f"{name}/{version}": store.card(name, version) for name in store.names() for version in store.versions(name)
    }
    rows = [row(label, card) for label, card in cards.items() if card["scheme"] in COLUMNS]
    head = list(rows[0]) if rows else []
    for cells in (head, ["---"] * len(head), *(found.values() for found in rows)):
        print(f"| {' | '.join(cells)} |")


def row(label: str, card: dict[str, Any]) -> dict[str, str]:
    """A checkpoint's cells by their columns."""
    found, compression = card["evaluation"], card["config"]["compression"]
    column, recipe = COLUMNS[card["scheme"]]
    preset, _, changes = card["scenario"].partition(":")
    world = list(SCENARIOS.values()).index(preset)
    trainings = list(history(card["training"]))
    slope = slope_at_the_end(trainings[0]["curve"], EPOCH // trainings[0]["recipe"]["batch"])
    return {
        "checkpoint": label,
        "scenario": " ".join([list(SCENARIOS)[world], *([changes] if changes else [])]),
        "compression": f"1/{compression}",
        "feedback bits": f"{card['feedback_bits']:,}",
        "NMSE (dB)": f"{found['nmse_db']:.2f} ± {found['nmse_se_db']:.2f}",
        "paper, float (dB)": f"{PAPER[compression][world][column]:.2f}",
        "samples seen": f"{sum(training['frames_seen'] for training in trainings):,}",
        "paper's": f"{EPOCHS[recipe] * EPOCH:,}",
        "slope at the end (dB per 100,000 samples)": f"{slope:.3f}",
    }


def history(training: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A training, and those before it from whose weights it went on."""
    yield training
    if before := training.get("before"):
        yield from history(before)


if __name__ == "__main__":
    main()
