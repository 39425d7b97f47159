"""A version that does not reach its card is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gnb_server import evaluator
from gnb_server.app import service
from gnb_server.evaluator import CardCheck
from gnb_server.settings import Settings
from shared.checkpoints import CheckpointStore
from shared.errors import DamagedCheckpoint

NAME = "dldnn"


@pytest.fixture
def store(tmp_path: Path, small_store: CheckpointStore) -> CheckpointStore:
    """A copy of one model."""
    shutil.copytree(small_store.root / NAME, tmp_path / "own" / NAME)
    return CheckpointStore(tmp_path / "own")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A scenario for each measurement."""
    evaluate, done = evaluator.evaluate, []

    def noted(scheme: Any, conditions: Any, **options: Any) -> Any:
        done.append(str(conditions.scenario))
        return evaluate(scheme, conditions, **options)

    monkeypatch.setattr(evaluator, "evaluate", noted)
    return done


def promise(store: CheckpointStore, better_db: float, version: int = 1) -> None:
    """The card of a version, whose files are those of the first, says so much more than was measured."""
    folder = store.root / NAME / str(version)
    if version > 1:
        shutil.copytree(store.root / NAME / "1", folder)
    change_card(
        store, lambda card: card["evaluation"].update(nmse_db=card["evaluation"]["nmse_db"] - better_db), version
    )


def change_card(store: CheckpointStore, change: Callable[[dict[str, Any]], Any], version: int = 1) -> None:
    path = store.root / NAME / str(version) / "card.json"
    card = json.loads(path.read_text()) | {"version": version}
    change(card)
    path.write_text(json.dumps(card))


def test_a_sound_card_is_measured_once(store: CheckpointStore, measured: list[str]) -> None:
    """Although two ask at the same time."""
    check = CardCheck(store)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: check(NAME, 1), range(4)))
    assert len(measured) == 1


def test_a_card_that_promises_more_than_the_weights_reach_is_refused(store: CheckpointStore, tmp_path: Path) -> None:
    """3 dB more; by one message, and nothing is loaded. That another card of the same files was met does not count."""
    promise(store, 3.0, version=2)
    settings = Settings(checkpoints=store.root, store=f"sqlite:///{tmp_path / 'gnb.sqlite'}")
    says = (
        r"^checkpoint dldnn/2: NMSE -?\d+\.\d\d dB, its card says -\d+\.\d\d; at most 0\.5 dB and 4 standard errors"
        " worse are allowed$"
    )
    with service(settings) as handlers:
        handlers.swaps.load(NAME, 1)
        for _ in range(2):
            with pytest.raises(DamagedCheckpoint, match=says):
                handlers.swaps.load(NAME, 2)
            with pytest.raises(DamagedCheckpoint, match=says):
                handlers.swaps.start(NAME, 2, "shadow", 0.1, None)
        assert handlers._repository.loaded(NAME) == [1]
        assert [event["kind"] for event in handlers.events(0, 9)] == ["loaded", *["refused"] * 4]
        assert "its card says" in handlers.events(0, 9)[-1]["text"]


def test_a_card_may_be_modest(store: CheckpointStore) -> None:
    promise(store, -20.0)
    CardCheck(store)(NAME, 1)


def test_a_card_without_an_evaluation_says_nothing(store: CheckpointStore, measured: list[str]) -> None:
    change_card(store, lambda card: card.pop("evaluation"))
    CardCheck(store)(NAME, 1)
    assert not measured


@pytest.mark.parametrize(
    "evaluation",
    [
        7,
        "good",
        [1],
        {"nmse_db": -3.0},
        {"nmse_db": None, "nmse_se_db": 0.1},
        {"nmse_db": -3.0, "nmse_se_db": "small"},
        {"settings": 5},
        {"settings": {"scenario": "nowhere", "seed": 0, "delay_slots": 0}},
        {"settings": {"scenario": "multipath-p2", "seed": "x", "delay_slots": 0}},
    ],
)
def test_an_evaluation_that_is_none_is_refused(store: CheckpointStore, evaluation: Any) -> None:
    sound = store.card(NAME, 1)["evaluation"]
    given = evaluation
    if isinstance(evaluation, dict) and "nmse_db" not in evaluation:
        given = sound | evaluation
    elif isinstance(evaluation, dict) and len(evaluation) > 1:
        given = {"settings": sound["settings"], **evaluation}
    change_card(store, lambda card: card.update(evaluation=given))
    with pytest.raises(DamagedCheckpoint, match=r"^checkpoint dldnn/1: its evaluation cannot be read: "):
        CardCheck(store)(NAME, 1)


def test_without_an_encoder_nothing_is_measured(
    store: CheckpointStore, measured: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    (store.root / NAME / "1" / "encoder.safetensors").unlink()
    CardCheck(store)(NAME, 1)
    assert not measured
    assert "dldnn/1: its card is not checked, there is no encoder here" in caplog.text


def test_a_card_of_precoders_is_checked_by_its_sgcs(shipped: CheckpointStore, tmp_path: Path) -> None:
    shutil.copytree(shipped.root / "type1", tmp_path / "type1")
    store = CheckpointStore(tmp_path)
    CardCheck(store)("type1", 1)
    checkpoint = store.load("type1")
    said = checkpoint.card["evaluation"]
    store.annotate(checkpoint, {"evaluation": {**said, "sgcs": said["sgcs"] + 0.2}})
    with pytest.raises(DamagedCheckpoint, match=r"type1/1: SGCS 0\.\d\d, its card says 0\.\d\d; at most 0\.02 and 4"):
        CardCheck(store)("type1", 1)
