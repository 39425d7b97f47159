"""What the reports of a chunk add to a run's results."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gnb_server.aging import AgedSums, no_reports
from shared.link.air import Fates
from shared.link.rate import Lengths
from shared.metrics import Sums


@dataclass(frozen=True)
class Progress:
    """How far a chunk brought the UEs of some rows of a fleet.

    Attributes:
        rows: [n] int64. next_sequence: of all of them.
        version: of the open frame (or the last). open_frame: its reports so far, one of n byte strings per row.
        dropped: [n] int64, reports of each UE that were, since the start of the run.
    """

    rows: NDArray[np.int64]
    next_sequence: int
    version: int
    open_frame: list[bytes]
    dropped: NDArray[np.int64]


@dataclass(frozen=True)
class Increment:
    """What the reports of one version in a chunk add to the sums of some UEs of a fleet.

    Attributes:
        version: that decoded them.
        rows: [n] int64. slots: of the frame, S of them.
        sums: [S, n, COLUMNS] by slot. frame_means: [n, COLUMNS] of frames that they complete, or [0, COLUMNS].
        wire_bytes: of each report.
        lengths: [S, n] int64, feedback bits of each report; 0 of one that is not new.
        fates: of the new ones.
        air_from: of the chunk's frame, as in `shared.conditions.ChangingConditions`.
        aged: sums over those whose age is known (`gnb_server.aging`).
    """

    version: int
    rows: NDArray[np.int64]
    slots: range
    sums: Sums
    frame_means: Sums
    wire_bytes: float
    lengths: NDArray[np.int64]
    fates: Fates = field(default_factory=Fates)
    air_from: int = 0
    aged: AgedSums = field(default_factory=no_reports)

    def counted(self) -> Lengths:
        """New reports by their feedback bits."""
        return Lengths(self.lengths[self.sums[..., 0] > 0].tolist())


@dataclass(frozen=True)
class Reports:
    """Single reports of one version in a chunk, in the order of an increment's [slots, rows].

    Attributes:
        version: that decoded them; 0: they were dropped, and nothing was measured.
        rows: [n] int64. first_sequence: of the S reports of each.
        measured: [MEASURED, S, n]. lengths: [S, n] int64, feedback bits.
        fates: [S, n] uint8, what became of them on the air; None of dropped ones.
        latency_ms: from arrival to when they were decoded. received_at: seconds since 1970.
    """

    version: int
    rows: NDArray[np.int64]
    first_sequence: int
    measured: NDArray[np.float64]
    lengths: NDArray[np.int64]
    latency_ms: float
    received_at: float
    fates: NDArray[np.uint8] | None = None
