"""Where a CPU spends most of a channel's time: `loops`, compiled by numba, beside torch's form at their callers."""

from __future__ import annotations

import functools
from types import ModuleType

import torch


def for_device(device: torch.device) -> ModuleType | None:
    """The loops, or None where torch computes the same in more passes: on a GPU, or without numba."""
    return _loops() if device.type == "cpu" else None


@functools.cache
def _loops() -> ModuleType | None:
    try:
        from shared.channels.compiled import loops  # numba takes a second: not before it is needed
    except ImportError:  # a machine that only trains
        return None
    return loops
