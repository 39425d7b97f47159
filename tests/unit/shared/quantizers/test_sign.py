from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from shared.quantizers.sign import BinaryLevels, Sign, straight_through_sign

VALUES = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20)
SLOPES = st.floats(0.125, 20, width=32)


@given(VALUES, SLOPES)
def test_forward_is_the_hard_sign(values: list[float], slope: float) -> None:
    x = torch.tensor(values)
    signs = [1.0 if value >= 0 else -1.0 for value in values]
    quantizer = Sign("signs", len(values))
    assert quantizer.decode(quantizer.encode(x)).tolist() == signs
    assert torch.equal(quantizer(x, slope), straight_through_sign(x, slope))
    torch.testing.assert_close(straight_through_sign(x, slope), torch.tensor(signs), rtol=0, atol=1e-6)


@given(VALUES, SLOPES)
def test_gradient_is_that_of_the_soft_sign(values: list[float], slope: float) -> None:
    def gradient(x: Tensor, soft: bool) -> Tensor:
        y = 2 * torch.sigmoid(slope * x) - 1 if soft else straight_through_sign(x, slope)
        weights = torch.arange(1, len(x) + 1, dtype=x.dtype)
        return torch.autograd.grad((y * weights).sum(), x)[0]

    x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(gradient(x, soft=False), gradient(x, soft=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_signs_keep_the_dtype(dtype: torch.dtype) -> None:
    x = torch.tensor([-2.0, -0.0, 0.0, 3.0], dtype=dtype)
    assert straight_through_sign(x, 2.0).dtype == dtype
    assert straight_through_sign(x, 2.0).sign().tolist() == [-1, 1, 1, 1]
    assert Sign("signs", 4).to_levels(x).tolist() == [0, 1, 1, 1]


@given(st.lists(st.sampled_from([0, 1]), max_size=30))
def test_bits_are_signs_and_back(bits: list[int]) -> None:
    integers = torch.tensor(bits, dtype=torch.int64)
    quantizer = Sign("signs", len(bits))
    signs = quantizer.from_levels(integers)
    assert signs.tolist() == [1.0 if bit else -1.0 for bit in bits]
    assert signs.dtype == torch.float32
    assert quantizer.to_levels(signs).dtype == torch.int64
    assert torch.equal(quantizer.to_levels(signs), integers)


def test_binary_levels_are_signs_at_both_ends_and_in_training() -> None:
    quantizer, values = BinaryLevels("codeword", 4), torch.tensor([[-2.0, -0.1, 0.0, 0.3]], requires_grad=True)
    levels = quantizer.to_levels(values)
    assert levels.tolist() == [[0, 0, 1, 1]]
    assert quantizer.from_levels(levels).tolist() == [[-1, -1, 1, 1]]
    trained = quantizer(values)
    torch.testing.assert_close(trained, quantizer.from_levels(levels))
    trained.sum().backward()
    torch.testing.assert_close(values.grad, 1 - torch.tanh(values.detach()).square())
