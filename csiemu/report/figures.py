"""The plots of a report: NMSE and SGCS against feedback bits, over time, and by slot of the frame."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from csiemu.report.differences import Pair
from csiemu.report.reading import Row
from csiemu.report.svg import INK, PALETTE, STYLE, inline_svg
from csiemu.report.timeline import Interval, Timeline

CONFIDENCE = 1.96
"""Standard errors that an error bar has to each side: 95 %."""

MARKERS = "osD^vP*X"
LINES = ("-", "--", ":", "-.")

NMSE, SGCS = ("nmse_db", "nmse_se_db"), ("sgcs", "sgcs_se")
"""A figure and its standard error."""

Style = dict[str, Any]


class Styles:
    """The look of each scheme, version and air, the same in all plots: colours differ as long as there are enough of
    them, the first of each scheme being as in other runs of the same schemes; marker and line are by version and air.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        kinds: dict[str, list[tuple[int, str]]] = {}
        for row in rows:
            if row["version"] is not None:
                of_scheme, kind = kinds.setdefault(row["scheme"], []), (row["version"], row.get("air", ""))
                of_scheme += [] if kind in of_scheme else [kind]
        self._places: dict[tuple[str, int, str | None], tuple[int, int]] = {}
        further = itertools.count(len(kinds))
        for index, (scheme, of_scheme) in enumerate(kinds.items()):
            for place, (version, air) in enumerate(sorted(of_scheme)):
                self._places[scheme, version, air] = next(further) if place else index, place
                self._places.setdefault((scheme, version, None), self._places[scheme, version, air])

    def of(self, scheme: str, version: int, air: str | None) -> Style:
        """Arguments of plot; air None: of several of them."""
        index, place = self._places[scheme, version, air]
        turn, colour = divmod(index, len(PALETTE))
        marker = MARKERS[(place + turn) % len(MARKERS)]
        return {"color": PALETTE[colour], "marker": marker, "ls": LINES[(place + turn) % len(LINES)], "ms": 5}


def name_of(row: Row) -> str:
    """Scheme, version and air of a row."""
    name = f"{row['scheme']}/{row['version']}"
    return f"{name}, {row['air']}" if row.get("air") else name


def plane(rows: Sequence[Row], styles: Styles) -> str:
    """NMSE and SGCS of rows against their feedback bits."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        panels = _panels(figure, rows)
        for axes, named in panels:
            _points(axes, rows, named, styles)
        figure.legend(*_legend([axes for axes, _ in panels]), loc="outside lower center", ncols=4)
    return inline_svg(
        figure, "plane", "NMSE and SGCS against feedback bits of a report; the table above has the values"
    )


def _panels(figure: Figure, rows: Sequence[Row]) -> list[tuple[Axes, tuple[str, str]]]:
    """Axes for what any of the rows has, NMSE and SGCS."""
    named = [names for names in (NMSE, SGCS) if any(row[names[0]] is not None for row in rows)]
    axes = np.atleast_1d(figure.subplots(1, len(named)))
    for panel, (value, _) in zip(axes, named, strict=True):
        panel.set_ylabel(_title(value))
    return list(zip(axes, named, strict=True))


def _title(value: str) -> str:
    return "NMSE (dB), mean of ratios" if value == "nmse_db" else "SGCS"


def _points(axes: Axes, rows: Sequence[Row], named: tuple[str, str], styles: Styles) -> None:
    """Draw rows in a panel of the plane."""
    value, error = named
    rows = [row for row in rows if row[value] is not None]
    for row in rows:
        style = styles.of(row["scheme"], row["version"], row.get("air", "")) | {"ls": "none", "ms": 7, "capsize": 3}
        bits, low, high = (row[f"feedback_bits{part}"] for part in ("", "_p5", "_p95"))
        spread = None if low == high else [[max(bits - low, 0)], [max(high - bits, 0)]]
        axes.errorbar(bits, row[value], CONFIDENCE * (row[error] or 0), spread, label=name_of(row), **style)
    bits = sorted({row["feedback_bits"] for row in rows})
    axes.set_xscale("symlog" if bits[0] <= 0 else "log", base=2)
    axes.set_xlim(max(bits[0], 1) / 1.6 if bits[0] > 0 else -0.5, bits[-1] * 1.6 + 1)
    axes.xaxis.set_major_locator(FixedLocator(_apart(bits)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.set_xlabel("feedback bits of a report")


def _apart(bits: list[float]) -> list[float]:
    """Those that have room for their ticks on a logarithmic axis."""
    chosen: list[float] = []
    for count in bits:
        if not chosen or count > max(1.25 * chosen[-1], 1):
            chosen.append(count)
    return chosen


def _legend(panels: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    """Each label once."""
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def by_slot(rows: Sequence[Row], styles: Styles) -> str | None:
    """NMSE and SGCS of rows by slot of the frame; None if all frames have one slot."""
    rows = [row for row in rows if len(row["by_slot"]) > 1]
    if not rows:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        panels = _panels(figure, rows)
        for axes, (value, error) in panels:
            for row in (row for row in rows if row[value] is not None):
                slots = [slot for slot in row["by_slot"] if slot[value] is not None]
                axes.errorbar(
                    [slot["slot"] for slot in slots],
                    [slot[value] for slot in slots],
                    [CONFIDENCE * (slot[error] or 0) for slot in slots],
                    label=name_of(row),
                    capsize=2,
                    **styles.of(row["scheme"], row["version"], row.get("air", "")),
                )
            axes.set_xlabel("slot of the frame")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(*_legend([axes for axes, _ in panels]), loc="outside lower center", ncols=4)
    return inline_svg(figure, "slots", "NMSE and SGCS by slot of the frame")


def over_time(course: Timeline, marks: Sequence[tuple[float, str]], styles: Styles) -> str:
    """NMSE, SGCS, reports per second, their bits where these vary, UEs and what happened to reports over time.

    Args:
        marks: (seconds since 1970, label) of what happened, shown as upright lines.
    """
    origin = course.times[0]
    intervals = [interval for of_key in course.series.values() for interval in of_key if interval is not None]
    middles = (np.array(course.times[1:]) + course.times[:-1]) / 2 - origin
    quality = [named for named in (NMSE, SGCS) if any(i.figures[named[0]] is not None for i in intervals)]
    with matplotlib.rc_context(STYLE):
        varies = any(len({i.bits for i in of_key if i is not None}) > 1 for of_key in course.series.values())
        counts = {"UEs": course.attached} | {what: values for what, values in course.counts.items() if any(values)}
        heights = [2.0] * len(quality) + [1.4] * (1 + varies) + [0.8] * len(counts)
        figure = Figure(figsize=(9, 1.15 * sum(heights) + 0.8), layout="constrained")
        panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        rates = ["reports_per_s", *["bits"] * varies]
        for (scheme, version, air), of_key in course.series.items():
            name = name_of({"scheme": scheme, "version": version, "air": air})
            style = styles.of(scheme, version, air) | {"ms": 3, "label": name}
            for axes, (value, error) in zip(panels, quality, strict=False):
                _band(axes, middles, of_key, value, error, style)
            for axes, named in zip(panels[len(quality) :], rates, strict=False):
                axes.plot(middles, [getattr(interval, named, math.nan) for interval in of_key], **style)
        for axes, (value, _) in zip(panels, quality, strict=False):
            axes.set_ylabel("NMSE (dB)" if value == "nmse_db" else "SGCS")
        for axes, title in zip(panels[len(quality) :], ["reports/s", "bits"][: len(rates)], strict=False):
            axes.set_ylabel(title)
            axes.set_ylim(bottom=0)
        for axes, (title, values) in zip(panels[len(quality) + len(rates) :], counts.items(), strict=True):
            axes.stairs(values, np.array(course.times) - origin, color=INK, baseline=None, lw=1.2)
            axes.set_ylabel(title)
            axes.set_ylim(0, 1.15 * max(*values, 1))
            axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        for at, label in marks:
            for axes in panels:
                axes.axvline(at - origin, color=INK, lw=0.9, ls=(0, (2, 2)))
            panels[0].annotate(
                label, (at - origin, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=8.5
            )
        figure.align_ylabels()
        panels[-1].set_xlabel(f"seconds since {datetime.fromtimestamp(origin).astimezone():%Y-%m-%d %H:%M:%S %Z}")
        figure.legend(*_legend([panels[len(quality)]]), loc="outside lower center", ncols=4)
    return inline_svg(figure, "time", "NMSE, SGCS, reports per second and UEs over time, with what happened to models")


def _band(
    axes: Axes,
    middles: NDArray[np.float64],
    of_key: Sequence[Interval | None],
    value: str,
    error: str,
    style: Style,
) -> None:
    """A figure over time with its 95 % band, where there is one; broken off where nothing came."""
    figures = [{} if interval is None else interval.figures for interval in of_key]
    values, errors = (np.array([row.get(name) for row in figures], float) for name in (value, error))
    axes.plot(middles, values, **style)
    low, high = values - CONFIDENCE * errors, values + CONFIDENCE * errors
    axes.fill_between(middles, low, high, color=style["color"], alpha=0.15, lw=0)


def differences(pairs: Sequence[Pair]) -> str:
    """Differences of NMSE and SGCS between two runs, a line for each pair, from the top."""
    names = [_both(pair) for pair in pairs]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 0.8 + 0.34 * len(pairs)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, what in zip(panels, ("nmse", "sgcs"), strict=True):
            for place, pair in enumerate(pairs):
                if (change := getattr(pair, what)) is not None:
                    error = CONFIDENCE * (change.standard_error or 0)
                    axes.errorbar(change.value, place, xerr=error, color=PALETTE[0], marker="o", ms=5, capsize=3)
            axes.axvline(0, color=INK, lw=0.9)
            axes.margins(y=0.5 / len(pairs))
            axes.xaxis.set_major_locator(MaxNLocator(5))
        panels[0].set_yticks(range(len(pairs)), names)
        panels[0].invert_yaxis()
        panels[0].set_xlabel("difference of NMSE (dB)")
        panels[1].set_xlabel("difference of SGCS")
    return inline_svg(figure, "differences", "Differences of NMSE and SGCS; the table above has the values")


def _both(pair: Pair) -> str:
    """The name of a pair."""
    first, second = name_of(pair.first), name_of(pair.second)
    return first if first == second else f"{first}, {second}"
