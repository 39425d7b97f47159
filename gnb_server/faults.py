"""Fault injection, off unless asked for: shows that the checks on lost and misdecoded reports can fail."""

from __future__ import annotations

import time
from typing import Literal

import numpy as np
from numpy.typing import NDArray

EVERY = 7
"""Every how many chunks something goes wrong."""


class Faults:
    """One kind of fault, at the first chunk and every EVERY-th after it."""

    def __init__(self, kind: Literal["none", "lose", "misdecode", "slow"]) -> None:
        self.kind = kind
        self._chunks = 0

    def _strikes(self) -> bool:
        self._chunks += 1
        return self._chunks % EVERY == 1

    def flip(self, bits: NDArray[np.uint8], *, varies: bool) -> NDArray[np.uint8]:
        """`misdecode`: the decoder gets other bits than the UE sent; of reports whose length `varies`, the first."""
        if self.kind == "misdecode" and self._strikes():
            return bits ^ (np.arange(bits.shape[1]) == 0) if varies else 1 - bits
        return bits

    def loses(self) -> bool:
        """`lose`: a chunk is acked but its results are not counted."""
        return self.kind == "lose" and self._strikes()

    def wait(self) -> None:
        """`slow`: every batch takes 50 ms longer."""
        if self.kind == "slow":
            time.sleep(0.05)
