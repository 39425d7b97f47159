"""Which UEs of a fleet have a row in the tables that hold something for open frames, and which row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Places:
    """Rows of tables for the UEs whose frame is open: as many as were open at once, whatever the size of the fleet.

    Attributes:
        frame: [ue_count] int64, number of each UE's open frame (-1: none).
        room: rows that the tables need.
    """

    def __init__(self, ue_count: int) -> None:
        self.frame = np.full(ue_count, -1, np.int64)
        self.room = 0
        self._of_ue = np.full(ue_count, -1, np.int64)
        self._free = np.zeros(0, np.int64)

    def __bool__(self) -> bool:
        """Whether any frame is open."""
        return len(self._free) < self.room

    def of(self, ues: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of UEs [n] with an open frame."""
        return self._of_ue[ues]

    def open(self, ues: NDArray[np.int64], frame: int) -> None:
        """Begin a frame of UEs [n]; `room` grows where there is none left, at least to the double."""
        without = ues[self._of_ue[ues] < 0]
        if (missing := len(without) - len(self._free)) > 0:
            grown = min(self.room + max(missing, self.room), len(self.frame))
            self._free = np.concatenate([self._free, np.arange(self.room, grown)])
            self.room = grown
        self._of_ue[without], self._free = self._free[: len(without)], self._free[len(without) :]
        self.frame[ues] = frame

    def close(self, ues: NDArray[np.int64]) -> None:
        """End the open frames of UEs [n], if they have any: their rows are free for others."""
        held = ues[self._of_ue[ues] >= 0]
        self._free = np.concatenate([self._free, self._of_ue[held]])
        self._of_ue[held] = self.frame[held] = -1
