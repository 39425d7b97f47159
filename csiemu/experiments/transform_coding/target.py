"""What it is worth that the gNB chooses each UE's step: a target NMSE held over the wire, beside fixed rates.

csiemu experiment transform-coding.target [--target DB] [--ues N] [--reports N] [--checkpoints DIR]

Each row is a run of gNB and UE processes of its own. A fixed rate fills as many bits as it has; the last one is the
least of those tried that brings 90 % of the UEs to the target.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csiemu.emulate import Settings, run
from csiemu.processes import STORE
from gnb_server.store import Store, sqlite_url
from shared.checkpoints import default_checkpoints
from shared.errors import NotReady

SCHEME = "gmtc"

MARGIN_DB = 0.25
"""By how much a second target is lower: with it nearly every UE is at the first one or below."""

FIXED_BITS = (392, 424, 456, 488, 520, 584, 648, 712, 776)
"""Fixed rates beside it."""

BEGUN = 20
"""Reports of each UE that do not count: the loop needs a few, and some are on their way before the first is back."""

WITHIN_DB = 0.5
"""Of the target: so near is settled."""

SHARE = 0.9
"""Of the UEs that a fixed rate is to bring to the target."""

COLUMNS = ("rate", "mean bits", "p5", "p95", "NMSE (dB)", "UEs at or below the target", "settled from report")


def main() -> None:
    """Print the table, Markdown: mean of ratios over reports BEGUN and later, truncated domain."""
    parser = argparse.ArgumentParser(prog="csiemu experiment transform-coding.target", description=__doc__)
    parser.add_argument("--target", type=float, default=-15.0)
    parser.add_argument("--ues", type=int, default=64)
    parser.add_argument("--reports", type=int, default=100)
    parser.add_argument("--rate", type=float, default=10.0, help="reports a second and UE")
    parser.add_argument("--checkpoints", type=Path, default=default_checkpoints())
    options = parser.parse_args()
    rows = []
    targets = (options.target, options.target - MARGIN_DB)
    for rate in (*({"target_nmse": target} for target in targets), *({"bits": bits} for bits in FIXED_BITS)):
        bits, ratios = emulated(options, rate)
        rows.append(row(rate, options.target, bits, ratios))
        if "bits" in rate and share_at(ratios, options.target) >= SHARE:
            break
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for cells in rows:
        print(f"| {' | '.join(cells)} |")


def emulated(options: argparse.Namespace, rate: dict[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Feedback bits and squared errors over powers of a run, [UEs, reports] each. Raises NotReady if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            schemes=SCHEME,
            ues=options.ues,
            slots=options.reports,
            rate=options.rate,
            out=Path(folder) / "run",
            rest_port=0,
            checkpoints=options.checkpoints,
            **rate,
        )
        if run(settings):
            raise NotReady(f"emulate: the run at {rate} failed")
        store = Store(sqlite_url(Path(folder) / "run" / STORE), "default", options.reports)
        try:
            kept = [store.reports(ue) for ue in range(options.ues)]
        finally:
            store.close()
    bits = [[report["feedback_bits"] for report in of_ue] for of_ue in kept]
    ratios = [[report["error"] / report["power"] for report in of_ue] for of_ue in kept]
    return np.array(bits), np.array(ratios)


def share_at(ratios: NDArray[np.float64], target_db: float) -> float:
    """Share of the UEs whose mean of ratios is at the target or below, once it has begun."""
    return float((ratios[:, BEGUN:].mean(axis=1) <= 10 ** (target_db / 10)).mean())


def row(rate: dict[str, Any], target_db: float, bits: NDArray[np.int64], ratios: NDArray[np.float64]) -> list[str]:
    """A row of the table."""
    sent, found = bits[:, BEGUN:], ratios[:, BEGUN:]
    low, high = np.percentile(sent, (5, 95))
    of_ues = found.mean(axis=1)
    error = 10 / np.log(10) * of_ues.std(ddof=1) / len(of_ues) ** 0.5 / of_ues.mean()
    by_report = 10 * np.log10(ratios.mean(axis=0))
    smooth = np.convolve(by_report, np.ones(5) / 5, mode="valid")
    away = np.flatnonzero(np.abs(smooth - rate.get("target_nmse", target_db)) > WITHIN_DB)
    settled = "-" if "bits" in rate else str(int(away[-1]) + 2 if len(away) else 1)
    return [
        ", ".join(f"{name} {value:g}" for name, value in rate.items()),
        f"{sent.mean():,.0f}",
        f"{low:,.0f}",
        f"{high:,.0f}",
        f"{10 * np.log10(of_ues.mean()):.2f} ± {error:.2f}",
        f"{share_at(ratios, target_db):.0%}",
        settled,
    ]


if __name__ == "__main__":
    main()
