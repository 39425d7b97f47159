"""Rows for open frames: none is given to two UEs, and there are no more than were open at once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gnb_server.places import Places

UES = 12

a_step = st.tuples(st.booleans(), st.sets(st.integers(0, UES - 1), min_size=1), st.integers(0, 3))


@given(st.lists(a_step, max_size=30))
def test_against_a_dictionary(steps: list[tuple[bool, set[int], int]]) -> None:
    places, frames, most = Places(UES), dict[int, int](), 0
    for opens, ues, frame in steps:
        rows = np.array(sorted(ues))
        if opens:
            places.open(rows, frame)
            frames |= dict.fromkeys(ues, frame)
        else:
            places.close(rows)
            frames = {ue: number for ue, number in frames.items() if ue not in ues}
        most = max(most, len(frames))
        assert {ue: number for ue, number in enumerate(places.frame.tolist()) if number >= 0} == frames
        taken = places.of(np.array(sorted(frames), int)).tolist()
        assert len(set(taken)) == len(frames)
        assert all(0 <= row < places.room for row in taken)
        assert places.room <= 2 * most
        assert bool(places) == bool(frames)
