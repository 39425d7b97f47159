"""Rates that a gNB holds, and one that it cannot, over sockets: said by both ends, and shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.integration.live_fleet import LiveFleet, until

Gnb = Any
"""As `conftest` has it."""


def test_who_is_not_served_is_told_and_who_is_is_not(start_gnb: Callable[..., Gnb]) -> None:
    """With one chunk on its way and 50 ms a batch, no more than 20 slots a second can be acknowledged."""
    gnb = start_gnb(fault="slow")
    slow = LiveFleet(gnb, scheme="rnn", ues=2, rate=0.5, ue_base=0)
    fast = LiveFleet(gnb, scheme="hyperrnn", ues=3, rate=1000.0, window=1, ue_base=100)

    def events() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = gnb.call("/v1/events")[1]["events"]
        return found

    [event] = until(events)
    assert (event["kind"], event["model"], event["version"]) == ("rate_not_held", "hyperrnn", "1")
    assert event["text"].startswith("UEs 100..102: the rate is not held: asked for 3,000 reports/s, served ")
    assert event["text"].endswith("; the gNB limits: UEs wait for acks")
    until(lambda: fast.fleet.counts.not_held_after_s is not None)
    until(lambda: rows(gnb)["rnn"]["rate_held"] is not None)
    found = rows(gnb)
    assert (found["hyperrnn"]["offered_reports_per_s"], found["hyperrnn"]["rate_held"]) == (3000.0, False)
    assert (found["rnn"]["offered_reports_per_s"], found["rnn"]["rate_held"]) == (1.0, True)
    assert found["hyperrnn"]["age_ms"]["p50"] > found["hyperrnn"]["latency_ms"]["p50"]
    assert found["hyperrnn"]["aged_reports"] > 0
    assert found["hyperrnn"]["aged_nmse_db"] > found["hyperrnn"]["nmse_db"]
    listed = {row["ue"]: (row["offered_reports_per_s"], row["rate_held"]) for row in gnb.call("/v1/ues")[1]["ues"]}
    assert listed == {0: (0.5, True), 1: (0.5, True), **dict.fromkeys((100, 101, 102), (1000.0, False))}
    of_fleets = gnb.call("/v1/fleets")[1]["fleets"]
    assert [row["limited_by"] for row in of_fleets] == [None, "gNB"]
    assert [row["offered_reports_per_s"] for row in of_fleets] == [1.0, 3000.0]
    assert slow.stop().counts.not_held_after_s is None
    fast.stop()
    assert [event["kind"] for event in events()] == ["rate_not_held"]


def rows(gnb: Gnb) -> dict[str, dict[str, Any]]:
    return {row["scheme"]: row for row in gnb.call("/v1/nmse?window=10")[1]["schemes"]}
