"""The gNB without its protocols: chunks of several fleets in one batch, encoders that change, failing disks."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch

from csiemu.training.recipes import Design
from csiemu.training.run import train
from csiemu.training.trainer import Recipe
from gnb_server.app import service
from gnb_server.handlers import Attachment, Handlers
from gnb_server.monitor import Monitor
from gnb_server.repository import ModelVersion
from gnb_server.results import Stored
from gnb_server.rpc import client_of
from gnb_server.serving.backend import Estimates, InProcessBackend, Part
from gnb_server.serving.chunks import Job
from gnb_server.serving.execution import SERVING
from gnb_server.serving.loop import ServingLoop
from gnb_server.serving.scoring import Scorer
from gnb_server.sessions import Fleet, Lease
from gnb_server.settings import Settings
from gnb_server.store import Store
from shared.checkpoints import CheckpointStore
from shared.errors import Conflict, InvalidInput, LimitReached, NotFound, NotReady, SequenceGap, StoreUnavailable
from shared.link.decoding import check_probe
from shared.schemes.crnet import CrNetConfig
from tests.unit.gnb_server.sending import UES, Ues, one_batch


def shown(handlers: Handlers) -> list[dict[str, Any]]:
    """All that REST shows of reports: figures, windows and UEs."""
    windowed = [row | {"reports_per_s": 0} for row in handlers.nmse(window_s=600)["schemes"]]
    whole = [row | {"reports_per_s": 0} for row in handlers.nmse()["schemes"]]
    return [*whole, *windowed, *handlers.ues()["ues"]]


# --- whatever goes wrong with one chunk fails that chunk alone ---


def test_a_chunk_that_is_refused_fails_alone_in_its_batch(handlers: Handlers, small_store: CheckpointStore) -> None:
    good, bad = Ues(handlers, small_store).open(), Ues(handlers, small_store).open()
    with one_batch(handlers):
        refused, decoded = bad.submit(5), good.submit(0)
    with pytest.raises(SequenceGap, match="expected 0"):
        refused.result(30)
    assert decoded.result(30).nmse.shape == (1, UES)
    assert not good.fleet.broken
    assert not bad.fleet.broken
    assert bad.send(0)


def test_a_fleet_can_be_asked_for_while_it_attaches(
    handlers: Handlers, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    keep_loaded = Store.keep_loaded

    def ask(self: Store, *arguments: Any, **options: Any) -> None:
        asked.append((handlers.ues()["total"], handlers.ue(0)["reports"], handlers.channel(0)["report"]))
        keep_loaded(self, *arguments, **options)

    monkeypatch.setattr(Store, "keep_loaded", ask)
    Ues(handlers, small_store)
    assert asked == [(UES, 0, None)]


@pytest.fixture(scope="module")
def two_forms(tmp_path_factory: pytest.TempPathFactory) -> CheckpointStore:
    """crnet/1 with greedy bits, crnet/2 with a float32 codeword: their payloads have other fields."""
    folder = tmp_path_factory.mktemp("two-forms")
    store = CheckpointStore(folder)
    scenario = "cost2100-indoor-csinet:antennas=8,first_rows=8,slots=2"
    for version, config in enumerate((CrNetConfig(entry_bits=4, allocation="greedy"), CrNetConfig()), start=1):
        design, recipe = Design("crnet", scenario, config), Recipe(steps=2, batch=8, warmup=1, seed=version)
        train("crnet", version, design, recipe, store=store, state=folder / f"state-{version}", evaluation_ues=16)
    return store


def test_a_chunk_is_checked_by_the_version_that_it_was_encoded_for(tmp_path: Path, two_forms: CheckpointStore) -> None:
    """Whichever version was loaded last."""
    chosen = Settings(checkpoints=two_forms.root, store=f"sqlite:///{tmp_path / 'gnb.sqlite'}", grpc_port=0)
    with service(chosen) as handlers:
        handlers.swaps.load("crnet", 1)
        handlers.swaps.load("crnet", 2)
        greedy, floats = (Ues(handlers, two_forms, "crnet", version).open() for version in (1, 2))
        with one_batch(handlers):
            futures = [greedy.submit(0), floats.submit(0)]
        assert [future.result(30).versions.tolist() for future in futures] == [[1] * UES, [2] * UES]
        nan = np.frombuffer(floats.checkpoint.scheme.layout.pack(_nan_fields(floats), UES), np.uint8).tobytes()
        with one_batch(handlers):
            refused, decoded = floats.submit(1, payload=nan), greedy.submit(1)
        with pytest.raises(InvalidInput, match="NaN"):
            refused.result(30)
        assert decoded.result(30).nmse.shape == (1, UES)
        assert not greedy.fleet.broken
        assert not floats.fleet.broken


def _nan_fields(ues: Ues) -> dict[str, np.ndarray]:
    layout = ues.checkpoint.scheme.layout
    fields = {field.name: np.zeros((UES, field.count), np.int64) for field in layout.fields}
    return fields | {"codeword": np.full_like(fields["codeword"], 0x7FC00000)}


def breaking(stage: str, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """From now on a stage raises when it comes to a fleet's chunk."""
    if stage == "admission":
        admit = ServingLoop._admitted.__globals__["admit"]

        def admission(job: Job, *others: Any, **options: Any) -> Any:
            if job.fleet.lease.token == token:
                raise KeyError("codeword4")
            return admit(job, *others, **options)

        monkeypatch.setattr("gnb_server.serving.loop.admit", admission)
    elif stage == "decoding":
        decode = InProcessBackend.decode

        def decoding(self: InProcessBackend, model: ModelVersion, parts: list[Part]) -> list[Estimates]:
            if any(part.lease.token == token for part in parts):
                raise RuntimeError("shapes cannot be multiplied")
            return decode(self, model, parts)

        monkeypatch.setattr(InProcessBackend, "decode", decoding)
    elif stage == "scoring":
        score = Scorer.score

        def scoring(self: Scorer, job: Job, *others: Any, **options: Any) -> Any:
            if job.fleet.lease.token == token:
                raise InvalidInput("estimates: shape (3,)")
            return score(self, job, *others, **options)

        monkeypatch.setattr(Scorer, "score", scoring)
    elif stage == "memory":
        add = Monitor.add

        def adding(self: Monitor, lease: Lease, *others: Any, **named: Any) -> None:
            if lease.token == token:
                raise KeyError("scheme")
            add(self, lease, *others, **named)

        monkeypatch.setattr(Monitor, "add", adding)
    else:
        commit = Store.commit

        def committing(self: Store, batch: Any) -> None:
            chunks: list[Stored] = list(batch)
            if any(stored.fleet.lease.token == token for stored in chunks):
                raise OSError("integer out of range")
            commit(self, chunks)

        monkeypatch.setattr(Store, "commit", committing)


@pytest.mark.parametrize("stage", ["admission", "decoding", "scoring", "commit", "memory"])
def test_a_fault_of_ours_fails_one_chunk_alone(
    handlers: Handlers, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Of three fleets in a batch the second one's chunk goes wrong; it is restored and goes on where it was."""
    before, bad, after = (Ues(handlers, small_store).open() for _ in range(3))
    for ues in (before, bad, after):
        ues.send(0, 1)
    with monkeypatch.context() as broken:
        breaking(stage, broken, bad.fleet.lease.token)
        with one_batch(handlers):
            futures = [ues.submit(slot) for slot in (2, 3) for ues in (before, bad, after)]
        for future in futures[1::3]:
            with pytest.raises(NotReady, match=r"gNB: |attach again"):
                future.result(30)
    for index, ues in ((0, before), (2, after)):
        assert [futures[index].result(30).nmse.shape, futures[index + 3].result(30).nmse.shape] == [(1, UES)] * 2
        assert not ues.fleet.broken
        ues.send(4)
    assert bad.fleet.broken
    bad.come_back()
    acks = bad.send(2, 3, 4)
    assert handlers.nmse()["overall"]["reports"] == 3 * 5 * UES
    calm = Ues(handlers, small_store).open()  # other ids, another world: what counts is that states were rebuilt
    calm.send(0, 1, 2, 3, 4)
    assert all(np.isfinite(ack.nmse).all() for ack in acks)


def test_chunks_of_other_ues_of_a_fleet_are_not_its_failed_ones(
    handlers: Handlers, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One UE's chunk cannot be stored; its next one is not either, the other UE's is."""
    ues = Ues(handlers, small_store).open()
    commit = Store.commit

    def committing(self: Store, batch: Any) -> None:
        chunks: list[Stored] = list(batch)
        if any(0 in progress.rows and progress.next_sequence == 1 for stored in chunks for progress in stored.progress):
            raise OSError("integer out of range")
        commit(self, chunks)

    with monkeypatch.context() as broken:
        broken.setattr(Store, "commit", committing)
        with one_batch(handlers):
            first, other, next_ = (ues.submit(0, ues=1), ues.submit(0, ues=1, first=1), ues.submit(1, ues=1))
        for future in (first, next_):
            with pytest.raises(NotReady):
                future.result(30)
        assert other.result(30).nmse.shape == (1, 1)
    ues.come_back()
    assert ues.fleet.next_sequence.tolist() == [0, 1]


def test_a_batch_is_of_one_model(
    handlers: Handlers, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And of all its fleets, as far as it has room; a call runs before what waits."""
    fleets = [Ues(handlers, small_store, name).open() for name in ("crnet", "rnn", "crnet", "dldnn")]
    done: list[Any] = []
    process = ServingLoop._process

    def noted(self: ServingLoop, jobs: list[Job]) -> None:
        done.append([job.fleet.lease.first_ue for job in jobs])
        process(self, jobs)

    monkeypatch.setattr(ServingLoop, "_process", noted)
    monkeypatch.setattr("gnb_server.serving.batching.MAX_BATCH_REPORTS", 3 * UES)
    with one_batch(handlers):
        acks = [ues.submit(slot) for slot in (0, 1) for ues in fleets]
        called = handlers._serving.call(lambda: done.append("called"))
        acks += [fleets[1].submit(2)]
    called.result(30)
    assert all(ack.result(30).nmse.shape == (1, UES) for ack in acks)
    first, second, third, fourth = (ues.fleet.lease.first_ue for ues in fleets)
    assert done == ["called", [first, third, first], [second] * 3, [fourth] * 2, [third]]


def test_what_a_fleet_that_is_gone_has_sent_is_dropped_at_once(
    handlers: Handlers, small_store: CheckpointStore
) -> None:
    """Others' chunks stay, and it goes on from the store when it comes back."""
    gone, other = Ues(handlers, small_store).open(), Ues(handlers, small_store).open()
    gone.send(0, 1)
    with one_batch(handlers):
        futures = [gone.submit(2), other.submit(0), gone.submit(3)]
        handlers.close_stream(gone.fleet, gone.stream)
        for future in futures[::2]:
            with pytest.raises(Conflict, match="a newer stream"):
                future.result(0)  # although nothing is decoded yet
    assert futures[1].result(30).nmse.shape == (1, UES)
    gone.come_back()
    assert gone.fleet.next_sequence.tolist() == [2] * UES
    assert gone.send(2)[0].nmse.shape == (1, UES)


def test_what_is_held_for_a_fleet_that_stays_away_is_freed(
    handlers: Handlers, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gnb_server.handlers.LINGER_S", 0.05)
    away, back = Ues(handlers, small_store).open(), Ues(handlers, small_store).open()
    for ues in (away, back):
        ues.send(0, 1)
        handlers.close_stream(ues.fleet, ues.stream)
    back.open()
    while away.fleet.open is not None:
        assert handlers._serving._thread.is_alive()
    assert {key[0] for key in backend_and_evaluator(handlers)[0]._frames} == {back.fleet.lease.token}
    assert back.send(2)
    with pytest.raises(NotReady, match="attach again"):
        away.open()
    assert away.come_back().send(2)[0].nmse.shape == (1, UES)


def test_what_waits_at_the_end_is_not_decoded(settings: Settings, small_store: CheckpointStore) -> None:
    """It was not acknowledged: UEs send it again."""
    with service(settings) as handlers:
        ues = Ues(handlers, small_store).open()
        go_on, begun = threading.Event(), threading.Event()
        handlers._serving.call(lambda: (begun.set(), go_on.wait(30)))
        begun.wait(30)
        future = ues.submit(0)
        closing = threading.Thread(target=handlers._serving.close)
        closing.start()
        with pytest.raises(NotReady, match="is shutting down"):
            future.result(30)
        go_on.set()
        closing.join(30)
        with pytest.raises(NotReady, match="is shutting down"):
            ues.submit(0).result(30)


# --- a version per frame ---


def test_two_encoders_of_a_model_are_served_at_once(handlers: Handlers, small_store: CheckpointStore) -> None:
    """Whichever was loaded last, and attached fleets do not hold a load back."""
    first = Ues(handlers, small_store).open()
    handlers.swaps.load("hyperrnn", 3)
    second = Ues(handlers, small_store, version=3).open()
    with one_batch(handlers):
        acks = [first.submit(0), second.submit(0)]
    assert [ack.result(30).versions.tolist() for ack in acks] == [[1] * UES, [3] * UES]
    rows = [row for row in handlers.index() if row["name"] == "hyperrnn"]
    assert rows == [
        {"name": "hyperrnn", "version": "1", "state": "READY", "reason": "serves new frames"},
        {"name": "hyperrnn", "version": "2", "state": "UNAVAILABLE", "reason": "not loaded"},
        {"name": "hyperrnn", "version": "3", "state": "READY", "reason": "serves new frames"},
    ]


def test_a_fleet_goes_over_to_another_encoder_between_frames(settings: Settings, small_store: CheckpointStore) -> None:
    """In mid-frame it is refused; reports and figures follow the version, over a restart too."""
    with service(settings) as handlers:
        ues = Ues(handlers, small_store).open()
        ues.send(*range(7))
        ues.come_back(version=3)
        with pytest.raises(
            Conflict, match=f"the open frame of UE 0 was begun with {small_store.load('hyperrnn').encoder_id}"
        ):
            ues.send(7)
        ues.come_back(version=1)
        ues.send(7)
        ues.come_back(version=3)
        assert [ack.versions.tolist() for ack in ues.send(8, 9, 10)] == [[3] * UES] * 3
        rows = handlers.nmse()["schemes"]
        assert [(row["feedback_bits"], row["reports"], row["ues_attached"]) for row in rows] == [
            (20, 8 * UES, 0),
            (12, 3 * UES, UES),
        ]
        assert handlers.nmse()["overall"]["ues"] == UES
        kept = handlers.reports(0, 100)["reports"]
        assert [(row["decoder_version"], row["feedback_bits"]) for row in kept] == [(1, 20)] * 8 + [(3, 12)] * 3
        assert handlers.ue(0)["reports"] == 3
    with service(settings) as handlers:
        assert [(row["feedback_bits"], row["reports"]) for row in handlers.nmse(whole_run=True)["schemes"]] == [
            (20, 16),
            (12, 6),
        ]
        ues.handlers = handlers
        ues.come_back()
        assert ues.send(11)[0].versions.tolist() == [3] * UES
        undisturbed = Ues(handlers, small_store, version=3)
        assert undisturbed.fleet.lease.first_ue == UES


def test_an_unknown_encoder_is_refused(handlers: Handlers, small_store: CheckpointStore) -> None:
    known = ", ".join(dict.fromkeys(small_store.load("hyperrnn", v).encoder_id for v in (1, 2, 3)))
    ues = Ues(handlers, small_store).open()
    ues.checkpoint = dataclasses.replace(ues.checkpoint, card=ues.checkpoint.card | {"encoder_id": "ab" * 8})
    with pytest.raises(Conflict, match=f"encoder_id: {'ab' * 8}; the versions of hyperrnn decode for {known}"):
        ues.send(0)


def test_a_version_that_was_another_model_before_is_refused(tmp_path: Path, two_forms: CheckpointStore) -> None:
    root = tmp_path / "checkpoints"
    shutil.copytree(two_forms.root / "crnet", root / "crnet")
    chosen = Settings(checkpoints=root, store=f"sqlite:///{tmp_path / 'gnb.sqlite'}", grpc_port=0)
    with service(chosen) as handlers:
        Ues(handlers, two_forms, "crnet", 1).open().send(0)
        shutil.rmtree(root / "crnet" / "1")
        shutil.copytree(root / "crnet" / "2", root / "crnet" / "1")
        card = root / "crnet" / "1" / "card.json"
        card.write_text(json.dumps({**json.loads(card.read_text()), "version": 1}))
        with pytest.raises(Conflict, match=r"version: crnet/1 decodes for encoder .*, earlier in this run it did for"):
            handlers.swaps.load("crnet", 1)


# --- nothing is shown that is not stored ---


def test_scales_at_an_end_of_their_range_are_counted(handlers: Handlers, small_store: CheckpointStore) -> None:
    """The payload of zeros has the lowest; a report that is sent again does not count again."""
    images, others = Ues(handlers, small_store, "crnet"), Ues(handlers, small_store, "rnn")
    for ues in (images, others):
        ues.open().send(0, 1, 0)
    found = {row["scheme"]: row["saturated_scales"] for row in handlers.nmse()["schemes"]}
    assert found == {"crnet": 2 * UES, "rnn": 0}


def test_bytes_of_repeats_count_as_they_were_on_the_wire(settings: Settings, small_store: CheckpointStore) -> None:
    each = small_store.load("hyperrnn").scheme.layout.chunk_bytes(UES)
    with service(settings) as handlers:
        ues = Ues(handlers, small_store).open()
        ues.send(0, 1, 1, 0)
        row = handlers.nmse()["schemes"][0]
        assert (row["reports"], row["wire_bytes_total"]) == (2 * UES, 4 * each)
        assert handlers.ue(0)["wire_bytes_total"] == 4 * each / UES
    with service(settings) as handlers:
        assert handlers.nmse(whole_run=True)["schemes"][0]["wire_bytes_total"] == 4 * each


@pytest.mark.parametrize("when", ["within a frame", "at its end"])
def test_what_is_not_committed_is_not_shown(
    handlers: Handlers, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """No figure, window, sequence or version moves."""
    ues = Ues(handlers, small_store).open()
    slots = range(7) if when == "at its end" else range(1)
    ues.send(*slots)
    handlers.swaps.load("hyperrnn", 2)
    before = shown(handlers)

    def full(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(Store, "commit", full)
        with one_batch(handlers):
            futures = [ues.submit(slots.stop + k) for k in range(2)]
        for future in futures:
            with pytest.raises(NotReady, match=r"disk full|attach again|before this one"):
                future.result(30)
    assert shown(handlers) == before
    ues.come_back()
    ues.send(slots.stop, slots.stop + 1)
    for window in (None, 600):
        row = handlers.nmse(window_s=window)["schemes"][0]
        assert row["reports"] == (slots.stop + 2) * UES
    assert sum(row["decoder_versions"].values()) == (slots.stop + 2) * UES


class Outage:
    """A database that takes nothing, as SQLite says it of a full disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.over = threading.Event()
        begin = sa.Engine.begin

        @contextmanager
        def failing(engine: sa.Engine) -> Iterator[sa.Connection]:
            if not self.over.is_set():
                raise sa.exc.OperationalError("insert", {}, sqlite3.OperationalError("database or disk is full"))
            with begin(engine) as connection:
                yield connection

        monkeypatch.setattr(sa.Engine, "begin", failing)
        monkeypatch.setattr("gnb_server.serving.commit.LONGEST_PAUSE_S", 0.1)


def test_a_store_that_cannot_be_written_is_waited_for(
    handlers: Handlers,
    small_store: CheckpointStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not ready, one line in the log, and nothing is lost or shown meanwhile."""
    ues, others = Ues(handlers, small_store).open(), Ues(handlers, small_store, "rnn").open()
    ues.send(0)
    before = shown(handlers)
    outage = Outage(monkeypatch)
    futures = [ues.submit(1), ues.submit(2), others.submit(0)]
    while handlers._store.problem is None:
        assert not futures[0].done()
    assert not handlers.ready
    with pytest.raises(StoreUnavailable, match="cannot be written: database or disk is full"):
        Ues(handlers, small_store)
    assert shown(handlers) == before
    outage.over.set()
    assert [future.result(30).nmse.shape for future in futures] == [(1, UES)] * 3
    assert handlers.ready
    assert handlers.nmse()["overall"]["reports"] == 4 * UES
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1
    assert not ues.fleet.broken


def test_a_gnb_ends_although_its_store_cannot_be_written(
    settings: Settings, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, service(settings) as handlers:
        ues = Ues(handlers, small_store).open()
        Outage(patch)
        future = ues.submit(0)
        while handlers._store.problem is None:
            assert not future.done()
    with pytest.raises(NotReady):
        future.result(0)
    with service(settings) as handlers:
        ues.handlers = handlers
        assert ues.come_back().fleet.next_sequence.tolist() == [0] * UES
        assert ues.send(0)


def test_a_run_has_one_gnb(settings: Settings) -> None:
    taken = pytest.raises(Conflict, match=r"run: 'default' of .* has a gNB; name another run")
    with service(settings), taken, service(settings):
        pass
    with service(settings), service(settings.model_copy(update={"run": "other"})):
        pass


def test_a_fleet_whose_state_cannot_be_restored_stays_to_be_restored(
    handlers: Handlers, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ues = Ues(handlers, small_store).open()
    ues.send(0, 1)
    ues.fleet.broken = True  # as after a failed batch

    def damaged(*_: object) -> None:
        raise Conflict("version: gone")

    with monkeypatch.context() as broken:
        broken.setattr(ServingLoop, "rebuild", damaged)
        with pytest.raises(Conflict, match="gone"):
            ues.come_back()
        with pytest.raises(NotReady, match="attach again"):
            ues.open()
    assert ues.come_back().send(2)[0].nmse.shape == (1, UES)


def backend_and_evaluator(handlers: Handlers) -> tuple[Any, Any]:
    """Of what UEs are answered with."""
    executor: Any = handlers._serving._executor
    return executor._backends[SERVING], executor._evaluator


def test_a_detached_fleet_holds_nothing_but_its_totals(handlers: Handlers, small_store: CheckpointStore) -> None:
    ues = Ues(handlers, small_store).open()
    ues.send(0, 1, 2)
    backend, evaluator = backend_and_evaluator(handlers)
    assert backend._frames  # of this one
    assert evaluator._held
    handlers.detach(ues.fleet.lease.token)
    handlers._serving.call(lambda: None).result(30)
    assert ues.fleet.open is None
    assert not backend._frames
    assert not evaluator._held
    assert handlers.ue(0)["reports"] == 3
    assert [bytes(frame) for frame in _open_frames(handlers._store)] == [b""] * UES
    with pytest.raises(Conflict, match="has detached"):
        ues.submit(3)


def test_figures_of_fleets_that_have_detached_stay(settings: Settings, small_store: CheckpointStore) -> None:
    """In memory as one sum, of each UE in the store; in those of the whole run over restarts, not in another run's."""

    def figures(handlers: Handlers) -> list[dict[str, Any]]:
        delays = dict.fromkeys(("latency_ms", "queue_ms", "age_ms"))
        of_all = {"status": "", "ues_attached": 0, "reports_per_s": 0.0, **delays, "saturated_scales": 0}
        rows = [*handlers.nmse(whole_run=True)["schemes"], *handlers.ues(whole_run=True)["ues"]]
        rows += map(handlers.ue, range(6))
        return [row | {name: value for name, value in of_all.items() if name in row} for row in rows]

    with service(settings) as handlers:
        fleets = [Ues(handlers, small_store).open() for _ in range(3)]
        for index, ues in enumerate(fleets):
            ues.send(*range(7 + index))
        before, reports = figures(handlers), handlers.reports(3, 100)
        for ues in fleets:
            handlers.detach(ues.fleet.lease.token)
            handlers.detach(ues.fleet.lease.token)  # nothing more
        handlers._serving.run(lambda: None)
        assert (handlers._fleets, handlers._monitor._fleets, len(handlers._monitor._detached)) == ({}, {}, 1)
        assert figures(handlers) == before
    with service(settings) as handlers:
        assert figures(handlers) == before
        assert handlers.reports(3, 100) == reports
        assert Ues(handlers, small_store).fleet.lease.first_ue == 6
        with pytest.raises(Conflict, match="has detached"):
            handlers.open_stream(fleets[0].fleet.lease.token)
    with service(settings.model_copy(update={"run": "another"})) as handlers:
        assert (handlers.nmse(whole_run=True)["overall"]["ues"], handlers.ues(whole_run=True)["total"]) == (0, 0)
        with pytest.raises(NotFound):
            handlers.ue(3)


def _open_frames(store: Store) -> list[bytes]:
    with store._engine.connect() as connection:
        return [row[0] for row in connection.exec_driver_sql("select open_frame from ues")]


def test_states_of_a_version_that_no_ue_is_on_are_freed(handlers: Handlers, small_store: CheckpointStore) -> None:
    ues = Ues(handlers, small_store).open()
    ues.send(*range(8))
    handlers.swaps.load("hyperrnn", 2)
    ues.send(8)
    assert {key[1] for key in backend_and_evaluator(handlers)[0]._frames} == {2}
    assert ues.fleet.open is not None
    assert set(ues.fleet.open.reports) == {2}


def held_rows(handlers: Handlers) -> dict[str, int]:
    """Frames that side information, states and truth are held of."""
    backend, evaluator = backend_and_evaluator(handlers)
    frames, truths = backend._frames.values(), evaluator._held.values()
    return {
        "side": sum(len(held.side) for held in frames),
        "state": sum(len(held.state["estimator"]) for held in frames),
        "truth": sum(len(held.truth.total) for held in truths),
    }


def test_states_are_held_of_open_frames_alone(handlers: Handlers, small_store: CheckpointStore) -> None:
    """Not of UEs of a large fleet that have sent nothing, nor of frames that have ended."""
    ues = Ues(handlers, small_store, ues=20_000).open()
    ues.send(*range(7))
    ues.submit(0, ues=1, first=5_000).result(30)
    assert held_rows(handlers) == dict.fromkeys(("side", "state", "truth"), UES + 2)  # room doubles
    ues.send(7)
    assert set(held_rows(handlers).values()) == {UES + 2}  # one is open
    for slot in range(1, 8):
        ues.submit(slot, ues=1, first=5_000).result(30)
    assert set(held_rows(handlers).values()) == {0}
    assert handlers.nmse()["schemes"][0]["frames"] == UES + 1


def test_nothing_is_held_of_frames_that_come_whole(
    settings: Settings, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are decoded as those that come slot by slot."""
    opened: list[int] = []
    monkeypatch.setattr("gnb_server.places.Places.open", lambda _, ues, frame: opened.append(frame))
    figures = []
    for run, slots in (("whole", 8), ("apart", 1)):
        with service(settings.model_copy(update={"run": run})) as handlers:
            ues = Ues(handlers, small_store).open()
            for first in range(0, 16, slots):
                ues.submit(first, slots=slots).result(30)
            [row] = handlers.nmse()["schemes"]
            figures.append({name: row[name] for name in ("reports", "frames", "nmse_db", "sgcs")})
        monkeypatch.undo()
    assert not opened
    assert figures[0] == {name: pytest.approx(value) for name, value in figures[1].items()}


# --- what a run, and one client of it, may lease ---


def test_leases_of_a_run_and_of_a_client(
    handlers: Handlers, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client has half of what the others leave, at most."""
    monkeypatch.setattr("gnb_server.handlers.MAX_UES", 20)
    monkeypatch.setattr("gnb_server.handlers.MAX_FLEETS", 6)
    checkpoint = small_store.load("rnn")

    def attach(client: str, ues: int, token: str = "") -> str:
        wanted = Attachment("rnn", str(checkpoint.scenario), 0, checkpoint.encoder_id, ues, token=token, client=client)
        return handlers.attach(wanted)[0].lease.token

    with pytest.raises(LimitReached, match="ue_count: 11; client a has leased 0 UE ids to 0 fleets of this run, at mo"):
        attach("a", 11)
    first = attach("a", 8)
    attach("b", 6)
    with pytest.raises(LimitReached, match="at most 7 to 2 are allowed"):
        attach("a", 1)
    attach("a", 8, token=first)
    attach("c", 1)
    with pytest.raises(LimitReached, match="at most 3 to 2 are allowed"):
        attach("c", 3)
    attach("c", 1)
    attach("d", 1)
    with pytest.raises(LimitReached, match="client d has leased 1 UE ids to 1 fleets of this run, at most 2 to 1 are"):
        attach("d", 1)


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("ipv4:192.0.2.1:50000", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1:2:3:4%5D:50000", "2001:db8::/64"),
        ("ipv6:%5B2001:db8::9%5D:50001", "2001:db8::/64"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:50000", "192.0.2.1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50000", "fe80::/64"),
        ("ipv6:[::1]:50000", "::/64"),
    ],
)
def test_whose_connection_it_is(peer: str, client: str) -> None:
    assert client_of(peer) == client


# --- the wall ---


def test_a_gnb_serves_without_any_encoder(
    tmp_path: Path, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoints have no encoder files, and of all that computes the downlink only the evaluator is called."""
    root = tmp_path / "decoders"
    for path in small_store.root.rglob("*"):
        if path.is_file() and path.name in ("card.json", "decoder.safetensors") and "states" not in path.parts:
            copied = root / path.relative_to(small_store.root)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(path.read_bytes())
    asked = only_the_evaluator_sees_the_downlink(monkeypatch)
    chosen = Settings(checkpoints=root, store=f"sqlite:///{tmp_path / 'gnb.sqlite'}", grpc_port=0)
    with service(chosen) as handlers:
        for name in ("hyperrnn", "rnn", "genie_lmmse", "uplink_only", "crnet", "dualnet_mp"):
            handlers.swaps.load(name)
            asked.clear()
            ues = Ues(handlers, small_store, name).open()
            ues.send(0, 1)
            assert asked, name  # by the evaluator
            assert hasattr(handlers._repository.version(name, 1).scheme, "decoder")
            assert not hasattr(handlers._repository.version(name, 1).scheme, "encoder")


def only_the_evaluator_sees_the_downlink(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """From now on whoever else asks for a downlink channel fails; what is asked for is noted."""
    import sys

    from shared.channels.cost2100.world import Cost2100
    from shared.channels.multipath import Multipath
    from shared.channels.scenario import Link

    asked: list[str] = []

    def watched(method: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def call(self: Any, samples: Any, link: Link, *others: Any, **options: Any) -> torch.Tensor:
            if link is Link.DOWNLINK:
                frame, callers = sys._getframe(1), set()
                while frame is not None:
                    callers.add(frame.f_globals.get("__name__", ""))
                    frame = frame.f_back
                assert "gnb_server.evaluator" in callers, f"the downlink was asked for by {callers}"
                asked.append(str(self))
            return method(self, samples, link, *others, **options)

        return call

    for world, name in ((Multipath, "spatial"), (Cost2100, "angular_delay"), (Cost2100, "whole_band")):
        monkeypatch.setattr(world, name, watched(getattr(world, name)))
    return asked


def test_the_wall_test_can_fail(small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    only_the_evaluator_sees_the_downlink(monkeypatch)
    checkpoint = small_store.load("rnn", ends=("decoder",))
    check_probe(checkpoint.scheme, checkpoint.card["probe"])
    from shared.channels.downlink import DownlinkView
    from shared.link.decoding import probed_frames

    with pytest.raises(AssertionError, match="was asked for by"):
        DownlinkView(checkpoint.scenario, probed_frames()).channel()


# --- pages of UEs cost what they show ---


def test_pages_of_ues(handlers: Handlers, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every page is the part of the whole that it says, with any filter; nothing is worked out beyond it."""
    for index in range(5):
        Ues(handlers, small_store, ("hyperrnn", "rnn")[index % 2])
    for model, status in ((None, None), ("rnn", None), ("rnn", "gone"), (None, "attached")):
        whole = handlers.ues(model, status)
        assert whole["total"] == len(whole["ues"])
        for offset in range(12):
            for limit in (1, 2, 3, 100):
                page = handlers.ues(model, status, offset, limit)
                assert page == {"ues": whole["ues"][offset : offset + limit], "total": whole["total"]}
    shown: list[int] = []
    encoder_of = Fleet.encoder_of
    monkeypatch.setattr(Fleet, "encoder_of", lambda fleet, row: shown.append(row) or encoder_of(fleet, row))
    wanted = Attachment("rnn", str(small_store.load("rnn").scenario), 0, small_store.load("rnn").encoder_id, 65_536)
    handlers.attach(wanted)
    assert handlers.ues(offset=9, limit=3)["total"] == 10 + 65_536
    assert len(shown) == 3
