from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared.link.payload import Field
from shared.quantizers.lloyd_max import LloydMax

DISTORTION = {1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009497, 5: 0.002499}
"""Of a standard normal value by bits (Max 1960, table I)."""


def normal(count: int, entries: int) -> torch.Tensor:
    return torch.randn(count, entries, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("bits", DISTORTION)
def test_distortion_of_normal_values_is_the_published_one(bits: int) -> None:
    quantizer = LloydMax("samples", 1, bits)
    quantizer.calibrate(normal(200_000, 1))
    assert quantizer.distortion.item() == pytest.approx(DISTORTION[bits], rel=0.02)
    fresh = torch.randn(100_000, 1, generator=torch.Generator().manual_seed(4))
    error = (quantizer.decode(quantizer.encode(fresh)) - fresh).square().mean()
    assert error.item() == pytest.approx(DISTORTION[bits], rel=0.06)


def test_two_bits_of_normal_values_have_the_published_levels() -> None:
    quantizer = LloydMax("samples", 1, 2)
    quantizer.calibrate(normal(200_000, 1))
    torch.testing.assert_close(quantizer.levels, torch.tensor([[-1.510, -0.4528, 0.4528, 1.510]]), rtol=0, atol=0.02)


def test_levels_are_the_means_of_their_cells() -> None:
    """Of each entry's own values, whatever their scale."""
    values = normal(5_000, 3) * torch.tensor([0.01, 1.0, 300.0])
    quantizer = LloydMax("samples", 3, 9)
    quantizer.calibrate(values)
    chosen = quantizer.to_levels(values)
    for entry in range(3):
        for level in range(8):
            cell = values[chosen[:, entry] == level, entry]
            assert quantizer.levels[entry, level].item() == pytest.approx(cell.mean().item(), rel=1e-3)


@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 5))
def test_bits_are_shared_out_in_the_order_of_entries(entries: int, least: int, more: int) -> None:
    bits = entries * least + more % entries
    quantizer = LloydMax("samples", entries, bits)
    assert sum(field.total_bits for field in quantizer.fields()) == bits
    assert quantizer.numbers == sorted(quantizer.numbers, reverse=True)
    assert max(quantizer.numbers) - min(quantizer.numbers) <= 1


def test_entries_of_the_same_number_of_bits_are_a_field() -> None:
    assert LloydMax("samples", 4, 20).fields() == (Field("samples5", 4, 5),)
    assert LloydMax("samples", 4, 10).fields() == (Field("samples3", 2, 3), Field("samples2", 2, 2))


@functools.cache
def four_tables(bits: int) -> LloydMax:
    quantizer = LloydMax("samples", 4, bits)
    quantizer.calibrate(normal(300, 4))
    return quantizer


@given(st.integers(4, 24), st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4))
def test_a_value_becomes_the_nearest_level(bits: int, values: list[float]) -> None:
    quantizer = four_tables(bits)
    given_ = torch.tensor([values])
    found = quantizer.decode(quantizer.encode(given_))
    distances = (quantizer.levels - given_.mT).abs()
    torch.testing.assert_close((found - given_).abs(), distances.amin(1)[None])


def test_few_values_leave_cells_empty() -> None:
    """As many different ones as there are levels at most, each of which is met."""
    quantizer = LloydMax("samples", 1, 3)
    values = torch.tensor([[0.0], [0.0], [1.0], [5.0]])
    quantizer.calibrate(values)
    assert torch.isfinite(quantizer.levels).all()
    assert (quantizer.levels.diff() >= 0).all()
    torch.testing.assert_close(quantizer.decode(quantizer.encode(values)), values)
