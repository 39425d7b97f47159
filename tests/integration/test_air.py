"""A disturbed link over real sockets: every report is acknowledged, and what the air took is counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from csiemu.verify import misdecoded, recoded
from shared.checkpoints import CheckpointStore
from shared.errors import InvalidInput
from shared.link.air import FATES
from tests.integration.live_fleet import LiveFleet, until
from ue_client.command import save_record

StartGnb = Callable[..., Any]
"""As `conftest` has it."""

UES, SLOTS = 8, 40
AIR = "ber=0.02,loss=0.2,burst=3.0,crc=6"


@pytest.mark.parametrize(
    ("scheme", "air"),
    [
        ("hyperrnn", "ber=0.02,loss=0.2,burst=3.0,crc=6,policy=blind"),
        ("genie_lmmse", "loss=0.2,burst=3.0,policy=predict"),
        ("hyperrnn", "ber=0.1,loss=0.1,state=reset"),
        ("gmtc", "ber=0.01,loss=0.1"),
    ],
)
def test_reports_over_a_disturbed_link(
    start_gnb: StartGnb, small_store: CheckpointStore, tmp_path: Path, scheme: str, air: str
) -> None:
    """All are acknowledged and counted once; decoding again offline, with the same air, gives the same estimates."""
    gnb = start_gnb(record=tmp_path / "recorded")
    fleet = gnb.run_ues(scheme=scheme, ues=UES, slots=SLOTS, air=air, record=tmp_path / "sent.npz")
    [row] = gnb.call("/v1/nmse")[1]["schemes"]
    save_record(fleet)
    assert fleet.counts.acked == row["reports"] == UES * SLOTS
    assert (row["air"], row["dropped"]) == (air, 0)
    assert 0 < sum(row[fate] for fate in FATES) <= UES * SLOTS
    assert row["air_lost"] > 0
    assert gnb.call("/v1/ues/3")[1]["air"] == air
    gnb.stop()
    recorded = list((tmp_path / "recorded").glob("*.npz"))
    assert misdecoded(small_store, tmp_path / "sent.npz", recorded) == (0, UES * SLOTS)
    again = start_gnb()
    [stored] = again.call("/v1/nmse?whole_run=true")[1]["schemes"]
    assert {fate: stored[fate] for fate in FATES} == {fate: row[fate] for fate in FATES}
    assert stored["nmse_db"] == pytest.approx(row["nmse_db"])


def test_an_air_that_is_none_is_named(start_gnb: StartGnb) -> None:
    with pytest.raises(InvalidInput, match="air crc: 8; wanted 0, 6, 11, 16, 24 bits"):
        start_gnb().run_ues(ues=1, slots=1, air="crc=8")


def test_an_air_that_changes_while_ues_send(start_gnb: StartGnb, small_store: CheckpointStore, tmp_path: Path) -> None:
    """Nothing is lost, each report counts in the row of its air, and decoding again offline gives the same."""
    gnb = start_gnb(record=tmp_path / "recorded")
    live = LiveFleet(gnb, scheme="hyperrnn", ues=UES, rate=60.0, record=tmp_path / "sent.npz")

    def decoded(air: str | None) -> int:
        rows = gnb.call("/v1/nmse")[1]["schemes"]
        return sum(row["reports"] for row in rows if row["air"] == air)

    until(lambda: decoded(None) > 20 * UES)
    status, answer = gnb.call("/v1/fleets/5/air", {"air": AIR})
    assert (status, answer["air"]) == (200, AIR)
    assert answer == gnb.call("/v1/fleets/0/air")[1]
    assert answer["from_frame"] > 0
    until(lambda: decoded(AIR) > 20 * UES)
    gnb.call("/v1/fleets/0/air", {"air": ""})
    until(lambda: decoded(AIR) % (8 * UES) == 0)
    first = decoded(None)
    until(lambda: decoded(None) > first + 20 * UES)
    answer = gnb.call("/v1/fleets/0/air")[1]
    assert [change["air"] for change in answer["history"]] == ["", AIR, ""]
    fleet = live.stop()
    frames = [change["from_frame"] for change in answer["history"]]
    assert decoded(AIR) == 8 * UES * (frames[2] - frames[1])
    assert fleet.counts.sent == fleet.counts.acked == decoded(None) + decoded(AIR)
    rows = {row["air"]: row for row in gnb.call("/v1/nmse")[1]["schemes"]}
    assert rows[AIR]["feedback_bits"] == rows[None]["feedback_bits"] + 6
    kept = gnb.call("/v1/ues/3/reports?limit=1000")[1]["reports"]
    assert {row["air"] for row in kept if row["fate"] != "received"} == {AIR}
    gnb.stop()
    save_record(fleet)
    recorded = sorted((tmp_path / "recorded").glob("*.npz"))
    wrong, compared = misdecoded(small_store, tmp_path / "sent.npz", recorded)
    assert wrong == 0
    assert compared == 8 * (fleet.counts.acked // 8 // UES) * UES
    assert recoded(small_store, recorded)[0] == 0


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ({"air": "loss=2"}, 400, "air loss: 2.0 is not in [0, 1]"),
        ({"air": "fog=1"}, 400, "air: field 'fog' is unknown; fields are ber, loss, burst, crc, policy, state, delay"),
        ({"air": "delay=1025"}, 400, "air delay: 1025 is not in [0, 1024]"),
        ({"air": 3}, 400, "air: 3"),
        ({}, 400, "air"),
        ({"air": "", "from": 3}, 400, "'from' is unknown; known are air"),
    ],
)
def test_airs_that_are_refused(start_gnb: StartGnb, body: dict[str, Any], code: int, says: str) -> None:
    gnb = start_gnb()
    with gnb.stub() as stub:
        gnb.attach(stub)
        status, answer = gnb.call("/v1/fleets/0/air", body)
        assert (status, gnb.call("/v1/fleets/0/air")[1]["history"]) == (code, [{"air": "", "from_frame": 0}])
    assert says in answer["error"]
    assert gnb.call("/v1/fleets/7/air", {"air": ""}) == (404, {"error": "ue: 7 is unknown; /v1/ues lists them"})
