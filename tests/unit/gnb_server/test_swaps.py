"""Which version each UE uses: loads, canaries and what becomes of them, without protocols. Versions 1 and 2 are of one
encoder, 3 of another.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnb_server.app import service
from gnb_server.handlers import Handlers
from gnb_server.rollouts import Guard
from gnb_server.settings import Settings
from gnb_server.swaps import CANNOT_SWITCH, SwitchStatus
from shared.checkpoints import CheckpointStore
from shared.errors import Conflict, DamagedCheckpoint, InvalidInput, NotFound, StoreUnavailable
from tests.unit.gnb_server.sending import UES, Ues, one_batch

MODEL = "hyperrnn"


class SwitchingUes(Ues):
    """UEs that switch encoders when they are told to, at the next frame."""

    def __init__(self, handlers: Handlers, store: CheckpointStore, ues: int = UES, **others: Any) -> None:
        super().__init__(handlers, store, ues=ues, can_switch=True, **others)

    def answer(self, problem: str = "", told: list[tuple[int, int, str]] | None = None) -> None:
        """Take what is told, or say why not."""
        first_ue = self.fleet.lease.first_ue
        said = [(first_ue + first, count, encoder_id) for first, count, encoder_id in told or self.fleet.told]
        self.handlers.swaps.switched(self.fleet, SwitchStatus(0, problem, said))
        if not problem:
            encoder_id = self.fleet.told[-1][2]
            version = next(v for v in (1, 3) if self.store.card(MODEL, v)["encoder_id"] == encoder_id)
            self.checkpoint = self.store.load(MODEL, version)


def canary(handlers: Handlers, version: int, share: float = 0.1, guard: Guard | None = None) -> int:
    return handlers.swaps.start(MODEL, version, "canary", share, guard).number


def on(ues: Ues, version: int) -> int:
    return int((ues.fleet.assigned == version).sum())


def kinds(handlers: Handlers) -> list[str]:
    return [event["kind"] for event in handlers.events(0, 1000)]


def states(handlers: Handlers) -> dict[int, str]:
    return {int(row["version"]): row["state"] for row in handlers.index() if row["name"] == MODEL}


# --- loads ---


def test_ues_are_told_of_a_load_and_begin_their_next_frame_on_it(
    handlers: Handlers, small_store: CheckpointStore
) -> None:
    ues = SwitchingUes(handlers, small_store).open()
    told: list[None] = []
    ues.fleet.on_assigned = lambda: told.append(None)
    ues.send(*range(4))
    handlers.swaps.load(MODEL, 3, by="me")
    assert (len(told), ues.fleet.problem) == (1, None)
    assert handlers.ues()["ues"][0]["switch"] == "asked"
    ues.send(*range(4, 8))  # what is begun
    handlers.tick()
    assert states(handlers)[1] == "READY"
    ues.answer()
    assert [ack.versions.tolist() for ack in ues.send(8)] == [[3] * UES]
    handlers.tick()
    assert states(handlers) == {1: "UNAVAILABLE", 2: "UNAVAILABLE", 3: "READY"}
    assert kinds(handlers) == ["loaded", "switched", "retired"]
    assert [(e["version"], e["by"]) for e in handlers.events(0, 9)] == [("3", "me"), ("3", "UE"), ("1", "gNB")]


def test_ues_that_cannot_switch_stay_and_are_shown(handlers: Handlers, small_store: CheckpointStore) -> None:
    """Until a version for their encoder is loaded again."""
    ues = Ues(handlers, small_store).open()
    handlers.swaps.load(MODEL, 3)
    assert handlers.ues()["ues"][0]["switch"] == CANNOT_SWITCH
    assert ues.send(0)[0].versions.tolist() == [1] * UES
    handlers.tick()
    assert states(handlers)[1] == "READY"
    handlers.swaps.load(MODEL, 2)
    assert handlers.ues()["ues"][0]["switch"] == ""
    ues.send(*range(1, 8))
    assert ues.send(8)[0].versions.tolist() == [2] * UES


def test_ues_that_failed_to_switch_are_asked_again_by_the_next_load(
    handlers: Handlers, small_store: CheckpointStore
) -> None:
    ues, told = SwitchingUes(handlers, small_store).open(), []
    ues.fleet.on_assigned = lambda: told.append(ues.fleet.told)
    handlers.swaps.load(MODEL, 3)
    for _ in range(2):
        ues.answer("sha256 is another one")
    assert ues.fleet.problem == "sha256 is another one"
    assert kinds(handlers).count("not switched") == 1
    assert ues.send(0)[0].versions.tolist() == [1] * UES
    handlers.swaps.load(MODEL, 3)
    assert (ues.fleet.problem, len(told)) == (None, 2)
    ues.answer()
    assert ues.fleet.problem == ""


def test_an_answer_to_what_was_told_before_is_not_heeded(handlers: Handlers, small_store: CheckpointStore) -> None:
    """A promotion overtakes the answer to the canary."""
    handlers.swaps.load(MODEL, 1)
    ues = SwitchingUes(handlers, small_store, ues=4).open()
    number = canary(handlers, 3, 0.25)
    before = list(ues.fleet.told)
    handlers.swaps.promote(number)
    ues.answer(told=before)
    assert ues.fleet.problem is None
    assert ues.fleet.encoder_id == small_store.card(MODEL, 1)["encoder_id"]
    for strange in ([(0, 2**32 - 1, "zz")], [(2**32 - 1, 1, "")], [(0, 0, "")]):
        ues.answer(problem="x", told=strange)
    assert ues.fleet.problem is None
    ues.answer()
    assert (ues.fleet.problem, ues.fleet.encoder_id) == ("", small_store.card(MODEL, 3)["encoder_id"])


def test_ues_whose_encoder_was_unloaded_get_the_target(handlers: Handlers, small_store: CheckpointStore) -> None:
    """If they can switch."""
    handlers.swaps.load(MODEL, 1)
    handlers.swaps.unload(MODEL)
    handlers.swaps.load(MODEL, 3)
    with pytest.raises(Conflict, match=r"decodes for encoder .*, but is unloaded; load it first"):
        Ues(handlers, small_store)
    ues = SwitchingUes(handlers, small_store)
    assert (ues.fleet.assigned.tolist(), ues.fleet.told[-1][2]) == ([3] * UES, small_store.card(MODEL, 3)["encoder_id"])


# --- canaries ---


@pytest.mark.parametrize("share", [0.01, 0.1, 0.34, 0.999])
def test_a_canary_has_its_share_of_all_ues(handlers: Handlers, small_store: CheckpointStore, share: float) -> None:
    """However many fleets there are, of whatever sizes, and whenever they come; the first UEs of a fleet."""
    handlers.swaps.load(MODEL, 1)
    sizes = [1, 3, 100, 1, 17, 2, 2, 51]
    fleets = [SwitchingUes(handlers, small_store, ues=size) for size in sizes[:4]]
    canary(handlers, 3, share)
    for count in range(4, len(sizes) + 1):
        assert sum(on(ues, 3) for ues in fleets) == math.ceil(share * sum(sizes[:count]) - 1e-9)
        fleets += [SwitchingUes(handlers, small_store, ues=size) for size in sizes[count : count + 1]]
    for ues in fleets:
        assert ues.fleet.assigned.tolist() == [3] * on(ues, 3) + [1] * (ues.fleet.lease.ue_count - on(ues, 3))
        ues.come_back()
    assert sum(on(ues, 3) for ues in fleets) == math.ceil(share * sum(sizes) - 1e-9)


def test_fleets_that_cannot_switch_leave_their_share_to_others(
    handlers: Handlers, small_store: CheckpointStore
) -> None:
    handlers.swaps.load(MODEL, 1)
    old, new = Ues(handlers, small_store, ues=10), SwitchingUes(handlers, small_store, ues=10)
    canary(handlers, 3, 0.3)
    assert (on(old, 3), on(new, 3)) == (0, 6)


def test_two_versions_of_one_encoder_at_once(handlers: Handlers, small_store: CheckpointStore) -> None:
    """Half of a fleet's UEs, in one chunk with the others; UEs need not switch anything."""
    ues = Ues(handlers, small_store).open()
    ues.send(*range(4))
    number = canary(handlers, 2, 0.5)
    assert [ack.versions.tolist() for ack in ues.send(*range(4, 8))] == [[1, 1]] * 4
    with one_batch(handlers):
        acks = [ues.submit(8), ues.submit(9)]
    assert [ack.result(30).versions.tolist() for ack in acks] == [[2, 1]] * 2
    ues.send(*range(10, 16))
    found = handlers.swaps.describe(handlers.swaps.rollouts.get(number))
    assert found["ues"] == {"new": 1, "assigned": 1, "old": 1, "refused": 0}
    rows = handlers.nmse(by_version=True)["schemes"]
    assert [(row["version"], row["reports"], row["frames"], row["ues"]) for row in rows] == [
        (1, 24, 3, 1),
        (2, 8, 1, 1),
    ]
    merged = handlers.nmse()["schemes"]
    assert [(row["reports"], row["decoder_versions"]) for row in merged] == [(32, {"1": 24, "2": 8})]
    assert [row["assigned_version"] for row in handlers.ues()["ues"]] == [2, None]


def test_one_roll_out_of_a_model_at_a_time(handlers: Handlers, small_store: CheckpointStore) -> None:
    """Nothing is loaded nor unloaded meanwhile; of another model it may be."""
    handlers.swaps.load(MODEL, 1)
    number = canary(handlers, 3)
    busy = rf"{MODEL}(/\d)? has to wait: roll-out {number}, of {MODEL}/\d, is running; promote or abort it first"
    for change in (
        lambda: handlers.swaps.load(MODEL, 2),
        lambda: handlers.swaps.unload(MODEL),
        lambda: handlers.swaps.unload(MODEL, 1),
        lambda: canary(handlers, 2),
    ):
        with pytest.raises(Conflict, match=busy):
            change()
    handlers.swaps.load("rnn", 1)
    handlers.swaps.unload("rnn")
    handlers.swaps.abort(number)
    for end in (handlers.swaps.promote, handlers.swaps.abort):
        with pytest.raises(Conflict, match=r"rollout: 1 was aborted \(asked for\)"):
            end(number)
        with pytest.raises(NotFound, match="rollout: 7 is unknown; there are 1"):
            end(7)
    handlers.swaps.load(MODEL, 2)


@pytest.mark.parametrize(
    ("version", "mode", "share", "error", "says"),
    [
        (9, "canary", 0.1, NotFound, "version: hyperrnn has no version 9; it has 1, 2, 3"),
        (
            1,
            "canary",
            0.1,
            Conflict,
            "version: hyperrnn/1 has no other version in service to be compared with; load it",
        ),
        (
            1,
            "shadow",
            0.1,
            Conflict,
            "version: hyperrnn/1 has no other version in service to be compared with; load it",
        ),
        (3, "shadow", 0.1, Conflict, "hyperrnn/3 decodes for encoder .*, which no version in service does; a canary"),
        (3, "canary", 0.0, InvalidInput, "share: 0.0 is not between 0 and 1"),
        (3, "canary", 1.0, InvalidInput, "share: 1.0 is not between 0 and 1"),
        (3, "canary", math.nan, InvalidInput, "share: nan is not between 0 and 1"),
    ],
)
def test_roll_outs_that_cannot_be(
    handlers: Handlers, version: int, mode: Any, share: float, error: type[Exception], says: str
) -> None:
    handlers.swaps.load(MODEL, 1)
    with pytest.raises(error, match=says):
        handlers.swaps.start(MODEL, version, mode, share, None)
    assert handlers.swaps.rollouts.all() == []
    handlers.swaps.unload(MODEL)
    with pytest.raises(Conflict, match="hyperrnn/3 has no other version in service"):
        canary(handlers, 3)


def test_a_canary_is_promoted(settings: Settings, small_store: CheckpointStore) -> None:
    """All UEs are on it, those that come later too, over a restart as well; the old version retires."""
    with service(settings) as handlers:
        handlers.swaps.load(MODEL, 1)
        ues = [SwitchingUes(handlers, small_store, ues=4).open() for _ in range(2)]
        number = canary(handlers, 3, 0.25)
        ended = handlers.swaps.promote(number, by="me")
        assert (ended.state, ended.reason, ended.by) == ("promoted", "asked for", "")
        for each in ues:
            each.answer()
            each.submit(0, slots=8, ues=4).result(30)
        assert on(SwitchingUes(handlers, small_store, version=3), 3) == UES
        handlers.tick()
        assert states(handlers) == {1: "UNAVAILABLE", 2: "UNAVAILABLE", 3: "READY"}
        assert kinds(handlers) == ["loaded", "canary", "promoted", "switched", "switched", "retired"]
    with service(settings) as handlers:
        assert states(handlers) == {1: "UNAVAILABLE", 2: "UNAVAILABLE", 3: "READY"}
        assert handlers.swaps.rollouts.get(number) == ended
        assert on(SwitchingUes(handlers, small_store), 3) == UES
        ues[0].handlers = handlers
        assert on(ues[0].come_back(), 3) == 4


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("loaded", [False, True])
def test_a_canary_is_aborted(settings: Settings, small_store: CheckpointStore, loaded: bool, restarts: bool) -> None:
    """Its UEs go back to the old version, although a restart came between and they are away; the new version retires.
    So it is whether UEs were told to use the old version, or had come with its encoder.
    """
    with service(settings) as handlers:
        if loaded:
            handlers.swaps.load(MODEL, 1)
        ues = [SwitchingUes(handlers, small_store, ues=size).open() for size in (1, 3)]
        number = canary(handlers, 3, 0.5)
        assert [on(each, 3) for each in ues] == [1, 1]
        for each in ues:
            each.answer()
        ues[0].submit(0, slots=8, ues=1).result(30)
        if not restarts:
            handlers.swaps.abort(number)
    with service(settings) as handlers:
        if restarts:
            assert handlers.swaps.rollouts.get(number).state == "running"
            handlers.swaps.abort(number)
        for each in ues:
            each.handlers = handlers
            each.come_back()
            assert on(each, 3) == 0
            each.answer()
        assert ues[0].submit(8, slots=8, ues=1).result(30).versions.tolist() == [1]
        handlers.tick()
        assert states(handlers) == {1: "READY", 2: "UNAVAILABLE", 3: "UNAVAILABLE"}


@pytest.mark.parametrize("retired", [False, True])
def test_what_was_aborted_can_be_tried_again(handlers: Handlers, small_store: CheckpointStore, retired: bool) -> None:
    """Beside the version that UEs came with, which nobody has asked for."""
    ues = SwitchingUes(handlers, small_store).open()
    number = canary(handlers, 3, 0.5)
    ues.answer()
    ues.checkpoint = small_store.load(MODEL, 3)
    assert ues.submit(0, slots=8, ues=1).result(30).versions.tolist() == [3]
    handlers.swaps.abort(number)
    if retired:
        ues.answer()
        ues.submit(8, slots=8, ues=1).result(30)
        handlers.tick()
        assert states(handlers)[3] == "UNAVAILABLE"
    assert handlers.swaps.rollouts.get(canary(handlers, 3, 0.5)).old_version == 1


def test_a_restart_goes_on_with_a_canary(settings: Settings, small_store: CheckpointStore) -> None:
    """Figures too; a canary of the same encoder serves nobody but its UEs."""
    with service(settings) as handlers:
        ues = Ues(handlers, small_store).open()
        number = canary(handlers, 2, 0.5)
        ues.submit(0, slots=8).result(30)
        ues.submit(8, slots=8).result(30)
        before = handlers.swaps.describe(handlers.swaps.rollouts.get(number))
        assert before["figures"]["frames_new"] == 2
    with service(settings) as handlers:
        assert handlers.swaps.describe(handlers.swaps.rollouts.get(number)) == before
        ues.handlers = handlers
        ues.come_back()
        assert ues.submit(16, slots=8).result(30).versions.tolist() == [2, 1]
        others = Ues(handlers, small_store, ues=8).open()
        assert others.submit(0, ues=8).result(30).versions.tolist() == [2] * 4 + [1] * 4
        assert handlers.swaps.describe(handlers.swaps.rollouts.get(number))["figures"]["frames_new"] == 3


def test_a_shadow_serves_nobody_over_a_restart(settings: Settings, small_store: CheckpointStore) -> None:
    with service(settings) as handlers:
        handlers.swaps.load(MODEL, 1)
        handlers.swaps.start(MODEL, 2, "shadow", 0.1, None)
    with service(settings) as handlers:
        ues = Ues(handlers, small_store).open()
        assert ues.submit(0, slots=8).result(30).versions.tolist() == [1] * UES
        [rollout] = handlers.swaps.rollouts.all()
        assert rollout.comparison.difference().frames_new == UES
        handlers.swaps.promote(rollout.number)
    with service(settings) as handlers:
        ues.handlers = handlers
        assert ues.come_back().submit(8, slots=8).result(30).versions.tolist() == [2] * UES


# --- guards ---


def decided(handlers: Handlers, new: float, old: float) -> str:
    """State of a canary whose UEs' frames have these mean ratios, after the next look."""
    [rollout] = handlers.swaps.rollouts.all()
    rng = np.random.default_rng(1)
    for arm, ratio in ((True, new), (False, old)):
        rollout.comparison.add("", new=arm, ratios=ratio * rng.gamma(4.0, 0.25, 300))
    handlers.tick()
    return handlers.swaps.rollouts.get(rollout.number).state


@pytest.mark.parametrize(("new", "state"), [(0.2, "aborted"), (0.1, "running"), (0.05, "promoted")])
def test_a_guard_decides(handlers: Handlers, small_store: CheckpointStore, new: float, state: str) -> None:
    handlers.swaps.load(MODEL, 1)
    ues = SwitchingUes(handlers, small_store, ues=4)
    canary(handlers, 3, 0.5, Guard())
    assert decided(handlers, new, 0.1) == state
    assert on(ues, 3) == {"aborted": 0, "running": 2, "promoted": 4}[state]
    if state != "running":
        [event] = [event for event in handlers.events(0, 100) if event["kind"] == state]
        assert event["by"] == "guard"
        assert "standard errors" in event["text"]


@pytest.fixture
def own_store(tmp_path: Path, small_store: CheckpointStore) -> CheckpointStore:
    """A copy, to be damaged."""
    shutil.copytree(small_store.root / MODEL, tmp_path / "own" / MODEL)
    return CheckpointStore(tmp_path / "own")


def test_a_version_whose_files_have_gone_is_promoted(
    settings: Settings, small_store: CheckpointStore, own_store: CheckpointStore
) -> None:
    """It is loaded."""
    with service(settings.model_copy(update={"checkpoints": own_store.root})) as handlers:
        handlers.swaps.load(MODEL, 1)
        ues = SwitchingUes(handlers, small_store)
        canary(handlers, 3, 0.5, Guard())
        shutil.rmtree(own_store.root / MODEL / "3")
        assert decided(handlers, 0.05, 0.1) == "promoted"
        assert on(ues, 3) == UES


def test_a_canary_whose_files_have_gone_at_a_restart_is_aborted(
    settings: Settings, small_store: CheckpointStore, own_store: CheckpointStore
) -> None:
    """Its guard does not bring the gNB down, nor does it hold back UEs that come."""
    chosen = settings.model_copy(update={"checkpoints": own_store.root})
    with service(chosen) as handlers:
        handlers.swaps.load(MODEL, 1)
        canary(handlers, 3, 0.5)
    shutil.rmtree(own_store.root / MODEL / "3")
    with service(chosen) as handlers:
        ues = SwitchingUes(handlers, small_store)
        handlers.tick()
        [rollout] = handlers.swaps.rollouts.all()
        assert (rollout.state, on(ues, 1)) == ("aborted", UES)
        assert "hyperrnn has no version 3" in rollout.reason


def test_a_guard_that_would_promote_what_cannot_be_loaded_aborts(
    settings: Settings, small_store: CheckpointStore, own_store: CheckpointStore
) -> None:
    chosen = settings.model_copy(update={"checkpoints": own_store.root})
    with service(chosen) as handlers:
        handlers.swaps.load(MODEL, 1)
        canary(handlers, 3, 0.5, Guard())
    shutil.rmtree(own_store.root / MODEL / "3")
    with service(chosen) as handlers:
        assert decided(handlers, 0.05, 0.1) == "aborted"
        assert "but it cannot be loaded any more" in handlers.swaps.rollouts.get(1).reason


def test_a_roll_out_whose_old_version_has_gone_can_be_aborted(
    settings: Settings, small_store: CheckpointStore, own_store: CheckpointStore
) -> None:
    chosen = settings.model_copy(update={"checkpoints": own_store.root})
    with service(chosen) as handlers:
        handlers.swaps.load(MODEL, 1)
        number = canary(handlers, 3, 0.5)
    shutil.rmtree(own_store.root / MODEL / "1")
    with service(chosen) as handlers:
        assert "its UEs stay, for the old version cannot be loaded" in handlers.swaps.abort(number).reason
        handlers.swaps.load(MODEL, 3)


def test_a_decision_waits_for_the_store(
    handlers: Handlers, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers.swaps.load(MODEL, 1)
    canary(handlers, 3, 0.5, Guard())

    def away(*_: object) -> None:
        raise StoreUnavailable("store: is full")

    with monkeypatch.context() as patch:
        patch.setattr(handlers._store, "keep_rollout", away)
        assert decided(handlers, 0.2, 0.1) == "running"
    handlers.tick()
    assert handlers.swaps.rollouts.get(1).state == "aborted"


# --- what is needed ---


def test_what_ues_that_are_away_need_is_not_unloaded_nor_retired(
    settings: Settings, small_store: CheckpointStore
) -> None:
    """They were killed in the middle of a frame, and so was the gNB."""
    with service(settings) as handlers:
        ues = SwitchingUes(handlers, small_store).open()
        ues.send(*range(3))
    with service(settings) as handlers:
        handlers.swaps.load(MODEL, 3)
        handlers.tick()
        assert states(handlers)[1] == "READY"
        for version, asked in ((None, "model: hyperrnn"), (1, "version: hyperrnn/1")):
            says = rf"{asked} is kept for UEs 0..1 \(gone\); it can be unloaded when"
            with pytest.raises(Conflict, match=says):
                handlers.swaps.unload(MODEL, version)
        ues.handlers = handlers
        ues.come_back()
        assert ues.fleet.problem is None  # told to switch
        assert [ack.versions.tolist() for ack in ues.send(*range(3, 8))] == [[1] * UES] * 5
        handlers.tick()
        assert states(handlers)[1] == "READY"  # until it has switched
        ues.answer()
        ues.send(8)
        handlers.tick()
        assert states(handlers)[1] == "UNAVAILABLE"
        handlers.detach(ues.fleet.lease.token)
        handlers.swaps.unload(MODEL)


def test_the_encoder_of_a_version(handlers: Handlers, own_store: CheckpointStore, settings: Settings) -> None:
    """What is damaged is not sent; another version of this encoder is as good."""
    with service(settings.model_copy(update={"checkpoints": own_store.root, "run": "own"})) as running:
        ues, encoder_id = SwitchingUes(running, own_store), own_store.card(MODEL, 1)["encoder_id"]
        token = ues.fleet.lease.token
        _, data = running.encoder(token, encoder_id)
        assert data == own_store.part(MODEL, 1, "encoder")
        file = own_store.root / MODEL / "1" / "encoder.safetensors"
        file.rename(own_store.root / MODEL / "2" / file.name)
        assert running.encoder(token, encoder_id)[1] == data
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert running.encoder(token, encoder_id)[1] == data
        (own_store.root / MODEL / "2" / file.name).unlink()
        with pytest.raises(DamagedCheckpoint, match=r"checkpoint hyperrnn/1: encoder.safetensors has not the sha256"):
            running.encoder(token, encoder_id)
        with pytest.raises(NotFound, match=f"encoder_id: no version of hyperrnn has encoder {'ab' * 8}"):
            running.encoder(token, "ab" * 8)
        with pytest.raises(NotFound, match="fleet-token: 'nobody' is unknown"):
            running.encoder("nobody", encoder_id)
