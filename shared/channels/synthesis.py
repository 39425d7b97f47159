"""From paths to images: each path is a Dirichlet kernel in delay times one in angle; no Fourier transform is needed.

The N-point DFT of a path at position x (in bins) is, at bin k,

    (1/N) sum_m exp(j 2 pi m (k-x)/N) = exp(-j pi k/N) * [-sin(pi x)/N * exp(-j pi (N-1) x/N)] * 1/sin(pi (k-x)/N)

A constant of the bin, a factor of the path, and one *real* kernel: the sum over paths is a real matrix product.
"""

from __future__ import annotations

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
    angle = (nearest + offset) * (math.pi / size)
    grid = torch.nn.functional.pad(bins, (0, 1), value=size) * (math.pi / size)  # the last column is spare
    products = torch.stack([angle.cos(), angle.sin()], dim=-1)
    kernel = (products @ torch.stack([grid.sin(), -grid.cos()])).reciprocal_()
    _mend_nearest(kernel, nearest, offset, bins, size)
    factor = (offset * math.pi).sin() * _parity(nearest) * (-1 / size)
    return Kernel(kernel[..., :-1], factor, angle * -(size - 1), torch.polar(torch.ones_like(grid), -grid)[:-1])


def _mend_nearest(kernel: Tensor, nearest: Tensor, offset: Tensor, bins: Tensor, size: int) -> None:
    """Set the bin next to each path, where the difference of two products has lost its digits.

    Args:
        kernel: [N, L, K + 1]; paths whose nearest bin is not among `bins` write to the last column.
    """
    turn = (nearest / size).floor()  # the bin lies in [turn * size, (turn + 1) * size)
    column = torch.full((size,), len(bins), dtype=torch.int64, device=bins.device)
    column[bins] = torch.arange(len(bins), device=bins.device)
    exact = -_parity(turn) / (offset * (math.pi / size)).sin()
    kernel.scatter_(2, column[(nearest - turn * size).long()][..., None], exact[..., None])


def _parity(number: Tensor) -> Tensor:
    """(-1)^number of whole numbers."""
    return 1 - 4 * (number * 0.5 - (number * 0.5).floor())


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
    return _combine(paths, delay, antennas, spacing, doppler)


def spatial(paths: Paths, *, frequency_hz: float, antennas: int, spacing: float, doppler: Tensor) -> Tensor:
    """Channels [N, S, M] complex64 on one subcarrier, `frequency_hz` above the band's first; others as for `image`."""
    turned = paths.delay * (-2 * math.pi * frequency_hz)
    one = torch.ones((), device=turned.device)
    flat = Kernel(one.expand(*turned.shape, 1), one, turned, one.to(torch.complex64)[None])
    angles = _combine(paths, flat, antennas, spacing, doppler)[:, :, 0]
    return torch.fft.ifft(torch.fft.ifftshift(angles, dim=-1), dim=-1)


def _combine(paths: Paths, delay: Kernel, antennas: int, spacing: float, doppler: Tensor) -> Tensor:
    """Sum over paths of amplitude * delay kernel * angle kernel, [N, S, Q, M]."""
    bins = (torch.arange(antennas, device=doppler.device) - antennas // 2) % antennas
    angle = dirichlet(paths.cosine * (-antennas * spacing), bins, antennas)  # conjugated: the array is a forward DFT
    magnitude = paths.amplitude * delay.factor * angle.factor * antennas
    phase = paths.phase + delay.phase - angle.phase
    turned = phase[..., None] + doppler * paths.closing[..., None]  # [N, L, S]
    spread = angle.kernel.new_empty(*turned.shape[:2], 2, len(doppler), antennas)
    for part, wave in enumerate((turned.cos(), turned.sin())):
        torch.mul(angle.kernel[:, :, None], (wave * magnitude[..., None])[..., None], out=spread[:, :, part])
    real, imaginary = (delay.kernel.mT @ spread.flatten(2)).unflatten(2, spread.shape[2:]).unbind(2)  # [N, Q, S, M]
    return (torch.complex(real, imaginary) * (delay.constant[:, None, None] * angle.constant.conj())).transpose(1, 2)
