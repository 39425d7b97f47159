from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from shared.link.payload import PayloadLayout
from shared.quantizers.embedded import EmbeddedQuantizer


def values_of(count: int = 4000, entries: int = 6) -> Tensor:
    """Entries of falling power, about means that are not 0."""
    draw = torch.randn(count, entries, generator=torch.Generator().manual_seed(0))
    return draw * 3.0 ** -torch.arange(entries) + torch.arange(entries)


def quantizer_of(room: int = 1000, bits: int = 5, entries: int = 6, *, allocated: bool = True) -> EmbeddedQuantizer:
    quantizer = EmbeddedQuantizer("codeword", entries, bits, room, allocated=allocated)
    quantizer.calibrate(values_of(entries=entries))
    return quantizer


def at_length(quantizer: EmbeddedQuantizer, values: Tensor, length: int) -> Tensor:
    return quantizer.decode(quantizer.encode_within(values, torch.full((len(values),), length)))


@pytest.mark.parametrize("room", [9, 10, 256, 2048, 4108])
def test_length_and_codeword_fill_the_room(room: int) -> None:
    quantizer = EmbeddedQuantizer("codeword", 600, 8, room, allocated=True)
    layout = PayloadLayout(quantizer.fields())
    assert room - 1 <= layout.bits <= room
    assert layout.describe() == f"length:1x{quantizer.length_bits} codeword:0..{quantizer.capacity}x1"


def test_a_codeword_has_no_more_bits_than_its_entries() -> None:
    quantizer = quantizer_of(1000)
    assert quantizer.capacity == 30
    assert quantizer.lengths(torch.tensor([5, 6, 35, 500])).tolist() == [0, 1, 30, 30]


def test_codewords_of_all_bits_come_back_as_the_finest_cells() -> None:
    quantizer, values = quantizer_of(), values_of(50)
    torch.testing.assert_close(
        quantizer.decode(quantizer.encode(values)), quantizer.from_levels(quantizer.to_levels(values))
    )


@given(st.lists(st.integers(0, 30), min_size=5, max_size=5))
def test_a_codeword_cut_anywhere_is_what_training_takes_it_for(lengths: list[int]) -> None:
    quantizer, values, each = quantizer_of(), values_of(5), torch.tensor(lengths)
    sent = quantizer.encode_within(values, each)
    torch.testing.assert_close(quantizer.decode(sent), quantizer.within(values, each))
    assert [int(row[length:].sum()) for row, length in zip(sent["codeword"], lengths, strict=True)] == [0] * 5


def test_what_is_cut_off_does_not_change_what_is_before_it() -> None:
    quantizer, values = quantizer_of(), values_of(5)
    whole, part = (quantizer.encode_within(values, torch.full((5,), length)) for length in (30, 11))
    assert torch.equal(whole["codeword"][:, :11], part["codeword"][:, :11])


@pytest.mark.parametrize("allocated", [True, False])
def test_each_bit_lowers_the_error(allocated: bool) -> None:
    """On values that the quantiser was not measured by, up to chance."""
    quantizer, values = quantizer_of(allocated=allocated), values_of(8000)[4000:]
    errors = [float((at_length(quantizer, values, length) - values).square().sum(1).mean()) for length in range(31)]
    assert all(after < before * 1.001 for before, after in itertools.pairwise(errors)), errors
    assert errors[-1] < errors[0] / 150
    assert errors[0] == pytest.approx(float((values - quantizer.mean).square().sum(1).mean()), rel=1e-6)


def test_bits_go_out_by_what_they_are_worth() -> None:
    """Of Gaussian entries a bit more is worth most where the most error is left: the strongest entry begins."""
    order = quantizer_of().order.tolist()
    assert order[:2] == [0, 0]
    assert [order.count(entry) for entry in range(6)] == [5] * 6
    first = [order.index(entry) for entry in range(6)]
    assert first == sorted(first)


def test_entries_go_out_whole_where_bits_are_not_ordered() -> None:
    assert quantizer_of(allocated=False).order.tolist() == [entry for entry in range(6) for _ in range(5)]


def test_weights_decide_the_order() -> None:
    quantizer = quantizer_of()
    quantizer.calibrate(values_of(), 100.0 ** torch.arange(6))
    assert quantizer.order.tolist()[:2] == [5, 5]


def test_an_entry_of_which_nothing_is_sent_is_its_mean_and_has_no_gradient() -> None:
    quantizer = quantizer_of(allocated=False)
    values = values_of(3).requires_grad_()
    taken = quantizer.within(values, torch.tensor([0, 5, 10]))
    torch.testing.assert_close(taken[0], quantizer.mean)
    taken.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[0.0] * 6, [1.0, *[0.0] * 5], [1.0, 1.0, *[0.0] * 4]]
