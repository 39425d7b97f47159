"""Table and plot of docs/results/air.md: every checkpoint over a link with bit errors or losses, also in bursts.

python -m csiemu.experiments.air [--checkpoints DIR] [--only NAME,NAME] [--ues N] [--out DIR]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import torch

from shared.checkpoints import Checkpoint, CheckpointStore, default_checkpoints
from shared.conditions import RunConditions
from shared.errors import CsiError
from shared.link.air import UNDISTURBED, Air, Policy
from shared.link.evaluation import evaluate

AIRS = {
    "undisturbed": UNDISTURBED,
    "BER 1e-3": Air(ber=1e-3),
    "BER 1e-2": Air(ber=1e-2),
    "BER 1e-1": Air(ber=1e-1),
    "loss 1 %": Air(loss=0.01),
    "loss 10 %": Air(loss=0.1),
    "loss 10 %, bursts of 5": Air(loss=0.1, burst=5),
    "BER 1e-3, CRC 11": Air(ber=1e-3, crc=11),
    "BER 1e-2, CRC 11": Air(ber=1e-2, crc=11),
}
"""What the columns are."""

POLICIES = [Air(loss=0.1, burst=5, policy=p, state=s) for p in get_args(Policy) for s in ("continue", "reset")]
"""What a gNB may do about losses, of decoders that remember."""

Row = dict[str, dict[str, Any]]
"""Figures by column."""


def main() -> None:
    """Evaluate, write `air.md` and `air.png`: frame 0 of the first UEs of the test split, seed 0, packed payloads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=Path, default=default_checkpoints())
    parser.add_argument("--only", default="", help="checkpoint names, comma-separated; default all")
    parser.add_argument("--ues", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Row] = {}
    recurrent: dict[str, Row] = {}
    for checkpoint in chosen(CheckpointStore(options.checkpoints), options.only):
        name = f"{checkpoint.name}/{checkpoint.version}"
        found[name] = {label: figures(checkpoint, air, options.ues) for label, air in AIRS.items()}
        if checkpoint.scheme.decoder.initial_state(1):
            recurrent[name] = {f"{air.policy}, {air.state}": figures(checkpoint, air, options.ues) for air in POLICIES}
        print(f"{name}: done", flush=True)
    (options.out / "air.md").write_text(text(found, recurrent, options.ues))
    plot(found, options.out / "air.png")
    print(f"written to {options.out}")


def chosen(store: CheckpointStore, only: str) -> Iterator[Checkpoint]:
    """First versions of the checkpoints; those that cannot be loaded are left out, which is said."""
    for name in only.split(",") if only else store.names():
        try:
            yield store.load(name)
        except CsiError as error:
            print(f"left out: {error}", flush=True)


def figures(checkpoint: Checkpoint, air: Air, ues: int) -> dict[str, Any]:
    """Of a checkpoint in its own scenario."""
    return evaluate(checkpoint.scheme, RunConditions(checkpoint.scenario, air=air), ues=ues)


def text(found: dict[str, Row], recurrent: dict[str, Row], ues: int) -> str:
    """Both tables, Markdown."""
    lines = [
        "# Reports over a disturbed link",
        "",
        f"`csiemu experiment air --ues {ues}`: first versions of the checkpoints, each in its own scenario, frame 0 of"
        f" the first {ues} UEs of the test split, seed 0. NMSE is the mean of ratios over all slots (dB), with one"
        " standard error; below it SGCS. Precoders have no NMSE. Erased reports have the UE's newest estimate of the"
        " frame, or zeros (0 dB) if there is none; the state goes on as it was ([air.md](../air.md)). In frames of one"
        " slot there is never an earlier estimate.",
        "",
        *table("bits", found, {name: f"{row['undisturbed']['feedback_bits']:,.0f}" for name, row in found.items()}),
        "",
        "![SGCS over the disturbed links](air.png)",
        "",
        "## Decoders that remember, 10 % lost in bursts of 5",
        "",
        "Columns are policy and state ([air.md](../air.md)). Those that define no step without a report do alike with"
        " `last` and `blind`.",
        "",
        *table("undisturbed", recurrent, {name: cell(found[name]["undisturbed"]) for name in recurrent}),
    ]
    return "\n".join(lines) + "\n"


def table(beside: str, rows: dict[str, Row], first: dict[str, str]) -> Iterator[str]:
    """Lines of a table whose second column is `first`."""
    labels = list(next(iter(rows.values()), {}))
    yield f"| checkpoint | {beside} | {' | '.join(labels)} |"
    yield "|---" * (len(labels) + 2) + "|"
    for name, row in rows.items():
        yield f"| `{name}` | {first[name]} | {' | '.join(cell(row[label]) for label in labels)} |"


def cell(figures: dict[str, Any]) -> str:
    """NMSE and SGCS."""
    if figures["nmse_db"] is None:
        return f"-<br>{figures['sgcs']:.3f}"
    return f"{figures['nmse_db']:.2f} ± {figures['nmse_se_db']:.2f}<br>{figures['sgcs']:.3f}"


def plot(found: dict[str, Row], path: Path) -> None:
    """SGCS, which all schemes have, in every air."""
    os.environ["MPLBACKEND"] = "Agg"  # a notebook's, say, is not to be had here
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots()
    for index, (name, row) in enumerate(found.items()):
        style = ("-", "--", ":", "-.")[index // 10 % 4]  # colours come again after ten
        axes.plot([row[label]["sgcs"] for label in AIRS], label=name, marker="o", markersize=3, linestyle=style)
    axes.set_xticks(range(len(AIRS)), list(AIRS), rotation=30, ha="right")
    axes.set(ylabel="SGCS", title="SGCS over a disturbed link")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=7)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
