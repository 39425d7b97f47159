from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from shared.quantizers import float32


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20))
def test_values_come_back_bit_for_bit(values: list[float]) -> None:
    given_ = torch.tensor(values, dtype=torch.float32)
    levels = float32.to_levels(given_)
    assert levels.min() >= 0
    assert levels.max() < 2**float32.BITS
    assert torch.equal(float32.from_levels(levels).view(torch.int32), given_.view(torch.int32))


@given(st.lists(st.floats(0, 3e38, width=32), min_size=2, max_size=20))
def test_order_of_numbers_from_zero_up_is_kept(values: list[float]) -> None:
    given_ = torch.tensor(values, dtype=torch.float32).abs().sort().values
    assert (float32.to_levels(given_).diff() >= 0).all()
