"""Where the commands print."""

from __future__ import annotations

import sys

from rich.console import Console


def console() -> Console:
    """The terminal, or lines long enough for our tables in a file."""
    return Console(width=None if sys.stdout.isatty() else 140, markup=False)
