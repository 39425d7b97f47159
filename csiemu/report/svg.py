"""Plots of matplotlib as SVG that is a part of a page: text is text, colours are those of its style sheet (light, dark,
print), and nothing in it is loaded from elsewhere.
"""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
from markupsafe import escape
from matplotlib.figure import Figure

PALETTE = ("#1f5fa8", "#c2541b", "#2f7d4f", "#a0468f", "#8a6d00", "#0f7f8c", "#b02a3a", "#5b5bb5")
"""Colours of series on a light page."""

DARK_PALETTE = ("#6fa8ec", "#f0925c", "#6cc493", "#dd8fcd", "#d3b13c", "#4fc3d1", "#f0808d", "#a5a5f0")
"""The same on a dark one."""

INK, FAINT = "#010203", "#040506"
"""Stand for the page's text colour, and for that of grids."""

_VARIABLES = {INK: "var(--ink)", FAINT: "var(--faint)"} | {c: f"var(--series-{i})" for i, c in enumerate(PALETTE)}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.sans-serif": ["DejaVu Sans"],
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "font.size": 9.5,
    "lines.linewidth": 1.5,
}
"""What figures for `inline_svg` are drawn with: `matplotlib.rc_context(STYLE)`."""


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """A figure as an `<svg>` element, the same for the same figure.

    Args:
        name: different for each figure of a page: its ids begin with it.
        description: what it shows, for those who do not see it.
    """
    file = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)  # a style would hold for the whole page
    text = re.sub(r' id="[\w.]+_\d+"', "", text)  # of groups, which nothing refers to
    text = re.sub(r'((?:id="|href="#|url\(#)(?=[mpg][0-9a-f]))', rf"\g<1>{name}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    height, width = (re.search(rf'{side}="([0-9.]+)pt"', text) for side in ("height", "width"))
    for found in (height, width):
        text = text.replace(f" {found[0]}", "", 1) if found else text
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
