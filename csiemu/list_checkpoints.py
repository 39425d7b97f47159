"""`csiemu checkpoints`: what there is, with the figures of the cards."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg
from rich.table import Table

from csiemu.output import console
from shared.checkpoints import CheckpointStore
from shared.errors import NotFound
from shared.metrics import DOMAIN_NAMES, Domain
from shared.settings import CheckpointSettings, options

Card = dict[str, Any]


def _uplink(card: Card) -> str:
    """What the decoder takes from the uplink."""
    config = card["config"]
    return config.get("uplink_reading", "none") + (" + beam power" if config.get("beam_power") else "")


def _compression(card: Card) -> str:
    names = ("compression", "magnitude_compression", "phase_compression")
    return " + ".join(f"1/{card['config'][name]:g}" for name in names if name in card["config"])


def _frames_seen(training: dict[str, Any]) -> int:
    """In this training and in those before it, from whose weights it went on."""
    before = training.get("before")
    return training["frames_seen"] + (_frames_seen(before) if before else 0)


def _decibels(figures: dict[str, Any], name: str = "nmse") -> str:
    """An average with its standard error."""
    return f"{figures[f'{name}_db']:.2f} ± {figures[f'{name}_se_db']:.2f}"


def _bits(card: Card) -> str:
    """Feedback bits of a report: of reports of lengths of their own their mean, 5th and 95th percentile."""
    found = card["evaluation"]
    if found.get("feedback_bits_p5") == found.get("feedback_bits_p95"):  # cards of before have neither
        return f"{card['feedback_bits']:,}"
    return f"{found['feedback_bits']:,.0f} ({found['feedback_bits_p5']:,} to {found['feedback_bits_p95']:,})"


def _last_slot(card: Card) -> dict[str, Any]:
    return card["evaluation"]["by_slot"][-1]


Columns = dict[str, Callable[[Card], str]]

CHANNEL_COLUMNS: Columns = {
    "scheme": lambda card: card["scheme"],
    "scenario": lambda card: card["scenario"],
    "uplink": _uplink,
    "bits": _bits,
    "steps": lambda card: str(card["training"]["recipe"]["steps"]) if card["training"]["trained"] else "-",
    "all slots: NMSE (dB)": lambda card: _decibels(card["evaluation"]),
    "t=T: NMSE (dB)": lambda card: _decibels(_last_slot(card)),
    "t=T: ratio of sums (dB)": lambda card: _decibels(_last_slot(card), "ratio_of_sums"),
    "t=T: SGCS": lambda card: f"{_last_slot(card)['sgcs']:.3f}",
}

IMAGE_COLUMNS: Columns = {
    "scheme": lambda card: card["scheme"],
    "scenario": lambda card: card["scenario"],
    "compression": _compression,
    "bits an entry": lambda card: str(card["config"].get("entry_bits", card["config"].get("phase_bits", "-"))),
    "bits": _bits,
    "samples seen": lambda card: f"{_frames_seen(card['training']):,}" if card["training"]["trained"] else "-",
    "NMSE (dB)": lambda card: _decibels(card["evaluation"]),
    "spatial-frequency NMSE (dB)": lambda card: f"{card['evaluation']['nmse_sf_db']:.2f}",
    "truncation floor (dB)": lambda card: f"{card['evaluation']['truncation_floor_db']:.1f}",
    "rho": lambda card: f"{card['evaluation']['rho']:.3f}",
}

PRECODER_COLUMNS: Columns = {
    "scheme": lambda card: card["scheme"],
    "scenario": lambda card: card["scenario"],
    "ports": lambda card: card["config"]["ports"],
    "combination": lambda card: str(card["config"].get("combination", "-")),
    "bits": _bits,
    "SGCS per subband": lambda card: f"{card['evaluation']['sgcs']:.3f} ± {card['evaluation']['sgcs_se']:.3f}",
}

SUMMARY_COLUMNS: Columns = {
    "scenario": lambda card: card["scenario"],
    "domain": lambda card: _domain(card),
    "bits": _bits,
    "NMSE (dB)": lambda card: _decibels(card["evaluation"]) if card["evaluation"]["nmse_db"] is not None else "-",
    "SGCS": lambda card: f"{card['evaluation']['sgcs']:.3f} ± {card['evaluation']['sgcs_se']:.3f}",
}

COLUMNS: dict[str, Columns] = {
    "spatial": CHANNEL_COLUMNS,
    "angular-delay": IMAGE_COLUMNS,
    "precoder": PRECODER_COLUMNS,
}
"""By domain."""


class Settings(CheckpointSettings):
    """List checkpoints with the reference figures of their cards: test split, seed 0, as many UEs as the card says."""

    model_config = options("CSIEMU_CHECKPOINTS_")

    names: CliPositionalArg[list[str]] = Field([])
    """NAME/VERSION of those to list, in this order; default: all."""

    summary: bool = False
    """One table for all domains, with NMSE (mean of ratios over all slots) and SGCS alone."""

    markdown: bool = False
    """A table for a README."""


def run(settings: Settings) -> None:
    """Print a table of what can be read, and the reasons why the rest cannot. Raises NotFound for a name of none."""
    store = settings.checkpoint_store()
    wanted = _wanted(store, settings.names)
    tables = {"summary": SUMMARY_COLUMNS} if settings.summary else COLUMNS
    rows: dict[str, list[list[str]]] = {table: [] for table in tables}
    problems = store.problems()
    for name, version in wanted:
        if (name, str(version)) in problems:
            continue
        card = store.card(name, version)
        try:
            table = "summary" if settings.summary else _domain(card)
            rows[table].append([f"{name}/{version}", *(cell(card) for cell in tables[table].values())])
        except (LookupError, TypeError, ValueError, AttributeError):
            how = f"csiemu evaluate {name} --version {version} --renew-card"
            problems[name, str(version)] = f"card.json lacks figures; {how} adds them"
    for title, found in rows.items():
        if not found:
            continue
        titles = ["name/version", *tables[title]]
        if settings.markdown:
            for row in (titles, ["---"] * len(titles), *found):
                print(f"| {' | '.join(row)} |")
            print()
        else:
            shown = Table(*titles)
            for row in found:
                shown.add_row(*row)
            console().print(shown)
    for place, reason in problems.items():
        print(f"csiemu: {store.root.joinpath(*place)}: {reason}", file=sys.stderr)


def _wanted(store: CheckpointStore, names: list[str]) -> list[tuple[str, int]]:
    """Names and versions that are asked for. Raises NotFound."""
    there = {f"{name}/{version}": (name, version) for name in store.names() for version in store.versions(name)}
    for name in names:
        if name not in there:
            raise NotFound(f"names: '{name}' is unknown; wanted NAME/VERSION out of {', '.join(there)}")
    return [there[name] for name in names or there]


def _domain(card: Card) -> Domain:
    """What its estimates are; cards of before do not say it of channels on one subcarrier."""
    named: dict[str, Domain] = {name: domain for domain, name in DOMAIN_NAMES.items()}
    return named.get(card["evaluation"]["settings"].get("domain"), "spatial")
