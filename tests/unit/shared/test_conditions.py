"""Which conditions a frame has."""

from __future__ import annotations

import numpy as np
import pytest

from shared.channels.scenario import Scenario
from shared.conditions import AirChange, ChangingConditions, RunConditions
from shared.errors import InvalidInput
from shared.link.air import UNDISTURBED, Air

WORLD = RunConditions(Scenario.parse("multipath-p2"), 3)
LOSSES, ERRORS, LATE = Air(loss=0.25), Air(ber=0.01, crc=11), Air(loss=0.25, delay=2)


def changing(*changes: tuple[int, Air]) -> ChangingConditions:
    found = ChangingConditions(WORLD)
    for frame, air in changes:
        found = found.changed(AirChange(frame, air))
    return found


def test_an_air_lasts_until_the_next_one() -> None:
    found = changing((2, LOSSES), (5, ERRORS), (6, UNDISTURBED))
    assert [found.at(frame).air for frame in range(8)] == [
        *2 * [UNDISTURBED],
        *3 * [LOSSES],
        ERRORS,
        *2 * [UNDISTURBED],
    ]
    assert {(found.at(frame).scenario, found.at(frame).seed) for frame in range(8)} == {(WORLD.scenario, 3)}
    assert found.newest == (6, UNDISTURBED)


def test_frames_with_one_number_have_one_air() -> None:
    found, frames = changing((2, LOSSES), (5, UNDISTURBED), (7, LOSSES)), np.arange(9)
    assert found.air_from(frames).tolist() == [0, 0, 2, 2, 2, 0, 0, 2, 2]
    assert [found.at(number) for number in found.air_from(frames).tolist()] == [found.at(frame) for frame in range(9)]
    split = {conditions.air: rows.tolist() for conditions, rows in found.split(frames[::-1])}
    assert split == {UNDISTURBED: [2, 3, 7, 8], LOSSES: [0, 1, 4, 5, 6]}


def test_a_change_stands_for_those_that_were_to_begin_then_or_later() -> None:
    assert changing((2, LOSSES), (5, ERRORS), (5, LOSSES)).changes == ((2, LOSSES), (5, LOSSES))
    assert changing((2, LOSSES), (5, ERRORS), (1, ERRORS)).changes == ((1, ERRORS),)


def test_an_air_from_the_first_frame_on_stands_for_the_first_one() -> None:
    found = changing((0, LOSSES), (3, UNDISTURBED))
    assert [found.at(frame).air for frame in range(4)] == [*3 * [LOSSES], UNDISTURBED]
    assert found.air_from(np.arange(4)).tolist() == [0, 0, 0, 3]


def test_a_delay_is_of_the_air() -> None:
    """Frames that differ in it alone have other conditions."""
    found = changing((2, LOSSES), (5, LATE), (6, LOSSES))
    assert [found.at(frame).delay_slots for frame in (1, 4, 5, 6)] == [0, 0, 2, 0]
    assert found.air_from(np.arange(7)).tolist() == [0, 0, 2, 2, 2, 5, 2]
    assert found.at(5).to_json() == {**WORLD.to_json(), "delay_slots": 2, "air": "loss=0.25,delay=2"}


def test_conditions_that_name_a_delay_apart_are_read() -> None:
    """As cards and stores of version 0.1 do."""
    old = {**WORLD.to_json(), "delay_slots": 2}
    assert RunConditions.from_json(old).air == Air(delay=2)
    assert RunConditions.from_json({**old, "air": "loss=0.25"}).air == LATE
    with pytest.raises(InvalidInput, match="delay_slots: 2; the air has delay=3, name one of them"):
        RunConditions.from_json({**old, "air": "delay=3"})


@pytest.mark.parametrize("changes", [(), ((2, LOSSES),), ((2, LOSSES), (9, ERRORS), (10, UNDISTURBED)), ((1, LATE),)])
def test_json_comes_back(changes: tuple[tuple[int, Air], ...]) -> None:
    found = changing(*changes)
    assert ChangingConditions.from_json(found.to_json()) == found
    assert bool(changes) == ("air_changes" in found.to_json())
