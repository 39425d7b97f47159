"""Table and plot of docs/results/monitoring.md: what the gNB's monitoring notices, how soon, and what it only fancies.

python -m csiemu.experiments.monitoring [--checkpoints DIR] [--only NAME,NAME] [--seeds N] [--frames N] [--out DIR]
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gnb_server.calibration import Simulated, simulate
from gnb_server.monitoring.indicators import NAMES, SPARSER, UPLINK_EVERY, WINDOW
from gnb_server.monitoring.references import FITTED, JUDGED, Calibration, Reference, frame_means
from gnb_server.monitoring.windows import Windows
from shared.channels.scenario import Scenario
from shared.channels.streams import Split
from shared.checkpoints import CheckpointStore, default_checkpoints
from shared.conditions import RunConditions
from shared.link.air import UNDISTURBED, Air
from shared.schemes import Scheme

TARGET_EVERY = 5
"""Every so many frames a UE sends target CSI."""

LONG = 800
"""Frames of longer windows, for comparison."""

OFTEN, RARELY = 0.05, 1e-3
"""False alarms a window that limits are set for: of the bar, and where it is asked how soon an alarm comes."""

TARGET = NAMES.index("target")


@dataclass(frozen=True)
class Case:
    """What is the matter with a fleet.

    Attributes:
        scenario: of the fleet; empty: that of the version.
        harm: standard deviation of noise on each of the decoder's weights, relative to that of its tensor's weights.
        mixed_up: reports come under the names of other UEs.
    """

    label: str
    scenario: str = ""
    air: Air = UNDISTURBED
    harm: float = 0.0
    mixed_up: bool = False


LINKS = (
    Case("bit errors 1e-3", air=Air(ber=1e-3)),
    Case("bit errors 1e-2", air=Air(ber=1e-2)),
    Case("10 % lost", air=Air(loss=0.1)),
)

CONTROL = Case("nothing (control)")

CASES: dict[str, tuple[Case, ...]] = {
    "hyperrnn": (
        CONTROL,
        Case("4 paths, not 2", "multipath-p2:paths=4"),
        Case("8 paths, not 2", "multipath-p8"),
        Case("slower UEs, easier", "multipath-30kmh"),
        Case("worse decoder", harm=0.2),
        Case("UEs mixed up", mixed_up=True),
        *LINKS,
    ),
    "crnet-32": (
        CONTROL,
        Case("outdoor, not indoor", "cost2100-outdoor-csinet"),
        Case("worse decoder", harm=0.05),
        Case("UEs mixed up", mixed_up=True),
        *LINKS,
    ),
    "gmtc": (CONTROL, Case("outdoor, not indoor", "cost2100-outdoor-csinet"), *LINKS),
    "crnet-outdoor": (CONTROL, Case("indoor, not outdoor", "cost2100-indoor-csinet"), *LINKS[:2]),
}
"""By checkpoint."""


@dataclass
class Row:
    """Of a case.

    Attributes:
        nmse_db, usual_db: true NMSE in the case, and of the reference [dB].
        detected: of each indicator, and of any, share of the windows beyond the limit for OFTEN; NaN of none.
        in_long: of any, of windows of LONG frames.
        delays: reports from the change to the first window beyond the limit for RARELY, of the seeds that had one.
        seeds: how many there were.
    """

    nmse_db: float
    usual_db: float
    detected: NDArray[np.float64]
    in_long: float
    delays: list[int]
    seeds: int


def main() -> None:
    """Simulate, judge, write `monitoring.md` and `monitoring.png`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=Path, default=default_checkpoints())
    parser.add_argument("--only", default="", help="checkpoint names, comma-separated; default all of the table")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--frames", type=int, default=1000, help="of each seed, after the change")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Row]] = {}
    for name in options.only.split(",") if options.only else CASES:
        checkpoint = CheckpointStore(options.checkpoints).load(name)
        scheme = checkpoint.scheme.eval()
        found[name] = dict(rows(scheme, CASES[name], options.seeds, options.frames))
        (options.out / "monitoring.md").write_text(text(found, options.seeds, options.frames))
        plot(found, options.out / "monitoring.png")
        print(f"{name}: done", flush=True)
    print(f"written to {options.out}")


def rows(scheme: Scheme, cases: tuple[Case, ...], seeds: int, frames: int) -> Iterator[tuple[str, Row]]:
    """The rows of a checkpoint, seeds 1 to `seeds`."""
    own = RunConditions(scheme.scenario)
    reference, usual_db = reference_of(scheme)
    for case in cases:
        chosen, its_reference = scheme, reference
        if case.harm:
            chosen = harmed(scheme, case.harm)
            its_reference, _ = reference_of(chosen)
            its_reference.usual[:, TARGET] = reference.usual[:, TARGET]  # as `Watch` has it
        scenario = Scenario.parse(case.scenario) if case.scenario else own.scenario
        outcomes: list[NDArray[np.float64]] = []
        delays: list[int] = []
        in_windows: list[NDArray[np.float64]] = []
        in_long: list[NDArray[np.float64]] = []
        for seed in range(1, seeds + 1):
            conditions = dataclasses.replace(own, scenario=scenario, seed=seed, air=case.air)
            changed = simulate(chosen, conditions, Split.EMULATE, 0, frames, mixed_up=case.mixed_up)
            before = 1 + seed * 61 % (
                WINDOW - 1
            )  # healthy frames at the beginning of the window that the change falls into
            healthy = simulate(scheme, dataclasses.replace(own, seed=seed), Split.EMULATE, frames, before)
            outcomes.append(changed.ratios)
            values, usual = values_of(its_reference, changed), its_reference.usual
            in_windows.append(counted(usual, WINDOW, values))
            in_long.append(counted(usual, LONG, values))
            first = first_alarm(Windows(usual, RARELY), values_of(reference, healthy), values)
            delays += [] if first is None else [(first + 1) * scenario.slots]
        nmse_db = 10 * float(np.log10(np.concatenate(outcomes).mean()))
        yield case.label, Row(nmse_db, usual_db, share(in_windows), float(share(in_long)[-1]), delays, seeds)


def reference_of(scheme: Scheme) -> tuple[Reference, float]:
    """A reference as a gNB has it made, and the true NMSE of its frames [dB]."""
    found = simulate(scheme, RunConditions(scheme.scenario), Split.TEST, 0, FITTED + JUDGED)
    calibration = Calibration(found.decoded, scheme.scenario.slots)
    return Reference.of(scheme.layout, scheme.domain, calibration), 10 * float(np.log10(found.ratios.mean()))


@torch.no_grad()
def harmed(scheme: Scheme, harm: float) -> Scheme:
    """The scheme with noise on its decoder's weights, as in `Case`."""
    other, generator = copy.deepcopy(scheme), torch.Generator().manual_seed(0)
    for weights in other.decoder.parameters():
        if weights.dim() > 1:
            weights.add_(harm * weights.std() * torch.randn(weights.shape, generator=generator))
    return other


def values_of(reference: Reference, simulated: Simulated) -> NDArray[np.float64]:
    """Indicators of simulated frames as a gNB would have them, [J, frames]: of some no uplink, of some no target."""
    slots = len(simulated.decoded.lengths) // len(simulated.ratios)
    values = frame_means(reference.measure(simulated.decoded), slots)
    number = np.arange(values.shape[1])
    values[NAMES.index("uplink"), number % UPLINK_EVERY > 0] = np.nan
    values[TARGET, number % TARGET_EVERY > 0] = np.nan
    return values


def counted(usual: NDArray[np.float64], window: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Windows beyond their limits, and all, of each indicator, [J + 1, 2]; the last of any: rows of frames in which one
    ends that is, each so long that a window of target CSI ends in it, too.
    """
    row = max(window, window // SPARSER * TARGET_EVERY)
    found, any_of = np.zeros((len(NAMES) + 1, 2)), np.zeros(values.shape[1] // row, bool)
    for finding in Windows(usual, OFTEN, window).add(values):
        index, number = NAMES.index(finding.indicator.name), finding.last_frame // row
        found[index, 1] += 1
        if finding.exceeds:
            found[index, 0] += 1
            any_of[number : number + 1] = True
    found[-1] = any_of.sum(), len(any_of)
    return found


def share(windows: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Of windows beyond their limits, of what `counted` gives for each seed, [J + 1]; NaN without windows."""
    beyond, of = np.sum(windows, axis=0).T
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = beyond / of
    return found


def first_alarm(windows: Windows, before: NDArray[np.float64], after: NDArray[np.float64]) -> int | None:
    """Number of the frame after the change at which the first window is beyond its limit."""
    begun = before.shape[1]
    findings = [*windows.add(before), *windows.add(after)]
    late = [f.last_frame - begun for f in findings if f.exceeds and f.last_frame >= begun]
    return min(late, default=None)


def text(found: dict[str, dict[str, Row]], seeds: int, frames: int) -> str:
    """The table, Markdown."""
    row = max(WINDOW, WINDOW // SPARSER * TARGET_EVERY)
    only = "" if list(found) == list(CASES) else f" --only {','.join(found)}"
    lines = [
        "# What the monitoring notices",
        "",
        f"`csiemu experiment monitoring{only} --seeds {seeds} --frames {frames}`: first versions of the checkpoints,"
        f" frame 0 of the first {frames} UEs of the emulation's population, seeds 1 to {seeds}; references of"
        f" {FITTED} + {JUDGED} frames of the test split, seed 0. Windows have {WINDOW} frames; of `uplink` (every"
        f" {UPLINK_EVERY}th frame) and `target` (target CSI with every {TARGET_EVERY}th frame) {WINDOW // SPARSER}. How"
        " indicators, references and limits are made: [monitoring.md](../monitoring.md).",
        "",
        "Columns of indicators have the share of windows beyond their limit, which is set so that"
        f" {OFTEN:.0%} of healthy windows are beyond any; `any` has the share of rows of {row} frames in which one is,"
        f" `any, long` that of windows of {LONG} frames. In the rows `{CONTROL.label}` these are false alarms, and so"
        " they are where the NMSE is no worse than usual. Delay: reports of the fleet from the change to the first"
        f" alarm with limits for {RARELY:.1%} of false alarms a window; mean over the seeds that had one, and how"
        " many had.",
        "",
        f"| checkpoint | what is the matter | NMSE, usual (dB) | {' | '.join(NAMES)} | any | any, long | delay |",
        "|---" * (len(NAMES) + 6) + "|",
    ]
    for name, cases in found.items():
        for label, each in cases.items():
            shares = " | ".join("-" if np.isnan(part) else f"{part:.0%}" for part in (*each.detected, each.in_long))
            mean = f"{np.mean(each.delays):,.0f}" if each.delays else "-"
            delay = f"{mean} ({len(each.delays)}/{each.seeds})"
            lines.append(f"| `{name}` | {label} | {each.nmse_db:.2f}, {each.usual_db:.2f} | {shares} | {delay} |")
    return "\n".join([*lines, "", "![Share of windows beyond their limit](monitoring.png)", ""])


def plot(found: dict[str, dict[str, Row]], path: Path) -> None:
    """Shares as a grid of colours."""
    os.environ["MPLBACKEND"] = "Agg"  # a notebook's, say, is not to be had here
    from matplotlib.figure import Figure

    labels = [f"{name}: {label}" for name, cases in found.items() for label in cases]
    shares = np.array([row.detected for cases in found.values() for row in cases.values()])
    figure = Figure(figsize=(9, 1.5 + 0.32 * len(labels)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(NAMES) + 1), [*NAMES, "any"], rotation=30, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    for (y, x), part in np.ndenumerate(shares):
        if np.isfinite(part):
            axes.text(x, y, f"{100 * part:.0f}", ha="center", va="center", color="black" if part > 0.6 else "white")
    axes.set_title(f"Windows beyond their limit (%), limits for {OFTEN:.0%} of false alarms")
    figure.colorbar(image, ax=axes, shrink=0.5)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
