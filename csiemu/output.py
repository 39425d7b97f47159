"""Where the commands print and write."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console


def console() -> Console:
    """The terminal, or lines long enough for our tables in a file."""
    return Console(width=None if sys.stdout.isatty() else 140, markup=False)


def write_json(path: Path, content: Any) -> None:
    """Write a file of results, in a folder that need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
