"""From paths to images: each path is a Dirichlet kernel in delay times a plane wave over the array.

The N-point DFT over subcarriers of a path at delay x (in bins) is, at bin k,

    (1/N) sum_m exp(j 2 pi m (k-x)/N) = exp(-j pi k/N) * [-sin(pi x)/N * exp(-j pi (N-1) x/N)] * 1/sin(pi (k-x)/N)

A constant of the bin, a factor of the path, and one *real* kernel: the sum over paths is a real matrix product. A
Fourier transform is left for the few antennas only.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

_NEAREST = 1e-6
"""A path closer to a bin is moved to this distance [bins]: there the kernel is 0/0."""


@dataclass(frozen=True)
class Paths:
    """L plane waves of N frames; paths that are not there have amplitude 0.

    Attributes:
        amplitude: [N, L] >= 0.
        phase: [N, L] radians, at the band's first frequency and slot 0, the delay's phase included.
        delay: [N, L] s.
        cosine: [N, L] cosine of the angle between path and array axis.
        closing: [N, L] speed at which the path gets shorter, in the unit that `doppler` is per.
    """

    amplitude: Tensor
    phase: Tensor
    delay: Tensor
    cosine: Tensor
    closing: Tensor

    def __getitem__(self, frames: slice) -> Paths:
        """The paths of some of the frames."""
        return Paths(*(getattr(self, name)[frames] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Kernel:
    """Dirichlet kernel of paths at some bins of an N-point DFT.

    Attributes:
        kernel: [N, L, K] real, 1 / sin(pi (k - x) / N).
        factor: [N, L] real, -sin(pi x) / N.
        phase: [N, L] radians, -pi (N-1) x / N.
        constant: [K] complex64, exp(-j pi k / N).
    """

    kernel: Tensor
    factor: Tensor
    phase: Tensor
    constant: Tensor


def dirichlet(position: Tensor, bins: Tensor, size: int) -> Kernel:
    """Kernel of paths at `position` ([N, L] bins, any) at `bins` ([K] int64, distinct, in [0, size))."""
    nearest = position.round()
    offset = position - nearest
    offset = torch.where(offset.abs() < _NEAREST, _NEAREST, offset)
    turn = (nearest / size).floor()
    from_nearest = (nearest - turn * size).long().flatten()  # in [0, size)
    # sin(a - b) from the whole bins between them, known exactly, and the offset: no digits are lost next to a bin
    sine, cosine = (of.index_select(0, from_nearest) for of in _whole_bins(tuple(bins.tolist()), size, bins.device))
    step = offset * (math.pi / size)
    kernel = sine.addcmul_(cosine, step.tan().view(-1, 1), value=-1).reciprocal_().view(*position.shape, -1)
    factor = (offset * math.pi).sin() / step.cos() * _parity(nearest + turn) * (-1 / size)
    phase = (nearest + offset) * (-math.pi * (size - 1) / size)
    grid = bins * (math.pi / size)
    return Kernel(kernel, factor, phase, torch.polar(torch.ones_like(grid), -grid))


@functools.lru_cache(maxsize=16)
def _whole_bins(bins: tuple[int, ...], size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sine and cosine of pi (k - n) / size for each n in [0, size) and bin k, [size, K] float32 each."""
    apart = torch.tensor(bins) - torch.arange(size)[:, None]
    angle = apart.double() * (math.pi / size)
    return angle.sin().float().to(device), angle.cos().float().to(device)


def _parity(number: Tensor) -> Tensor:
    """(-1)^number of whole numbers."""
    return 1 - 4 * (number * 0.5).frac().abs()


def image(
    paths: Paths,
    *,
    rows: Tensor,
    subcarriers: int,
    subcarrier_hz: float,
    antennas: int,
    spacing: float,
    doppler: Tensor,
) -> Tensor:
    """Channels in the angular-delay domain (`transforms`), of plane waves exp(-j 2 pi spacing n cosine) on antenna n.

    Args:
        paths: N frames.
        rows: [Q] int64, delay rows wanted.
        subcarriers, subcarrier_hz: N_f and their spacing [Hz].
        antennas: M.
        spacing: of the elements [wavelengths], the same at every subcarrier.
        doppler: [S] radians per unit of closing speed: 2 pi t / lambda at each slot, if that is m/s.

    Returns:
        [N, S, Q, M] complex64.
    """
    delay = dirichlet(paths.delay * (subcarriers * subcarrier_hz), rows, subcarriers)
    turn = (paths.cosine * -spacing + (antennas // 2) / antennas) * (2 * math.pi)  # broadside to the middle row
    waves = _waves(paths.amplitude * delay.factor, paths.phase + delay.phase, turn, paths.closing, antennas, doppler)
    count, slots = waves.shape[:2]
    real, imaginary = (waves.flatten(1, 3) @ delay.kernel).view(count, slots, 2, antennas, -1).unbind(2)
    return torch.fft.fft((torch.complex(real, imaginary) * delay.constant).mT)


def spatial(paths: Paths, *, frequency_hz: float, antennas: int, spacing: float, doppler: Tensor) -> Tensor:
    """Channels [N, S, M] complex64 on one subcarrier, `frequency_hz` above the band's first; others as for `image`."""
    phase = paths.phase - paths.delay * (2 * math.pi * frequency_hz)
    turn = paths.cosine * (-2 * math.pi * spacing)
    real, imaginary = _waves(paths.amplitude, phase, turn, paths.closing, antennas, doppler).sum(-1).unbind(2)
    return torch.complex(real, imaginary)


def _waves(amplitude: Tensor, phase: Tensor, turn: Tensor, closing: Tensor, antennas: int, doppler: Tensor) -> Tensor:
    """Each path on each antenna, amplitude exp(j (phase + doppler closing + n turn)), [N, S, 2, M, L]: real parts, then
    imaginary ones. The antennas known are turned to give as many more.
    """
    at_slots = phase[:, None] + doppler[:, None] * closing[:, None]  # [N, S, L]
    waves = amplitude.new_empty(len(phase), len(doppler), 2, antennas, phase.shape[1])
    torch.mul(at_slots.cos(), amplitude[:, None], out=waves[:, :, 0, 0])
    torch.mul(at_slots.sin(), amplitude[:, None], out=waves[:, :, 1, 0])
    cosine, sine = turn.cos()[:, None, None], turn.sin()[:, None, None]
    known = 1
    while known < antennas:
        more = slice(known, min(2 * known, antennas))
        real, imaginary = waves[:, :, :, : more.stop - known].unbind(2)
        torch.mul(real, cosine, out=waves[:, :, 0, more]).addcmul_(imaginary, sine, value=-1)
        torch.mul(real, sine, out=waves[:, :, 1, more]).addcmul_(imaginary, cosine)
        cosine, sine = cosine.square() - sine.square(), 2 * cosine * sine
        known *= 2
    return waves
