"""Rates that are held, or not, by a clock that the test moves."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from shared.rate_watch import LEAST_S, WINDOW_S, RateWatch

TICK_S = 1.0


@dataclass
class Sender:
    """UEs that send so many reports a second each, a slot at once, of which a share is served."""

    per_s: float = 20.0
    ues: int = 10
    now: float = 1000.3

    def __post_init__(self) -> None:
        self.watch = RateWatch(self.per_s * self.ues, self.ues, lambda: self.now)
        self.changes: list[tuple[float, bool | None]] = []
        self.started = self.slot = self.judged = self.now
        self.owed = 0.0

    def run(self, seconds: float, share: float = 1.0, ack_wait_s: float | None = None) -> None:
        """Let time go on, judging every TICK_S."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.slot, self.judged, end)
            if self.now == self.slot:
                self.watch.sent(ack_wait_s)
                self.owed += share * self.ues
                served = int(self.owed + 1e-9)
                self.owed -= served
                self.watch.answered(served)
                self.slot += 1 / self.per_s
            if self.now == self.judged:
                self.judged += TICK_S
                if self.watch.judge():
                    self.changes.append((self.now - self.started, self.watch.held))


@pytest.mark.parametrize("per_s", [0.1, 0.5, 2.0, 20.0, 333.0])
def test_a_rate_that_is_held(per_s: float) -> None:
    sender = Sender(per_s)
    sender.run(LEAST_S / 2)
    assert sender.watch.held is None
    sender.run(max(60, 40 / per_s))
    assert sender.watch.held
    assert not sender.changes
    assert sender.watch.served_per_s == pytest.approx(sender.watch.asked_per_s, rel=0.12)


@pytest.mark.parametrize("per_s", [0.5, 2.0, 20.0, 333.0])
@pytest.mark.parametrize("share", [0.0, 0.62, 0.8])
def test_one_that_is_not_is_known_within_ten_seconds_or_slots(per_s: float, share: float) -> None:
    sender = Sender(per_s)
    sender.run(60)
    begun = sender.now - sender.started
    sender.run(60, share)
    [(when, held)] = sender.changes
    assert not held
    assert when - begun <= max(10, 10 / per_s)


def test_from_the_beginning() -> None:
    """Of reports none of which is served, too."""
    for share in (0.62, 0.0):
        sender = Sender()
        sender.run(10, share)
        [(when, held)] = sender.changes
        assert not held
        assert when <= LEAST_S + TICK_S


def test_it_is_held_again_when_the_window_is_full_again() -> None:
    sender = Sender()
    sender.run(30)
    sender.run(30, 0.7)
    sender.run(60)
    assert [held for _, held in sender.changes] == [False, True]
    assert 60 < sender.changes[1][0] <= 60 + WINDOW_S + TICK_S


def test_shares_between_the_limits_change_nothing() -> None:
    for first, held in ((1.0, True), (0.5, False)):
        sender = Sender()
        sender.run(30, first)
        for share in (0.962, 0.968) * 20:
            sender.run(7, share)
        assert sender.watch.held is held
        assert len(sender.changes) == (not held)


def test_bursts_of_a_slot_are_no_shortfall() -> None:
    """A slot's reports may come a slot late."""
    sender = Sender(2.0, ues=1000)
    for _ in range(40):
        sender.run(0.5, 0.0)
        sender.run(0.5, 2.0)
    assert not sender.changes


def test_what_the_sender_waits_for() -> None:
    sender = Sender()
    sender.run(20, 0.5)
    assert sender.watch.waits_for_acks is None
    sender.run(2, 0.5, ack_wait_s=0.9 / sender.per_s)
    assert sender.watch.waits_for_acks is True
    sender.run(2, 0.5, ack_wait_s=0.1 / sender.per_s)
    assert sender.watch.waits_for_acks is False
    assert str(sender.watch) == f"asked for 200 reports/s, served {sender.watch.served_per_s:,.0f}"
    slow = Sender(1.0, ues=2)
    slow.run(30, 0.5)
    assert str(slow.watch) == f"asked for 2.0 reports/s, served {slow.watch.served_per_s:.1f}"


def test_nothing_is_due_before_the_first_report() -> None:
    now = [5.0]
    watch = RateWatch(10.0, 1, lambda: now[0])
    for _ in range(100):
        now[0] += 1
        assert not watch.judge()
    assert (watch.held, watch.served_per_s, watch.waits_for_acks) == (None, 0.0, None)


@pytest.mark.parametrize("unanswered", [0, 1])
def test_who_sends_nothing_any_more(unanswered: int) -> None:
    """Waits for an ack, if there is one to come, or else is silent by itself."""
    now = [5.0]
    watch = RateWatch(10.0, 1, lambda: now[0])
    for number in range(3):
        watch.sent(0.0)
        if number >= unanswered:
            watch.answered(1)
    now[0] += 10
    assert watch.judge()
    assert watch.waits_for_acks is bool(unanswered)
