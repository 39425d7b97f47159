"""A training of a campaign, in a process of its own: within the time that it has, up to an archive for a gNB."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
import tempfile
import threading
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csiemu.training.job import TrainingJob
from csiemu.training.run import build, calibrate, measure
from csiemu.training.schemes import training_of
from csiemu.training.trainer import Recipe, Rounds, Trainer, saved_recipe
from shared.checkpoints import CheckpointStore
from shared.conditions import RunConditions
from shared.errors import InvalidInput, NotFound, TooLarge
from shared.link.evaluation import change_in_bf16, evaluate
from shared.schemes import ENDS

MOST_ARCHIVE_BYTES = 15 * 2**20

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
        store, state, card = CheckpointStore(job.checkpoints), state_of(job), card_of(job)
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
        is_new = not self.job.names_steps and saved_recipe(state_of(self.job)) is None
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


def placed(job: TrainingJob, out: Path) -> TrainingJob:
    """The training with its folders in that of a campaign."""
    return dataclasses.replace(job, checkpoints=out / "checkpoints", state=out / "states" / file_name(job))


def label(job: TrainingJob) -> str:
    """What a training is called in what is printed."""
    return f"{job.saved_as}/{job.version}"


def file_name(job: TrainingJob) -> str:
    """What its archive and the folder of its state are called."""
    return f"{job.saved_as}-{job.version}"


def state_of(job: TrainingJob) -> Path:
    """Folder of the resumable state of a training of a campaign."""
    assert job.state is not None  # of a plan
    return job.state


def card_of(job: TrainingJob) -> dict[str, Any] | None:
    """Of the checkpoint that the training makes; None if it is not there yet. Raises DamagedCheckpoint."""
    try:
        return CheckpointStore(job.checkpoints).card(job.saved_as, job.version)
    except NotFound:
        return None
