"""`csiemu train`: a training with a progress bar. Its options are those of `csiemu.training.options`."""

from __future__ import annotations

import functools
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

from csiemu.cluster import connected
from csiemu.output import console, number
from csiemu.training import trainer
from csiemu.training.campaign import Campaign
from csiemu.training.job import TrainingJob
from csiemu.training.member import file_name, label, run_alone
from csiemu.training.options import Option, options
from csiemu.training.plan import CAMPAIGN_OPTIONS, asked
from csiemu.training.share import SHARE_OPTIONS
from shared import settings as shared_settings
from shared.errors import InvalidInput


def _field(option: Option) -> Any:
    """The annotation and the default of a settings field."""
    if option.default is MISSING:
        return CliPositionalArg[str | None], Field(None, description=option.help)  # type: ignore[misc]  # a type alias
    return option.kind | None, Field(option.default, alias=option.name, description=option.help)


class _Settings(BaseSettings):
    """Train a design (or scheme) and write a checkpoint. Ctrl-C keeps the state; the same command goes on from it."""

    model_config = shared_settings.options("CSIEMU_TRAIN_")

    ray: str | None = None
    """A campaign's trainings as tasks of a Ray cluster: its host:port, or auto for one that runs or else a new one."""


_fields = {option.field: _field(option) for option in [*options(), *CAMPAIGN_OPTIONS, *SHARE_OPTIONS]}
Settings = create_model("Settings", __base__=_Settings, __doc__=_Settings.__doc__, **_fields)


def run(settings: _Settings) -> None:
    """Train a design, or those of a campaign. Raises as they do."""
    given = settings.model_dump(exclude_unset=True)
    cluster = given.pop("ray", None)
    job = asked(given, _plan)
    if cluster is None:
        for field in (option.field for option in SHARE_OPTIONS if option.field in given):
            raise InvalidInput(f"{field}: {given[field]} is for a cluster; name one with --ray")
    if not isinstance(job, Campaign):
        if cluster is not None:
            raise InvalidInput(f"ray: {cluster} is for a campaign; name its plan with --campaign")
        _train(job)
    elif cluster is None:
        job.run()
    else:
        _run_on_cluster(job, cluster)


def _run_on_cluster(campaign: Campaign, address: str) -> None:
    """Train what is not there yet, as many at once as the cluster has room for. Raises as `connected` and `run_tasks`.

    A training that names no steps keeps its recipe's, unless there is a budget: then it is fitted to this time from
    when its task begins, whatever runs beside it.
    """
    with connected(address):
        from csiemu.tasks import Task, run_tasks

        tasks = []
        for job, share in zip(campaign.jobs, campaign.shares, strict=True):
            if not campaign.is_finished(job):
                work = functools.partial(run_alone, job, campaign.budget)
                names = [job.saved_as, *(source.partition("/")[0] for source in job.sources)]
                takes = [
                    f"{file_name(job)}.zip",
                    f"states/{file_name(job)}",
                    *(f"checkpoints/{name}" for name in names),
                ]
                tasks.append(Task(label(job), work, tuple(takes), share.num_cpus, share.gpus(job.device)))
        run_tasks(tasks, campaign.out)


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
