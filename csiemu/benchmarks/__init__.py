"""Speed as ratios against named peers, all measured in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

K = TypeVar("K")

OnProgress = Callable[[int, int], None]
"""Is told how many measurements (or seconds) are done, and of how many."""


def rate(work: Callable[[], object], count: int, seconds: float) -> float:
    """Samples per second of this process's CPU time, of work that makes `count` of them in a call."""
    work()
    calls, started = 0, time.process_time()
    while (spent := time.process_time() - started) < seconds:
        work()
        calls += 1
    return calls * count / spent


def medians(contenders: Mapping[K, Callable[[], ArrayLike]], rounds: int, on_progress: OnProgress) -> dict[K, Any]:
    """Of a figure, or several, that each contender's measurement gives: medians over so many interleaved rounds."""
    found: dict[K, list[Any]] = {name: [] for name in contenders}
    for number in range(rounds):
        for place, (name, measure) in enumerate(contenders.items()):
            found[name].append(measure())
            on_progress(number * len(contenders) + place + 1, rounds * len(contenders))
    return {name: np.median(values, axis=0) for name, values in found.items()}
