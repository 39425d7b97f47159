"""Fleets that have been gone or silent for long: what they held is freed, and nothing is lost when they come back."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gnb_server.app import service
from gnb_server.handlers import Attachment, Handlers
from gnb_server.settings import Settings
from shared.checkpoints import CheckpointStore
from shared.errors import Conflict, NotReady
from tests.unit.gnb_server.sending import UES, Clock, Ues

EVICT_S = 600.0


@pytest.fixture
def settings(tmp_path: Path, small_store: CheckpointStore) -> Settings:
    store = f"sqlite:///{tmp_path / 'gnb.sqlite'}"
    return Settings(checkpoints=small_store.root, store=store, grpc_port=0, evict_s=EVICT_S)


@pytest.fixture
def handlers(settings: Settings, clock: Clock) -> Iterator[Handlers]:
    with service(settings, clock) as running:
        yield running


def close(ues: Ues) -> None:
    ues.handlers.close_stream(ues.fleet, ues.stream)


def wait(handlers: Handlers, clock: Clock, seconds: float) -> None:
    """Let time pass; what is to be done then is done."""
    clock.now += seconds
    assert handlers.tick()
    handlers._serving.run(lambda: None)


def shown(handlers: Handlers) -> list[Any]:
    """All that REST shows of fleets, but for what changes with the time."""
    delays = dict.fromkeys(("latency_ms", "queue_ms", "age_ms"))
    timed = {"reports_per_s": 0.0, **delays, "assigned_version": None}
    figures, ues = handlers.nmse(whole_run=True), handlers.ues(whole_run=True)["ues"]
    rows = [*figures["schemes"], figures["overall"], *handlers.series()]
    rows += [*ues, *(handlers.ue(row["ue"]) for row in ues)]
    return [row | {name: value for name, value in timed.items() if name in row} for row in rows]


def in_memory(handlers: Handlers) -> set[str]:
    """Tokens of fleets of which more than the lease is held."""
    serving = handlers._serving
    held = {key[0] for key in (*serving._executor._backends["serving"]._frames, *serving._executor._evaluator._held)}
    return {*handlers._fleets, *handlers._monitor._fleets, *held}


def test_a_fleet_that_is_gone_for_long_leaves_memory_and_no_figure_moves(
    handlers: Handlers, small_store: CheckpointStore, clock: Clock
) -> None:
    gone, other = Ues(handlers, small_store).open(), Ues(handlers, small_store, "rnn").open()
    for ues in (gone, other):
        ues.send(*range(11))
    close(gone)
    before, reports = shown(handlers), handlers.reports(gone.fleet.lease.first_ue, 100)
    wait(handlers, clock, EVICT_S - 1)
    assert in_memory(handlers) == {gone.fleet.lease.token, other.fleet.lease.token}
    other.send(11)
    before_now = shown(handlers)
    wait(handlers, clock, 1)
    assert in_memory(handlers) == {other.fleet.lease.token}
    assert shown(handlers) == before_now
    assert handlers.ues(status="gone")["total"] == UES
    assert handlers.reports(gone.fleet.lease.first_ue, 100) == reports
    assert [row for row in before if row.get("scheme") == "hyperrnn"] == [
        row for row in shown(handlers) if row.get("scheme") == "hyperrnn"
    ]
    assert Ues(handlers, small_store).fleet.lease.first_ue == 2 * UES  # its ids stay leased


@pytest.mark.parametrize("times", [1, 3])
def test_it_comes_back_and_goes_on_as_if_it_had_been_there(
    settings: Settings, small_store: CheckpointStore, clock: Clock, times: int
) -> None:
    """In the middle of a frame: the same NMSE for each report as without an eviction, each counted once."""
    found = []
    for run, away in (("there", False), ("away", True)):
        with service(settings.model_copy(update={"run": run}), clock) as handlers:
            ues, acks = Ues(handlers, small_store).open(), []
            for part in range(times):
                acks += ues.send(*range(5 * part, 5 * part + 5))
                if away:
                    close(ues)
                    wait(handlers, clock, EVICT_S)
                    assert in_memory(handlers) == set()
                    with pytest.raises(NotReady, match="attach again with its token"):
                        ues.open()
                    ues.come_back()
            acks += ues.send(*range(5 * times, 16))
            found.append(([ack.nmse.tolist() for ack in acks], shown(handlers)))
            assert handlers.nmse()["overall"]["reports"] == 16 * UES
    (nmse, figures), (nmse_away, figures_away) = found
    assert nmse_away == [[pytest.approx(slot, rel=1e-5) for slot in ack] for ack in nmse]
    for row, expected in zip(figures_away, figures, strict=True):
        for name in row.keys() & {"reports", "frames", "nmse_db", "wire_bytes_total", "ues", "ues_attached"}:
            assert row[name] == pytest.approx(expected[name], rel=1e-5)
        assert row.get("status") == expected.get("status")


def test_a_silent_fleet_is_idle_and_loses_what_is_held_for_its_open_frames(
    handlers: Handlers, small_store: CheckpointStore, clock: Clock
) -> None:
    silent, loud = Ues(handlers, small_store).open(), Ues(handlers, small_store).open()
    silent.send(0, 1, 2)
    wait(handlers, clock, EVICT_S / 2)
    loud.send(0)
    wait(handlers, clock, EVICT_S / 2)
    assert [row["status"] for row in handlers.ues()["ues"]] == ["idle"] * UES + ["attached"] * UES
    assert handlers.nmse()["overall"]["ues_attached"] == 2 * UES  # it has its stream
    assert silent.fleet.open is None
    assert in_memory(handlers) == {silent.fleet.lease.token, loud.fleet.lease.token}
    assert {key[0] for key in handlers._serving._executor._evaluator._held} == {loud.fleet.lease.token}
    with pytest.raises(NotReady, match="attach again with its token"):
        silent.send(3)
    silent.come_back()
    assert silent.send(3)[0].nmse.shape == (1, UES)
    assert handlers.ues(status="idle")["total"] == 0
    assert handlers.nmse()["overall"]["reports"] == 5 * UES


def test_an_idle_fleet_that_goes_is_gone_and_leaves_memory_later(
    handlers: Handlers, small_store: CheckpointStore, clock: Clock
) -> None:
    ues = Ues(handlers, small_store).open()
    ues.send(0)
    wait(handlers, clock, EVICT_S)
    close(ues)
    assert handlers.ues(status="gone")["total"] == UES
    wait(handlers, clock, EVICT_S - 1)
    assert in_memory(handlers) == {ues.fleet.lease.token}
    wait(handlers, clock, 1)
    assert in_memory(handlers) == set()


def test_fleets_of_an_earlier_process_count_as_gone_since_the_start(
    settings: Settings, small_store: CheckpointStore, clock: Clock
) -> None:
    with service(settings, clock) as handlers:
        ues = Ues(handlers, small_store).open()
        ues.send(*range(3))
        expected = shown(handlers)
    clock.now += 10 * EVICT_S
    with service(settings, clock) as handlers:
        wait(handlers, clock, EVICT_S - 1)
        assert set(handlers._fleets) == {ues.fleet.lease.token}
        wait(handlers, clock, 1)
        assert in_memory(handlers) == set()
        assert [row.get("reports") for row in shown(handlers)] == [row.get("reports") for row in expected]
        ues.handlers = handlers
        ues.come_back().send(3)
        assert handlers.nmse()["overall"]["reports"] == 4 * UES
        close(ues)
        wait(handlers, clock, EVICT_S)
    with service(settings, clock) as handlers:  # evicted when the process ended
        assert handlers.nmse(whole_run=True)["overall"]["reports"] == 4 * UES


def test_whoever_attaches_has_the_whole_time_again(
    handlers: Handlers, small_store: CheckpointStore, clock: Clock
) -> None:
    """Although it has not opened its stream yet."""
    ues = Ues(handlers, small_store)
    wait(handlers, clock, EVICT_S - 1)
    ues.handlers.attach(ues.wanted.__class__(**{**ues.wanted.__dict__, "token": ues.fleet.lease.token}))
    wait(handlers, clock, EVICT_S - 1)
    assert ues.open().send(0)


def test_a_return_with_another_world_is_refused_and_leaves_it_where_it_is(
    handlers: Handlers, small_store: CheckpointStore, clock: Clock
) -> None:
    ues = Ues(handlers, small_store).open()
    ues.send(0)
    close(ues)
    wait(handlers, clock, EVICT_S)
    ues.wanted = Attachment(**{**ues.wanted.__dict__, "seed": 9})
    with pytest.raises(Conflict, match="seed: 9; the lease of this token has 0"):
        ues.come_back()
    assert in_memory(handlers) == set()


def test_a_fleet_can_detach_while_it_is_evicted(handlers: Handlers, small_store: CheckpointStore, clock: Clock) -> None:
    ues = Ues(handlers, small_store).open()
    ues.send(*range(9))
    close(ues)
    wait(handlers, clock, EVICT_S)
    before = [row | {"status": ""} for row in shown(handlers)]
    for _ in range(2):
        handlers.detach(ues.fleet.lease.token)
        handlers._serving.run(lambda: None)
        assert handlers.ues(status="finished")["total"] == UES
        assert [row | {"status": ""} for row in shown(handlers)] == before
    assert not handlers._monitor._evicted
    with pytest.raises(Conflict, match="has detached"):
        ues.come_back()


def test_evicted_fleets_hold_back_neither_unload_nor_retirement(
    handlers: Handlers, small_store: CheckpointStore, clock: Clock
) -> None:
    """Who comes back in the middle of a frame has its version loaded again, unless people have unloaded it."""
    ues = Ues(handlers, small_store).open()
    ues.send(0, 1)
    close(ues)
    with pytest.raises(Conflict, match="is kept for UEs 0"):
        handlers.swaps.unload("hyperrnn")
    handlers.swaps.load("hyperrnn", 3)
    wait(handlers, clock, 1)
    assert handlers._repository.loaded("hyperrnn") == [1, 3]
    wait(handlers, clock, EVICT_S)
    assert handlers._repository.loaded("hyperrnn") == [3]
    assert ues.come_back().send(2)[0].versions.tolist() == [1] * UES
    close(ues)
    wait(handlers, clock, EVICT_S)
    handlers.swaps.unload("hyperrnn")
    with pytest.raises(Conflict, match=r"hyperrnn/1 decodes for encoder .* but is unloaded; load it first"):
        ues.come_back()
    handlers.swaps.load("hyperrnn", 1)
    assert ues.come_back().send(3)[0].versions.tolist() == [1] * UES


def test_whoever_comes_back_is_assigned_anew(settings: Settings, small_store: CheckpointStore, clock: Clock) -> None:
    """Not what a roll-out had assigned that has ended meanwhile."""
    with service(settings, clock) as handlers:
        ues = Ues(handlers, small_store).open()
        number = handlers.swaps.start("hyperrnn", 2, "canary", 0.5, None).number
        assert ues.fleet.assigned.tolist() == [2, 0]
        close(ues)
        wait(handlers, clock, EVICT_S)
        assert [row["assigned_version"] for row in handlers.ues()["ues"]] == [None] * UES
        handlers.swaps.abort(number)
        wait(handlers, clock, 1)
    with service(settings, clock) as handlers:
        ues.handlers = handlers
        assert ues.come_back().fleet.assigned.tolist() == [0, 0]
        assert ues.send(0)[0].versions.tolist() == [1] * UES


def test_figures_are_exactly_those_of_before_after_many_returns(
    handlers: Handlers, small_store: CheckpointStore, clock: Clock
) -> None:
    """Sums of other fleets do not drift by what is taken out of them."""
    fleets = [Ues(handlers, small_store).open() for _ in range(3)]
    for index, ues in enumerate(fleets):
        ues.send(*range(4 + index))
        close(ues)
    wait(handlers, clock, EVICT_S)
    before = shown(handlers)
    for number in range(6):
        ues = fleets[number % 3]
        ues.come_back()
        close(ues)
        wait(handlers, clock, EVICT_S)
        for row, expected in zip(shown(handlers), before, strict=True):
            assert row.keys() == expected.keys()
            assert row["reports"] == expected["reports"]
            if "by_slot" in row:
                assert row["nmse_db"] == pytest.approx(expected["nmse_db"], rel=1e-14)


@pytest.fixture
def traced() -> Iterator[Callable[[], int]]:
    tracemalloc.start()

    def size() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    yield size
    tracemalloc.stop()


def test_memory_does_not_grow_with_the_ues_that_attach_and_vanish(
    handlers: Handlers,
    small_store: CheckpointStore,
    clock: Clock,
    traced: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gnb_server.handlers.LINGER_S", 0.0)
    ues, cycles = 1000, 12
    sizes = []
    for _ in range(cycles):
        fleet = Ues(handlers, small_store, ues=ues).open()
        fleet.submit(0, ues=ues).result(30)
        close(fleet)
        del fleet
        wait(handlers, clock, EVICT_S)
        sizes.append(traced())
    grown = (sizes[-1] - sizes[3]) / (cycles - 4)
    assert grown < 20 * ues  # bytes: its totals and open frames took 1000 times as much
    assert in_memory(handlers) == set()
