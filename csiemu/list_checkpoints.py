"""`csiemu checkpoints`: what there is, with the figures of the cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings
from rich.table import Table

from csiemu.output import console
from shared.checkpoints import CheckpointStore
from shared.settings import options

TITLES = (
    "name/version",
    "scheme",
    "scenario",
    "uplink",
    "bits",
    "steps",
    "all slots: NMSE (dB)",
    "t=T: NMSE (dB)",
    "t=T: ratio of sums (dB)",
    "t=T: SGCS",
)


class Settings(BaseSettings):
    """List checkpoints with the reference figures of their cards: test split, seed 0, as many UEs as the card says."""

    model_config = options("CSIEMU_CHECKPOINTS_")

    checkpoints: Path = Path("checkpoints")
    """Folder of checkpoints."""

    markdown: bool = False
    """A table for a README."""


def run(settings: Settings) -> None:
    """Print a table."""
    store = CheckpointStore(settings.checkpoints)
    rows = [
        _row(f"{name}/{version}", store.card(name, version))
        for name in store.names()
        for version in store.versions(name)
    ]
    if settings.markdown:
        for row in (TITLES, ["---"] * len(TITLES), *rows):
            print(f"| {' | '.join(row)} |")
        return
    table = Table(*TITLES)
    for row in rows:
        table.add_row(*row)
    console().print(table)


def _row(label: str, card: dict[str, Any]) -> list[str]:
    figures, config, training = card["evaluation"], card["config"], card["training"]
    last = figures["by_slot"][-1]
    return [
        label,
        card["scheme"],
        card["scenario"],
        config.get("uplink_reading", "none") + (" + beam power" if config.get("beam_power") else ""),
        str(card["feedback_bits"]),
        str(training["recipe"]["steps"]) if training["trained"] else "-",
        f"{figures['nmse_db']:.2f} ± {figures['nmse_se_db']:.2f}",
        f"{last['nmse_db']:.2f} ± {last['nmse_se_db']:.2f}",
        f"{last['ratio_of_sums_db']:.2f} ± {last['ratio_of_sums_se_db']:.2f}",
        f"{last['sgcs']:.3f}",
    ]
