from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from shared.channels import transforms
from shared.errors import InvalidInput
from tests.unit.truncation import truncate, truncation_floor_db, truncation_loss

SHAPES = st.tuples(st.lists(st.integers(1, 3), max_size=2).map(tuple), st.integers(1, 40), st.integers(1, 33))
DTYPES = st.sampled_from((torch.complex64, torch.complex128))
Shape = tuple[tuple[int, ...], int, int]


def draw(shape: Shape, dtype: torch.dtype = torch.complex128, seed: int = 0) -> Tensor:
    """Values for [..., rows, columns]."""
    batch, rows, columns = shape
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*batch, rows, columns, dtype=dtype, generator=generator)


def energy(values: Tensor) -> Tensor:
    return values.abs().square().sum((-2, -1))


def digits(dtype: torch.dtype) -> float:
    return 1e-5 if dtype == torch.complex64 else 1e-12


@given(SHAPES, DTYPES)
def test_there_and_back(shape: Shape, dtype: torch.dtype) -> None:
    values = draw(shape, dtype)
    for forth, back in (
        (transforms.to_angular_delay, transforms.to_spatial_frequency),
        (transforms.to_spatial_frequency, transforms.to_angular_delay),
    ):
        there = forth(values)
        assert there.shape == values.shape
        assert there.dtype == dtype
        torch.testing.assert_close(back(there), values, rtol=0, atol=digits(dtype) * 10)


@given(SHAPES)
def test_angular_delay_is_as_defined(shape: Shape) -> None:
    """(1 / N_f) sum_f exp(j 2 pi f k / N_f) sum_n exp(-j 2 pi n u / M), u = 0 in the middle: CHANNELS.md, section 3."""
    channel = draw(shape)
    _, subcarriers, antennas = shape
    f, n = np.arange(subcarriers), np.arange(antennas)
    delay = np.exp(2j * np.pi * np.outer(f, f) / subcarriers) / subcarriers
    angle = np.exp(-2j * np.pi * np.outer(n, n - antennas // 2) / antennas)
    wanted = delay @ channel.numpy() @ angle
    assert np.abs(transforms.to_angular_delay(channel).numpy() - wanted).max() < 1e-10 * math.sqrt(
        antennas * subcarriers
    )


@given(SHAPES)
def test_parseval(shape: Shape) -> None:
    """Energy grows by M / N_f: an NMSE is the same in both domains."""
    channel, other = draw(shape), draw(shape, seed=1)
    _, subcarriers, antennas = shape
    image, other_image = transforms.to_angular_delay(channel), transforms.to_angular_delay(other)
    torch.testing.assert_close(energy(image), energy(channel) * antennas / subcarriers)
    nmse = energy(image - other_image) / energy(image)
    torch.testing.assert_close(nmse, energy(channel - other) / energy(channel))


@st.composite
def truncations(draw_: st.DrawFn) -> tuple[Shape, int, int]:
    shape = draw_(SHAPES)
    kept = draw_(st.integers(1, shape[1]))
    first = draw_(st.integers(0, kept))
    return shape, first, kept - first


@given(truncations())
def test_truncation_keeps_the_first_and_the_last_rows(case: tuple[Shape, int, int]) -> None:
    shape, first, last = case
    image, rows = draw(shape), shape[1]
    kept = truncate(image, first, last)
    assert torch.equal(kept, torch.cat([image[..., :first, :], image[..., rows - last :, :]], dim=-2))
    filled = transforms.zero_fill(kept, first, last, rows)
    assert filled.shape == image.shape
    assert filled.dtype == image.dtype
    assert torch.equal(truncate(filled, first, last), kept)
    cut = torch.ones(rows, dtype=torch.bool)
    cut[transforms.kept_rows(rows, first, last)] = False
    assert int(cut.sum()) == rows - first - last
    assert torch.equal(filled, image.masked_fill(cut[:, None], 0))


def test_kept_rows() -> None:
    assert transforms.kept_rows(10, 3, 2).tolist() == [0, 1, 2, 8, 9]
    assert transforms.kept_rows(10, 0, 1).tolist() == [9]
    assert transforms.kept_rows(4, 2, 2).tolist() == [0, 1, 2, 3]
    assert truncate(torch.arange(12.0).reshape(4, 3), 1).tolist() == [[0, 1, 2]]


@given(truncations())
def test_truncation_loss_is_the_nmse_of_a_perfect_estimate_of_the_kept_rows(case: tuple[Shape, int, int]) -> None:
    """In the spatial-frequency domain, of the zero-filled estimate."""
    shape, first, last = case
    image = draw(shape)
    channel = transforms.to_spatial_frequency(image)
    estimate = transforms.zero_fill(truncate(image, first, last), first, last, shape[1])
    error = energy(channel - transforms.to_spatial_frequency(estimate)) / energy(channel)
    loss = truncation_loss(image, first, last)
    assert loss.shape == image.shape[:-2]
    torch.testing.assert_close(loss, error, rtol=1e-9, atol=1e-12)
    floor = truncation_floor_db(image, first, last)
    mean = float(error.mean())
    assert floor == pytest.approx(10 * math.log10(mean), abs=1e-6) if mean > 1e-12 else floor < -100


def test_floor_is_the_mean_of_ratios() -> None:
    """Not the ratio of means: a strong channel counts no more than a weak one."""
    image = torch.zeros(2, 4, 1, dtype=torch.complex64)
    image[0, :2, 0] = torch.tensor([30.0, 40.0])
    image[1, :2, 0] = torch.tensor([0.3, 0.4j])
    image[1, 3, 0] = 0.5
    assert truncation_loss(image, 1).tolist() == pytest.approx([0.64, 0.82])
    assert truncation_floor_db(image, 1) == pytest.approx(10 * math.log10(0.73))
    assert truncation_floor_db(image, 2, 1) < -60
    assert truncation_floor_db(image, 4) < -60


def test_a_path_is_where_its_delay_and_angle_are() -> None:
    """exp(-j 2 pi f tau) exp(-j pi n u), tau of 3 rows: row 3, and u = 1/2 in column 8, u = 0 in the middle."""
    f, n = torch.arange(257).double(), torch.arange(32).double()
    for u, column in ((0.0, 16), (0.5, 8), (-0.5, 24), (1.0, 0), (-1.0, 0)):
        channel = torch.polar(torch.ones(257, 32).double(), -2 * math.pi * (3 / 257 * f[:, None] + u / 2 * n))
        image = transforms.to_angular_delay(channel)
        assert complex(image[3, column]) == pytest.approx(32)
        assert float(energy(image)) == pytest.approx(32**2)


@pytest.mark.parametrize(("subcarriers", "first", "last"), [(8, 0, 0), (8, 9, 0), (8, 5, 4), (8, -1, 3), (8, 3, -1)])
def test_rows_that_there_are_not(subcarriers: int, first: int, last: int) -> None:
    wanted = rf"first_rows, last_rows: {first} \+ {last}; wanted 1 to {subcarriers} \(subcarriers\) together"
    image = torch.zeros(subcarriers, 2, dtype=torch.complex64)
    calls: list[Callable[[], Tensor]] = [
        lambda: transforms.kept_rows(subcarriers, first, last),
        lambda: truncate(image, first, last),
        lambda: transforms.zero_fill(image[: max(0, first + last)], first, last, subcarriers),
        lambda: truncation_loss(image, first, last),
    ]
    for call in calls:
        with pytest.raises(InvalidInput, match=wanted):
            call()


@pytest.mark.parametrize("rows", [0, 4, 6])
def test_rows_to_fill_are_those_kept(rows: int) -> None:
    with pytest.raises(InvalidInput, match=rf"image: {rows} delay rows; wanted 3 \+ 2"):
        transforms.zero_fill(torch.zeros(2, rows, 4), 3, 2, 16)
