"""Totals of a fleet, where they stand after a batch, and their blocks as stored."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gnb_server.additions import Increment
from gnb_server.totals import BLOCK_UES, NewTotals, Totals
from shared.link.air import Fates
from shared.metrics import COLUMNS

UES, SLOTS = 2 * BLOCK_UES + 10, 4


def an_increment(generator: np.random.Generator) -> Increment:
    """Of some UEs, and some slots of their frames."""
    first, stop = sorted(generator.choice(SLOTS + 1, 2, replace=False).tolist())
    rows = np.sort(generator.choice(UES, generator.integers(1, 9), replace=False))
    sums = generator.random((stop - first, len(rows), len(COLUMNS)))
    sums[..., 0] = 1
    frame_means = generator.random((len(rows) if stop == SLOTS else 0, len(COLUMNS)))
    lengths = generator.integers(1, 9, sums.shape[:2])
    return Increment(1, rows, range(first, stop), sums, frame_means, 2.5, lengths, Fates(air_lost=1))


@given(st.integers(0, 2**32), st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_batches_one_after_the_other(seed: int, batches: list[int]) -> None:
    """In memory and as blocks they are what adding one number after the other makes of them, to the last digit."""
    generator = np.random.default_rng(seed)
    totals, stored, expected = Totals(UES, SLOTS), Totals(UES, SLOTS), Totals(UES, SLOTS)
    counted: dict[tuple[int, int], int] = {}
    for size in batches:
        increments, before = [an_increment(generator) for _ in range(size)], totals.table.copy()
        new = NewTotals(totals, increments)
        for slot, first, reports, block in new.blocks():
            stored.read(slot, first, block)
            counted[slot, first] = reports
        np.testing.assert_array_equal(totals.table, before)  # nothing is stored yet
        new.keep()
        for increment in increments:
            slots = slice(increment.slots.start, increment.slots.stop)
            expected.sums[increment.rows, slots] += increment.sums.swapaxes(0, 1)
            expected.sums[increment.rows[: len(increment.frame_means)], -1] += increment.frame_means
            expected.wire_bytes[increment.rows, slots] += increment.wire_bytes
            expected.feedback_bits[increment.rows, slots] += increment.lengths.T
            expected.lengths.update(increment.lengths.ravel().tolist())
            expected.fates.update(increment.fates)
    for found in (totals, stored):
        np.testing.assert_array_equal(found.table, expected.table)
    assert (totals.lengths, totals.fates) == (expected.lengths, expected.fates)
    assert sum(counted.values()) == expected.lengths.total()
