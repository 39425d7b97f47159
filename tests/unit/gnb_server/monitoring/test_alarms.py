from __future__ import annotations

from gnb_server.monitoring.alarms import Alarms
from gnb_server.monitoring.indicators import INDICATORS
from gnb_server.monitoring.windows import Finding
from gnb_server.sessions import Lease
from shared.channels.scenario import Scenario
from shared.conditions import RunConditions
from tests.unit.gnb_server.sending import Clock

LEASE = Lease("secret", "crnet", RunConditions(Scenario.parse("multipath-p2")), 7, 2)


def finding(value: float) -> Finding:
    return Finding(INDICATORS[0], value, 1.0, 0.5, 0, 99)


def test_raised_once_and_cleared_by_quiet_windows(clock: Clock) -> None:
    alarms = Alarms(clock)
    assert alarms.take(LEASE, 2, finding(1.4), 800) is None
    alarm = alarms.take(LEASE, 2, finding(2.0), 1600)
    assert alarm is not None
    assert (alarm.number, alarm.report, alarm.raised_at) == (1, 1600, 1000.0)
    assert alarm.text == "UEs 7 to 8: the squared norm of the estimates is 2.00 dB (usually 1.00 dB)"
    assert alarm.to_json()["text"] == alarm.text
    for value in (2.0, 1.0, 2.0, 1.0):
        assert alarms.take(LEASE, 2, finding(value), 2400) is None
        assert alarms.on("secret", 2) == ["norm"]
    clock.now = 1005.0
    alarms.take(LEASE, 2, finding(1.0), 3200)
    assert alarms.on("secret", 2) == []
    [shown] = alarms.newest()
    assert (shown.cleared_at, shown.ended) == (1005.0, "as usual again")
    assert alarms.take(LEASE, 2, finding(2.0), 4000) is not None
    assert alarms.counts() == {("crnet", 2, "norm"): (2, 1)}


def test_versions_and_fleets_are_apart(clock: Clock) -> None:
    alarms = Alarms(clock)
    other = Lease("another", "crnet", LEASE.conditions, 9, 2)
    for lease, version in ((LEASE, 1), (LEASE, 2), (other, 1)):
        assert alarms.take(lease, version, finding(2.0), 100) is not None
    alarms.forget("secret")
    assert (alarms.on("secret", 1), alarms.on("secret", 2), alarms.on("another", 1)) == ([], [], ["norm"])
    assert [alarm.ended for alarm in alarms.newest()] == ["", *["the fleet has gone or is silent"] * 2]


def test_news_wait_until_they_are_noted(clock: Clock) -> None:
    alarms = Alarms(clock)
    alarms.take(LEASE, 1, finding(2.0), 100)
    alarms.forget("secret")
    kinds = []
    while news := alarms.news():
        assert alarms.news() == news
        kinds.append(news[0])
        alarms.noted()
    assert kinds == ["alarm", "alarm cleared"]
