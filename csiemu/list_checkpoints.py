"""`csiemu checkpoints`: what there is, with the figures of the cards."""

from __future__ import annotations

import sys
from typing import Any

from rich.table import Table

from csiemu.output import console
from shared.metrics import DOMAIN_NAMES
from shared.settings import CheckpointSettings, options

CHANNEL_TITLES = (
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
IMAGE_TITLES = (
    "name/version",
    "scheme",
    "scenario",
    "compression",
    "bits an entry",
    "bits",
    "samples seen",
    "NMSE (dB)",
    "spatial-frequency NMSE (dB)",
    "truncation floor (dB)",
    "rho",
)
COMPRESSIONS = ("compression", "magnitude_compression", "phase_compression")


class Settings(CheckpointSettings):
    """List checkpoints with the reference figures of their cards: test split, seed 0, as many UEs as the card says."""

    model_config = options("CSIEMU_CHECKPOINTS_")

    markdown: bool = False
    """A table for a README."""


def run(settings: Settings) -> None:
    """Print a table of what can be read, and the reasons why the rest cannot."""
    store = settings.checkpoint_store()
    images, channels, problems = [], [], store.problems()
    for name in store.names():
        for version in store.versions(name):
            if (name, str(version)) in problems:
                continue
            label, card = f"{name}/{version}", store.card(name, version)
            try:
                if _has_images(card):
                    images.append(_image_row(label, card))
                else:
                    channels.append(_channel_row(label, card))
            except (LookupError, TypeError):
                how = f"csiemu evaluate {name} --version {version} --renew-card"
                problems[name, str(version)] = f"card.json lacks figures; {how} adds them"
    for titles, rows in ((CHANNEL_TITLES, channels), (IMAGE_TITLES, images)):
        if not rows:
            continue
        if settings.markdown:
            for row in (titles, ["---"] * len(titles), *rows):
                print(f"| {' | '.join(row)} |")
            print()
        else:
            table = Table(*titles)
            for row in rows:
                table.add_row(*row)
            console().print(table)
    for place, reason in problems.items():
        print(f"csiemu: {store.root.joinpath(*place)}: {reason}", file=sys.stderr)


def _has_images(card: dict[str, Any]) -> bool:
    return bool(card["evaluation"]["settings"].get("domain") == DOMAIN_NAMES["angular-delay"])


def _image_row(label: str, card: dict[str, Any]) -> list[str]:
    figures, config, training = card["evaluation"], card["config"], card["training"]
    return [
        label,
        card["scheme"],
        card["scenario"],
        " + ".join(f"1/{config[name]:g}" for name in COMPRESSIONS if name in config),
        str(config.get("entry_bits", config.get("phase_bits"))),
        str(card["feedback_bits"]),
        f"{_frames_seen(training):,}" if training["trained"] else "-",
        f"{figures['nmse_db']:.2f} ± {figures['nmse_se_db']:.2f}",
        f"{figures['nmse_sf_db']:.2f}",
        f"{figures['truncation_floor_db']:.1f}",
        f"{figures['rho']:.3f}",
    ]


def _frames_seen(training: dict[str, Any]) -> int:
    """In this training and in those before it, from whose weights it went on."""
    before = training.get("before")
    return training["frames_seen"] + (_frames_seen(before) if before else 0)


def _channel_row(label: str, card: dict[str, Any]) -> list[str]:
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
