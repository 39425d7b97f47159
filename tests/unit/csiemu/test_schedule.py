"""Changes at set times: what is asked for, and when."""

from __future__ import annotations

from typing import Any

import pytest

from csiemu.schedule import AirChange, Schedule, Swap, parse_air_changes, parse_swaps
from shared.errors import Conflict, InvalidInput
from shared.link.air import UNDISTURBED, Air
from tests.unit.gnb_server.sending import Clock

FIRST_UES = {"hyperrnn": 0, "gmtc": 32}


class Rest:
    """What is asked of a gNB."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.reports = 0

    def get(self, path: str) -> Any:
        return {"overall": {"reports": self.reports}}

    def post(self, path: str, body: Any) -> Any:
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


def test_what_is_due_is_asked_for_once_reports_have_come(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, rest = Clock(), Rest()
    monkeypatch.setattr("csiemu.schedule.time.monotonic", clock)
    airs = parse_air_changes("hyperrnn:loss=0.3@10s,gmtc:@5s", FIRST_UES)
    made = Schedule([*parse_swaps("hyperrnn:3@7s"), *airs])
    assert made.step(rest) == []  # type: ignore[arg-type]  # as far as it is used
    clock.now, rest.reports = 1100.0, 1
    said = []
    for clock.now in (1100.0, 1107.5, 1120.0):
        said.append(made.step(rest))  # type: ignore[arg-type]  # as far as it is used
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
    assert str(Swap("hyperrnn", 3, 7.0)) == "swap of hyperrnn to version 3"
