"""What UEs are to send, what they are served, how old estimates are when they are ready, and what that costs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry, generate_latest

from gnb_server.aging import aged_figures
from gnb_server.app import service
from gnb_server.handlers import Handlers
from gnb_server.metrics import RunCollector
from gnb_server.serving.aged import EVERY, MOST_SLOTS
from gnb_server.settings import Settings
from shared.channels.streams import Split
from shared.checkpoints import CheckpointStore
from shared.errors import InvalidInput
from shared.link.decoding import decode_frames
from shared.link.evaluation import true_channels
from shared.metrics import Outcomes
from tests.unit.gnb_server.sending import UES, Clock, Ues

RATE = 20.0
SLOT_S = 1 / RATE
SLOTS = 8


@pytest.fixture
def handlers(settings: Settings, clock: Clock) -> Iterator[Handlers]:
    with service(settings, clock) as running:
        yield running


@contextmanager
def waiting(handlers: Handlers, clock: Clock, seconds: float) -> Iterator[None]:
    """What is submitted meanwhile waits for so long."""
    go_on = threading.Event()
    handlers._serving.call(lambda: go_on.wait(30))
    yield
    clock.now += seconds
    go_on.set()


def row_of(handlers: Handlers, **asked: Any) -> dict[str, Any]:
    [row] = handlers.nmse(**asked)["schemes"]
    return row


# --- ages ---


def test_what_an_age_is_made_of(handlers: Handlers, small_store: CheckpointStore, clock: Clock) -> None:
    """What the UE waited before it sent, and what passed at the gNB."""
    ues = Ues(handlers, small_store, offered_per_s=RATE).open()
    with waiting(handlers, clock, 0.25):
        future = ues.submit(0, slots=2, waited_s=(3.0, 1.0))
    future.result(30)
    row = row_of(handlers)
    assert row["queue_ms"]["mean"] == row["latency_ms"]["mean"] == pytest.approx(250)
    assert row["age_ms"]["mean"] == pytest.approx((3250 + 1250) / 2)
    assert handlers.nmse()["overall"]["age_ms"] == row["age_ms"]


def test_what_is_not_said_is_not_known(handlers: Handlers, small_store: CheckpointStore) -> None:
    """Neither the age nor what it costs; a UE without a rate has an age, and no slots that last so long."""
    ues = Ues(handlers, small_store, offered_per_s=RATE).open()
    ues.send(0)
    row = row_of(handlers)
    assert row["age_ms"] == {"mean": None, "p50": None, "p99": None}
    assert (row["aged_reports"], row["aged_nmse_db"], row["rate_held"]) == (0, None, None)
    other = Ues(handlers, small_store, "rnn").open()
    other.submit(0, waited_s=(1.0,)).result(30)
    row = row_of(handlers, model="rnn")
    assert row["age_ms"]["mean"] == pytest.approx(1000)
    assert (row["offered_reports_per_s"], row["aged_reports"], row["aged_nmse_db"]) == (None, 0, None)


def expected(ues: Ues, slot: int, later: int) -> Outcomes:
    """Of zeros that UEs sent from slot 0 on: the estimate of `slot` against the channel so many slots later."""
    fleet, scheme = ues.fleet, ues.checkpoint.scheme
    conditions, frame = fleet.lease.conditions, slot // SLOTS
    samples = conditions.samples(Split.EMULATE, torch.tensor(fleet.lease.ues), frame)
    bits = np.zeros((UES, SLOTS, scheme.layout.bits), np.uint8)
    estimates = decode_frames(scheme, conditions.scenario, samples, bits, conditions.air)
    then = slot % SLOTS + later
    truth = true_channels(conditions, scheme.domain, samples, range(then, then + 1))
    return Outcomes.measure(estimates[:, slot % SLOTS], truth[:, 0])


@pytest.mark.parametrize("slots", [1, SLOTS])
@pytest.mark.parametrize("later", [0, 1, 3, 11])
def test_the_channel_of_the_slot_in_which_the_estimate_was_ready(
    handlers: Handlers, small_store: CheckpointStore, later: int, slots: int
) -> None:
    """Of the same frame as long as it lasts, then of its continuation, in chunks of a slot and of a frame."""
    ues = Ues(handlers, small_store, "rnn", offered_per_s=RATE).open()
    age_s = (later + 0.5) * SLOT_S
    acks = [ues.submit(slot, slots=slots, waited_s=(age_s,) * slots).result(30) for slot in range(0, SLOTS, slots)]
    own = np.concatenate([ack.nmse for ack in acks])
    then = np.stack([expected(ues, slot, later).ratio for slot in range(SLOTS)])
    row = row_of(handlers)
    assert row["aged_reports"] == SLOTS * UES
    assert row["aged_nmse_db"] == pytest.approx(10 * np.log10(then.mean()), abs=1e-4)
    if later:
        assert abs(row["aged_nmse_db"] - row["nmse_db"]) > 1e-3
    else:
        assert then == pytest.approx(own, rel=1e-5)
        assert row["aged_nmse_db"] == pytest.approx(row["nmse_db"])


def test_old_estimates_of_some_frames_stand_for_those_of_all(handlers: Handlers, small_store: CheckpointStore) -> None:
    """Young ones count, each for itself."""
    ues = Ues(handlers, small_store, "rnn", offered_per_s=RATE).open()
    young = []
    for frame in range(EVERY + 1):
        late = frame != 1
        ack = ues.submit(frame * SLOTS, slots=SLOTS, waited_s=(SLOT_S * (1.5 if late else 0.5),) * SLOTS).result(30)
        young += [] if late else [ack.nmse]
    old = [expected(ues, slot, 1).ratio for slot in [*range(SLOTS), *range(EVERY * SLOTS, (EVERY + 1) * SLOTS)]]
    mean = (np.mean(young) + 2 * EVERY * np.mean(old)) / (1 + 2 * EVERY)
    row = row_of(handlers)
    assert row["aged_reports"] == 3 * SLOTS * UES
    assert row["aged_nmse_db"] == pytest.approx(10 * np.log10(mean), abs=1e-4)


def test_the_feedback_delay_comes_on_top(handlers: Handlers, small_store: CheckpointStore) -> None:
    ues = Ues(handlers, small_store, "rnn", offered_per_s=RATE, delay_slots=2).open()
    ues.submit(0, waited_s=(SLOT_S * 1.5,)).result(30)
    ratio = expected(ues, 0, 1).ratio.mean()  # whose truth is that of the fleet's conditions: two slots later still
    assert row_of(handlers)["aged_nmse_db"] == pytest.approx(10 * np.log10(ratio), abs=1e-4)


def test_very_old_estimates(handlers: Handlers, small_store: CheckpointStore) -> None:
    ues = Ues(handlers, small_store, "rnn", offered_per_s=RATE).open()
    ues.submit(0, waited_s=(1e9,)).result(30)
    ratio = expected(ues, 0, MOST_SLOTS).ratio.mean()
    assert row_of(handlers)["aged_nmse_db"] == pytest.approx(10 * np.log10(ratio), abs=1e-4)


def test_precoders_have_an_aged_sgcs_alone() -> None:
    sums = np.array([3.0, 4.0, 1.0, 3.0])
    assert aged_figures(sums, "precoder") == {"aged_reports": 3, "aged_nmse_db": None, "aged_sgcs": 0.75}
    assert aged_figures(sums, "spatial")["aged_nmse_db"] == pytest.approx(10 * np.log10(0.25))


def test_worlds_that_end_with_the_frame(handlers: Handlers, small_store: CheckpointStore) -> None:
    """A data file has no later channel: such reports do not count, those whose slot lasted do."""
    ues = Ues(handlers, small_store, "rnn", offered_per_s=RATE).open()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("gnb_server.evaluator.true_channels", ends_with_the_frame)
        for slot in range(SLOTS):
            ues.submit(slot, waited_s=(SLOT_S * 1.5,)).result(30)
    assert row_of(handlers)["aged_reports"] == (SLOTS - 1) * UES


def ends_with_the_frame(conditions: Any, domain: Any, samples: Any, slots: range | None = None) -> Any:
    if slots is not None and slots.stop > SLOTS:
        raise InvalidInput("scenario: the file has no such slot")
    return true_channels(conditions, domain, samples, slots)


def test_aged_sums_count_once_over_repeats_and_restarts(
    settings: Settings, small_store: CheckpointStore, clock: Clock
) -> None:
    names = ("aged_reports", "aged_nmse_db", "aged_sgcs")
    with service(settings, clock) as handlers:
        ues = Ues(handlers, small_store, offered_per_s=RATE).open()
        for slot in (0, 1, 2):
            ues.submit(slot, waited_s=(SLOT_S * 2,)).result(30)
        ues.submit(0, slots=3, waited_s=(9.0,)).result(30)  # again
        before = [row_of(handlers)[name] for name in names]
        assert before[0] == 3 * UES
        assert [row_of(handlers, window_s=10.0)[name] for name in names] == pytest.approx(before)
    with service(settings, clock) as handlers:
        assert [row_of(handlers, whole_run=True)[name] for name in names] == pytest.approx(before)
        ues.handlers = handlers
        ues.come_back().submit(2, slots=2, waited_s=(SLOT_S * 2,) * 2).result(30)
        assert row_of(handlers)["aged_reports"] == 4 * UES
        handlers.detach(ues.fleet.lease.token)
        handlers._serving.run(lambda: None)
        assert row_of(handlers)["aged_reports"] == 4 * UES


# --- rates ---


def run(ues: Ues, clock: Clock, seconds: int, share: float, slot: int, **timing: Any) -> int:
    """Let UEs that are to send a report every second send a share of them, from a slot on; the next slot."""
    owed = 0.0
    for _ in range(seconds):
        clock.now += 1
        owed += share
        if owed >= 1 - 1e-9:
            ues.submit(slot, **timing).result(30)
            slot, owed = slot + 1, owed - 1
        ues.handlers.tick()
    return slot


def test_a_rate_that_is_not_held_is_said_once_and_when_it_is_again_once(
    handlers: Handlers, small_store: CheckpointStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    ues = Ues(handlers, small_store, offered_per_s=1.0).open()
    slot = run(ues, clock, 20, 1.0, 0)
    row = row_of(handlers)
    assert (row["offered_reports_per_s"], row["rate_held"]) == (UES, True)
    assert not caplog.messages
    slot = run(ues, clock, 10, 0.5, slot, ack_wait_s=1.9)
    assert row_of(handlers)["rate_held"] is False
    assert handlers.nmse()["overall"]["rate_held"] is False
    assert [row["rate_held"] for row in handlers.ues()["ues"]] == [False] * UES
    [said] = caplog.messages
    assert said.startswith("hyperrnn: UEs 0..1: the rate is not held: asked for 2.0 reports/s, served 1.")
    assert said.endswith("; the gNB limits: UEs wait for acks")
    slot = run(ues, clock, 30, 0.5, slot)
    assert len(caplog.messages) == 1
    slot = run(ues, clock, 30, 1.0, slot)
    assert row_of(handlers)["rate_held"] is True
    assert caplog.messages[1].startswith("hyperrnn: UEs 0..1: the rate is held again: asked for 2.0 reports/s, served ")
    kinds = ("rate_not_held", "rate_held")
    events = [event for event in handlers.events(0, 100) if event["kind"] in kinds]
    assert [event["kind"] for event in events] == list(kinds)
    assert [f"hyperrnn: {event['text']}" for event in events] == caplog.messages
    assert {(event["model"], event["version"], event["by"]) for event in events} == {("hyperrnn", "1", "gNB")}


def test_fleets(handlers: Handlers, small_store: CheckpointStore, clock: Clock) -> None:
    """Each has its own delays, of the last time alone."""
    first = Ues(handlers, small_store, offered_per_s=1.0).open()
    second = Ues(handlers, small_store).open()
    second.submit(0, waited_s=(5.0,)).result(30)
    run(first, clock, 30, 0.5, 0, ack_wait_s=1.9, waited_s=(1.0,))
    answer = handlers.fleets()
    assert answer["total"] == 2
    rows = answer["fleets"]
    assert [row["first_ue"] for row in rows] == [0, UES]
    named = ("scheme", "ue_count", "status", "offered_reports_per_s", "rate_held", "limited_by")
    assert [rows[0][name] for name in named] == ["hyperrnn", UES, "attached", UES, False, "gNB"]
    assert [rows[1][name] for name in named] == ["hyperrnn", UES, "attached", None, None, None]
    assert rows[0]["reports_per_s"] == pytest.approx(UES / 2, rel=0.2)
    assert rows[0]["age_ms"]["mean"] == pytest.approx(1000)
    assert (rows[1]["reports_per_s"], rows[1]["age_ms"]["mean"]) == (0, None)
    second.submit(1, waited_s=(2.0,)).result(30)
    [row] = handlers.fleets(offset=1)["fleets"]
    assert row["age_ms"]["mean"] == pytest.approx(2000)
    handlers.detach(second.fleet.lease.token)
    handlers._serving.run(lambda: None)
    assert [row["first_ue"] for row in handlers.fleets()["fleets"]] == [0]
    handlers.close_stream(first.fleet, first.stream)
    [row] = handlers.fleets(limit=1)["fleets"]
    assert [row[name] for name in named[2:]] == ["gone", None, None, None]


@pytest.mark.parametrize(
    ("timing", "said"),
    [({"ack_wait_s": 0.1}, "; the UEs limit: they do not send so many"), ({}, ""), ({"ack_wait_s": 1.9}, "acks")],
)
def test_what_limits(
    handlers: Handlers,
    small_store: CheckpointStore,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    timing: dict[str, float],
    said: str,
) -> None:
    ues = Ues(handlers, small_store, offered_per_s=1.0).open()
    run(ues, clock, 10, 0.5, 0, **timing)
    [message] = [text for text in caplog.messages if "is not held" in text]
    assert message.endswith(said)
    assert ("limit" in message) == bool(timing)


def test_who_asks_for_nothing_is_not_judged(
    handlers: Handlers, small_store: CheckpointStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    ues = Ues(handlers, small_store).open()
    run(ues, clock, 30, 0.1, 0)
    assert (row_of(handlers)["rate_held"], handlers.ues()["ues"][0]["offered_reports_per_s"]) == (None, None)
    assert not [text for text in caplog.messages if "rate" in text]


def test_a_new_stream_is_judged_anew(handlers: Handlers, small_store: CheckpointStore, clock: Clock) -> None:
    ues = Ues(handlers, small_store, offered_per_s=1.0).open()
    slot = run(ues, clock, 20, 0.5, 0)
    assert row_of(handlers)["rate_held"] is False
    handlers.close_stream(ues.fleet, ues.stream)
    assert (row_of(handlers)["rate_held"], row_of(handlers)["offered_reports_per_s"]) == (None, None)
    ues.come_back()
    assert (row_of(handlers)["rate_held"], row_of(handlers)["offered_reports_per_s"]) == (None, UES)
    run(ues, clock, 20, 1.0, slot)
    assert row_of(handlers)["rate_held"] is True


@pytest.mark.parametrize("per_s", [0.0, -1.0, 1e9, float("nan"), float("inf")])
def test_rates_that_no_ue_can_have(handlers: Handlers, small_store: CheckpointStore, per_s: float) -> None:
    with pytest.raises(InvalidInput, match=r"offered_reports_per_s: .* is not in \[1e-06, 1e\+06\]"):
        Ues(handlers, small_store, offered_per_s=per_s)


def test_metrics(handlers: Handlers, small_store: CheckpointStore, clock: Clock) -> None:
    ues = Ues(handlers, small_store, offered_per_s=1.0).open()
    run(ues, clock, 20, 0.5, 0, waited_s=(1.5,))
    registry = CollectorRegistry()
    registry.register(RunCollector(handlers))
    lines = generate_latest(registry).decode().splitlines()

    def values(name: str, *labels: str) -> list[float]:
        return [
            float(line.split()[-1])
            for line in lines
            if line.startswith(f"csiemu_{name}{{") and all(label in line for label in labels)
        ]

    assert values("offered_reports_per_second") == [UES]
    assert values("rate_held") == [0]
    assert values("age_ms", 'statistic="p50"') == pytest.approx([1500], rel=0.06)
    assert len(values("queue_ms", 'statistic="p99"')) == 1
    assert values("aged_nmse_db") == pytest.approx([row_of(handlers)["aged_nmse_db"]])
    assert values("reports_per_second") == pytest.approx([row_of(handlers)["reports_per_s"]])
