"""A version that decodes beside the one that serves: its figures, its faults, and what it is held for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from gnb_server.handlers import Handlers
from gnb_server.repository import ModelVersion
from gnb_server.rollouts import Rollout
from gnb_server.serving.backend import Estimates, InProcessBackend, Part
from gnb_server.store import Store
from shared.channels.streams import Split
from shared.checkpoints import CheckpointStore
from shared.conditions import RunConditions
from shared.errors import NotReady
from shared.link.evaluation import outcomes
from tests.unit.gnb_server.sending import UES, Ues, one_batch

MODEL, SLOTS = "hyperrnn", 8


def shadow(handlers: Handlers, model: str = MODEL, version: int = 2) -> Rollout:
    """A shadow of the first version."""
    handlers.swaps.load(model, 1)
    return handlers.swaps.start(model, version, "shadow", 0.1, None)


def offline(store: CheckpointStore, ues: Ues, version: int, frame: int, rows: range) -> Any:
    """Mean ratios of a frame of zeros of a fleet's UEs."""
    scheme, lease = store.load(MODEL, version).scheme, ues.fleet.lease
    ids = torch.tensor([lease.ues[row] for row in rows])
    samples = RunConditions(scheme.scenario, lease.conditions.seed).samples(Split.EMULATE, ids, frame)
    reports = np.zeros((len(rows), SLOTS, scheme.layout.bits), np.uint8)
    return outcomes(scheme, lease.conditions, samples, reports).ratio.mean(axis=1)


def frames(rollout: Rollout) -> int:
    return rollout.comparison.difference().frames_new


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_figures_of_a_shadow_are_those_of_decoding_offline(
    handlers: Handlers, small_store: CheckpointStore, slots: int
) -> None:
    """Of both versions, however frames are cut, of fleets of different sizes in one batch; and serving is as before."""
    rollout = shadow(handlers)
    fleets = [(Ues(handlers, small_store, ues=size).open(), size) for size in (2, 5)]
    for frame in range(2):
        for first in range(0, SLOTS, slots):
            with one_batch(handlers):
                count = min(slots, SLOTS - first)
                acks = [ues.submit(frame * SLOTS + first, slots=count, ues=size) for ues, size in fleets]
            assert {v for ack in acks for v in ack.result(30).versions.tolist()} == {1}
    pairs = [
        [offline(small_store, ues, version, frame, range(size)) for ues, size in fleets for frame in range(2)]
        for version in (2, 1)
    ]
    new, old = (np.concatenate(parts) for parts in pairs)
    found = rollout.comparison.difference()
    residuals = new / new.mean() - old / old.mean()
    assert (found.frames_new, found.frames_old) == (14, 14)
    assert found.nmse_db_new == pytest.approx(10 * np.log10(new.mean()), abs=1e-3)
    assert found.nmse_db_old == pytest.approx(10 * np.log10(old.mean()), abs=1e-3)
    assert found.difference_db == pytest.approx(10 * np.log10(new.mean() / old.mean()), abs=1e-3)
    expected = 10 / np.log(10) * residuals.std(ddof=1) / np.sqrt(14)
    assert found.standard_error_db == pytest.approx(expected, rel=1e-2)
    assert handlers.nmse()["schemes"][0]["decoder_versions"] == {"1": 14 * SLOTS}


def test_a_shadow_begins_with_the_next_frame(handlers: Handlers, small_store: CheckpointStore) -> None:
    ues = Ues(handlers, small_store).open()
    ues.send(*range(3))
    rollout = shadow(handlers)
    ues.send(*range(3, 8))
    assert frames(rollout) == 0
    ues.send(*range(8, 16))
    assert frames(rollout) == UES


def test_shadows_of_two_models_do_not_disturb_each_other(handlers: Handlers, small_store: CheckpointStore) -> None:
    """Batches of the models take turns, in the middle of frames."""
    rollouts = [shadow(handlers)]
    handlers.swaps.load("rnn", 1)
    others = Rollout(
        2,
        "rnn",
        1,
        1,
        "shadow",
        0.1,
        None,
        "",
        0.0,
        rollouts[0].comparison.from_json({"paired": True, "arms": {}, "products": 0}),
    )  # of the only version, beside itself
    handlers.swaps.rollouts.put(others)
    fleets = [Ues(handlers, small_store, name).open() for name in (MODEL, "rnn")]
    for slot in range(SLOTS):
        for ues in fleets:
            ues.send(slot)
    assert (frames(rollouts[0]), frames(others)) == (UES, UES)
    assert others.comparison.difference().difference_db == pytest.approx(0.0, abs=1e-5)


def decoding(
    monkeypatch: pytest.MonkeyPatch, version: int, change: Callable[[list[Estimates]], list[Estimates]]
) -> None:
    """What a version decodes is changed from now on."""
    decode = InProcessBackend.decode

    def changed(self: InProcessBackend, model: ModelVersion, parts: list[Part]) -> list[Estimates]:
        found = decode(self, model, parts)
        return change(found) if model.version == version else found

    monkeypatch.setattr(InProcessBackend, "decode", changed)


def failing(_: list[Estimates]) -> list[Estimates]:
    raise RuntimeError("shapes cannot be multiplied")


def infinite(found: list[Estimates]) -> list[Estimates]:
    return [np.full_like(estimates, np.inf) for estimates in found]


@pytest.mark.parametrize(
    ("change", "says"), [(failing, "shapes cannot be multiplied"), (infinite, "numbers beyond float32")]
)
def test_a_shadow_that_cannot_decode_disturbs_nobody_and_is_aborted(
    handlers: Handlers,
    small_store: CheckpointStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[list[Estimates]], list[Estimates]],
    says: str,
) -> None:
    """With the reason, which is logged once."""
    rollout = shadow(handlers)
    ues = Ues(handlers, small_store).open()
    ues.submit(0, slots=8).result(30)
    decoding(monkeypatch, 2, change)
    assert [ack.versions.tolist() for ack in ues.send(*range(8, 16))] == [[1] * UES] * 8
    assert not ues.fleet.broken
    handlers.tick()
    ended = handlers.swaps.rollouts.get(rollout.number)
    assert (ended.state, frames(ended)) == ("aborted", UES)
    assert ended.reason.startswith("the new version failed: ")
    assert says in ended.reason
    assert [event["by"] for event in handlers.events(0, 99) if event["kind"] == "aborted"] == ["gNB"]
    assert sum("the shadow of" in record.message for record in caplog.records) == 1


def test_a_canary_that_cannot_decode_is_aborted_and_its_ues_lose_nothing(
    handlers: Handlers, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers.swaps.load(MODEL, 1)
    handlers.swaps.start(MODEL, 2, "canary", 0.5, None)
    ues, other = Ues(handlers, small_store).open(), Ues(handlers, small_store).open()
    decoding(monkeypatch, 2, failing)
    with pytest.raises(NotReady, match="shapes cannot be multiplied"):
        ues.send(0)
    assert other.fleet.assigned.tolist() == [2, 1]
    handlers.tick()
    assert handlers.swaps.rollouts.get(1).state == "aborted"
    assert [ack.versions.tolist() for ack in ues.come_back().send(0, 1)] == [[1] * UES] * 2
    assert other.send(0)[0].versions.tolist() == [1] * UES


def test_a_fleet_that_is_restored_is_followed_from_its_next_frame_on(
    handlers: Handlers, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shadow had decoded what could not be stored: its states are ahead."""
    rollout = shadow(handlers)
    ues = Ues(handlers, small_store).open()
    ues.send(0)

    def full(*_: object) -> None:
        raise ValueError("integer out of range")

    with monkeypatch.context() as broken:
        broken.setattr(Store, "commit", full)
        with pytest.raises(NotReady):
            ues.send(1)
    ues.come_back().send(*range(1, 8))
    assert frames(rollout) == 0
    ues.send(*range(8, 16))
    new = offline(small_store, ues, 2, 1, range(UES))
    assert frames(rollout) == UES
    assert rollout.comparison.difference().nmse_db_new == pytest.approx(10 * np.log10(new.mean()), abs=1e-3)


def test_nothing_is_held_for_fleets_that_have_detached(handlers: Handlers, small_store: CheckpointStore) -> None:
    shadow(handlers)
    ues = Ues(handlers, small_store).open()
    ues.send(0)
    held = handlers._serving._shadow._held[MODEL]
    assert held.frames
    backend = handlers._serving._executor._backends[held.lane]
    assert backend._frames
    handlers.detach(ues.fleet.lease.token)
    handlers._serving.run(lambda: None)
    assert not held.frames
    assert not backend._frames
