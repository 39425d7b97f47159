"""`csiemu checkpoints`: what there is, with the figures of the cards."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings
from rich.table import Table

from csiemu.output import console
from shared.checkpoints import CheckpointStore
from shared.settings import options


class Settings(BaseSettings):
    """List checkpoints: scenario, bits, reference NMSE over all slots and at the last one."""

    model_config = options("CSIEMU_CHECKPOINTS_")

    checkpoints: Path = Path("checkpoints")
    """Folder of checkpoints."""


def run(settings: Settings) -> None:
    """Print a table."""
    store = CheckpointStore(settings.checkpoints)
    table = Table(
        "name/version",
        "scheme",
        "scenario",
        "uplink",
        "bits",
        "encoder",
        "NMSE (dB)",
        "t=T: NMSE",
        "t=T: ratio of sums",
    )
    for name in store.names():
        for version in store.versions(name):
            card = store.card(name, version)
            figures = card["evaluation"]
            last = figures["by_slot"][-1]
            config = card["config"]
            table.add_row(
                f"{name}/{version}",
                card["scheme"],
                card["scenario"],
                config["uplink_reading"] + (" + beam power" if config["beam_power"] else ""),
                str(card["feedback_bits"]),
                card["encoder_id"],
                f"{figures['nmse_db']:.2f} ± {figures['nmse_se_db']:.2f}",
                f"{last['nmse_db']:.2f}",
                f"{last['ratio_of_sums_db']:.2f} ± {last['ratio_of_sums_se_db']:.2f}",
            )
    console().print(table)
