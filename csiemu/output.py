"""Where the commands print, and how they show that they are at work."""

from __future__ import annotations

import math
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

ROUNDING = 1e-6
"""A standard error of less is one of sums in float64: all frames were alike."""


def console() -> Console:
    """The terminal, or lines long enough for our tables in a file."""
    return Console(width=None if sys.stdout.isatty() else 140, markup=False)


def progress(screen: Console) -> Progress:
    """A bar of things done, on a terminal only, which is gone when all are."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)


def number(value: float | None, digits: int = 2) -> str:
    """A figure for a table; - where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def error_text(standard_error: float | None, digits: int = 2) -> str:
    """A standard error for a table, with the digits that it takes to be more than 0; - where there is none."""
    if standard_error is None or not math.isfinite(standard_error):
        return "-"
    if standard_error < ROUNDING:
        return "0"
    return number(standard_error, max(digits, -math.floor(math.log10(standard_error))))


def with_error(value: float | None, standard_error: float | None, digits: int = 2) -> str:
    """A figure with its standard error for a table; - where there is none."""
    shown = number(value, digits)
    return shown if shown == "-" else f"{shown} ± {error_text(standard_error, digits)}"
