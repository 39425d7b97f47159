"""Fleets that an earlier process of the run had: apart from the live figures until they are back, and never lost."""

from __future__ import annotations

import pytest

from gnb_server.app import service
from gnb_server.handlers import Handlers
from gnb_server.settings import Settings
from shared.checkpoints import CheckpointStore
from tests.unit.gnb_server.sending import UES, Clock, Ues


def reports(handlers: Handlers, *, whole_run: bool = False) -> tuple[int, int]:
    """Reports and UEs in the figures; those in the list of UEs are the same."""
    overall = handlers.nmse(whole_run=whole_run)["overall"]
    assert handlers.ues(whole_run=whole_run)["total"] == overall["ues"]
    return overall["reports"], overall["ues"]


@pytest.fixture
def left(settings: Settings, small_store: CheckpointStore, clock: Clock) -> tuple[Ues, Ues]:
    """A fleet that has detached after 3 reports a UE, and one that had sent 5 when its gNB ended."""
    with service(settings, clock) as handlers:
        finished, gone = Ues(handlers, small_store).open(), Ues(handlers, small_store).open()
        finished.send(*range(3))
        gone.send(*range(5))
        handlers.detach(finished.fleet.lease.token)
        handlers._serving.run(lambda: None)
        assert reports(handlers) == (8 * UES, 2 * UES)
    return finished, gone


def test_they_are_apart_until_they_are_back(
    settings: Settings, small_store: CheckpointStore, clock: Clock, left: tuple[Ues, Ues]
) -> None:
    _, gone = left
    with service(settings, clock) as handlers:
        assert reports(handlers) == (0, 0)
        assert reports(handlers, whole_run=True) == (8 * UES, 2 * UES)
        assert Ues(handlers, small_store).open().send(0)
        assert reports(handlers) == (UES, UES)
        gone.handlers = handlers
        gone.come_back().send(5)
        assert reports(handlers) == (7 * UES, 2 * UES)
        assert reports(handlers, whole_run=True) == (10 * UES, 3 * UES)


def test_they_stay_apart_whatever_becomes_of_them(
    settings: Settings, small_store: CheckpointStore, clock: Clock, left: tuple[Ues, Ues]
) -> None:
    """Evicted, or detached without having been back."""
    _, gone = left
    with service(settings, clock) as handlers:
        clock.now += settings.evict_s
        handlers.tick()
        handlers._serving.run(lambda: None)
        assert reports(handlers) == (0, 0)
        assert reports(handlers, whole_run=True) == (8 * UES, 2 * UES)
        handlers.detach(gone.fleet.lease.token)
        handlers._serving.run(lambda: None)
        assert reports(handlers) == (0, 0)
        assert reports(handlers, whole_run=True) == (8 * UES, 2 * UES)


def test_counters_go_on(settings: Settings, clock: Clock, left: tuple[Ues, Ues]) -> None:
    """Prometheus would take a counter that falls and rises again by what came back for new reports."""
    with service(settings, clock) as handlers:
        assert sum(row["reports"] for row in handlers.series()) == 8 * UES
