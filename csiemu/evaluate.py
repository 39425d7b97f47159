"""`csiemu evaluate`: a checkpoint's figures measured again, beside its card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg
from rich.table import Table

from csiemu.output import console, progress
from csiemu.training.run import measure
from shared.channels.streams import Split
from shared.commands import write_json
from shared.errors import InvalidInput
from shared.link.evaluation import evaluate
from shared.link.rate import Rate
from shared.settings import JsonFile, RunSettings, options
from shared.writable import why_no_file


class Settings(RunSettings):
    """Encode, pack, unpack and decode a fixed evaluation set, and compare with the card."""

    model_config = options("CSIEMU_EVALUATE_")

    name: CliPositionalArg[str]
    """Checkpoint name."""

    version: int | None = Field(None, ge=1)
    """Version; default the first."""

    split: str = Field("test", pattern="^(train|validation|test|emulate)$")
    """Population: train, validation, test or emulate."""

    ues: int = Field(5000, ge=1, le=10_000_000)
    """UEs; the card says of how many its figures are."""

    frames: int = Field(1, ge=1, le=1_000_000)
    """Frames of each UE."""

    bits: int | None = Field(None, ge=1)
    """Most bits of a report, of schemes that can give fewer; each is as fine as they allow."""

    step: int | None = Field(None, ge=0)
    """Index of the quantiser step, of schemes that have steps; with --bits the finest."""

    renew_card: bool = False
    """Write the card's figures anew, of --ues UEs in the card's own conditions, and its probe. With --scenario the card
    says from then on that it was trained for that one: where a preset has changed, what it was is by its fields."""

    json_file: JsonFile = None


COLUMNS = (
    ("NMSE (mean of ratios)", "nmse_db", "nmse_se_db"),
    ("ratio of sums", "ratio_of_sums_db", "ratio_of_sums_se_db"),
    ("mean of dB", "mean_of_db", "mean_of_db_se"),
    ("SGCS", "sgcs", "sgcs_se"),
    ("rho", "rho", "rho_se"),
    ("spatial-frequency NMSE", "nmse_sf_db", "nmse_sf_se_db"),
)
"""Averages that are shown: title, value, standard error; [dB] but for the similarities."""


def run(settings: Settings) -> None:
    """Measure and show."""
    store = settings.checkpoint_store()
    checkpoint = store.load(settings.name, settings.version)
    screen = console()
    if settings.renew_card:
        _check_renewal(settings, store.folder(checkpoint.name, checkpoint.version))
        if settings.scenario:
            scenario = settings.conditions(checkpoint).scenario
            checkpoint.scheme.check_scenario(scenario)
            store.annotate(checkpoint, {"scenario": str(scenario)})
            checkpoint = store.load(checkpoint.name, checkpoint.version)
    with progress(screen) as bar:
        task = bar.add_task(f"{checkpoint.name}: frames", total=settings.ues * settings.frames)

        def show(frames: int) -> None:
            bar.update(task, completed=frames)

        if settings.renew_card:
            checkpoint = measure(checkpoint, store, settings.ues, show)
            result = checkpoint.card["evaluation"]
        else:
            result = evaluate(
                checkpoint.scheme,
                settings.conditions(checkpoint),
                split=Split[settings.split.upper()],
                ues=settings.ues,
                frames=settings.frames,
                rate=None if settings.bits is settings.step is None else Rate(settings.bits, settings.step),
                on_progress=show,
            )
    card = checkpoint.card.get("evaluation", {})
    low, high, most = (result[f"feedback_bits_{name}"] for name in ("p5", "p95", "most"))
    spread = f", 5 % have up to {low}, 5 % from {high} to {most}" if checkpoint.scheme.layout.varies else ""
    screen.print(f"{checkpoint.name}/{checkpoint.version}: {result['feedback_bits']:,.1f} bits a report{spread}")
    screen.print({"measured": result["settings"], "card": card.get("settings")})
    titles = (title if value in ("sgcs", "rho") else f"{title} (dB)" for title, value, _ in COLUMNS)
    table = Table("slot", *titles, "reports")
    for label, row in (("card, all", card), ("all", result), *((str(r["slot"]), r) for r in result["by_slot"])):
        if row:
            table.add_row(label, *(_with_error(row, value, error) for _, value, error in COLUMNS), str(row["reports"]))
    screen.print(table)
    if result["truncation_floor_db"] is not None:
        screen.print(f"truncation floor of the spatial-frequency NMSE: {result['truncation_floor_db']:.3f} dB")
    if settings.json_file:
        write_json(settings.json_file, result)


def _check_renewal(settings: Settings, folder: Path) -> None:
    """Raises InvalidInput where the card's own conditions are not those asked for, or it cannot be written."""
    for name in ("seed", "delay_slots", "air", "split", "frames", "bits", "step"):
        if (asked := getattr(settings, name)) != Settings.model_fields[name].default:
            raise InvalidInput(f"{name}: {asked}; a card is renewed in its own conditions only")
    if reason := why_no_file(folder / "card.json"):
        raise InvalidInput(f"checkpoints: {folder / 'card.json'} {reason}")


def _with_error(row: dict[str, Any], value: str, error: str) -> str:
    if row.get(value) is None:  # cards of before lack some
        return "-"
    return f"{row[value]:.3f}" + (f" ± {row[error]:.3f}" if row[error] is not None else "")
