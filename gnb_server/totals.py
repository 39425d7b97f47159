"""Sums over a fleet's reports that one version decoded, over one air: in memory, and as they stand in the store.

The store has them in blocks of UEs, and a block of a slot is written whole: what is written is where the sums then
stand, so that writing it again (the connection was lost, and nobody knows whether it was stored) changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gnb_server.additions import Increment
from gnb_server.aging import no_reports
from shared.link.air import Fates
from shared.link.rate import Lengths
from shared.metrics import COLUMNS, Sums

BLOCK_UES = 64
"""UEs of a block, from the fleet's first on; the last block has what is left. With fewer, a chunk of many UEs has more
rows to be written; with more, one of few UEs has more bytes. As stored: another number needs a migration.
"""

WIDTH = len(COLUMNS) + 2
"""Numbers of a UE and slot: COLUMNS, bytes on the wire, feedback bits. As stored, too."""


class Totals:
    """The sums of all UEs of a fleet.

    Attributes:
        table: [T + 1, ue_count, WIDTH] float64 by slot of the frame; the last row sums frame means.
        sums, wire_bytes, feedback_bits: views of it, [ue_count, T + 1, COLUMNS], [ue_count, T] (shares of the messages
            received) and [ue_count, T] (whole numbers).
        lengths: all reports of the fleet by their feedback bits. fates: how many of them the air changed or took.
        aged: sums of those whose age is known (`gnb_server.aging`).
    """

    def __init__(self, ue_count: int, slots: int) -> None:
        self.table = np.zeros((slots + 1, ue_count, WIDTH))
        self.sums: Sums = self.table[..., : len(COLUMNS)].swapaxes(0, 1)
        self.wire_bytes, self.feedback_bits = self.table[:-1, :, -2].T, self.table[:-1, :, -1].T
        self.lengths = Lengths()
        self.fates = Fates()
        self.aged = no_reports()

    def read(self, slot: int, first: int, block: bytes) -> None:
        """Take what the store has of a slot (-1: frame means) of the block that begins at UE row `first`."""
        values = np.frombuffer(block, "<f8").reshape(-1, WIDTH)
        self.table[slot, first : first + len(values)] = values


class NewTotals:
    """Where totals stand once a batch is stored; until it is, the totals are as they were.

    Args:
        increments: of one version and air, in the order in which they are added.
    """

    def __init__(self, totals: Totals, increments: Sequence[Increment]) -> None:
        self._totals = totals
        slots, ue_count = len(totals.table) - 1, totals.table.shape[1]
        blocks = np.unique(np.concatenate([increment.rows for increment in increments]) // BLOCK_UES)
        rows = (blocks[:, None] * BLOCK_UES + np.arange(BLOCK_UES)).ravel()
        self._rows = rows[rows < ue_count]
        by_slot = {slot for increment in increments for slot in increment.slots}
        of_frames = {slots} if any(len(increment.frame_means) for increment in increments) else set()
        self._slots = np.array(sorted(by_slot | of_frames))
        self._where = np.ix_(self._slots, self._rows)
        self._table = totals.table[self._where]
        self._changed = np.zeros((len(self._slots), len(blocks)), bool)
        self._firsts = blocks * BLOCK_UES
        self.lengths, self.fates, self.aged = totals.lengths.copy(), totals.fates.copy(), totals.aged.copy()
        for increment in increments:
            self._add(increment)

    def _add(self, increment: Increment) -> None:
        at = np.searchsorted(self._rows, increment.rows)
        blocks = np.unique(np.searchsorted(self._firsts, increment.rows, side="right") - 1)
        first = int(np.searchsorted(self._slots, increment.slots.start))
        mine = slice(first, first + len(increment.slots))
        self._table[mine, at, : len(COLUMNS)] += increment.sums
        self._table[mine, at, -2] += increment.wire_bytes
        self._table[mine, at, -1] += increment.lengths
        self._changed[mine, blocks] = True
        if len(increment.frame_means):
            self._table[-1, at, : len(COLUMNS)] += increment.frame_means
            self._changed[-1, blocks] = True
        self.lengths.update(increment.counted())
        self.fates.update(increment.fates)
        self.aged += increment.aged

    def blocks(self) -> Iterator[tuple[int, int, int, bytes]]:
        """What is new: slot (-1: frame means), first UE row, reports so far (0 with frame means), block."""
        slots, last = self._slots.tolist(), len(self._totals.table) - 1
        edges = [*np.searchsorted(self._rows, self._firsts).tolist(), len(self._rows)]
        counts = np.add.reduceat(self._table[..., 0], edges[:-1], axis=1).tolist()
        table = np.ascontiguousarray(self._table, "<f8")
        for k, block in np.argwhere(self._changed).tolist():
            frame_means = slots[k] == last
            content = table[k, edges[block] : edges[block + 1]].tobytes()
            reports = 0 if frame_means else int(counts[k][block])
            yield -1 if frame_means else slots[k], int(self._firsts[block]), reports, content

    def keep(self) -> None:
        """The batch is stored: the totals are these."""
        self._totals.table[self._where] = self._table
        self._totals.lengths, self._totals.fates, self._totals.aged = self.lengths, self.fates, self.aged
