"""A campaign: trainings beside each other on one machine, within a given time, with what they make in one folder.

Made for a machine that is lent for minutes, with a limit for a command and nothing kept after it. Each training is a
process. Once all of them step, each that names no steps measures its speed, and its number of steps becomes what the
rest of the time allows; these steps stay, also in another call that goes on from the saved state.

`csiemu train --ray` runs the same trainings as tasks of a cluster.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch

from csiemu.training.job import TrainingJob
from csiemu.training.member import Member, card_of, file_name, label
from csiemu.training.share import Share
from shared.errors import CsiError, InvalidInput
from shared.fields import Within, check_fields
from shared.schemes import scheme_class
from shared.stopping import end_with_parent
from shared.writable import why_no_folder

BUDGET_S = 560.0

GRACE_S = 10.0
"""How long after the budget's end a training may still evaluate before its process is ended [s]."""

FAILED, UNFINISHED = 2, 3
"""Exit statuses of a training's process."""


class CampaignFailed(CsiError):
    """A training of a campaign ended with an error, which it has printed."""


@dataclass(frozen=True)
class Campaign:
    """What a command line asks for. The texts beside the fields are also the help of their options.

    Raises:
        InvalidInput: a value is not allowed.
    """

    campaign: Annotated[
        Path,
        "Instead of a name: a plan, a file of JSON (for csiemu train also YAML) with a list of trainings, each"
        " {name: NAME, OPTION: VALUE, ...}. Options of the command line are for those that do not name them.",
    ]
    budget: Annotated[
        float | None,
        f"Seconds for a campaign; steps and warm-up are fitted to it where a training names no steps. Default"
        f" {BUDGET_S:g}; with --ray none, and one that is given is each training's own.",
        Within(1),
    ] = None
    out: Annotated[
        Path, "Folder of a campaign's checkpoints, saved states and archives; the same command goes on in it."
    ] = Path("runs/campaign")
    jobs: tuple[TrainingJob, ...] = ()
    shares: tuple[Share, ...] = ()
    """Of the jobs, in their order."""

    def __post_init__(self) -> None:
        check_fields(self)
        if reason := why_no_folder(self.out):
            raise InvalidInput(f"out: {self.out} {reason}")

    def run(self) -> None:
        """Train what is not there yet, until the budget is spent. What is not finished then, has a saved state.

        Raises:
            CampaignFailed: a training ended with an error; the others have gone on.
        """
        budget = BUDGET_S if self.budget is None else self.budget
        deadline = time.monotonic() + budget
        context = multiprocessing.get_context("spawn")  # CUDA survives no fork
        jobs = [job for job in self.jobs if not self.is_finished(job)]
        trained = [job for job in jobs if card_of(job) is None and scheme_class(job.design.scheme).trainable]
        together = context.Barrier(max(1, len(trained)))
        members = [
            context.Process(target=_process, args=(Member(job, self.out, budget, deadline, together),), name=label(job))
            for job in jobs
        ]
        for member in members:
            member.start()
        try:
            for member in members:
                member.join(max(0.0, deadline + GRACE_S - time.monotonic()))
            late = [member for member in members if member.is_alive()]
        except KeyboardInterrupt:
            for member in members:
                member.terminate()
            for member in members:
                member.join(GRACE_S)
            raise
        finally:
            for member in members:
                member.kill()
                member.join()
        for member in late:
            print(f"{member.name}: ended {GRACE_S:g} s after the budget; the same command goes on from the last save")
        failed = [member.name for member in members if member.exitcode not in (0, UNFINISHED) and member not in late]
        if failed:
            raise CampaignFailed(f"campaign: {len(failed)} of {len(members)} failed: {', '.join(failed)}")

    def is_finished(self, job: TrainingJob) -> bool:
        """Whether checkpoint and archive of one of the jobs are there."""
        return "probe" in (card_of(job) or {}) and (self.out / f"{file_name(job)}.zip").exists()


def _process(member: Member) -> None:
    """A training's process. It stops in time for the deadline (of the monotonic clock, which all processes of a machine
    share), and ends with the process that started it.
    """
    os.setsid()  # Ctrl-C is for the campaign, which passes it on
    end_with_parent(signal.SIGKILL)
    torch.set_num_threads(1)
    try:
        member.run()
    except KeyboardInterrupt:
        sys.exit(UNFINISHED)
    except CsiError as error:
        member.together.abort()
        print(f"{label(member.job)}: {error}", file=sys.stderr, flush=True)
        sys.exit(FAILED)
    except BaseException:
        member.together.abort()
        raise
