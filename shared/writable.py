"""Whether results can be written where they are to go, asked before the work that makes them."""

from __future__ import annotations

import tempfile
from pathlib import Path


def why_no_file(path: Path) -> str | None:
    """Why a file cannot be written there, in a folder that need not be there yet; None if it can. Leaves no trace."""
    try:
        if path.is_dir():
            return "is a folder; wanted a file"
        if not path.exists():
            return why_no_folder(path.parent)
        if path.is_file():  # no device, no pipe
            path.open("ab").close()
    except OSError as error:
        return f"cannot be written: {error.strerror}"
    return None


def why_no_folder(path: Path) -> str | None:
    """Why files cannot be written in a folder, which need not be there yet; None if they can. Leaves no trace."""
    nearest = path.absolute()
    try:
        while not nearest.exists():
            nearest = nearest.parent
        if not nearest.is_dir():
            return f"cannot be written: {nearest} is not a folder"
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        return f"cannot be written: {nearest}: {error.strerror}"
    return None
