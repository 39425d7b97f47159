"""A table of trainings beside the paper's numbers: train what is missing, evaluate, write the table and the plot.

Every arm is a checkpoint under runs/experiments, named by what it is, so that tables share arms, and a stopped run goes
on where it was. Needs no more than training does, matplotlib for the plot, and Ray for arms on more than one machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import multiprocessing
import os
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from csiemu.training.recipes import Design, recipe
from csiemu.training.run import measure, train
from csiemu.training.share import SHARE_OPTIONS, Share
from csiemu.training.trainer import PRECISIONS, STARTS, Progress, Recipe
from shared.checkpoints import Checkpoint, CheckpointStore
from shared.errors import Conflict
from shared.fields import differences

WARMUP = 60
"""Steps of warm-up that a small share of a recipe keeps: what Adam's moments need."""

STATES = "states"
"""Folder of what unfinished trainings have, among the checkpoints."""


@dataclass(frozen=True)
class Arm:
    """One cell of a table.

    Attributes:
        name: of the checkpoint; two tables with the same arm share it.
        labels: the row's first columns.
        design: what is trained.
        recipe: name of its recipe.
        epochs: as the paper trained it.
        paper_db: NMSE that the paper reports; None if it gives no number.
        frozen_from: the arm from which it takes what the stage of its recipe does not train.
        seed: of the recipe.
        changes: recipe fields that differ.
    """

    name: str
    labels: tuple[str, ...]
    design: Design
    recipe: str
    epochs: int
    paper_db: float | None
    frozen_from: Arm | None = None
    seed: int = 1
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Budget:
    """What a run of a table may spend.

    Attributes:
        share: of the paper's epochs, warm-up too; 1 is the paper's budget.
        changes: recipe fields that differ from the paper's.
        ues: of the evaluation.
    """

    share: float
    changes: dict[str, Any]
    ues: int

    def recipe(self, arm: Arm) -> Recipe:
        """The arm's recipe at this budget: at least one epoch, and `WARMUP` steps of the recipe's warm-up."""
        changes = {**arm.changes, **self.changes}
        full = recipe(arm.recipe, changes)
        shared = max(round(full.warmup * self.share), min(full.warmup, WARMUP))
        warmup = full.warmup if "warmup" in changes else shared
        epochs = max(1, round(arm.epochs * self.share))
        return recipe(arm.recipe, {**changes, "warmup": warmup, "seed": arm.seed}, epochs)

    def __str__(self) -> str:
        """A name for its folder."""
        return "-".join([f"share-{self.share:g}", *(f"{name}-{value}" for name, value in sorted(self.changes.items()))])


@dataclass(frozen=True)
class Place:
    """Where arms are trained.

    Attributes:
        device: cpu or cuda.
        at_once: so many beside each other on this machine, each in a process of its own if that is more than one.
        ray: instead, as tasks of this cluster (`csiemu.cluster.connected`).
        taken: cores and GPUs of a node there that each takes.
    """

    device: str
    at_once: int
    ray: str | None
    taken: tuple[float, float]


def add_place_options(parser: argparse.ArgumentParser) -> None:
    """Those that `place` reads."""
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--at-once", type=int, default=1, help="trainings beside each other")
    parser.add_argument(
        "--ray", help="trainings as tasks of a Ray cluster: host:port, or auto for one that runs or else a new one"
    )
    for option in SHARE_OPTIONS:
        parser.add_argument(f"--{option.name.replace('_', '-')}", type=float, default=option.default, help=option.help)


def place(options: argparse.Namespace) -> Place:
    """What the options ask for. Raises InvalidInput."""
    share = Share(**{option.field: getattr(options, option.field) for option in SHARE_OPTIONS})
    return Place(options.device, options.at_once, options.ray, (share.num_cpus, share.gpus(options.device)))


Figures = Mapping[str, Callable[[Checkpoint], str]]
"""Further columns of a table: title, and what stands there for a checkpoint."""


def main(title: str, columns: Sequence[str], arms: Sequence[Arm], figures: Figures | None = None) -> None:
    """The command of a table: parse the budget, run the arms, write `table.md` and `curves.png`."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--share", type=float, default=1.0, help="of the paper's epochs (default 1)")
    parser.add_argument("--frames", type=int, help="training frames (default: the paper's 100,000)")
    parser.add_argument("--start", choices=STARTS)
    parser.add_argument("--precision", choices=PRECISIONS)
    parser.add_argument("--compiled", action="store_true", default=None)
    add_place_options(parser)
    parser.add_argument("--ues", type=int, default=5000, help="of the evaluation")
    parser.add_argument("--only", default="", help="run arms whose name contains this; show all that are there")
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    fields = ("frames", "start", "precision", "compiled")
    changes = {name: value for name in fields if (value := getattr(options, name)) is not None}
    budget = Budget(options.share, changes, options.ues)
    store = CheckpointStore(options.out / str(budget))
    train_all([arm for arm in arms if options.only in arm.name], budget, store, place(options))
    done = all_trained(arms, store)
    folder = store.root / title.split(":")[0].lower().replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    text = table(title, columns, budget, done, figures or {})
    (folder / "table.md").write_text(text)
    plot(title, done, folder / "curves.png")
    print(f"{text}\nwritten to {folder}")


def all_trained(arms: Sequence[Arm], store: CheckpointStore) -> list[tuple[Arm, Checkpoint]]:
    """The arms that are there."""
    return [(arm, store.load(arm.name)) for arm in arms if arm.name in store.names()]


def trained(arm: Arm, budget: Budget, store: CheckpointStore, device: str) -> Checkpoint:
    """The arm's checkpoint; it is trained, after the arm that it goes on from, if it is not there.

    Raises:
        Conflict: it is there, but was trained by another recipe.
    """
    if arm.name in store.names():
        found, wanted = store.load(arm.name), dataclasses.asdict(budget.recipe(arm))
        made = found.card["training"]["recipe"]
        if made != wanted:
            others = ", ".join(differences(wanted, made))
            raise Conflict(f"arm: {arm.name} in {store.root} has another recipe: {others}; name another folder (--out)")
        if found.card.get("evaluation", {}).get("settings", {}).get("ues") != budget.ues:
            found = measure(found, store, budget.ues)  # of other UEs, or stopped before
        return found
    frozen_from = trained(arm.frozen_from, budget, store, device) if arm.frozen_from is not None else None

    def show(progress: Progress) -> None:
        if progress.step % 500 == 0:
            print(f"{arm.name} step {progress.step} {progress.nmse_db:.2f} dB {progress.seconds:.0f} s", flush=True)

    chosen = budget.recipe(arm)
    steps_an_epoch = max(1, chosen.steps // 50)
    return train(
        arm.name,
        1,
        arm.design,
        chosen,
        store=store,
        state=store.root / STATES / arm.name,
        device=device,
        frozen_from=frozen_from,
        evaluation_ues=budget.ues,
        report_every=min(500, steps_an_epoch),
        on_progress=show,
    )


Training = Callable[[Arm, Budget, CheckpointStore, str], Checkpoint]
"""`trained`, or the same of a module that registers schemes: processes that train import it."""


def train_all(
    arms: Sequence[Arm], budget: Budget, store: CheckpointStore, where: Place, one: Training = trained
) -> None:
    """Train the arms that are not there, after those that they go on from.

    Raises:
        Conflict: as `trained`. TasksFailed, InvalidInput, NotReady: as `csiemu.tasks` and `csiemu.cluster`, with Ray.
    """
    work = functools.partial(_train, one, budget, where.device)
    if where.ray is not None:
        from csiemu.cluster import connected

        with connected(where.ray):
            from csiemu.tasks import Task, run_tasks

            for wave in _waves(arms):
                there = set(store.names())
                tasks = [Task(arm.name, functools.partial(work, arm), _taken(arm, there), *where.taken) for arm in wave]
                run_tasks(tasks, store.root)
    elif where.at_once == 1:
        for arm in (arm for wave in _waves(arms) for arm in wave):
            work(arm, store.root)
    else:
        context = multiprocessing.get_context("spawn")  # CUDA survives no fork
        with ProcessPoolExecutor(where.at_once, context, torch.set_num_threads, (1,)) as pool:
            for wave in _waves(arms):
                for training in [pool.submit(work, arm, store.root) for arm in wave]:
                    training.result()


def _train(one: Training, budget: Budget, device: str, arm: Arm, folder: Path) -> None:
    one(arm, budget, CheckpointStore(folder), device)


def _waves(arms: Iterable[Arm]) -> list[list[Arm]]:
    """The arms, once each, and those that they go on from, these in earlier lists."""
    first = {arm.frozen_from.name: arm.frozen_from for arm in arms if arm.frozen_from is not None}
    rest = {arm.name: arm for arm in arms if arm.name not in first}
    return [*(_waves(first.values()) if first else []), list(rest.values())]


def _taken(arm: Arm, there: Collection[str]) -> tuple[str, ...]:
    """What is needed of the folder of checkpoints, in which these are there, to begin with an arm, or to go on."""
    own = arm.name if arm.name in there else f"{STATES}/{arm.name}"
    return own, *(() if arm.frozen_from is None else (arm.frozen_from.name,))


def table(
    title: str, columns: Sequence[str], budget: Budget, done: Sequence[tuple[Arm, Checkpoint]], figures: Figures
) -> str:
    """Markdown: our NMSE from packed payloads beside the paper's, the budget, and how fast the curve still falls."""
    spent = ("epochs", "paper's", "samples seen", "slope at the end (dB an epoch)")
    head = [*columns, "NMSE (dB)", *figures, "paper (dB)", *spent]
    lines = [
        f"# {title}",
        "",
        f"Budget: {budget}; test split, {budget.ues} UEs, seed 0.",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    for arm, checkpoint in done:
        found, training = checkpoint.card["evaluation"], checkpoint.card["training"]
        made = Recipe(**training["recipe"])
        epochs = training["frames_seen"] / made.frames
        cells = [
            *arm.labels,
            f"{found['nmse_db']:.2f} ± {found['nmse_se_db']:.2f}",
            *(figure(checkpoint) for figure in figures.values()),
            "-" if arm.paper_db is None else f"{arm.paper_db:.2f}",
            f"{epochs:g}",
            f"{arm.epochs}",
            f"{training['frames_seen']:,}",
            f"{slope_at_the_end(training['curve'], made.frames // made.batch):.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def slope_at_the_end(curve: Sequence[dict[str, float]], steps_an_epoch: int) -> float:
    """Least-squares slope of the last fifth of a learning curve, at least two points [dB an epoch]; 0 for fewer."""
    last = curve[-max(2, len(curve) // 5) :]
    if len(last) < 2:
        return 0.0
    epochs = [point["step"] / steps_an_epoch for point in last]
    return statistics.linear_regression(epochs, [point["nmse_db"] for point in last]).slope


def plot(title: str, done: Sequence[tuple[Arm, Checkpoint]], path: Path) -> None:
    """Training curves over the share of each arm's own training, as in Fig. 5 of the CRNet paper."""
    os.environ["MPLBACKEND"] = "Agg"  # a notebook's, say, is not to be had here
    try:
        from matplotlib.figure import Figure
    except ImportError:  # a machine that only trains
        print("no matplotlib here: no plot")
        return
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots()
    for index, (arm, checkpoint) in enumerate(done):
        training = checkpoint.card["training"]
        steps = training["recipe"]["steps"]
        points = [(point["step"] / steps, point["nmse_db"]) for point in training["curve"]]
        label = ", ".join(arm.labels) + f" ({training['frames_seen']:,} samples)"
        style = ("-", "--", ":", "-.")[index // 10 % 4]  # colours come again after ten
        axes.plot(*zip(*points, strict=True), label=label, linewidth=1.2, linestyle=style)
    axes.set(xlabel="share of the training", ylabel="NMSE in training (dB)", title=title)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=7)
    figure.savefig(path, dpi=120)
