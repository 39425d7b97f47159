"""Speed as ratios against named peers, all measured in one run."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    processor = platform.processor() or platform.machine()
    return {"processor": processor, "cores": os.cpu_count(), "torch": torch.__version__}


def rate(work: Callable[[], object], count: int, seconds: float) -> float:
    """Samples per second of this process's CPU time, of work that makes `count` of them in a call."""
    work()
    calls, started = 0, time.process_time()
    while (spent := time.process_time() - started) < seconds:
        work()
        calls += 1
    return calls * count / spent
