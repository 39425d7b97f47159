"""Snapshots over a run however long, by a clock that stands where the test puts it."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gnb_server.app import service
from gnb_server.history import KEPT, History
from gnb_server.repository import Repository
from gnb_server.settings import Settings
from gnb_server.store import Store
from shared.checkpoints import CheckpointStore
from tests.unit.gnb_server.sending import Clock, Ues


class Counting:
    """A monitor that has seen so many reports."""

    def __init__(self) -> None:
        self.reports = 0

    def snapshot(self) -> list[dict[str, Any]]:
        return [{"reports": [self.reports]}]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path / 'store.sqlite'}", "run", 4)
    yield opened
    opened.close()


@pytest.fixture
def monitor() -> Counting:
    return Counting()


@pytest.fixture
def history(store: Store, monitor: Any, small_store: CheckpointStore, clock: Clock) -> History:
    made = History(store, monitor, Repository(small_store), clock)
    made.begin({"late": "drop"})
    return made


def kept(store: Store) -> list[tuple[float, int]]:
    return [(at, rows[0]["reports"][0]) for at, rows in store.snapshots()]


def test_a_process_is_noted(store: Store, history: History, clock: Clock) -> None:
    ((at, content),) = store.processes()
    assert at == clock.now
    assert content["settings"] == {"late": "drop"}
    assert content["machine"]["cores"] > 0


def test_while_nothing_comes_nothing_is_noted(store: Store, history: History, monitor: Counting, clock: Clock) -> None:
    for step in range(10):
        clock.now, monitor.reports = 1000.0 + step, (0, 5)[step >= 8]
        history.tick()
    assert kept(store) == [(1000.0, 0), (1007.0, 0), (1008.0, 5)]


def test_not_more_often_than_once_a_second(store: Store, history: History, monitor: Counting, clock: Clock) -> None:
    for step in range(40):
        clock.now, monitor.reports = 1000.0 + step / 4, step
        history.tick()
    assert kept(store) == [(1000.0 + second, 4 * second) for second in range(10)]


def test_a_clock_that_is_set_back(store: Store, history: History, monitor: Counting, clock: Clock) -> None:
    for at in (1000.0, 1005.0, 1000.0, 1001.0):
        clock.now, monitor.reports = at, monitor.reports + 1
        history.tick()
    assert kept(store) == [(1000.0, 1), (1001.0, 4), (1005.0, 2)]


def test_a_long_run_has_few_snapshots_evenly_spread(
    store: Store, history: History, monitor: Counting, clock: Clock, small_store: CheckpointStore
) -> None:
    seconds = 5 * KEPT
    for step in range(seconds):
        clock.now, monitor.reports = 1000.0 + step, step
        history.tick()
    times = [at for at, _ in kept(store)]
    gaps = {later - at for at, later in itertools.pairwise(times[:-1])}
    assert gaps <= {4.0, 8.0}
    assert KEPT // 4 < len(times) <= KEPT
    assert times[0] == 1000.0
    assert all(reports == at - 1000.0 for at, reports in kept(store))
    clock.now += 1000.0
    again = History(store, monitor, Repository(small_store), clock)  # type: ignore[arg-type]
    again.begin({})
    for _ in range(KEPT):
        clock.now, monitor.reports = clock.now + 1, monitor.reports + 1
        again.tick()
    again.note()
    assert kept(store)[0] == (1000.0, 0)
    assert kept(store)[-1] == (clock.now, monitor.reports)
    assert len(kept(store)) <= KEPT


def test_checkpoints_that_decode_are_named(settings: Settings, small_store: CheckpointStore, tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    shutil.copytree(small_store.root / "hyperrnn", root / "hyperrnn")
    folder = CheckpointStore(root)
    with service(settings.model_copy(update={"checkpoints": root})) as handlers:
        ues = Ues(handlers, folder).open()
        ues.send(*range(8))
        handlers.tick()
        handlers.swaps.load("hyperrnn", 2)
        ues.send(8)
        (root / "hyperrnn" / "2" / "card.json").write_text("{")
    store = Store(settings.store, settings.run, 1)
    first, second = store.checkpoints()
    card = folder.card("hyperrnn", 1)
    assert first["sha256"] == card["sha256"]["decoder"]
    assert first["encoder_sha256"] == card["sha256"]["encoder"]
    assert first["evaluation"]["nmse_db"] == card["evaluation"]["nmse_db"]
    assert (second["version"], second["encoder_sha256"]) == (2, None)
    last = store.snapshots()[-1][1]
    assert [(row["scheme"], row["version"], row["reports"][0]) for row in last] == [
        ("hyperrnn", 1, 16.0),
        ("hyperrnn", 2, 2.0),
    ]
    ((_, process),) = store.processes()
    assert process["settings"]["late"] == "decode"
    assert not process["settings"].keys() & {"token", "store"}
    store.close()
