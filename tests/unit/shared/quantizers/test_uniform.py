from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared.quantizers.uniform import UniformQuantizer


def quantizer_of(bits: int, entries: int = 5, mu: float = 0.0) -> UniformQuantizer:
    quantizer = UniformQuantizer("codeword", entries, bits, mu=mu)
    quantizer.low.copy_(torch.linspace(-3, -1, entries))
    quantizer.high.copy_(torch.linspace(0.5, 4, entries))
    return quantizer


@given(st.integers(2, 8), st.integers(0, 2**16), st.sampled_from([0.0, 1.0, 20.0, 255.0]))
def test_every_level_comes_back(bits: int, seed: int, mu: float) -> None:
    quantizer = quantizer_of(bits, mu=mu)
    levels = torch.randint(0, 2**bits, (20, 5), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(quantizer.to_levels(quantizer.from_levels(levels)), levels)


@given(st.integers(2, 8), st.floats(-10, 10))
def test_error_is_half_a_cell_within_the_range(bits: int, value: float) -> None:
    quantizer = quantizer_of(bits)
    values = torch.full((1, 5), value)
    levels = quantizer.to_levels(values)
    assert levels.min() >= 0
    assert levels.max() < 2**bits
    inside = (values >= quantizer.low) & (values <= quantizer.high)
    cell = (quantizer.high - quantizer.low) / 2**bits
    error = (quantizer.from_levels(levels) - values).abs()
    assert (error[inside] <= (cell / 2 * 1.001 + 1e-6).expand(1, -1)[inside]).all()
    below = values < quantizer.low
    assert (levels[below] == 0).all()


def test_gradient_passes_within_the_range_only() -> None:
    quantizer = quantizer_of(3)
    values = torch.tensor([[-9.0, -2.0, 0.1, 3.0, 9.0]], requires_grad=True)
    out = quantizer(values)
    assert torch.equal(out, quantizer.from_levels(quantizer.to_levels(values)))
    out.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[0.0, 1.0, 1.0, 1.0, 0.0]]


@pytest.mark.parametrize(("bits", "share"), [(2, 0.12), (4, 0.012), (6, 0.0012), (8, 1.2e-4)])
def test_calibration_is_near_the_best_for_a_gaussian(bits: int, share: float) -> None:
    """Uniform quantisers of N(0, 1) reach 0.1188, 0.01154, 0.00104 and 8.9e-5 (Max, 1960)."""
    values = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 1.0, 30.0]) + 5
    quantizer = UniformQuantizer("codeword", 3, bits)
    quantizer.calibrate(values)
    error = (quantizer.from_levels(quantizer.to_levels(values)) - values).square().mean(0) / values.var(0)
    assert (error < share * 1.05).all(), error


def test_mu_law_gives_small_values_the_finer_cells() -> None:
    """Levels by ITU-T G.711's formula: of 16, F(x) = ln(1 + mu |x|) / ln(1 + mu) from the middle out."""
    quantizer = UniformQuantizer("codeword", 1, 4, mu=255.0)  # -1 to 1
    values = torch.tensor([[0.0], [1 / 255], [0.1], [0.4], [1.0], [9.0], [-0.1], [-1.0], [-9.0]])
    assert quantizer.to_levels(values)[:, 0].tolist() == [8, 9, 12, 14, 15, 15, 3, 0, 0]
    middles = quantizer.from_levels(torch.arange(16)[:, None])[:, 0]
    torch.testing.assert_close(middles[8:], (256 ** ((torch.arange(8) + 0.5) / 8) - 1) / 255)
    torch.testing.assert_close(middles, -middles.flip(0))


def test_mu_law_is_for_long_tails() -> None:
    draw = torch.Generator().manual_seed(0)
    gaussian = torch.randn(20_000, 1, generator=draw)
    long_tailed = gaussian * torch.randn(20_000, 1, generator=draw).square()
    gains = []
    for values in (long_tailed, gaussian):
        errors = []
        for mu in (0.0, 20.0):
            quantizer = UniformQuantizer("codeword", 1, 6, mu=mu)
            quantizer.calibrate(values)
            errors.append((quantizer.from_levels(quantizer.to_levels(values)) - values).square().mean())
        gains.append(float(errors[0] / errors[1]))
    assert gains[0] > 4 > 1.2 > gains[1]


def test_calibration_survives_constant_entries() -> None:
    quantizer = UniformQuantizer("codeword", 2, 4)
    values = torch.tensor([[1.0, 2.0]]).repeat(50, 1)
    quantizer.calibrate(values)
    assert torch.isfinite(quantizer.from_levels(quantizer.to_levels(values))).all()
    torch.testing.assert_close(quantizer.from_levels(quantizer.to_levels(values)), values, atol=1e-5, rtol=0)


def test_allocated_bits_are_all_of_them_and_go_to_the_costly_entries() -> None:
    quantizer = UniformQuantizer("codeword", 6, 3, allocated=True)
    spread = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.0])
    values = torch.randn(2000, 6, generator=torch.Generator().manual_seed(0)) * spread
    quantizer.calibrate(values, torch.tensor([1.0, 1.0, 1.0, 1.0, 256.0, 1.0]))
    bits = quantizer.bits.tolist()
    assert sum(bits) == sum(field.total_bits for field in quantizer.fields()) == 18
    assert bits[0] > bits[1] > bits[2] > bits[3]
    assert bits[4] == bits[0]  # half a unit, weighted 256 times, costs what 8 units cost
    assert bits[5] == 0
    levels = quantizer.to_levels(values)
    assert (levels < 2 ** quantizer.bits.long()).all()
    assert torch.equal(quantizer.decode(quantizer.encode(values)), quantizer.from_levels(levels))
    assert torch.equal(quantizer.from_levels(levels)[:, 5], values[:, 5])


def test_allocation_lowers_the_weighted_error() -> None:
    draw = torch.Generator().manual_seed(1)
    values = torch.randn(2000, 8, generator=draw) * torch.logspace(-1, 1, 8)
    weight, errors = torch.rand(8, generator=draw), {}
    for allocated in (False, True):
        quantizer = UniformQuantizer("codeword", 8, 4, allocated=allocated)
        quantizer.calibrate(values, weight)
        error = (quantizer.from_levels(quantizer.to_levels(values)) - values).square().mean(0)
        errors[allocated] = float((error * weight).sum())
    assert errors[True] < 0.4 * errors[False]
