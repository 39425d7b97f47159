"""A figure of the HyperRNN paper: NMSE in the last slot against one number, trainings of an equal budget beside
references that learn nothing. Trains what is missing, evaluates all of it by hard bits, writes a table and a plot.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from csiemu.experiments import grid
from csiemu.experiments.grid import Arm, Budget
from csiemu.experiments.hyperrnn import soft
from csiemu.training.recipes import EPOCH, Design
from csiemu.training.run import measure, train
from csiemu.training.trainer import PRECISIONS, Recipe
from shared.checkpoints import Checkpoint, CheckpointStore
from shared.schemes.pilots import PilotConfig, UplinkReading

EPOCHS = round(20_000 * 1024 / EPOCH)
"""Of the authors' training: 20,000 steps of 1,024 fresh frames, counted in 100,000 frames."""

READINGS: tuple[UplinkReading, ...] = ("projected", "array")
"""Of the uplink: eq. (1) of the paper, and that of the authors' code, in which every antenna receives."""

AVERAGES = {"ratio_of_sums": "ratio of sums", "nmse": "mean of ratios, the paper's"}
"""Of the NMSE: the beginning of its name in a card, and what it is called."""


HIGHEST_DB = 0.5
"""Of a plot: an estimate of 0 has 0 dB, and how much worse one is, the table says."""


@dataclass(frozen=True)
class Point:
    """One point of a figure.

    Attributes:
        curve: its name in the legend.
        x: where it stands.
        design: scheme, scenario and sizes.
        trained: whether it is trained; references are measured as they are.
    """

    curve: str
    x: int
    design: Design
    trained: bool = True

    def name(self, seed: int) -> str:
        """Of its checkpoint: figures that have the same point share it."""
        config, scenario = self.design.config, self.design.scenario
        assert isinstance(config, PilotConfig)
        world = scenario.replace(":", "-").replace("=", "").replace(",", "-").replace("_", "-").replace(".", "")
        sizes = f"b{config.feedback_bits}-l{config.uplink_pilots}-{config.uplink_reading}"
        return f"{self.design.scheme}-{world}-{sizes}-seed{seed}"

    def arm(self, seed: int) -> Arm:
        """What `csiemu.experiments.grid` trains."""
        return Arm(self.name(seed), (self.curve, str(self.x)), self.design, "default", EPOCHS, None, seed=seed)


@dataclass(frozen=True)
class Figure:
    """What a figure shows.

    Attributes:
        name: of its module, and of the folder of its table and plot.
        title: of both.
        across: what x is.
        points: all of them.
    """

    name: str
    title: str
    across: str
    points: tuple[Point, ...]


def hyperrnn(scenario: str, bits: int, uplink_pilots: int, x: int) -> Iterator[Point]:
    """HyperRNN by both readings of the uplink."""
    for reading in READINGS:
        config = PilotConfig(feedback_bits=bits, uplink_pilots=uplink_pilots, uplink_reading=reading)
        yield Point(f"HyperRNN, {reading}, L_ul = {uplink_pilots}", x, Design("hyperrnn", scenario, config))


def soft_hyperrnn(scenario: str, bits: int, uplink_pilots: int, x: int) -> Iterator[Point]:
    """The same with B real numbers for a report."""
    for reading in READINGS:
        config = PilotConfig(feedback_bits=bits, uplink_pilots=uplink_pilots, uplink_reading=reading)
        label = f"soft: B real numbers, not bits; {reading}, L_ul = {uplink_pilots}"
        yield Point(label, x, Design(soft.SoftHyperRnn.name, scenario, config))


def dldnn(scenario: str, bits: int, x: int) -> Iterator[Point]:
    """The paper's baseline."""
    yield Point("DL-DNN", x, Design("dldnn", scenario, PilotConfig(feedback_bits=bits, uplink_reading="none")))


def references(scenario: str, bits: int, uplink_pilots: int, x: int) -> Iterator[Point]:
    """What needs no training: pilots at random, L_ul by the array reading."""
    silent = PilotConfig(feedback_bits=0, uplink_pilots=uplink_pilots)
    quantised = PilotConfig(feedback_bits=bits, uplink_pilots=uplink_pilots)
    genie = PilotConfig(feedback_bits=0, uplink_reading="genie")
    yield Point("pilot LMMSE, B bits", x, Design("pilot_lmmse", scenario, quantised), trained=False)
    yield Point("genie LMMSE, float32 pilots", x, Design("genie_lmmse", scenario, genie), trained=False)
    yield Point("uplink only, no feedback", x, Design("uplink_only", scenario, silent), trained=False)


def main(figure: Figure) -> None:
    """The command of a figure: parse the budget, train and measure its points, write `table.md` and `curves.png`."""
    parser = argparse.ArgumentParser(description=figure.title)
    parser.add_argument("--share", type=float, default=1.0, help="of the authors' 20,000 steps of 1,024 (default 1)")
    parser.add_argument("--batch", type=int, default=1024, help="frames a step")
    parser.add_argument("--precision", choices=PRECISIONS)
    parser.add_argument("--compiled", action="store_true", default=None)
    grid.add_place_options(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of worlds and weights, a training each")
    parser.add_argument("--values", type=int, nargs="+", help=f"points at these {figure.across} alone")
    parser.add_argument("--only", nargs="+", default=[""], help="curves whose names contain one of these alone")
    parser.add_argument("--ues", type=int, default=20_000, help="frames of the evaluation")
    parser.add_argument("--reference-ues", type=int, help="the same of references (default: as many)")
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    fields = ("batch", "precision", "compiled")
    changes = {name: value for name in fields if (value := getattr(options, name)) is not None}
    budget = Budget(options.share, changes, options.ues)
    store = CheckpointStore(options.out / str(budget))
    points = [
        point
        for point in figure.points
        if (not options.values or point.x in options.values) and any(part in point.curve for part in options.only)
    ]
    arms = [point.arm(seed) for seed in options.seeds for point in points if point.trained]
    grid.train_all(arms, budget, store, grid.place(options), trained)
    done: dict[Point, list[Checkpoint]] = {}
    for point in points:
        if point.trained:
            done[point] = [store.load(point.name(seed)) for seed in options.seeds]
        else:
            ues = options.reference_ues or options.ues
            done[point] = [reference(point, seed, ues, store) for seed in options.seeds]
    folder = store.root / figure.name
    folder.mkdir(parents=True, exist_ok=True)
    text = table(figure, done)
    (folder / "table.md").write_text(text)
    plot(figure, done, folder / "curves.png")
    print(f"{text}\nwritten to {folder}")


def trained(arm: Arm, budget: Budget, store: CheckpointStore, device: str) -> Checkpoint:
    """As `grid.trained`, by a process that has imported this module, and so knows the scheme of `soft`."""
    return grid.trained(arm, budget, store, device)


def reference(point: Point, seed: int, ues: int, store: CheckpointStore) -> Checkpoint:
    """A reference's checkpoint, evaluated on so many frames: its tables are made, and nothing is trained."""
    name = point.name(seed)
    if name not in store.names():
        state = store.root / "states" / name
        recipe = Recipe(steps=0, seed=seed)
        return train(name, 1, point.design, recipe, store=store, state=state, evaluation_ues=ues)
    found = store.load(name)
    if found.card.get("evaluation", {}).get("settings", {}).get("ues") != ues:
        found = measure(found, store, ues)
    return found


def last_slot(checkpoint: Checkpoint) -> dict[str, Any]:
    """Figures of the last slot in a card."""
    figures: dict[str, Any] = checkpoint.card["evaluation"]["by_slot"][-1]
    return figures


def table(figure: Figure, done: dict[Point, list[Checkpoint]]) -> str:
    """Markdown: for each average of the NMSE a table of curves and x, and what was spent."""
    values = sorted({point.x for point in done})
    lines = [f"# {figure.title}", "", *settings(figure, done), ""]
    for average, called in AVERAGES.items():
        lines += [f"NMSE (dB), {called}, in slot {_slots(done)}, by {figure.across}:", ""]
        lines += [f"| | {' | '.join(str(x) for x in values)} |", "|---" * (1 + len(values)) + "|"]
        for curve in dict.fromkeys(point.curve for point in done):
            by_x = {point.x: made for point, made in done.items() if point.curve == curve}
            lines.append(f"| {curve} | {' | '.join(_cell(by_x.get(x, []), average) for x in values)} |")
        lines.append("")
    return "\n".join(lines)


def _slots(done: dict[Point, list[Checkpoint]]) -> str:
    return " or ".join(sorted({str(last_slot(made[0])["slot"]) for made in done.values()}))


def _cell(made: Sequence[Checkpoint], average: str) -> str:
    """NMSE and the standard error of the evaluation; of more seeds their mean, and the standard error of this mean."""
    if not made:
        return "-"
    found = [last_slot(checkpoint) for checkpoint in made]
    mean = statistics.mean(row[f"{average}_db"] for row in found)
    error = statistics.mean(row[f"{average}_se_db"] for row in found)
    if len(found) > 1:
        of_seeds = statistics.stdev(row[f"{average}_db"] for row in found) * len(found) ** -0.5
        return f"{mean:.3f} ± {error:.3f}, seeds ± {of_seeds:.3f}"
    return f"{mean:.3f} ± {error:.3f}"


def settings(figure: Figure, done: dict[Point, list[Checkpoint]]) -> list[str]:
    """Lines that say how the points were made."""
    lines = [f"`python -m csiemu.experiments.hyperrnn.{figure.name} {shlex.join(sys.argv[1:])}`", ""]
    made = [checkpoint.card for point, found in done.items() if point.trained for checkpoint in found]
    if made:
        trainings = [card["training"] for card in made]
        recipe = trainings[0]["recipe"]
        seconds = sum(training["seconds"] for training in trainings)
        machines = ", ".join(sorted({training["machine"] for training in trainings}))
        lines.append(
            f"Each training: {recipe['steps']:,} steps of {recipe['batch']} fresh frames"
            f" ({recipe['steps'] * recipe['batch'] / (20_000 * 1024):.2%} of the authors'), {recipe['precision']},"
            f" rate {recipe['rate']:g} to {recipe['final_rate']:g}, seeds"
            f" {', '.join(sorted({str(training['recipe']['seed']) for training in trainings}))}; {len(made)} trainings,"
            f" {seconds / 60:.0f} minutes in all ({machines}, torch {trainings[0]['torch']})."
        )
    for kind, trained_ones in (("Trained schemes", True), ("References", False)):
        of = [c.card for point, found in done.items() if point.trained is trained_ones for c in found]
        if of:
            frames = ", ".join(sorted({f"{card['evaluation']['settings']['ues']:,}" for card in of}))
            lines.append(f"{kind}: {frames} frames of the test split, seed 0, every payload packed and unpacked.")
    lines.append(f"Evaluated on {platform.machine()}, {os.cpu_count()} cores, a thread a process.")
    return lines


def plot(figure: Figure, done: dict[Point, list[Checkpoint]], path: Path) -> None:
    """NMSE, ratio of sums, with standard errors; references are dashed, what is no bits is dotted."""
    os.environ["MPLBACKEND"] = "Agg"  # a notebook's, say, is not to be had here
    try:
        from matplotlib.figure import Figure as Canvas
    except ImportError:  # a machine that only trains
        print("no matplotlib here: no plot")
        return
    canvas = Canvas(figsize=(11, 5), layout="constrained")
    axes = canvas.subplots()
    for curve in dict.fromkeys(point.curve for point in done):
        points = sorted((p for p in done if p.curve == curve), key=lambda p: p.x)
        rows = [[last_slot(checkpoint) for checkpoint in done[point]] for point in points]
        axes.errorbar(
            [point.x for point in points],
            [statistics.mean(row["ratio_of_sums_db"] for row in of) for of in rows],
            [statistics.mean(row["ratio_of_sums_se_db"] for row in of) for of in rows],
            label=curve,
            linestyle="--" if not points[0].trained else ":" if curve.startswith("soft") else "-",
            marker="o" if points[0].trained else None,
            markersize=4,
            capsize=2,
        )
    axes.set(xlabel=figure.across, ylabel="NMSE in the last slot, ratio of sums (dB)", title=figure.title)
    axes.title.set_fontsize(9)
    axes.set_ylim(top=min(axes.get_ylim()[1], HIGHEST_DB))
    axes.grid(alpha=0.3)
    canvas.legend(loc="outside right upper", fontsize=7)
    canvas.savefig(path, dpi=110)
