"""Channels that stay in their file: it is looked through once, and samples are read when they are needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.channels.files.layouts import Arrays, Channels, Layout, Shape, check_kept, checked_zeros

AT_ONCE = 1024
"""Samples that are read at once when the file is looked through."""

OnProgress = Callable[[int, int], None]
"""Is told how much is done, and of how much."""

Read = Callable[[NDArray[np.int64], bool], Arrays]
"""Arrays of samples by their numbers, ascending, with HF_all if that is wanted."""


class StoredChannels:
    """As `Channels`, of a file too large for memory.

    Attributes:
        slots: T. paired: whether there is the uplink too. skipped: samples that are zero and left out.

    Args:
        layout, shape: what the file's samples are.
        count: how many there are.
        read: reads some of them.
        frequency: whether there is HF_all too.
        on_progress: is told how many samples have been looked through, and of how many.

    Raises:
        InvalidInput: as `Layout.decode`.
    """

    def __init__(
        self, layout: Layout, shape: Shape, count: int, read: Read, *, frequency: bool, on_progress: OnProgress
    ) -> None:
        self._layout = layout
        self._shape = shape
        self._read = read
        zeros: dict[str, list[NDArray[np.bool_]]] = {}
        kept = []
        for start in range(0, count, AT_ONCE):
            arrays = read(np.arange(start, min(start + AT_ONCE, count)), frequency)
            found, here = layout.decode_some(arrays, shape, start)
            for name, silent in here.items():
                zeros.setdefault(name, []).append(silent)
            if found.kept is not None:
                kept.append(found.kept)
            on_progress(start + len(found), count)
        self.slots, self.paired = found.slots, found.paired
        silent = checked_zeros({name: np.concatenate(parts) for name, parts in zeros.items()})
        self._numbers = np.flatnonzero(~silent)
        self.skipped = int(silent.sum())
        self._kept = np.concatenate(kept)[self._numbers] if frequency else None
        if self._kept is not None:
            check_kept(self._kept)

    def __len__(self) -> int:
        return len(self._numbers)

    def take(self, rows: NDArray[Any], *, frequency: bool = True) -> Channels:
        """The channels of some samples (numbers), without HF_all if that is not wanted."""
        numbers, places = np.unique(self._numbers[rows], return_inverse=True)
        numbers = numbers if len(numbers) else self._numbers[:1]  # of which none is taken then
        with_frequency = frequency and self._kept is not None
        found, _ = self._layout.decode_some(self._read(numbers, with_frequency), self._shape)
        return found.take(places)
