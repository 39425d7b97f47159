from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from shared.quantizers.lloyd_max import LloydMax
from shared.quantizers.predictive import Predictive

SLOTS, ENTRIES = 6, 3


def autoregressive(frames: int, seed: int = 3, correlation: float = 0.99) -> Tensor:
    """[frames, SLOTS, ENTRIES], variance 1."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(frames, SLOTS, ENTRIES, generator=generator)
    values = [drawn[:, 0]]
    for new in drawn[:, 1:].unbind(1):
        values.append(correlation * values[-1] + (1 - correlation**2) ** 0.5 * new)
    return torch.stack(values, dim=1)


def calibrated(bits: int = 9, memory: float = 0.8) -> Predictive:
    quantizer = Predictive("samples", ENTRIES, bits, SLOTS, memory)
    quantizer.calibrate(autoregressive(4000))
    return quantizer


def decoded(quantizer: Predictive, fields: dict[str, Tensor]) -> Tensor:
    """[N, T, n], as a gNB that has every report of whole frames takes them."""
    count = len(next(iter(fields.values())))
    prediction, values = torch.zeros(count, ENTRIES), []
    for slot in range(SLOTS):
        report = {name: of[:, slot] for name, of in fields.items()}
        value, prediction = quantizer.decode_slot(report, torch.full((count,), slot), prediction)
        values.append(value)
    return torch.stack(values, dim=1)


@pytest.mark.parametrize("bits", [6, 9, 10])
@pytest.mark.parametrize("memory", [0.0, 0.8, 1.0])
def test_both_ends_have_the_same_numbers(bits: int, memory: float) -> None:
    """The gNB's are as far off as the tables' making says: nothing adds up over the slots."""
    quantizer, values = calibrated(bits, memory), autoregressive(4000)
    error = (decoded(quantizer, quantizer.encode_frames(values)) - values).square().mean(0)
    torch.testing.assert_close(error, quantizer.distortion, rtol=1e-3, atol=1e-7)
    fresh = autoregressive(4000, seed=8).clamp(-2, 2)
    error = (decoded(quantizer, quantizer.encode_frames(fresh)) - fresh).square().mean(0)
    assert (error < 1.3 * quantizer.distortion).all()


def test_prediction_is_worth_bits() -> None:
    fresh = autoregressive(4000, seed=8)
    error = {}
    for memory in (0.0, 0.8, 0.95):
        quantizer = calibrated(6, memory)
        error[memory] = (decoded(quantizer, quantizer.encode_frames(fresh)) - fresh).square().mean((0, 2))
    plain = LloydMax("samples", ENTRIES, 6)
    plain.calibrate(autoregressive(4000)[:, 0])
    torch.testing.assert_close(error[0.0], plain.distortion.mean().expand(SLOTS), rtol=0.1, atol=0)
    assert (error[0.95][2:] < error[0.8][2:]).all()
    assert (error[0.8][2:] < error[0.0][2:] / 4).all()  # more than a bit a value


@given(frames=st.integers(1, 9), seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1e3))
def test_frames_are_encoded_and_decoded_alike_in_any_company(frames: int, seed: int, scale: float) -> None:
    """Whatever the values: those beyond the tables too."""
    quantizer = calibrated()
    values = autoregressive(frames, seed) * scale
    whole = quantizer.encode_frames(values)
    for fields in whole.values():
        assert fields.shape[:2] == (frames, SLOTS)
        assert (fields >= 0).all()
    assert all(
        bool((of < 2**bits).all())
        for of, bits in zip(whole.values(), sorted(set(quantizer.numbers))[::-1], strict=True)
    )
    taken = decoded(quantizer, whole)
    for frame in range(frames):
        alone = quantizer.encode_frames(values[frame : frame + 1])
        assert all(torch.equal(of[0], whole[name][frame]) for name, of in alone.items())
        assert torch.equal(decoded(quantizer, alone)[0], taken[frame])
    first = quantizer.encode(values[:, 0])  # a frame begins without a memory
    assert all(torch.equal(of, whole[name][:, 0]) for name, of in first.items())
    assert torch.equal(quantizer.decode(first), taken[:, 0])


def test_reports_of_different_slots_are_decoded_together() -> None:
    quantizer, values = calibrated(), autoregressive(SLOTS, seed=5)
    whole = quantizer.encode_frames(values)
    taken = decoded(quantizer, whole)
    slot = torch.arange(SLOTS)
    predictions = []
    for row in range(SLOTS):
        prediction = torch.zeros(1, ENTRIES)
        for at in range(row):
            report = {name: of[row : row + 1, at] for name, of in whole.items()}
            prediction = quantizer.decode_slot(report, torch.tensor([at]), prediction)[1]
        predictions.append(prediction)
    reports = {name: of[slot, slot] for name, of in whole.items()}
    value, _ = quantizer.decode_slot(reports, slot, torch.cat(predictions))
    assert torch.equal(value, taken[slot, slot])


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.8])
def test_an_error_dies_out(memory: float) -> None:
    quantizer = calibrated(memory=memory)
    fields = quantizer.encode_frames(autoregressive(50, seed=9))
    wrong = {name: of.clone() for name, of in fields.items()}
    for of in wrong.values():
        of[:, 1] ^= 1
    off = decoded(quantizer, wrong) - decoded(quantizer, fields)
    assert (off[:, 0] == 0).all()
    assert (off[:, 1] != 0).all()
    for after in range(2, SLOTS):
        wanted = memory ** (after - 1) * quantizer.gains[1] * off[:, 1]
        torch.testing.assert_close(off[:, after], wanted, rtol=1e-3, atol=1e-5)


def test_tables_travel_with_the_weights() -> None:
    quantizer = calibrated()
    other = Predictive("samples", ENTRIES, 9, SLOTS, 0.8)
    other.load_state_dict(quantizer.state_dict())
    values = autoregressive(20, seed=4)
    theirs: dict[str, Any] = other.encode_frames(values)
    assert all(torch.equal(of, theirs[name]) for name, of in quantizer.encode_frames(values).items())
