"""A campaign: trainings beside each other on one machine, within a given time, with what they make in one folder.

Made for a machine that is lent for minutes, with a limit for a command and nothing kept after it. Each training is a
process. Once all of them step, each that names no steps measures its speed, and its number of steps becomes what the
rest of the time allows; these steps stay, also in another call that goes on from the saved state.

`csiemu train --ray` runs the same trainings as tasks of a cluster.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch

from csiemu.training.job import TrainingJob
from csiemu.training.options import Option, job_of, options, options_of
from csiemu.training.run import build, calibrate, measure
from csiemu.training.schemes import training_of
from csiemu.training.trainer import Recipe, Rounds, Trainer, saved_recipe
from shared.checkpoints import CheckpointStore, check_name
from shared.conditions import RunConditions
from shared.errors import CsiError, InvalidInput, NotFound, TooLarge
from shared.fields import Within, check_fields
from shared.link.evaluation import change_in_bf16, evaluate
from shared.schemes import ENDS, scheme_class
from shared.stopping import end_with_parent
from shared.writable import why_no_folder

MOST_ARCHIVE_BYTES = 15 * 2**20

BUDGET_S = 560.0

GRACE_S = 10.0
"""How long after the budget's end a training may still evaluate before its process is ended [s]."""

FIRST_STEPS = 5
"""Steps that are not measured: they compile, record CUDA graphs and make fixed frames."""

MEASURED = 0.05
"""Share of the budget in which the speed is measured."""

PATIENCE = 0.25
"""Share of the budget for which a training waits for the others to be ready."""

USED = 0.9
"""Share of the time for steps that is planned; the rest is for a machine that becomes slower."""

WARMUP = 0.1
"""Highest share of the steps that are of warm-up."""

FAILED, UNFINISHED = 2, 3
"""Exit statuses of a training's process."""

_ITS_OWN = {"checkpoints", "state"}
"""Options that a campaign sets itself."""


class CampaignFailed(CsiError):
    """A training of a campaign ended with an error, which it has printed."""


@dataclass(frozen=True)
class Share:
    """What a training takes of a cluster's node. The texts beside the fields are also the help of their options.

    Raises:
        InvalidInput: a value is not allowed.
    """

    num_cpus: Annotated[float, "With --ray: cores that a training takes, for which it waits.", Within(0.01, 1024)] = 1.0
    num_gpus: Annotated[
        float | None,
        "With --ray: the GPU that it takes, 0.25 where four share one. Default: 1 with --device cuda, else 0.",
        Within(0, 1),
    ] = None

    def __post_init__(self) -> None:
        check_fields(self)

    def gpus(self, device: str) -> float:
        """What a training on this device takes. Raises InvalidInput if it would have none."""
        on_cuda = device.startswith("cuda")
        if on_cuda and self.num_gpus == 0:
            raise InvalidInput(f"num_gpus: 0 leaves a training on {device} without a GPU")
        return float(on_cuda) if self.num_gpus is None else self.num_gpus


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
        trained = [job for job in jobs if _card(job) is None and scheme_class(job.design.scheme).trainable]
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
        return "probe" in (_card(job) or {}) and (self.out / f"{file_name(job)}.zip").exists()


CAMPAIGN_OPTIONS = [
    dataclasses.replace(option, default=None if option.default is MISSING else option.default)
    for option in options_of(Campaign)
]
"""Those that a command line has beside the options of a training."""

SHARE_OPTIONS = list(options_of(Share))
"""Those that a plan has, too, and a command line that knows of clusters."""


def asked(given: Mapping[str, Any], parse: Callable[[str], Any]) -> TrainingJob | Campaign:
    """What options ask for: field -> value, None where the option is not given.

    Args:
        parse: the plan's content from its text; raises ValueError for what is none.

    Raises:
        InvalidInput, NotFound: options or plan are not allowed.
    """
    values = {field: value for field, value in given.items() if value is not None}
    own = {option.field: values.pop(option.field) for option in CAMPAIGN_OPTIONS if option.field in values}
    shares = {option.field: values.pop(option.field) for option in SHARE_OPTIONS if option.field in values}
    if "campaign" in own:
        if "name" in values:
            raise InvalidInput(f"name: '{values['name']}' and campaign: {own['campaign']} cannot both be given")
        return _planned(Campaign(**own), values | shares, parse)
    for field, value in (own | shares).items():
        raise InvalidInput(f"{field}: {value} is for a campaign; name its plan with --campaign")
    if "name" not in values:
        raise InvalidInput("name: it is missing; name a design or a scheme, or a plan with --campaign")
    return job_of(values)


def _planned(campaign: Campaign, given: dict[str, Any], parse: Callable[[str], Any]) -> Campaign:
    """The campaign with the trainings of its plan, to which the command line gives what they do not name."""
    path = campaign.campaign
    try:
        plan = parse(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"campaign: {path} cannot be read: {error}") from None
    if not isinstance(plan, list) or not plan:
        raise InvalidInput(f"campaign: {path} is not a list of trainings")
    jobs: dict[str, tuple[TrainingJob, Share]] = {}
    for number, entry in enumerate(plan, 1):
        where = f"campaign: training {number}"
        values = given | _read_entry(where, entry)
        for field in _ITS_OWN & values.keys():
            raise InvalidInput(f"{where}: {field}: {values[field]}; a campaign sets it itself")
        try:
            share = Share(
                **{option.field: values.pop(option.field) for option in SHARE_OPTIONS if option.field in values}
            )
            job = job_of(values)
            share.gpus(job.device)
            scheme_class(job.design.scheme)
            check_name(job.saved_as)
            _ = job.chosen
        except CsiError as error:
            raise type(error)(f"{where}: {error}") from None
        if label(job) in jobs:
            raise InvalidInput(f"{where}: {label(job)} is there twice; name another with as or version")
        jobs[label(job)] = placed(job, campaign.out), share
    planned, shares = zip(*jobs.values(), strict=True)
    return dataclasses.replace(campaign, jobs=planned, shares=shares)


def placed(job: TrainingJob, out: Path) -> TrainingJob:
    """The training with its folders in that of a campaign."""
    return dataclasses.replace(job, checkpoints=out / "checkpoints", state=out / "states" / file_name(job))


def _read_entry(where: str, entry: object) -> dict[str, Any]:
    """Field -> value of a training in a plan, which names options as a command line does."""
    by_name = {option.name: option for option in [*options(), *SHARE_OPTIONS]}
    if not isinstance(entry, dict) or "name" not in entry:
        raise InvalidInput(f"{where}: {entry!r} is not a mapping of options with a name")
    found = {}
    for key, value in entry.items():
        option = by_name.get(str(key).replace("-", "_"))
        if option is None:
            raise InvalidInput(f"{where}: option '{key}' is unknown; options are {', '.join(by_name)}")
        found[option.field] = _read(f"{where}: {key}", option, value)
    return found


def _read(what: str, option: Option, value: object) -> Any:
    """A value of an option. YAML has some numbers as text: 1e-3."""
    allowed: dict[type, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float, str), str: (str,)}
    try:
        if isinstance(value, bool) == (option.kind is bool) and isinstance(value, allowed.get(option.kind, (str,))):
            return option.kind(value)
    except ValueError:
        pass
    wanted = {bool: "true or false", int: "a whole number", float: "a number"}.get(option.kind, "a text")
    raise InvalidInput(f"{what}: {value!r} is not {wanted}")


def fitted(recipe: Recipe, step_s: float, left_s: float) -> Recipe:
    """The recipe with as many steps as there is time for, and warm-up in proportion.

    Args:
        step_s: seconds a step, saves of the state included.
        left_s: seconds until the last step has to be done.

    Raises:
        InvalidInput: not one step is possible.
    """
    steps = int(USED * left_s / step_s)
    if steps < 1:
        raise InvalidInput(f"budget: it leaves {left_s:.1f} s for steps of {step_s:.3f} s; give it more seconds")
    return dataclasses.replace(recipe, steps=steps, warmup=min(recipe.warmup, int(WARMUP * steps)))


def write_archive(store: CheckpointStore, job: TrainingJob, folder: Path) -> Path:
    """The archive of a checkpoint, as `POST /v1/checkpoints` takes it; one that is there stays.

    Raises:
        TooLarge: it has more than `MOST_ARCHIVE_BYTES`.
    """
    path = folder / f"{file_name(job)}.zip"
    if path.exists():
        return path
    card = store.folder(job.saved_as, job.version) / "card.json"
    members = {"card.json": card.read_bytes()}
    members |= {f"{end}.safetensors": store.part(job.saved_as, job.version, end) for end in ENDS}
    partial = path.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # without the time of day
    if (size := partial.stat().st_size) > MOST_ARCHIVE_BYTES:
        partial.unlink()
        raise TooLarge(f"archive: {path.name} would have {size} bytes; at most {MOST_ARCHIVE_BYTES} are allowed")
    return partial.rename(path)


@dataclass
class Member:
    """A training of a campaign, in its own process.

    Attributes:
        out: the campaign's folder.
        budget: the time that it has [s]; None: as much as its steps take.
        deadline: when the evaluation should be done, by `time.monotonic` [s].
        together: at which those wait that have taken their first steps.
        is_over: whether its time was over before its steps were done.
    """

    job: TrainingJob
    out: Path
    budget: float | None
    deadline: float
    together: threading.Barrier
    is_over: bool = False

    def run(self) -> None:
        """Train or go on, evaluate, write the archive; what a call before has done stays. Raises as `TrainingJob.run`,
        KeyboardInterrupt when the time is over, and TooLarge.
        """
        job, name, version = self.job, self.job.saved_as, self.job.version
        store, state, card = CheckpointStore(job.checkpoints), _state(job), _card(job)
        if card is None:
            if not job.names_steps and (saved := saved_recipe(state)) is not None:
                fitted_before = {"steps": saved.steps, "warmup": saved.warmup}
                self.job = job = dataclasses.replace(job, changes=job.changes | fitted_before)
            checkpoint = job.run(lambda progress: None, on_ready=self.prepare)
        elif "probe" not in card:  # ended before it was evaluated
            checkpoint = measure(store.load(name, version), store, job.evaluation_ues)
        else:
            checkpoint = store.load(name, version)
        archive = write_archive(store, job, self.out)
        shutil.rmtree(state, ignore_errors=True)
        nmse = checkpoint.card["evaluation"]["nmse_db"]
        steps = checkpoint.card["training"].get("recipe", {}).get("steps", 0)
        self.say(f"{steps} steps, NMSE {'-' if nmse is None else f'{nmse:.2f}'} dB, {archive.name}")

    def prepare(self, trainer: Rounds) -> None:
        """Fit the steps to the time, if they are not named and no call before has done so, and have the trainer stop in
        time. What does not train by gradients keeps its number of rounds.
        """
        after_s = 0.0 if self.budget is None else self.seconds_after()
        is_new = not self.job.names_steps and saved_recipe(_state(self.job)) is None
        if self.budget is not None and is_new and isinstance(trainer, Trainer):
            step_s = self.seconds_a_step(trainer, MEASURED * self.budget)
            trainer.recipe = fitted(trainer.recipe, step_s, self.deadline - after_s - time.monotonic())
            self.say(f"{trainer.recipe.steps} steps of {step_s * 1e3:.3g} ms, {after_s:.1f} s for what is after them")
        else:
            self.wait()
            verb = "goes on" if trainer.step else "begins"
            self.say(f"{verb} at step {trainer.step} of {trainer.recipe.steps}")
        if self.budget is not None:
            timer = threading.Timer(max(0.0, self.deadline - after_s - time.monotonic()), self.stop, (trainer,))
            timer.daemon = True
            timer.start()

    def stop(self, trainer: Rounds) -> None:
        """The time is over: the trainer stops, and its state is saved."""
        if trainer.step < trainer.recipe.steps:
            self.is_over = True
            trainer.stop()
            self.say(f"stops at step {trainer.step} of {trainer.recipe.steps}; the same command goes on")

    def wait(self) -> None:
        """Until the others step, too: the speed beside them is what counts."""
        with contextlib.suppress(threading.BrokenBarrierError):  # one has failed, or takes too long
            self.together.wait(None if self.budget is None else PATIENCE * self.budget)

    def seconds_a_step(self, trainer: Trainer, for_s: float) -> float:
        """Measured for some seconds with steps that are taken back, so that a training of as many steps as the card
        says is the same; with the share of a step in the saves of the state.
        """
        with tempfile.TemporaryDirectory() as folder:
            start, later = Path(folder) / "start", Path(folder) / "later"
            trainer.save(start)
            trainer.run(FIRST_STEPS)
            self.wait()
            first, started = trainer.step, time.monotonic()
            while time.monotonic() < started + for_s and trainer.step < trainer.recipe.steps:
                trainer.run(trainer.step + FIRST_STEPS)
            stepped = time.monotonic()
            trainer.save(later)
            saving = (time.monotonic() - stepped) / self.job.save_every
            measured = (stepped - started) / max(1, trainer.step - first)
            trainer.load(start)
        return measured + saving

    def seconds_after(self) -> float:
        """What quantisers and evaluation will take, from those of a scheme without training and a share of the UEs."""
        seed, ues = self.job.chosen.seed, self.job.evaluation_ues
        scheme = build(self.job.design, seed).eval()
        started = time.monotonic()
        calibrate(training_of(scheme, self.job.chosen.stage), seed)
        calibrated = time.monotonic() - started
        few = max(16, ues // 20)
        evaluate(scheme, RunConditions(scheme.scenario), ues=16)  # what is compiled at the first call
        started = time.monotonic()
        evaluate(scheme, RunConditions(scheme.scenario), ues=few)
        change_in_bf16(scheme, RunConditions(scheme.scenario), few)
        return calibrated + (time.monotonic() - started) * ues / few

    def say(self, what: str) -> None:
        print(f"{label(self.job)}: {what}", flush=True)


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


def run_alone(job: TrainingJob, budget: float | None, out: Path) -> None:
    """A training of a campaign elsewhere, in this process and a folder of the same structure; as much as the time from
    now allows. Raises as `Member.run`, KeyboardInterrupt only where it is interrupted.
    """
    deadline = math.inf if budget is None else time.monotonic() + budget
    member = Member(placed(job, out), out, budget, deadline, threading.Barrier(1))
    try:
        member.run()
    except KeyboardInterrupt:
        if not member.is_over:
            raise


def label(job: TrainingJob) -> str:
    """What a training is called in what is printed."""
    return f"{job.saved_as}/{job.version}"


def file_name(job: TrainingJob) -> str:
    """What its archive and the folder of its state are called."""
    return f"{job.saved_as}-{job.version}"


def _state(job: TrainingJob) -> Path:
    assert job.state is not None  # of a plan
    return job.state


def _card(job: TrainingJob) -> dict[str, Any] | None:
    """Of the checkpoint that the training makes; None if it is not there yet. Raises DamagedCheckpoint."""
    try:
        return CheckpointStore(job.checkpoints).card(job.saved_as, job.version)
    except NotFound:
        return None
