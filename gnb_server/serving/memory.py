"""Memory that is free, given back."""

from __future__ import annotations

import contextlib
import ctypes


def return_memory() -> None:
    """Have the C library give back what is free: it keeps pages that hold anything else between them."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
