"""`csiemu train`: a training with a progress bar."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from pydantic import Field
from pydantic_settings import BaseSettings, CliPositionalArg
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from csiemu.output import console
from csiemu.training import trainer
from csiemu.training.order import Order
from shared.settings import options


class Settings(BaseSettings):
    """Train a design (or scheme) and write a checkpoint. Ctrl-C keeps the state; the same command goes on from it."""

    model_config = options("CSIEMU_TRAIN_")

    name: CliPositionalArg[str]
    """A design (hyperrnn, hyperrnn-beams, rnn, dldnn, hyperdnn, hyperrnn-projected, dldnn-projected, crnet,
    crnet-4bit, crnet-16, crnet-32, crnet-outdoor, csinet, dualnet_mp, dualnet_mp-outdoor, dualnet_mp-mdpq-outdoor,
    genie_lmmse, angle_lmmse, uplink_only); with --as another name for the checkpoint."""

    save_as: str | None = Field(None, alias="as")
    """Checkpoint name; default the design's."""

    version: int = Field(1, ge=1)
    """Version to write."""

    checkpoints: Path = Path("checkpoints")
    """Folder of checkpoints."""

    state: Path | None = None
    """Folder of resumable state; default runs/training/NAME-VERSION."""

    device: str = "cpu"
    """cpu or cuda."""

    freeze_encoder_from: str | None = None
    """NAME[/VERSION] of a checkpoint whose encoder stays as it is: a better decoder for UEs in the field."""

    start_from: str | None = None
    """NAME[/VERSION] of a checkpoint of the same networks whose weights to begin with; with --steps 0 they are only
    quantised anew."""

    frozen_from: str | None = None
    """NAME[/VERSION] of a checkpoint from which the parts are taken that this stage does not train."""

    pilots_from: str | None = None
    """NAME[/VERSION] of a checkpoint whose downlink pilots a reference takes over."""

    scenario: str | None = None
    """preset[:field=value,...] instead of the design's; has M, P and T."""

    sizes: str = Field("", alias="set")
    """field=value,... of the scheme's configuration instead of the design's: feedback_bits=30,uplink_pilots=8, or
    compression=16,entry_bits=6. A wrong name lists them all."""

    recipe: str | None = None
    """const or cosine (the CRNet paper's), principal (ours, for images), linear (ours, for crnet), magnitude, phase or
    dualnet (for dualnet_mp), tuning or default; default the design's. The options from here to seed replace its
    values."""

    epochs: int | None = Field(None, ge=1)
    """Instead of steps: passes over the recipe's frames, or over as many as 100,000 fresh ones."""

    steps: int | None = None
    """Optimiser steps."""

    batch: int | None = None
    """Frames a step."""

    rate: float | None = None
    """Learning rate at its highest."""

    final_rate: float | None = None
    """Learning rate at the end."""

    warmup: int | None = None
    """Steps of linear rise."""

    slope: float | None = None
    """Slope of the quantiser's gradient at the start."""

    final_slope: float | None = None
    """Slope at the end."""

    precision: str | None = None
    """Of matrix products: fp32 or bf16."""

    frames: int | None = None
    """Training frames, computed once and kept in memory; 0 for fresh ones at every step."""

    start: str | None = None
    """random weights, principal components (images only), or a linear autoencoder (crnet)."""

    frozen_norms: bool | None = None
    """Batch normalisations keep the statistics that they have at the start: for a linear one."""

    stage: str | None = None
    """all, or a stage of the scheme's own: magnitude, then phase (dualnet_mp); recipes of these names have them."""

    compiled: bool | None = None
    """torch.compile fuses the networks (images only): worth its minute or two in long trainings."""

    seed: int | None = None
    """Of the world and of the initial weights."""

    save_every: int = Field(500, ge=1)
    """Steps between saves of the state."""

    evaluation_ues: int = Field(5000, ge=16)
    """UEs of the card's reference figures."""


def run(settings: Settings) -> None:
    """Train with a progress bar, write the checkpoint, say what it reaches."""
    torch.set_num_threads(1)
    fields = (field.name for field in dataclasses.fields(trainer.Recipe))
    changes = {field: value for field in fields if (value := getattr(settings, field)) is not None}
    asked = {field.name for field in dataclasses.fields(Order)} - {"changes"}
    order = Order(**{name: getattr(settings, name) for name in asked}, changes=changes)
    name, steps = settings.save_as or settings.name, order.chosen.steps
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}  NMSE {task.fields[nmse]:.2f} dB"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    screen = console()
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as bar:
        task = bar.add_task(name, total=steps, loss=float("nan"), nmse=float("nan"))

        def show(progress: trainer.Progress) -> None:
            bar.update(task, completed=progress.step, loss=progress.loss, nmse=progress.nmse_db)
            if bar.disable and progress.step % 500 == 0:
                screen.print(f"{name} step {progress.step}/{steps} {progress.nmse_db:.3f} dB")

        checkpoint = order.carry_out(show)
    figures = checkpoint.card["evaluation"]
    last = figures["by_slot"][-1]
    screen.print(
        f"{name}/{settings.version}: all slots {figures['nmse_db']:.2f} dB ({figures['ratio_of_sums_db']:.2f} ratio of"
        f" sums), slot {last['slot']} {last['nmse_db']:.2f} dB ({last['ratio_of_sums_db']:.2f} ratio of sums)"
    )
