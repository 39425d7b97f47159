"""The gNB without its protocols: chunks of several fleets in one batch, encoders that change, failing disks."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gnb_server.app import service
from gnb_server.handlers import Attachment, Handlers
from gnb_server.pipeline import Ack, Chunk, Pipeline
from gnb_server.settings import Settings
from gnb_server.store import Store
from shared.checkpoints import CheckpointStore
from shared.errors import Conflict, NotReady, SequenceGap

UES = 2


@pytest.fixture
def settings(tmp_path: Path, small_store: CheckpointStore) -> Settings:
    return Settings(checkpoints=small_store.root, store=f"sqlite:///{tmp_path / 'gnb.sqlite'}", grpc_port=0)


@pytest.fixture
def handlers(settings: Settings) -> Iterator[Handlers]:
    with service(settings) as running:
        yield running


class Ues:
    """Two UEs that send zeros."""

    def __init__(self, handlers: Handlers, store: CheckpointStore, name: str = "hyperrnn", version: int = 1) -> None:
        self.handlers, self.checkpoint = handlers, store.load(name, version)
        self.wanted = Attachment(name, str(self.checkpoint.scenario), 0, self.checkpoint.encoder_id, UES)
        self.fleet = handlers.attach(self.wanted)
        self.stream = 0

    def open(self) -> None:
        _, self.stream = self.handlers.open_stream(self.fleet.token)

    def submit(self, slot: int) -> Any:
        payload = bytes(self.checkpoint.scheme.layout.chunk_bytes(UES))
        chunk = Chunk(self.checkpoint.encoder_id, self.fleet.first_ue, UES, slot, 1, payload, len(payload))
        return self.handlers.submit(self.fleet, self.stream, chunk)

    def send(self, *slots: int) -> list[Ack]:
        return [self.submit(slot).result(30) for slot in slots]


@contextmanager
def one_batch(handlers: Handlers) -> Iterator[None]:
    """What is submitted meanwhile waits, and is decoded together."""
    go_on = threading.Event()
    handlers._pipeline.call(lambda: go_on.wait(30))
    yield
    go_on.set()


def test_a_chunk_that_is_refused_fails_alone_in_its_batch(handlers: Handlers, small_store: CheckpointStore) -> None:
    good, bad = Ues(handlers, small_store), Ues(handlers, small_store)
    for ues in (good, bad):
        ues.open()
    with one_batch(handlers):
        refused, decoded = bad.submit(5), good.submit(0)
    with pytest.raises(SequenceGap, match="expected 0"):
        refused.result(30)
    assert decoded.result(30).nmse.shape == (1, UES)
    assert not good.fleet.broken


def test_ues_of_an_encoder_that_is_not_served_any_more_fail_alone(
    handlers: Handlers, small_store: CheckpointStore
) -> None:
    """Attached, but not sending yet, when a decoder for another encoder was loaded."""
    bad = Ues(handlers, small_store)
    handlers.load("hyperrnn", 3)
    good = Ues(handlers, small_store, version=3)
    for ues in (good, bad):
        ues.open()
    with one_batch(handlers):
        refused, decoded = bad.submit(0), good.submit(0)
    with pytest.raises(Conflict, match=f"encoder_id: {bad.checkpoint.encoder_id}; hyperrnn/3 decodes for"):
        refused.result(30)
    assert decoded.result(30).nmse.shape == (1, UES)
    assert not good.fleet.broken


def test_models_take_turns(handlers: Handlers, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is of one model, of all its fleets; a call waits for what came before it."""
    fleets = [Ues(handlers, small_store, name) for name in ("crnet", "rnn", "crnet", "dldnn")]
    for ues in fleets:
        ues.open()
    done: list[Any] = []
    decode = Pipeline._batch

    def noted(self: Pipeline, jobs: list[Any]) -> None:
        done.append([job.fleet.first_ue for job in jobs])
        decode(self, jobs)

    monkeypatch.setattr(Pipeline, "_batch", noted)
    monkeypatch.setattr("gnb_server.pipeline.MAX_BATCH_REPORTS", 3 * UES)
    with one_batch(handlers):
        acks = [ues.submit(slot) for slot in (0, 1) for ues in fleets]
        called = handlers._pipeline.call(lambda: done.append("called"))
        acks += [fleets[1].submit(2)]
    called.result(30)
    assert all(ack.result(30).nmse.shape == (1, UES) for ack in acks)
    first, second, third, fourth = (ues.fleet.first_ue for ues in fleets)
    assert done == [[first, third, first], [second, second], [fourth, fourth], [third], "called", [second]]


def test_scales_at_an_end_of_their_range_are_counted(handlers: Handlers, small_store: CheckpointStore) -> None:
    """The payload of zeros has the lowest; a report that is sent again does not count again."""
    images, others = Ues(handlers, small_store, "crnet"), Ues(handlers, small_store, "rnn")
    for ues in (images, others):
        ues.open()
        ues.send(0, 1, 0)
    found = {row["scheme"]: row["saturated_scales"] for row in handlers.nmse()["schemes"]}
    assert found == {"crnet": 2 * UES, "rnn": 0}


def test_figures_of_two_encoders_are_not_mixed_and_survive_a_restart(
    settings: Settings, small_store: CheckpointStore
) -> None:
    with service(settings) as handlers:
        first = Ues(handlers, small_store)
        first.open()
        first.send(0, 1, 2)  # within a frame
        handlers.close_stream(first.fleet, first.stream)
        handlers.load("hyperrnn", 3)
        second = Ues(handlers, small_store, version=3)
        second.open()
        second.send(0)
        before = handlers.nmse()["schemes"]
    assert [(row["encoder_id"], row["feedback_bits"], row["reports"]) for row in before] == [
        (first.checkpoint.encoder_id, 20, 3 * UES),
        (second.checkpoint.encoder_id, 12, UES),
    ]
    with service(settings) as handlers:
        after = handlers.nmse()["schemes"]
        for name in ("encoder_id", "feedback_bits", "reports", "nmse_db"):
            assert [row[name] for row in after] == [row[name] for row in before]
        with pytest.raises(Conflict, match="hyperrnn/3 decodes for"):
            handlers.attach(_again(first))
        handlers.load("hyperrnn", 1)
        first.handlers, first.fleet = handlers, handlers.attach(_again(first))
        first.open()
        assert first.send(3)[0].versions.tolist() == [1] * UES
        assert handlers.nmse()["schemes"][0]["reports"] == 4 * UES


def test_what_is_not_committed_is_not_shown(
    handlers: Handlers, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ues = Ues(handlers, small_store)
    ues.open()
    ues.send(0)

    def full(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(Store, "commit", full)
        with pytest.raises(NotReady, match="disk full"):
            ues.send(1)
    ues.fleet = handlers.attach(_again(ues))
    ues.open()
    ues.send(1, 2)
    for window in (None, 600):
        row = handlers.nmse(window_s=window)["schemes"][0]
        assert (row["reports"], row["decoder_versions"]) == (3 * UES, {"1": 3 * UES})


def test_a_fleet_whose_state_cannot_be_restored_stays_to_be_restored(
    handlers: Handlers, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ues = Ues(handlers, small_store)
    ues.open()
    ues.send(0, 1)
    ues.fleet.broken = True  # as after a failed batch

    def damaged(*_: object) -> None:
        raise Conflict("version: gone")

    with monkeypatch.context() as broken:
        broken.setattr("gnb_server.pipeline.Pipeline.rebuild", damaged)
        with pytest.raises(Conflict, match="gone"):
            handlers.attach(_again(ues))
        with pytest.raises(NotReady, match="attach again"):
            ues.open()
    ues.fleet = handlers.attach(_again(ues))
    ues.open()
    assert ues.send(2)[0].nmse.shape == (1, UES)


def _again(ues: Ues) -> Attachment:
    """Back to the lease."""
    return dataclasses.replace(ues.wanted, token=ues.fleet.token)
