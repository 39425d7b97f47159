from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared.quantizers.sum_of_sigmoids import SLOPE, SumOfSigmoids


def quantizer_of(bits: int, entries: int = 4) -> SumOfSigmoids:
    quantizer = SumOfSigmoids("codeword", entries, bits)
    quantizer.weight.data.copy_(torch.linspace(0.6, 1.4, entries))
    return quantizer


@pytest.mark.parametrize("bits", range(2, 9))
def test_every_code_is_reached_and_no_other(bits: int) -> None:
    quantizer = quantizer_of(bits)
    levels = quantizer.to_levels(torch.linspace(-4, 4, 20_001)[:, None].expand(-1, 4))
    assert levels[:, 3].unique().tolist() == list(range(2**bits))
    assert (levels.min(), levels.max()) == (0, 2**bits - 1)


@given(st.integers(2, 8), st.integers(0, 2**16))
def test_levels_of_what_a_level_stands_for(bits: int, seed: int) -> None:
    """Dequantised, times the weight and 2^(K-1), a level is itself again."""
    quantizer = quantizer_of(bits)
    levels = torch.randint(0, 2**bits, (20, 4), generator=torch.Generator().manual_seed(seed))
    again = (quantizer.from_levels(levels) * quantizer.weight * 2 ** (bits - 1)).round().long() + 2 ** (bits - 1)
    assert torch.equal(again, levels)


@given(st.integers(2, 8), st.floats(-3, 3))
def test_smooth_rounding_is_the_sum_of_all_sigmoids(bits: int, value: float) -> None:
    quantizer, middle = quantizer_of(bits), 2 ** (bits - 1)
    values = torch.full((1, 4), value)
    x = (middle * quantizer.weight * values.tanh())[..., None].double()
    thresholds = torch.arange(-middle, middle - 1) + 0.5
    whole = torch.sigmoid(SLOPE * (x - thresholds)).sum(-1) - middle
    found = quantizer(values) * quantizer.weight * middle
    torch.testing.assert_close(found.double(), whole, rtol=1e-4, atol=2e-4)


def test_training_is_near_the_wire_and_has_gradients() -> None:
    quantizer = quantizer_of(5)
    values = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    soft, hard = quantizer(values), quantizer.from_levels(quantizer.to_levels(values))
    assert (soft - hard).abs().mean() < 0.2 * (1 / 16)
    soft.sum().backward()
    assert values.grad is not None
    assert (values.grad > 0).float().mean() > 0.2  # between thresholds the slope is all but 0
    assert quantizer.weight.grad is not None
