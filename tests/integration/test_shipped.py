"""The shipped checkpoints score what their cards say."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnb_server.repository import verified
from shared.checkpoints import CheckpointStore
from shared.conditions import RunConditions
from shared.link.evaluation import evaluate

STORE = CheckpointStore(Path(__file__).parents[2] / "checkpoints")
TRAINED = ("hyperrnn", "rnn", "hyperdnn", "dldnn")


def test_all_are_there() -> None:
    assert set(TRAINED) <= set(STORE.names())
    assert STORE.versions("hyperrnn") == [1, 2, 3]
    assert sum(path.stat().st_size for path in STORE.root.rglob("*") if path.is_file()) < 60e6


@pytest.mark.parametrize("name", STORE.names())
def test_card(name: str) -> None:
    """Every version passes the gNB's probe, and 300 UEs of the card's set agree with the card within its own error."""
    for version in STORE.versions(name):
        verified(STORE, name, version)
        checkpoint = STORE.load(name, version)
        card = checkpoint.card["evaluation"]
        found = evaluate(checkpoint.scheme, RunConditions(checkpoint.scenario), ues=300)
        value, error, least = ("nmse_db", "nmse_se_db", 0.2) if card["nmse_db"] else ("sgcs", "sgcs_se", 0.0)
        spread = (card[error] ** 2 + found[error] ** 2) ** 0.5
        assert found[value] == pytest.approx(card[value], abs=max(4 * spread, least))


def test_swapping_has_something_to_swap() -> None:
    first, second = (STORE.load("hyperrnn", version) for version in (1, 2))
    assert first.encoder_id == second.encoder_id
    assert first.card["sha256"]["decoder"] != second.card["sha256"]["decoder"]


def test_swapping_both_ends_is_an_improvement() -> None:
    first, third = (STORE.load("hyperrnn", version) for version in (1, 3))
    assert first.encoder_id != third.encoder_id
    before, after = (one.card["evaluation"]["by_slot"][-1]["ratio_of_sums_db"] for one in (first, third))
    assert after < before - 0.5


def test_uplink_and_memory_explain_the_gain() -> None:
    """HyperRNN below RNN without uplink, that below or equal to DL-DNN; by the cards, beyond three standard errors."""
    figures = {name: STORE.load(name).card["evaluation"] for name in ("hyperrnn", "rnn", "dldnn")}
    for better, worse in (("hyperrnn", "rnn"), ("rnn", "dldnn")):
        spread = (figures[better]["nmse_se_db"] ** 2 + figures[worse]["nmse_se_db"] ** 2) ** 0.5
        assert figures[better]["nmse_db"] < figures[worse]["nmse_db"] - 3 * spread
    assert figures["hyperrnn"]["by_slot"][-1]["ratio_of_sums_db"] < -7.5
