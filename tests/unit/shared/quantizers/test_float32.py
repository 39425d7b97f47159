from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidInput
from shared.quantizers.float32 import BITS, Float32


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20))
def test_values_come_back_bit_for_bit(values: list[float]) -> None:
    given_ = torch.tensor(values, dtype=torch.float32)
    quantizer = Float32("samples", len(values))
    levels = quantizer.to_levels(given_)
    assert levels.min() >= 0
    assert levels.max() < 2**BITS
    assert torch.equal(quantizer.from_levels(levels).view(torch.int32), given_.view(torch.int32))


@given(st.lists(st.floats(0, width=32, allow_infinity=False), min_size=2, max_size=20))
def test_order_of_numbers_from_zero_up_is_kept(values: list[float]) -> None:
    given_ = torch.tensor(values, dtype=torch.float32).abs().sort().values
    assert (Float32("samples", len(values)).to_levels(given_).diff() >= 0).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    quantizer = Float32("magnitude", 2)
    quantizer.check({"magnitude": quantizer.to_levels(torch.tensor([[0.0, -1.5]])).numpy()})
    with pytest.raises(InvalidInput, match="payload magnitude: NaN or infinite; wanted finite float32 values"):
        quantizer.check({"magnitude": quantizer.to_levels(torch.tensor([[0.0, value]])).numpy()})
