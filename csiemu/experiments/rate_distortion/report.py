"""The plane as a CSV file, a table in Markdown and a plot."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from csiemu.experiments.rate_distortion.coders import COMPANDING
from csiemu.experiments.rate_distortion.measuring import Point
from csiemu.experiments.rate_distortion.worlds import World
from csiemu.output import number

COLUMNS = ("scheme", "bits", "NMSE (dB)", "SGCS", "UE, gNB (MMACs)", "UE, gNB (MB)", "UE, gNB (ms)")

GAUSSIAN, MIXTURE = "Gaussian of this covariance", "Gaussian mixture of gmtc"
"""Names of the bounds."""

KINDS = ("measured", "bound", "published")
"""What a row of the CSV file rests on."""

MARKERS = "osv^<>Dph"


@dataclass(frozen=True)
class Plane:
    """All that is known of a scenario.

    Attributes:
        world: what it is.
        points: measured coders.
        bounds: (bits, NMSE in dB) of ideal codes by name, the scale's bits among them.
        true_image_sgcs: of a perfect estimate of the kept delay rows.
        provenance: a sentence on how it was made: command, machine, seeds, number of UEs.
    """

    world: World
    points: Sequence[Point]
    bounds: Mapping[str, Sequence[tuple[int, float]]]
    true_image_sgcs: float
    provenance: str

    def series(self) -> dict[str, list[Point]]:
        """Points by their series, each by rising bits."""
        found: dict[str, list[Point]] = {}
        for point in sorted(self.points, key=lambda point: (point.series, point.bits)):
            found.setdefault(point.series, []).append(point)
        return found


def write(plane: Plane, stem: Path) -> None:
    """Write `stem`.csv, .md and .png."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_csv(plane, stem.with_suffix(".csv"))
    stem.with_suffix(".md").write_text(markdown(plane, stem.name))
    plot(plane, stem.with_suffix(".png"))


def write_csv(plane: Plane, path: Path) -> None:
    """A row for each point of the plane: what it rests on (KINDS), then the fields of `Point`."""
    names = [field.name for field in fields(Point)]
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, ["kind", *names], restval="", lineterminator="\n")
        rows.writeheader()
        for point in (point for points in plane.series().values() for point in points):
            rows.writerow({"kind": KINDS[0]} | {name: _shortest(getattr(point, name)) for name in names})
        for series, bits, decibels in ((name, *point) for name, bound in plane.bounds.items() for point in bound):
            rows.writerow({"kind": KINDS[1], "series": series, "bits": bits, "nmse_db": _shortest(decibels)})
        for coder in plane.world.published:
            for bits, decibels in coder.points:
                rows.writerow({"kind": KINDS[2], "series": coder.name, "bits": bits, "nmse_db": decibels})


def _shortest(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def markdown(plane: Plane, picture: str) -> str:
    """The table, with what its figures mean and where the others come from."""
    rows = [
        (
            point.name,
            _bits(point),
            _with_error(point.nmse_db, point.nmse_2se_db, 2),
            _with_error(point.sgcs, point.sgcs_2se, 3),
            _both(_millions(point.encoder_macs), _millions(point.decoder_macs), 2),
            _both(point.encoder_mb, point.decoder_mb, 2),
            _both(point.encoder_ms, point.decoder_ms, 3),
        )
        for points in plane.series().values()
        for point in points
    ]
    for name, bound in plane.bounds.items():
        rows += [(name, f"{bits:,}", number(db), *4 * "-") for bits, db in bound]
    lines = [
        f"# Feedback bits and distortion: `{plane.world.scenario}`",
        "",
        plane.provenance,
        "",
        f"![NMSE and SGCS against feedback bits]({picture}.png)",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "- Every payload is packed, unpacked and decoded; bits are all of a report, the scale's among them. ± is two",
        "  standard errors.",
        "- NAME/VERSION are checkpoints as shipped; *transform, N* is fitted by the command: Karhunen-Loeve transform,",
        f"  greedy bits, fixed length, mu-law with mu = {COMPANDING:g} at all rates.",
        "- NMSE: mean of ratios, truncated angular-delay domain. Codebooks report no scale and have none.",
        "- SGCS: mean over subbands of precoders; those of image schemes are of the channel that the image says,",
        f"  zero-filled. A perfect image would have {plane.true_image_sgcs:.3f}.",
        "- Costs are of a report: real multiply-accumulates of layers and transforms (- where they are neither);",
        "  memory of weights and tables, as their state has them (at work `gmtc` unpacks its transforms to eight times",
        "  as much); CPU time of one thread, from what the UE measured to payload fields, and from these to the",
        "  estimate.",
        "- *step S*: one quantiser step for all reports, each as long as its code, the length counted: mean bits, 5th",
        "  and 95th percentile in brackets. *at most N*: each report at the finest step that fits into so many bits.",
        f"- *{GAUSSIAN}*: reverse water-filling of the covariance that the transform coders were",
        "  fitted by, 8 bits for the scale. No coder that knows only the covariance can promise less; one that knows",
        f"  more can have less. *{MIXTURE}*: the same for the kinds that `gmtc` was fitted to, at one",
        "  level for all, with the entropy of the label: what ideal codes for Gaussian vectors of these kinds take.",
    ]
    if plane.world.published:
        lines += ["", "Published points that count real bits, on the data set of their authors, which is not ours:", ""]
        lines += ["| coder | bits: NMSE (dB) |", "|---|---|"]
        for coder in plane.world.published:
            points = ", ".join(f"{bits:,}: {decibels:.2f}" for bits, decibels in coder.points)
            lines.append(f"| {coder.source} | {points} |")
    return "\n".join(lines) + "\n"


def _bits(point: Point) -> str:
    """Mean, and where reports differ their 5th and 95th percentile."""
    spread = "" if point.bits_p5 == point.bits_p95 else f" ({point.bits_p5:,} to {point.bits_p95:,})"
    return f"{point.bits:,.0f}{spread}"


def _with_error(value: float | None, error: float | None, digits: int) -> str:
    return "-" if value is None else f"{number(value, digits)} ± {number(error, digits)}"


def _millions(count: int | None) -> float | None:
    return None if count is None else count / 1e6


def _both(ue: float | None, gnb: float | None, digits: int) -> str:
    return "-" if ue is None else f"{number(ue, digits)}, {number(gnb, digits)}"


def plot(plane: Plane, path: Path) -> None:
    """NMSE and SGCS against bits, side by side, error bars of two standard errors."""
    figure = Figure(figsize=(12, 6), layout="constrained")
    nmse, sgcs = figure.subplots(1, 2)
    for place, (name, points) in enumerate(plane.series().items()):
        # checkpoints may differ in more than their rate
        joined = any("/" not in point.name or "," in point.name for point in points)
        style = {
            "ls": "-" if joined else "none",
            "color": f"C{place}",
            "marker": MARKERS[place % len(MARKERS)],
            "ms": 5,
            "lw": 1,
            "capsize": 2,
        }
        bits = [point.bits for point in points]
        if points[0].nmse_db is not None:
            nmse.errorbar(bits, [p.nmse_db for p in points], [p.nmse_2se_db for p in points], **style)
        sgcs.errorbar(bits, [p.sgcs for p in points], [p.sgcs_2se for p in points], label=name, **style)
    for line, (name, bound) in zip(("--", ":"), plane.bounds.items(), strict=False):
        nmse.plot(*zip(*bound, strict=True), line, color="k", lw=1, label=name)
    for marker, coder in zip("*PX", plane.world.published, strict=False):
        nmse.plot(
            *zip(*coder.points, strict=True),
            marker,
            mfc="none",
            color="dimgrey",
            ms=9,
            label=f"{coder.name} (published)",
        )
    sgcs.axhline(plane.true_image_sgcs, color="k", ls=":", lw=1, label="perfect image")
    _finish(nmse, "NMSE (dB), mean of ratios, truncated domain")
    _finish(sgcs, "SGCS per subband")
    figure.suptitle(f"{plane.world.scenario}: packed payloads, test split")
    figure.legend(loc="outside lower center", ncols=5)
    figure.savefig(path, dpi=110)


def _finish(axes: Axes, label: str) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("feedback bits of a report")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
