"""Table and plot of docs/results/after-a-loss.md: how many slots a decoder that remembers needs after reports are lost.

python -m csiemu.experiments.after_a_loss [--checkpoints DIR] [--only NAME,NAME] [--ues N] [--slot N] [--out DIR]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from shared.channels.streams import Split
from shared.checkpoints import Checkpoint, CheckpointStore, default_checkpoints
from shared.conditions import RunConditions
from shared.errors import InvalidInput
from shared.link.air import After, Air, Fate, Policy
from shared.link.decoding import Received, decode_received_frames, side_information
from shared.link.evaluation import BATCH, over_the_link, true_channels
from shared.metrics import Outcomes

NAMES = ("hyperrnn", "hyperrnn_angles", "pilot_lmmse", "predictive_lmmse", "rnn")

BURSTS = (1, 3)
"""Reports that are lost in a row."""

WITHIN_DB = 0.5
"""A decoder has recovered where it is, and stays, within this of what it reaches without a loss [dB]."""

DB = 10 / np.log(10)
"""Decibels of a relative difference of 1, to the first order."""

Ratios = NDArray[np.float64]
"""||e||^2 / ||h||^2 by UE and slot, [UEs, T]."""


@dataclass(frozen=True)
class Course:
    """NMSE by slot where reports were lost, beside that of the same UEs where none was.

    Attributes:
        nmse_db: [T], mean of ratios. difference_db, standard_error_db: [T], to the undisturbed one; paired, to the
            first order.
    """

    nmse_db: NDArray[np.float64]
    difference_db: NDArray[np.float64]
    standard_error_db: NDArray[np.float64]

    @classmethod
    def of(cls, ratios: Ratios, undisturbed: Ratios) -> Course:
        """From the ratios of both."""
        means = ratios.mean(axis=0), undisturbed.mean(axis=0)
        spread = (ratios / means[0] - undisturbed / means[1]).std(axis=0, ddof=1)
        levels = [10 * np.log10(mean) for mean in means]
        return cls(levels[0], levels[0] - levels[1], DB * spread / np.sqrt(len(ratios)))

    def slots_until(self, lost: range) -> int | None:
        """Slots from the last lost report to where the decoder has recovered; None: not within the frame."""
        after = self.difference_db[lost.stop :]
        beyond = np.flatnonzero(after > WITHIN_DB)
        needed = 1 + (int(beyond[-1]) + 1 if len(beyond) else 0)
        return needed if needed <= len(after) else None


@dataclass(frozen=True)
class Found:
    """Of one checkpoint: NMSE by slot without a loss and its standard error [dB], [T] each; and (lost slots, policy and
    state) -> what became of it.
    """

    undisturbed_db: NDArray[np.float64]
    standard_error_db: NDArray[np.float64]
    courses: dict[tuple[range, str], Course]


def main() -> None:
    """Measure, write `after-a-loss.md` and `.png`: frame 0 of the first UEs of the test split, seed 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=Path, default=default_checkpoints())
    parser.add_argument("--only", default=",".join(NAMES), help="checkpoint names, comma-separated")
    parser.add_argument("--ues", type=int, default=2000)
    parser.add_argument("--slot", type=int, default=2, help="of the frame, 1..T, whose report is lost, or is the first")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    store, found = CheckpointStore(options.checkpoints), {}
    for name in options.only.split(","):
        checkpoint = store.load(name)
        found[f"{name}/{checkpoint.version}"] = measured(checkpoint, options.ues, options.slot)
        print(f"{name}: done", flush=True)
    (options.out / "after-a-loss.md").write_text(text(found, options.ues))
    plot(found, options.out / "after-a-loss.png")
    print(f"written to {options.out}")


def measured(checkpoint: Checkpoint, ues: int, slot: int) -> Found:
    """NMSE by slot of a checkpoint in its own scenario, without and with the report of slot 1..T lost, alone and with
    those after it. Raises InvalidInput if no slot is left after them.
    """
    slots = checkpoint.scenario.slots
    if not 1 <= slot <= slots - max(BURSTS):
        raise InvalidInput(
            f"slot: {slot}; wanted 1..{slots - max(BURSTS)} of {slots}, so that some come after the loss"
        )
    patterns = [range(slot - 1, slot - 1 + burst) for burst in BURSTS]
    airs = {f"{air.policy}, {air.state}": air for air in choices(checkpoint)}
    parts: dict[tuple[range, str], list[Ratios]] = {}
    for first in range(0, ues, BATCH):
        conditions = RunConditions(checkpoint.scenario)
        samples = conditions.samples(Split.TEST, torch.arange(first, min(first + BATCH, ues)), 0)
        sent = over_the_link(checkpoint.scheme, conditions, samples)
        truth = true_channels(conditions, checkpoint.scheme.domain, samples)
        for lost in (range(0), *patterns):
            for label, air in airs.items() if lost else [("", Air(loss=1.0))]:
                fates = np.full(sent.shape[:2], Fate.INTACT, np.uint8)
                fates[:, list(lost)] = Fate.LOST
                received = Received(sent, fates)
                estimates = decode_received_frames(checkpoint.scheme, conditions.scenario, samples, received, air)
                parts.setdefault((lost, label), []).append(Outcomes.measure(estimates, truth).ratio)
    ratios = {key: np.concatenate(values) for key, values in parts.items()}
    undisturbed = ratios.pop((range(0), ""))
    mean, spread = undisturbed.mean(axis=0), undisturbed.std(axis=0, ddof=1) / np.sqrt(ues)
    courses = {key: Course.of(values, undisturbed) for key, values in ratios.items()}
    return Found(10 * np.log10(mean), DB * spread / mean, courses)


def choices(checkpoint: Checkpoint) -> list[Air]:
    """What a gNB may do about a lost report; `blind` is left out for a decoder that has no such step."""
    conditions, scheme = RunConditions(checkpoint.scenario), checkpoint.scheme
    side = side_information(scheme, conditions.scenario, conditions.samples(Split.TEST, torch.zeros(1).long(), 0))[:, 0]
    with torch.inference_mode():
        blind = scheme.decoder.erased(side, scheme.decoder.initial_state(1))
    policies: list[Policy] = [policy for policy in get_args(Policy) if policy != "blind" or blind is not None]
    return [Air(loss=1.0, policy=policy, state=state) for policy in policies for state in get_args(After)]


def text(found: dict[str, Found], ues: int) -> str:
    """The tables, Markdown."""
    lines = [
        "# After a lost report",
        "",
        f"`csiemu experiment after-a-loss --ues {ues}`: first versions of the checkpoints, each in its own scenario,"
        f" frame 0 of the first {ues} UEs of the test split, seed 0. Of all of them the report of the same slot is"
        " lost, or those of several in a row. What stands for a lost report, and what becomes of the state, is said in"
        " [air.md](../air.md); decoders that define no step without a report do alike with `last` and `blind`. Frames"
        " have the 8 slots that the schemes are built for, and the next frame begins anew in any case.",
        "",
        f"How many slots come after the last lost report until the NMSE is within {WITHIN_DB} dB of that without a"
        " loss, and stays there (1: the next report is; -: none of the frame):",
        "",
        *summary(found),
        "",
        "![How much worse each slot is](after-a-loss.png)",
        "",
        "NMSE by slot (dB, mean of ratios, packed payloads), in brackets how much worse than without the loss; standard"
        " errors of differences are by pairs.",
    ]
    for name, of_it in found.items():
        for lost in dict.fromkeys(lost for lost, _ in of_it.courses):
            lines += ["", f"## `{name}`, {which(lost)} lost", ""]
            lines += table(of_it, lost)
    return "\n".join(lines) + "\n"


def which(lost: range) -> str:
    """Lost slots, 1..T, in words."""
    return f"slot {lost.stop}" if len(lost) == 1 else f"slots {lost.start + 1} to {lost.stop}"


def summary(found: dict[str, Found]) -> Iterator[str]:
    """Lines of the table of slots until a decoder has recovered, whatever the checkpoint and pattern."""
    patterns = list(dict.fromkeys(lost for of_it in found.values() for lost, _ in of_it.courses))
    yield f"| checkpoint | policy, state | {' | '.join(f'{which(lost)} lost' for lost in patterns)} |"
    yield "|---" * (len(patterns) + 2) + "|"
    for name, of_it in found.items():
        for label in dict.fromkeys(label for _, label in of_it.courses):
            cells = (str(of_it.courses[lost, label].slots_until(lost) or "-") for lost in patterns)
            yield f"| `{name}` | {label} | {' | '.join(cells)} |"


def table(found: Found, lost: range) -> Iterator[str]:
    """Lines of the table of one checkpoint and pattern, from the first lost slot on."""
    shown = range(lost.start, len(found.undisturbed_db))
    yield f"| policy, state | {' | '.join(f't = {t + 1}' for t in shown)} |"
    yield "|---" * (len(shown) + 1) + "|"
    cells = (f"{found.undisturbed_db[t]:.2f} ± {found.standard_error_db[t]:.2f}" for t in shown)
    yield f"| no loss | {' | '.join(cells)} |"
    for (pattern, label), course in found.courses.items():
        if pattern == lost:
            differences = zip(course.nmse_db, course.difference_db, course.standard_error_db, strict=True)
            cells = (
                f"{nmse:.2f}<br>({more:+.2f} ± {error:.2f})" for nmse, more, error in list(differences)[shown.start :]
            )
            yield f"| {label} | {' | '.join(cells)} |"


def plot(found: dict[str, Found], path: Path) -> None:
    """How much worse each slot is, a panel for each checkpoint and pattern."""
    os.environ["MPLBACKEND"] = "Agg"  # a notebook's, say, is not to be had here
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.8 * len(found) + 1, 6), layout="constrained")
    panels = figure.subplots(len(BURSTS), len(found), sharex=True, sharey="row", squeeze=False)
    for column, (name, of_it) in zip(panels.T, found.items(), strict=True):
        for (lost, label), course in of_it.courses.items():
            axes, shown = column[BURSTS.index(len(lost))], np.arange(lost.start, len(course.nmse_db))
            errors = 1.96 * course.standard_error_db[shown]
            style = {"blind": "-", "last": "--", "predict": ":"}[label.partition(",")[0]]
            colour = "C0" if label.endswith("continue") else "C1"
            axes.errorbar(
                shown + 1, course.difference_db[shown], errors, label=label, ls=style, color=colour, capsize=2
            )
            axes.axvspan(lost.start + 0.6, lost.stop + 0.4, color="0.9")
            axes.set_title(f"{name}\n{which(lost)} lost", fontsize=9)
    for axes in panels.flat:
        axes.axhline(WITHIN_DB, color="0.5", lw=0.8, ls=":")
        axes.grid(alpha=0.3)
    for axes in panels[-1]:
        axes.set_xlabel("slot of the frame")
    for axes in panels[:, 0]:
        axes.set_ylabel("NMSE, worse by (dB)")
    handles, labels = max((axes.get_legend_handles_labels() for axes in panels.flat), key=lambda found: len(found[1]))
    figure.legend(handles, labels, loc="outside lower center", ncols=4, title="policy, state")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
