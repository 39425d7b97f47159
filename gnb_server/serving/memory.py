"""Memory that is free, given back: the C library keeps pages that hold anything else between them, more and more of
them where arrays of many sizes come and go.
"""

from __future__ import annotations

import contextlib
import ctypes
import time

EVERY_S = 5.0
"""Least time from once to the next [s]."""


def return_memory() -> None:
    """Have the C library give back what is free."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


class Returning:
    """Gives memory back now and then, by the thread that takes and frees most of it."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def tick(self) -> None:
        """Do so if the last time is `EVERY_S` ago."""
        if time.monotonic() - self._last >= EVERY_S:
            return_memory()
            self._last = time.monotonic()
