"""A disturbed link over real sockets: every report is acknowledged, and what the air took is counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from csiemu.verify import misdecoded
from shared.checkpoints import CheckpointStore
from shared.errors import InvalidInput
from shared.link.air import FATES
from ue_client.command import save_record

StartGnb = Callable[..., Any]
"""As `conftest` has it."""

UES, SLOTS = 8, 40


@pytest.mark.parametrize(
    ("scheme", "air"),
    [
        ("hyperrnn", "ber=0.02,loss=0.2,burst=3.0,crc=6,policy=blind"),
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
    [stored] = again.call("/v1/nmse")[1]["schemes"]
    assert {fate: stored[fate] for fate in FATES} == {fate: row[fate] for fate in FATES}
    assert stored["nmse_db"] == pytest.approx(row["nmse_db"])


def test_an_air_that_is_none_is_named(start_gnb: StartGnb) -> None:
    with pytest.raises(InvalidInput, match="air crc: 8; wanted 0, 6, 11, 16, 24 bits"):
        start_gnb().run_ues(ues=1, slots=1, air="crc=8")
