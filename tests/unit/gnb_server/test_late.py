"""Reports that have waited for too long are dropped, with the rest of their frames: acknowledged so, counted, shown."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from gnb_server.app import service
from gnb_server.handlers import Handlers
from gnb_server.metrics import RunCollector
from gnb_server.serving.chunks import Ack
from gnb_server.settings import Settings
from gnb_server.store import Store
from shared.checkpoints import CheckpointStore
from shared.errors import InvalidInput, NotReady
from tests.unit.gnb_server.sending import UES, Clock, Ues

LATE_S = 1.0


@pytest.fixture
def settings(tmp_path: Path, small_store: CheckpointStore) -> Settings:
    store = f"sqlite:///{tmp_path / 'gnb.sqlite'}"
    return Settings(checkpoints=small_store.root, store=store, grpc_port=0, late="drop", late_s=LATE_S)


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


def late(ues: Ues, clock: Clock, submit: Callable[[], Any], seconds: float = LATE_S + 0.1) -> Ack:
    with waiting(ues.handlers, clock, seconds):
        future = submit()
    ack: Ack = future.result(30)
    return ack


def sequences(handlers: Handlers, ue: int = 0) -> list[int]:
    return [row["sequence"] for row in handlers.reports(ue, 1000)["reports"]]


def test_a_late_report_and_the_rest_of_its_frame_are_dropped(
    handlers: Handlers, small_store: CheckpointStore, clock: Clock
) -> None:
    ues = Ues(handlers, small_store).open()
    before = ues.send(0, 1)
    ack = late(ues, clock, lambda: ues.submit(2))
    assert (ack.dropped, ack.versions.tolist(), np.isnan(ack.nmse).all()) == (UES, [0] * UES, True)
    rest = ues.send(*range(3, 8))
    assert [ack.dropped for ack in rest] == [UES] * 5
    after = ues.send(*range(8, 16))
    assert [ack.dropped for ack in before + after] == [0] * 10
    assert all(ack.versions.tolist() == [1] * UES and np.isfinite(ack.nmse).all() for ack in before + after)
    assert sequences(handlers) == [0, 1, *range(8, 16)]
    [row] = handlers.nmse()["schemes"]
    assert (row["reports"], row["dropped"], row["frames"]) == (10 * UES, 6 * UES, UES)


@pytest.mark.parametrize(("waited", "dropped"), [(LATE_S, 0), (LATE_S + 0.01, UES)])
def test_what_is_late(
    handlers: Handlers, small_store: CheckpointStore, clock: Clock, waited: float, dropped: int
) -> None:
    ues = Ues(handlers, small_store).open()
    assert late(ues, clock, lambda: ues.submit(0), waited).dropped == dropped


def test_nothing_is_dropped_unless_it_is_asked_for(
    settings: Settings, small_store: CheckpointStore, clock: Clock
) -> None:
    with service(settings.model_copy(update={"late": "decode"}), clock) as handlers:
        ues = Ues(handlers, small_store).open()
        assert late(ues, clock, lambda: ues.submit(0), 1000.0).dropped == 0


def test_the_frames_around_a_dropped_one_are_decoded_as_without_it(
    settings: Settings, small_store: CheckpointStore, clock: Clock
) -> None:
    found = []
    for run, waited in (("in time", 0.0), ("late", LATE_S + 1)):
        with service(settings.model_copy(update={"run": run}), clock) as handlers:
            ues = Ues(handlers, small_store).open()
            first = ues.send(*range(8))
            late(ues, clock, lambda ues=ues: ues.submit(8, slots=3), waited)
            ues.submit(11, slots=5).result(30)
            found.append([ack.nmse.tolist() for ack in [*first, *ues.send(*range(16, 24))]])
    assert found[0] == [[pytest.approx(slot, rel=1e-5) for slot in ack] for ack in found[1]]


def test_other_ues_of_the_fleet_go_on(handlers: Handlers, small_store: CheckpointStore, clock: Clock) -> None:
    """A chunk of both has what is decoded of the one and dropped of the other."""
    ues = Ues(handlers, small_store).open()
    late(ues, clock, lambda: ues.submit(0, ues=1))
    ues.submit(0, ues=1, first=1).result(30)
    ack = ues.submit(1, slots=7).result(30)
    assert (ack.dropped, ack.versions.tolist()) == (7, [0, 1])
    assert np.isnan(ack.nmse[:, 0]).all()
    assert np.isfinite(ack.nmse[:, 1]).all()
    assert [row["dropped"] for row in handlers.ues()["ues"]] == [8, 0]
    assert [row["reports"] for row in handlers.ues()["ues"]] == [0, 8]
    assert ues.send(8)[0].dropped == 0


def test_a_repeat_is_acknowledged_as_it_was(handlers: Handlers, small_store: CheckpointStore, clock: Clock) -> None:
    """Whatever became of the frames since; it counts once, and that a repeat is late changes nothing."""
    ues = Ues(handlers, small_store).open()
    ues.send(0, 1)
    late(ues, clock, lambda: ues.submit(2))
    ues.send(*range(3, 18))
    before = handlers.nmse()["overall"]["dropped"]
    for repeat in (ues.send, lambda slot: [late(ues, clock, lambda: ues.submit(slot))]):
        assert [repeat(slot)[0].dropped for slot in (1, 2, 7, 8)] == [0, UES, UES, 0]
        assert repeat(2)[0].versions.tolist() == [0] * UES
    mixed = ues.submit(0, slots=8).result(30)
    assert mixed.dropped == 6 * UES
    assert np.isfinite(mixed.nmse).sum() == 2 * UES
    assert handlers.nmse()["overall"]["dropped"] == before == 6 * UES


def test_a_late_chunk_whose_beginning_is_stored(handlers: Handlers, small_store: CheckpointStore, clock: Clock) -> None:
    ues = Ues(handlers, small_store).open()
    ues.send(0, 1)
    ack = late(ues, clock, lambda: ues.submit(0, slots=4))
    assert ack.dropped == 2 * UES
    assert np.isfinite(ack.nmse).tolist() == [[True] * UES] * 2 + [[False] * UES] * 2
    assert ues.fleet.next_sequence.tolist() == [4] * UES


def test_a_late_chunk_is_checked_as_any_other(handlers: Handlers, small_store: CheckpointStore, clock: Clock) -> None:
    ues = Ues(handlers, small_store).open()
    with pytest.raises(InvalidInput, match="payload"):
        late(ues, clock, lambda: ues.submit(0, payload=b"1"))
    assert late(ues, clock, lambda: ues.submit(0)).dropped == UES


def test_nothing_is_held_of_a_dropped_frame(handlers: Handlers, small_store: CheckpointStore, clock: Clock) -> None:
    """Although its next frames come whole, and open nothing."""
    ues = Ues(handlers, small_store).open()
    ues.send(0, 1, 2)
    serving = handlers._serving
    assert serving._executor._backends["serving"]._frames
    assert serving._executor._evaluator._held
    late(ues, clock, lambda: ues.submit(3, slots=5))
    assert not serving._executor._backends["serving"]._frames
    assert not serving._executor._evaluator._held
    assert ues.submit(8, slots=8).result(30).dropped == 0


@pytest.mark.parametrize("end", ["within the frame", "at its end"])
def test_what_was_dropped_is_kept_over_a_restart(
    settings: Settings, small_store: CheckpointStore, clock: Clock, end: str
) -> None:
    last = 5 if end == "within the frame" else 8
    with service(settings, clock) as handlers:
        ues = Ues(handlers, small_store).open()
        ues.send(0, 1, 2)
        late(ues, clock, lambda: ues.submit(3))
        ues.send(*range(4, last))
        figures = handlers.nmse()["overall"]
    with service(settings, clock) as handlers:
        again = handlers.nmse(whole_run=True)["overall"]
        assert [again[name] for name in ("reports", "dropped")] == [figures[name] for name in ("reports", "dropped")]
        ues.handlers = handlers
        ues.come_back()
        assert [ack.dropped for ack in ues.send(3, last - 1)] == [UES, UES]  # repeats
        assert [ack.dropped for ack in ues.send(*range(last, 9))] == [UES] * (8 - last) + [0]
        assert handlers.nmse()["overall"]["dropped"] == 5 * UES
        assert handlers._store.dropped() == {ues.fleet.lease.token: 5 * UES}
        handlers.detach(ues.fleet.lease.token)
        handlers._serving.run(lambda: None)
        assert handlers.nmse()["overall"]["dropped"] == 5 * UES
        assert [row["dropped"] for row in handlers.ues()["ues"]] == [5] * UES


def test_what_is_not_committed_is_not_dropped(
    handlers: Handlers, small_store: CheckpointStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ues = Ues(handlers, small_store).open()
    ues.send(0)

    def full(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(Store, "commit", full)
        with pytest.raises(NotReady, match="disk full"):
            late(ues, clock, lambda: ues.submit(1))
    assert handlers.nmse()["overall"]["dropped"] == 0
    ues.come_back()
    assert [ack.dropped for ack in ues.send(1, 2)] == [0, 0]


def test_where_it_is_shown(handlers: Handlers, small_store: CheckpointStore, clock: Clock) -> None:
    ues, other = Ues(handlers, small_store).open(), Ues(handlers, small_store, "rnn").open()
    other.send(0)
    ues.send(0)
    late(ues, clock, lambda: ues.submit(1))
    answer = handlers.nmse()
    assert {row["scheme"]: row["dropped"] for row in answer["schemes"]} == {"hyperrnn": UES, "rnn": 0}
    assert answer["overall"]["dropped"] == UES
    by_version = handlers.nmse("hyperrnn", by_version=True)["schemes"]
    assert {row["version"]: (row["reports"], row["dropped"]) for row in by_version} == {1: (UES, 0), None: (0, UES)}
    assert handlers.nmse(window_s=10)["overall"]["dropped"] == UES
    clock.now += 60
    assert handlers.nmse(window_s=10)["overall"]["dropped"] == 0
    assert handlers.ue(0)["dropped"] == 1
    assert handlers.ue(0)["decoder_version"] == 0
    registry = CollectorRegistry()
    registry.register(RunCollector(handlers))
    lines = [
        line for line in generate_latest(registry).decode().splitlines() if line.startswith("csiemu_dropped_total{")
    ]
    dropped: Counter[str] = Counter()  # over versions
    for line in lines:
        dropped[line.split('scheme="')[1].split('"')[0]] += float(line.split()[-1])
    assert dropped == {"hyperrnn": float(UES), "rnn": 0.0}


@hypothesis_settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), kills=st.integers(0, 2))
def test_sent_is_decoded_and_dropped_and_lost_for_any_mix(
    tmp_path_factory: pytest.TempPathFactory, small_store: CheckpointStore, seed: int, kills: int
) -> None:
    """Chunks of random shape, some late, some sent again, some never, over restarts of the gNB: each report is decoded
    or dropped, once, or not stored; and a frame is decoded up to its first report that was dropped.
    """
    draw, clock = random.Random(seed), Clock()
    store = f"sqlite:///{tmp_path_factory.mktemp('mix') / 'gnb.sqlite'}"
    chosen = Settings(checkpoints=small_store.root, store=store, grpc_port=0, late="drop", late_s=LATE_S)
    reached, expected = [0] * UES, [[0, 0] for _ in range(UES)]  # decoded and dropped, by UE
    whole = [True] * UES
    ues: Ues | None = None
    sent = 0
    for _ in range(kills + 1):
        with service(chosen, clock) as handlers:
            ues = Ues(handlers, small_store) if ues is None else ues
            ues.handlers = handlers
            ues.come_back()
            for _ in range(draw.randrange(1, 12)):
                first, count = draw.choice([(0, 1), (1, 1), (0, 2)])
                rows = range(first, first + count)
                start = max(0, min(reached[row] for row in rows) - draw.choice([0, 0, 0, 1, 3]))
                slots = min(draw.randrange(1, 9), 8 - start % 8)
                is_late = draw.random() < 0.3
                with waiting(handlers, clock, LATE_S + 1 if is_late else 0.0):
                    future = ues.submit(start, slots=slots, ues=count, first=first)
                ack, dropped = future.result(30), 0
                for row in rows:
                    new = max(0, start + slots - max(start, reached[row]))
                    if new and max(start, reached[row]) % 8 == 0:
                        whole[row] = True
                    if new and is_late:
                        whole[row] = False
                    expected[row][0 if whole[row] else 1] += new
                    dropped += 0 if whole[row] else new
                    reached[row] += new
                    sent += new
                assert ack.dropped >= dropped  # and repeats of dropped ones
            figures = handlers.nmse()["overall"]
            assert (figures["reports"], figures["dropped"]) == tuple(np.sum(expected, axis=0))
            listed = handlers.ues()["ues"]
            assert [[row["reports"], row["dropped"]] for row in listed] == expected
            assert [row["next_sequence"] for row in listed] == reached
            never = draw.randrange(3)  # sent, and the gNB goes before their turn comes
            go_on = threading.Event()
            handlers._serving.call(lambda go_on=go_on: go_on.wait(30))
            lost = [ues.submit(max(reached) if reached[0] == reached[1] else reached[0], ues=1) for _ in range(never)]
            ues.handlers.close_stream(ues.fleet, ues.stream)
            go_on.set()
            assert all(future.exception(30) is not None for future in lost)
            assert sent + never == sum(handlers._store.counted().values()) + sum(
                handlers._store.dropped().values()
            ) + len(lost)
