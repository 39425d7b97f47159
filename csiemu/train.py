"""`csiemu train`: a training with a progress bar. Its options are those of `csiemu.training.options`."""

from __future__ import annotations

from dataclasses import MISSING
from typing import Any

import yaml
from pydantic import Field, create_model
from pydantic_settings import BaseSettings, CliPositionalArg
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from csiemu.output import console, number
from csiemu.training import trainer
from csiemu.training.campaign import CAMPAIGN_OPTIONS, Campaign, asked
from csiemu.training.job import TrainingJob
from csiemu.training.options import Option, options
from shared import settings as shared_settings


def _field(option: Option) -> Any:
    """The annotation and the default of a settings field."""
    if option.default is MISSING:
        return CliPositionalArg[str | None], Field(None, description=option.help)  # type: ignore[misc]  # a type alias
    return option.kind | None, Field(option.default, alias=option.name, description=option.help)


class _Settings(BaseSettings):
    """Train a design (or scheme) and write a checkpoint. Ctrl-C keeps the state; the same command goes on from it."""

    model_config = shared_settings.options("CSIEMU_TRAIN_")


_fields = {option.field: _field(option) for option in [*options(), *CAMPAIGN_OPTIONS]}
Settings = create_model("Settings", __base__=_Settings, __doc__=_Settings.__doc__, **_fields)


def run(settings: _Settings) -> None:
    """Train a design, or those of a campaign. Raises as they do."""
    job = asked(settings.model_dump(exclude_unset=True), _plan)
    if isinstance(job, Campaign):
        job.run()
    else:
        _train(job)


def _plan(text: str) -> Any:
    """A plan of YAML, and so of JSON. Raises ValueError."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(error) from None


def _train(job: TrainingJob) -> None:
    """Train with a progress bar, and one for what is before and after it, write the checkpoint, say what it reaches."""
    name, steps = job.saved_as, job.chosen.steps
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[reached]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    screen = console()
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as bar:
        task = bar.add_task(name, total=steps, reached="")
        stages: dict[str, TaskID] = {}

        def show(progress: trainer.Progress) -> None:
            reached = f"loss {progress.loss:.4f}  NMSE {progress.nmse_db:.2f} dB"
            bar.update(task, completed=progress.step, reached=reached)
            if bar.disable and progress.step % min(500, max(1, steps // 10)) == 0:
                screen.print(f"{name} step {progress.step}/{steps} {progress.nmse_db:.3f} dB")

        def show_stage(stage: str, done: int, of: int | None) -> None:
            if stage not in stages:
                stages[stage] = bar.add_task(f"{name}: {stage}", reached="")
            bar.update(stages[stage], completed=done, total=of)

        checkpoint = job.run(show, show_stage)
    figures = checkpoint.card["evaluation"]
    last = figures["by_slot"][-1]
    screen.print(
        f"{name}/{job.version}: all slots {number(figures['nmse_db'])} dB ({number(figures['ratio_of_sums_db'])} ratio"
        f" of sums), SGCS {number(figures['sgcs'], 3)}; slot {last['slot']} {number(last['nmse_db'])} dB"
        f" ({number(last['ratio_of_sums_db'])} ratio of sums)"
    )
