"""A campaign: trainings beside each other on one machine, within a given time, with what they make in one folder.

Made for a machine that is lent for minutes, with a limit for a command and nothing kept after it. Each training is a
process. Once all of them step, each measures its speed, and its number of steps becomes what the rest of the time
allows; these steps stay, also in another call that goes on from the saved state.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from multiprocessing.synchronize import Barrier
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

_ITS_OWN = {"steps", "epochs", "checkpoints", "state"}
"""Options that a campaign sets itself."""


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
    budget: Annotated[float, "Seconds for a campaign; steps and warm-up are fitted to it.", Within(1)] = 560.0
    out: Annotated[
        Path, "Folder of a campaign's checkpoints, saved states and archives; the same command goes on in it."
    ] = Path("runs/campaign")
    jobs: tuple[TrainingJob, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        if reason := why_no_folder(self.out):
            raise InvalidInput(f"out: {self.out} {reason}")

    def run(self) -> None:
        """Train what is not there yet, until the budget is spent. What is not finished then, has a saved state.

        Raises:
            CampaignFailed: a training ended with an error; the others have gone on.
        """
        deadline = time.monotonic() + self.budget
        context = multiprocessing.get_context("spawn")  # CUDA survives no fork
        jobs = [job for job in self.jobs if not self._is_finished(job)]
        trained = [job for job in jobs if _card(job) is None and scheme_class(job.design.scheme).trainable]
        together = context.Barrier(max(1, len(trained)))
        members = [
            context.Process(target=_member, args=(job, self.out, self.budget, deadline, together), name=_label(job))
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

    def _is_finished(self, job: TrainingJob) -> bool:
        return "probe" in (_card(job) or {}) and (self.out / f"{_file_name(job)}.zip").exists()


CAMPAIGN_OPTIONS = [
    dataclasses.replace(option, default=None if option.default is MISSING else option.default)
    for option in options_of(Campaign)
]
"""Those that a command line has beside the options of a training."""


def asked(given: Mapping[str, Any], parse: Callable[[str], Any]) -> TrainingJob | Campaign:
    """What options ask for: field -> value, None where the option is not given.

    Args:
        parse: the plan's content from its text; raises ValueError for what is none.

    Raises:
        InvalidInput, NotFound: options or plan are not allowed.
    """
    values = {field: value for field, value in given.items() if value is not None}
    own = {option.field: values.pop(option.field) for option in CAMPAIGN_OPTIONS if option.field in values}
    if "campaign" in own:
        if "name" in values:
            raise InvalidInput(f"name: '{values['name']}' and campaign: {own['campaign']} cannot both be given")
        campaign = Campaign(**own)
        return dataclasses.replace(campaign, jobs=_planned(campaign, values, parse))
    for field, value in own.items():
        raise InvalidInput(f"{field}: {value} is for a campaign; name its plan with --campaign")
    if "name" not in values:
        raise InvalidInput("name: it is missing; name a design or a scheme, or a plan with --campaign")
    return job_of(values)


def _planned(campaign: Campaign, given: dict[str, Any], parse: Callable[[str], Any]) -> tuple[TrainingJob, ...]:
    """The trainings of the plan, with what the command line gives for all."""
    path = campaign.campaign
    try:
        plan = parse(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"campaign: {path} cannot be read: {error}") from None
    if not isinstance(plan, list) or not plan:
        raise InvalidInput(f"campaign: {path} is not a list of trainings")
    jobs: dict[str, TrainingJob] = {}
    for number, entry in enumerate(plan, 1):
        where = f"campaign: training {number}"
        values = given | _read_entry(where, entry)
        for field in _ITS_OWN & values.keys():
            raise InvalidInput(f"{where}: {field}: {values[field]}; a campaign sets it itself")
        try:
            job = job_of(values)
            scheme_class(job.design.scheme)
            check_name(job.saved_as)
            _ = job.chosen
        except CsiError as error:
            raise type(error)(f"{where}: {error}") from None
        label = _label(job)
        if label in jobs:
            raise InvalidInput(f"{where}: {label} is there twice; name another with as or version")
        folders: dict[str, Any] = {
            "checkpoints": campaign.out / "checkpoints",
            "state": campaign.out / "states" / _file_name(job),
        }
        jobs[label] = dataclasses.replace(job, **folders)
    return tuple(jobs.values())


def _read_entry(where: str, entry: object) -> dict[str, Any]:
    """Field -> value of a training in a plan, which names options as a command line does."""
    by_name = {option.name: option for option in options()}
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
    path = folder / f"{_file_name(job)}.zip"
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


def _member(job: TrainingJob, out: Path, budget: float, deadline: float, together: Barrier) -> None:
    """A training's process. It stops in time for the deadline (of the monotonic clock, which all processes of a machine
    share), and ends with the process that started it.
    """
    os.setsid()  # Ctrl-C is for the campaign, which passes it on
    end_with_parent(signal.SIGKILL)
    torch.set_num_threads(1)
    try:
        Member(job, out, budget, deadline, together).run()
    except KeyboardInterrupt:
        sys.exit(UNFINISHED)
    except CsiError as error:
        together.abort()
        print(f"{_label(job)}: {error}", file=sys.stderr, flush=True)
        sys.exit(FAILED)
    except BaseException:
        together.abort()
        raise


@dataclass
class Member:
    """A training of a campaign, in its own process.

    Attributes:
        out: the campaign's folder.
        budget: the campaign's [s].
        deadline: when the evaluation should be done, by `time.monotonic` [s].
        together: at which those wait that have taken their first steps.
    """

    job: TrainingJob
    out: Path
    budget: float
    deadline: float
    together: Barrier

    def run(self) -> None:
        """Train or go on, evaluate, write the archive; what a call before has done stays. Raises as `TrainingJob.run`,
        KeyboardInterrupt when the time is over, and TooLarge.
        """
        job, name, version = self.job, self.job.saved_as, self.job.version
        store, state, card = CheckpointStore(job.checkpoints), _state(job), _card(job)
        if card is None:
            if (saved := saved_recipe(state)) is not None:
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
        self.say(f"{steps} steps, NMSE {'-' if nmse is None else f'{nmse:.2f}'} dB, {archive}")

    def prepare(self, trainer: Rounds) -> None:
        """Fit the steps to the time, if no call before has done so, and have the trainer stop in time. What does not
        train by gradients keeps its number of rounds.
        """
        after_s = self.seconds_after()
        if saved_recipe(_state(self.job)) is None and isinstance(trainer, Trainer):
            step_s = self.seconds_a_step(trainer)
            trainer.recipe = fitted(trainer.recipe, step_s, self.deadline - after_s - time.monotonic())
            self.say(f"{trainer.recipe.steps} steps of {step_s * 1e3:.3g} ms, {after_s:.1f} s for what is after them")
        else:
            self.wait()
            verb = "goes on" if trainer.step else "begins"
            self.say(f"{verb} at step {trainer.step} of {trainer.recipe.steps}")
        timer = threading.Timer(max(0.0, self.deadline - after_s - time.monotonic()), self.stop, (trainer,))
        timer.daemon = True
        timer.start()

    def stop(self, trainer: Rounds) -> None:
        """The time is over: the trainer stops, and its state is saved."""
        if trainer.step < trainer.recipe.steps:
            trainer.stop()
            self.say(f"stops at step {trainer.step} of {trainer.recipe.steps}; the same command goes on")

    def wait(self) -> None:
        """Until the others step, too: the speed beside them is what counts."""
        with contextlib.suppress(threading.BrokenBarrierError):  # one has failed, or takes too long
            self.together.wait(PATIENCE * self.budget)

    def seconds_a_step(self, trainer: Trainer) -> float:
        """Measured with steps that are taken back, so that a training of as many steps as the card says is the same;
        with the share of a step in the saves of the state.
        """
        with tempfile.TemporaryDirectory() as folder:
            start, later = Path(folder) / "start", Path(folder) / "later"
            trainer.save(start)
            trainer.run(FIRST_STEPS)
            self.wait()
            first, started = trainer.step, time.monotonic()
            while time.monotonic() < started + MEASURED * self.budget and trainer.step < trainer.recipe.steps:
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
        print(f"{_label(self.job)}: {what}", flush=True)


def _label(job: TrainingJob) -> str:
    return f"{job.saved_as}/{job.version}"


def _file_name(job: TrainingJob) -> str:
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
