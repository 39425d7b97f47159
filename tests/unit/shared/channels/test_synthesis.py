"""Images and spatial channels from paths, against sums of plane waves in complex128."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from shared.channels import compiled, synthesis
from shared.channels.synthesis import Kernel, Paths
from shared.channels.transforms import to_angular_delay

SIZES = (2, 3, 5, 16, 33, 64, 100, 257)
OFFSETS = (0.0, 1e-7, 5e-7, 1e-6, 2e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.25, 0.49, 0.5)
"""Of paths from the grid [bins]."""
SLOTS = torch.tensor([0.0, 0.3, 40.0, -7.0])
"""Radians per m/s."""


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, width=32)


def positions(low: int, high: int) -> st.SearchStrategy[float]:
    """Bins, on the grid, next to it, and anywhere."""
    near = st.tuples(st.integers(low, high), st.sampled_from(OFFSETS), st.sampled_from((-1, 1)))
    return near.map(lambda drawn: drawn[0] + drawn[1] * drawn[2]) | numbers(low, high)


def wave(turns: Tensor) -> Tensor:
    """exp(-j 2 pi turns), complex128."""
    return torch.polar(torch.ones_like(turns), -2 * math.pi * turns)


def at_slots(paths: Paths, doppler: Tensor) -> Tensor:
    """Complex amplitudes [N, L, S]."""
    phase = paths.phase.double()[..., None] + doppler.double() * paths.radial_speed.double()[..., None]
    return paths.amplitude.double()[..., None] * wave(-phase / (2 * math.pi))


def summed(paths: Paths, frequencies: Tensor, antennas: int, spacing: float, doppler: Tensor) -> Tensor:
    """[N, S, frequency, antenna] as the definition says."""
    delays = wave(paths.delay.double()[..., None] * frequencies.double())
    angles = wave(paths.cosine.double()[..., None] * spacing * torch.arange(antennas))
    return torch.einsum("nls,nlf,nlm->nsfm", at_slots(paths, doppler), delays, angles)


def make(bins: list[float], cosines: list[float], subcarriers: int, subcarrier_hz: float, seed: int = 0) -> Paths:
    """One frame of paths at the given delays (DFT bins) and cosines; the rest is drawn."""
    rng = np.random.default_rng(seed)
    amplitude, phase, radial_speed = (
        torch.from_numpy(rng.uniform(low, high, (1, len(bins)))).float()
        for low, high in ((0.2, 1.0), (-2 * math.pi, 2 * math.pi), (-1.0, 1.0))
    )
    delay = torch.tensor([bins], dtype=torch.float64) / (subcarriers * subcarrier_hz)
    return Paths(amplitude, phase, delay.float(), torch.tensor([cosines]).float(), radial_speed)


def image(paths: Paths, rows: Tensor, subcarriers: int, subcarrier_hz: float, antennas: int, spacing: float) -> Tensor:
    return synthesis.image(
        paths,
        rows=rows,
        subcarriers=subcarriers,
        subcarrier_hz=subcarrier_hz,
        antennas=antennas,
        spacing=spacing,
        doppler=SLOTS,
    )


def error(ours: Tensor, theirs: Tensor, paths: Paths, antennas: int) -> float:
    """Largest error of a slot's image, relative to the norm that its paths have."""
    scale = paths.amplitude.double().norm(dim=1)[:, None] * antennas
    return float(((ours - theirs).flatten(2).norm(dim=2) / scale).max())


def allowed(paths: Paths, subcarriers: int, subcarrier_hz: float) -> float:
    """A path's phase turns by 2 pi for each bin of its delay, in float32: it loses digits with the delay."""
    farthest = float(paths.delay.abs().max()) * subcarriers * subcarrier_hz
    return 4e-5 + 1.5e-6 * farthest


@st.composite
def cases(draw: st.DrawFn) -> tuple[Paths, int, float, int, float]:
    subcarriers, antennas = draw(st.sampled_from(SIZES)), draw(st.sampled_from((1, 2, 3, 8, 31, 32, 64)))
    subcarrier_hz = draw(st.sampled_from((15e3, 20e6 / 256, 1e6)))
    spacing = draw(st.sampled_from((0.1, 0.25, 0.5, 0.5 * 5.1 / 5.3, 0.9, 1.0, 2.0)))
    count = draw(st.integers(1, 5))
    bins = draw(st.lists(positions(-subcarriers, 2 * subcarriers), min_size=count, max_size=count))
    grid = positions(-16, 16).map(lambda place: max(-1.0, min(1.0, place / 16)))
    cosines = draw(st.lists(grid, min_size=count, max_size=count))
    paths = make(bins, cosines, subcarriers, subcarrier_hz, draw(st.integers(0, 99)))
    return paths, subcarriers, subcarrier_hz, antennas, spacing


@given(cases())
@example((make([-3.0, 0.0, 256.5, 257.0, 514.0], [1.0, -1.0, 0.0, 0.5, -0.5], 257, 78125.0), 257, 78125.0, 32, 0.5))
def test_image_is_that_of_the_plane_waves(case: tuple[Paths, int, float, int, float]) -> None:
    paths, subcarriers, subcarrier_hz, antennas, spacing = case
    channel = summed(paths, torch.arange(subcarriers) * subcarrier_hz, antennas, spacing, SLOTS)
    ours = image(paths, torch.arange(subcarriers), subcarriers, subcarrier_hz, antennas, spacing)
    assert ours.shape == (1, len(SLOTS), subcarriers, antennas)
    assert ours.dtype == torch.complex64
    assert error(ours, to_angular_delay(channel), paths, antennas) <= allowed(paths, subcarriers, subcarrier_hz)


@given(cases(), st.integers(0, 300))
def test_spatial_is_that_of_the_plane_waves(case: tuple[Paths, int, float, int, float], subcarrier: int) -> None:
    paths, subcarriers, subcarrier_hz, antennas, spacing = case
    frequency = subcarrier % subcarriers * subcarrier_hz
    theirs = summed(paths, torch.tensor([frequency]), antennas, spacing, SLOTS)[:, :, 0]
    ours = synthesis.spatial(paths, frequency_hz=frequency, antennas=antennas, spacing=spacing, doppler=SLOTS)
    assert ours.shape == (1, len(SLOTS), antennas)
    assert error(ours, theirs, paths, 1) <= math.sqrt(antennas) * allowed(paths, subcarriers, subcarrier_hz)


@given(cases(), st.data())
def test_rows_are_those_of_the_full_image(case: tuple[Paths, int, float, int, float], data: st.DataObject) -> None:
    """Whichever are wanted, in any order: nothing is written for paths whose row is not."""
    paths, subcarriers, subcarrier_hz, antennas, spacing = case
    wanted = data.draw(st.lists(st.integers(0, subcarriers - 1), min_size=1, max_size=8, unique=True))
    full = image(paths, torch.arange(subcarriers), subcarriers, subcarrier_hz, antennas, spacing)
    some = image(paths, torch.tensor(wanted), subcarriers, subcarrier_hz, antennas, spacing)
    assert error(some, full[:, :, wanted], paths, antennas) < 1e-5


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("subcarriers", [257, 1024])
def test_physical_delays_are_exact_on_the_grid_and_off(subcarriers: int, offset: float) -> None:
    """Up to 60 bins (3 us at 20 MHz), as many off the grid in delay and angle: 2e-4 of the channel's norm and less."""
    rng = np.random.default_rng(1)
    subcarrier_hz, worst = 20e6 / (subcarriers - 1), 0.0
    for seed in range(8):
        bins = rng.integers(0, 60, 12) + offset * rng.choice([-1, 1], 12)
        cosines = (rng.integers(-16, 17, 12) + offset * rng.choice([-1, 1], 12)).clip(-16, 16) / 16
        paths = make(bins.tolist(), cosines.tolist(), subcarriers, subcarrier_hz, seed)
        channel = to_angular_delay(summed(paths, torch.arange(subcarriers) * subcarrier_hz, 32, 0.5, SLOTS))
        ours = image(paths, torch.arange(subcarriers), subcarriers, subcarrier_hz, 32, 0.5)
        relative = (ours - channel).flatten(2).norm(dim=2) / channel.flatten(2).norm(dim=2)
        worst = max(worst, float(relative.max()))
    assert worst < 1e-4


@pytest.mark.parametrize("cosine", [-1.0, 1.0])
def test_endfire_is_row_0(cosine: float) -> None:
    """u = cos(angle): +1 and -1 both lie in bin 0, 0 in bin 16, 1/2 in bin 8 and -1/2 in bin 24; delay 5 in row 5."""
    paths = make([5.0] * 4, [cosine, 0.0, 0.5, -0.5], 257, 20e6 / 256)
    for only, column in enumerate((0, 16, 8, 24)):
        one = Paths(*(getattr(paths, field)[:, only : only + 1] for field in Paths.__dataclass_fields__))
        power = image(one, torch.arange(257), 257, 20e6 / 256, 32, 0.5)[0, 0].abs()
        assert power.argmax() == 5 * 32 + column
        torch.testing.assert_close(power[5, column], 32 * one.amplitude[0, 0], rtol=1e-4, atol=0)
        assert float(power.square().sum()) == pytest.approx(float(power[5, column]) ** 2, rel=1e-4)


def poles(kernel: Kernel, weights: Tensor) -> Tensor:
    """Of all frames, [N, L, K], one weight for each path."""
    out = torch.empty(*weights.shape, 1, len(kernel.constant))
    kernel.poles(weights[..., None], out)(0)
    return out[:, :, 0]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 32, 257])
def test_kernel_is_the_transform_of_a_path(size: int) -> None:
    """(1/N) sum_m exp(j 2 pi m (k - x) / N) = constant_k exp(j phase) factor pole_k."""
    position = torch.tensor([[0.0, 1e-7, 0.5, 1.0, size - 0.5, size - 1e-3, float(size), -0.3, -2.0, 1.5 * size]])
    bins = torch.arange(size)
    ours = synthesis.dirichlet(position, bins, size)
    value = torch.polar(torch.ones_like(ours.phase), ours.phase)[..., None] * poles(ours, ours.factor) * ours.constant
    steps = (bins - position[0, :, None].double())[..., None] * torch.arange(size)
    exact = wave(-steps / size).mean(-1)
    assert (value[0] - exact).abs().max() < 1e-5 + 1e-6 * float(position.abs().max())


def test_paths_that_are_not_there_do_not_count() -> None:
    paths = make([3.0, 4.5, 2.0], [0.1, 0.2, 0.3], 33, 1e6)
    gone = Paths(*(getattr(paths, field).clone() for field in Paths.__dataclass_fields__))
    gone.amplitude[:, 1] = 0
    left = Paths(*(getattr(paths, field)[:, [0, 2]] for field in Paths.__dataclass_fields__))
    ours, theirs = (image(of, torch.arange(33), 33, 1e6, 8, 0.5) for of in (gone, left))
    torch.testing.assert_close(ours, theirs)


def test_frames_are_apart() -> None:
    """An image of frames together is that of each."""
    frames = [make([seed + 0.5, 2.0], [0.1 * seed, -1.0], 33, 1e6, seed) for seed in range(5)]
    fields = Paths.__dataclass_fields__
    together = Paths(*(torch.cat([getattr(frame, field) for frame in frames]) for field in fields))
    images = image(together, torch.arange(33), 33, 1e6, 8, 0.5)
    for number, frame in enumerate(frames):
        alone = image(frame, torch.arange(33), 33, 1e6, 8, 0.5)
        torch.testing.assert_close(images[number], alone[0])
        part = together[slice(number, number + 1)]
        assert all(torch.equal(getattr(part, field), getattr(frame, field)) for field in fields)


@pytest.mark.parametrize("size", [41, 47, 55, 61, 82, 123])
def test_paths_one_period_away_in_any_size(size: int) -> None:
    """As delays of a whole period, or elements a wavelength apart at endfire."""
    kernel = synthesis.dirichlet(torch.tensor([[float(size)]]), torch.arange(size), size)
    assert bool(poles(kernel, kernel.factor).isfinite().all())


@given(cases(), st.integers(1, 3))
@example((make([-3.0, 5.0, 5.0, 257.0, 519.0], [1.0, -1.0, -1.0, 1.0, 1.0], 257, 78125.0), 257, 78125.0, 32, 0.5), 2)
def test_whole_band_is_that_of_an_image_of_all_rows(case: tuple[Paths, int, float, int, float], stride: int) -> None:
    """Also of paths with one delay and one angle, and of those a whole period apart."""
    paths, subcarriers, subcarrier_hz, antennas, spacing = case
    full = image(paths, torch.arange(subcarriers), subcarriers, subcarrier_hz, antennas, spacing)
    band = {"subcarriers": subcarriers, "subcarrier_hz": subcarrier_hz, "antennas": antennas, "spacing": spacing}
    expected = torch.fft.fft(full.to(torch.complex128), dim=2)[:, :, ::stride]
    # relative to the norm that the paths have apart, which they may take from each other
    scale, limit = (
        (paths.amplitude.double().norm(dim=1) * antennas) ** 2,
        2 * allowed(paths, subcarriers, subcarrier_hz),
    )
    many = Paths(*(F.pad(getattr(paths, field.name), (0, subcarriers)) for field in dataclasses.fields(Paths)))
    for found in (paths, many):  # fewer than subcarriers (in most cases), and more
        energy, at = synthesis.whole_band(found, stride=stride, doppler=SLOTS, **band)
        assert at.shape == expected.shape
        assert error(at, expected, paths, antennas) <= limit * subcarriers**0.5
        assert ((energy - full.abs().square().sum((2, 3))).abs() <= limit * scale[:, None]).all()


def test_without_compiled_loops_the_image_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU computes it."""
    paths = make([3.0, 4.5, 200.1], [0.1, 0.2, -1.0], 257, 1e6)
    ours = image(paths, torch.arange(32), 257, 1e6, 32, 0.5)
    monkeypatch.setattr(compiled, "for_device", lambda device: None)
    torch.testing.assert_close(image(paths, torch.arange(32), 257, 1e6, 32, 0.5), ours)
