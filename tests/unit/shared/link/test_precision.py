from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from shared.channels.streams import Samples
from shared.conditions import RunConditions
from shared.link.decoding import decode_slot, side_information
from shared.link.encoding import encode_frames
from shared.link.evaluation import change_in_bf16, evaluate
from shared.link.precision import CHANGE, MOST_CHANGE_DB, Precision, precision_for
from shared.schemes import Scheme

SCENARIO = "multipath-p2:antennas=16,slots=3"


@pytest.mark.parametrize(
    ("card", "wanted", "found"),
    [
        ({CHANGE: 0.0}, "fp32", "fp32"),
        ({CHANGE: 0.0}, "bf16", "bf16"),
        ({CHANGE: -0.1}, "bf16", "bf16"),
        ({CHANGE: MOST_CHANGE_DB}, "bf16", "bf16"),
        ({CHANGE: MOST_CHANGE_DB + 1e-6}, "bf16", "fp32"),
        ({CHANGE: None}, "bf16", "fp32"),
        ({}, "bf16", "fp32"),
    ],
)
def test_the_card_says_whether_bfloat16_will_do(card: dict[str, Any], wanted: Precision, found: Precision) -> None:
    assert precision_for(card, wanted) == found


@pytest.fixture
def rnn(make_scheme: Callable[..., Scheme]) -> Scheme:
    """Whose outputs are of the size of the channel: an untrained one says almost nothing."""
    scheme = make_scheme("rnn", SCENARIO, feedback_bits=6, uplink_reading="none").eval()
    with torch.no_grad():
        for parameter in scheme.decoder.parameters():
            parameter.mul_(2)
    return scheme


def test_bfloat16_rounds_and_states_stay_float32(rnn: Scheme, make_samples: Callable[..., Samples]) -> None:
    samples = make_samples(5)
    reports = encode_frames(rnn, rnn.scenario, samples)
    side = side_information(rnn, rnn.scenario, samples)
    fields = rnn.layout.fields_of(reports[:, 0])
    exact, exact_state = decode_slot(rnn, fields, side[:, 0], rnn.decoder.initial_state(5))
    rnn.precision = "bf16"
    rounded, state = decode_slot(rnn, fields, side[:, 0], rnn.decoder.initial_state(5))
    error = (rounded - exact).norm() / exact.norm()
    assert 1e-5 < error < 2e-2
    assert rounded.dtype == torch.complex64
    assert {name: values.dtype for name, values in state.items()} == {
        name: values.dtype for name, values in exact_state.items()
    }


def test_the_change_is_that_of_the_nmse(rnn: Scheme) -> None:
    conditions = RunConditions(rnn.scenario)
    change = change_in_bf16(rnn, conditions, 64)
    assert rnn.precision == "fp32"
    figures = []
    for precision in ("fp32", "bf16"):
        rnn.precision = precision  # type: ignore[assignment]  # a value of the Literal, which a loop's variable is not
        figures.append(evaluate(rnn, conditions, ues=64))
    changes = [figures[1][name] - figures[0][name] for name in ("nmse_db", "ratio_of_sums_db")]
    assert change == pytest.approx(max(changes), abs=1e-9)
    assert change != 0


def test_precoders_have_no_change(make_scheme: Callable[..., Scheme]) -> None:
    scheme = make_scheme("type1", "cost2100-indoor-csinet")
    assert change_in_bf16(scheme, RunConditions(scheme.scenario), 4) is None
