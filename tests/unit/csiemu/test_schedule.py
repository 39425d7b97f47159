"""Changes at set times: what is asked for, and when."""

from __future__ import annotations

from typing import Any

import pytest

from csiemu.schedule import AirChange, Schedule, Swap, parse_air_changes, parse_swaps
from shared.errors import Conflict, InvalidInput, NotReady
from shared.link.air import UNDISTURBED, Air

FIRST_UES = {"hyperrnn": 0, "gmtc": 32}


class Rest:
    """What is asked of a gNB."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.away = False

    def post(self, path: str, body: Any) -> Any:
        if self.away:
            raise NotReady("gnb: cannot be reached")
        self.asked.append((path, body))
        if "fleets/32" in path:
            raise Conflict("ue: 32; its fleet has gone: it is finished")
        return {"from_frame": 7}


def test_airs_have_commas_of_their_own() -> None:
    text = "hyperrnn:loss=0.3,burst=5@10s, gmtc:ber=1e-3@2.5,hyperrnn:@20s"
    assert list(parse_air_changes(text, FIRST_UES)) == [
        AirChange("hyperrnn", Air(loss=0.3, burst=5), 10.0, 0),
        AirChange("gmtc", Air(ber=1e-3), 2.5, 32),
        AirChange("hyperrnn", UNDISTURBED, 20.0, 0),
    ]
    assert not list(parse_air_changes(" ", FIRST_UES))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hyperrnn", "air_change: 'hyperrnn'; wanted NAME:AIR@SECONDS, as hyperrnn:loss=0.3,burst=5@10s"),
        ("hyperrnn:loss=0.3@soon", "air_change: 'hyperrnn:loss=0.3@soon'; wanted"),
        ("hyperrnn:@1s,gmtc", "air_change: 'gmtc'; wanted"),
        ("rnn:@1s", "air_change: 'rnn' does not run; wanted one of hyperrnn, gmtc"),
        ("hyperrnn:loss=3@1s", "air loss: 3.0 is not in"),
    ],
)
def test_what_is_none_is_named(text: str, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        list(parse_air_changes(text, FIRST_UES))
    assert str(caught.value).startswith(says)


def test_what_is_due_is_asked_for() -> None:
    rest: Any = Rest()
    airs = parse_air_changes("hyperrnn:loss=0.3@10s,gmtc:@5s", FIRST_UES)
    made = Schedule([*parse_swaps("hyperrnn:3@7s"), *airs])
    said = [made.step(rest, elapsed_s) for elapsed_s in (0.0, 7.5, 20.0)]
    assert said == [
        [],
        [
            "air of gmtc: undisturbed failed: ue: 32; its fleet has gone: it is finished",
            "hyperrnn/3 is loaded: UEs use it from their next frame on",
        ],
        ["air of hyperrnn: loss=0.3 from frame 7 on"],
    ]
    assert made.failed == said[1][:1]
    assert rest.asked == [
        ("/v1/fleets/32/air", {"air": ""}),
        ("/v2/repository/models/hyperrnn/load", {"parameters": {"version": 3}}),
        ("/v1/fleets/0/air", {"air": "loss=0.3"}),
    ]
    assert not made.changes
    assert made.end() == made.failed
    assert str(Swap("hyperrnn", 3, 7.0)) == "swap of hyperrnn to version 3"


def test_a_gnb_that_is_away_is_asked_again_in_the_same_order() -> None:
    rest: Any = Rest()
    made = Schedule([*parse_air_changes("hyperrnn:loss=0.3@1s,hyperrnn:@2s,hyperrnn:loss=0.5@9s", FIRST_UES)])
    rest.away = True
    assert made.step(rest, 3.0) == made.failed == []
    rest.away = False
    assert len(made.step(rest, 4.0)) == 2
    assert [body for _, body in rest.asked] == [{"air": "loss=0.3"}, {"air": ""}]
    assert made.end() == ["air of hyperrnn: loss=0.5: the run was over"]
