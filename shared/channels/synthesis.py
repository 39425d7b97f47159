"""From paths to images: each path is a Dirichlet kernel in delay times one in angle.

The N-point DFT over subcarriers of a path at delay x (in bins) is, at bin k,

    (1/N) sum_m exp(j 2 pi m (k-x)/N) = -exp(-j pi k/N)/N * [sin(pi x) * exp(-j pi (N-1) x/N)] * 1/sin(pi (k-x)/N)

A constant of the bin, a factor of the path, and one *real* number for both, a pole. The DFT over antennas of a path at
angle y is M times the conjugate of the same with N = M. The sum over paths is a real matrix product of the two poles,
and no Fourier transform is left.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.channels import compiled

_NEAREST = 1e-6
"""A path closer to a bin is moved to this distance [bins]: there the kernel is 0/0."""

_POLES = {"cpu": 400_000, "cuda": 200_000_000}
"""Poles in memory at once: on a CPU what its second-level cache holds."""

_WIDTH = 8
"""Cells of a grid that a path is spread over: enough for the digits of float32."""


@dataclass(frozen=True)
class Paths:
    """L plane waves of N frames; paths that are not there have amplitude 0.

    Attributes:
        amplitude: [N, L] >= 0.
        phase: [N, L] radians, at the band's first frequency and slot 0, the delay's phase included.
        delay: [N, L] s.
        cosine: [N, L] cosine of the angle between path and array axis.
        radial_speed: [N, L] speed at which the path gets shorter, in the unit that `doppler` is per.
    """

    amplitude: Tensor
    phase: Tensor
    delay: Tensor
    cosine: Tensor
    radial_speed: Tensor

    def __getitem__(self, frames: slice) -> Paths:
        """The paths of some of the frames."""
        return Paths(*(getattr(self, name)[frames] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Kernel:
    """Dirichlet kernel of paths at some bins of an N-point DFT: constant * factor exp(j phase) * pole.

    Attributes:
        nearest: [N, L] int32, whole bin in [0, N) next to the path.
        step_sine, step_cosine: [N, L] of pi (x - whole bin) / N.
        factor: [N, L] real, sin(pi x) (-1)^(periods of N before x).
        phase: [N, L] radians, -pi (N-1) x / N.
        constant: [K] complex64, -exp(-j pi k / N) / N.
        table: sine and cosine of pi (k - n) / N for each n in [0, N) and bin k, [N, K] each.
    """

    nearest: Tensor
    step_sine: Tensor
    step_cosine: Tensor
    factor: Tensor
    phase: Tensor
    constant: Tensor
    table: tuple[Tensor, Tensor]

    def poles(self, weights: Tensor, out: Tensor) -> Callable[[int], None]:
        """A function that writes to `out`, [n, L, R, K], for the n frames from a given one on, weights [N, L, R] times
        poles: 1 / sin(pi (k - x) / N), with x in the first period.
        """
        sine, cosine = self.table
        if (loops := compiled.for_device(out.device)) is not None:
            steps = self.nearest, self.step_sine, self.step_cosine
            *by_path, to = (of.contiguous().flatten(0, 1).numpy() for of in (*steps, weights, out))
            paths = (*by_path[:3], sine.numpy(), cosine.numpy(), by_path[3])
            return lambda first: loops.poles(*paths, first * self.nearest.shape[1], to)

        def write(first: int) -> None:
            frames = slice(first, first + len(out))
            nearest, s, c = self.nearest[frames], self.step_sine[frames, :, None], self.step_cosine[frames, :, None]
            poles = (sine[nearest] * c).addcmul_(cosine[nearest], s, value=-1).reciprocal_()
            torch.mul(weights[frames, ..., None], poles[:, :, None], out=out[: len(nearest)])

        return write


def dirichlet(position: Tensor, bins: Tensor, size: int) -> Kernel:
    """Kernel of paths at `position` ([N, L] bins, any) at `bins` ([K] int64, distinct, in [0, size)).

    sin(a - b) = sin(a) cos(b) - cos(a) sin(b), with a from whole bins, known exactly, and b what is left: no digits are
    lost next to a bin.
    """
    nearest, turn, step = whole_bins(position, size)
    phase = position * (-math.pi * (size - 1) / size)
    grid = bins * (math.pi / size)
    constant = -torch.polar(torch.ones_like(grid), -grid) / size
    table = _table(tuple(bins.tolist()), size, bins.device)
    return Kernel(nearest, step.sin(), step.cos(), turn.sin_(), phase, constant, table)


def whole_bins(position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The whole bin in [0, size) next to each position x ([N, L] bins, any), [N, L] int32; and in radians a turn whose
    sine is sin(pi x) (-1)^(periods of `size` before x), and pi (x - whole bin) / size.
    """
    if (loops := compiled.for_device(position.device)) is not None:
        nearest = torch.empty_like(position, dtype=torch.int32)
        turn, step = torch.empty_like(position), torch.empty_like(position)
        loops.whole_bins(
            position.contiguous().view(-1).numpy(),
            size,
            _NEAREST,
            *(of.view(-1).numpy() for of in (nearest, turn, step)),
        )
        return nearest, turn, step
    whole = position.round()
    offset = position - whole
    offset = torch.where(offset.abs() < _NEAREST, _NEAREST, offset)
    period = (whole / size).floor()
    sign = 1 - 2 * (whole + period).remainder(2)
    return (whole - size * period).int(), sign * math.pi * offset, offset * (math.pi / size)


@functools.lru_cache(maxsize=16)
def _table(bins: tuple[int, ...], size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sine and cosine of pi (k - n) / size for each n in [0, size) and bin k, [size, K] float32 each."""
    apart = torch.tensor(bins) - torch.arange(size)[:, None]
    angle = apart.double() * (math.pi / size)
    return angle.sin().float().to(device), angle.cos().float().to(device)


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
        doppler: [S] radians per unit of radial speed: 2 pi t / lambda at each slot, if that is m/s.

    Returns:
        [N, S, Q, M] complex64.
    """
    delay = dirichlet(paths.delay * (subcarriers * subcarrier_hz), rows, subcarriers)
    place = paths.cosine * (-spacing * antennas) + antennas // 2  # broadside to the middle row
    angle = dirichlet(place, torch.arange(antennas, device=rows.device), antennas)
    phase = paths.phase + delay.phase - angle.phase
    waves = _waves(paths.amplitude * angle.factor, phase, paths.radial_speed, doppler).flatten(2)
    count, length, parts = waves.shape
    room = max(1, min(count, _POLES[rows.device.type] // (length * (len(rows) + parts * antennas))))
    delays = torch.empty(room, length, 1, len(rows), device=rows.device)
    angles = torch.empty(room, length, parts, antennas, device=rows.device)
    sums = torch.empty(count, len(rows), parts * antennas, device=rows.device)
    poles = delay.poles(delay.factor[..., None], delays), angle.poles(waves, angles)
    for first in range(0, count, room):
        for write in poles:
            write(first)
        held = slice(0, min(room, count - first))
        torch.bmm(delays[held, :, 0].mT, angles[held].flatten(2), out=sums[first : first + room])
    real, imaginary = sums.view(count, len(rows), -1, 2, antennas).transpose(1, 2).unbind(3)
    return torch.complex(real, imaginary) * (delay.constant[:, None] * angle.constant.conj() * antennas)


def whole_band(
    paths: Paths,
    *,
    stride: int,
    subcarriers: int,
    subcarrier_hz: float,
    antennas: int,
    spacing: float,
    doppler: Tensor,
) -> tuple[Tensor, Tensor]:
    """What nothing is cut off from, on a CPU with `compiled` loops: without an `image` of all rows.

    Few paths are summed at the subcarriers wanted, and the power of their pairs; many at all subcarriers, by a Fourier
    transform of a grid of delays.

    Args:
        stride: of the subcarriers wanted. Others as for `image`.

    Returns:
        Squared norms of images of all rows, [N, S] float32, and channels at each `stride`-th subcarrier over angles,
        [N, S, F, M] complex64.
    """
    position = (paths.delay * (subcarriers * subcarrier_hz)).contiguous()
    place = (paths.cosine * (-spacing * antennas) + antennas // 2).contiguous()
    angle = dirichlet(place, torch.arange(antennas), antennas)
    few = position.shape[1] < subcarriers
    middle = (subcarriers - 1) / 2 if few else subcarriers // 2  # where the phases of `waves` are
    phase = paths.phase + position * (-2 * math.pi * middle / subcarriers) - angle.phase
    waves = _waves(paths.amplitude, phase, paths.radial_speed, doppler)
    if few:
        energy, at = _of_few(position, place, angle, waves, subcarriers, stride)
    else:
        energy, at = _of_many(position, angle, waves, subcarriers, stride)
    return energy * (antennas / subcarriers), at.mul_(angle.constant.conj() * antennas)


def _of_few(
    position: Tensor, place: Tensor, angle: Kernel, waves: Tensor, subcarriers: int, stride: int
) -> tuple[Tensor, Tensor]:
    """Sums of |h|^2 over subcarriers and antennas, [N, S], and [N, S, F, M] up to the constants of `angle`.

    Args:
        position, place: [N, L] bins. waves: [N, L, S, 2], phases in the middle of the band.
    """
    loops = compiled.for_device(position.device)
    assert loops is not None
    count, length, slots, _ = waves.shape
    antennas, wanted = len(angle.constant), len(range(0, subcarriers, stride))
    energy = torch.empty(count, slots)
    loops.energies(position.numpy(), subcarriers, place.numpy(), antennas, waves.numpy(), energy.numpy())
    room = max(1, min(count, _POLES["cpu"] // (length * (2 * slots * wanted + antennas))))
    turned, angles = torch.empty(room * length, slots, 2, wanted), torch.empty(room, length, 1, antennas)
    sums = torch.empty(room, slots, 2, wanted, antennas)
    at = torch.empty(count, slots, wanted, antennas, dtype=torch.complex64)
    write = angle.poles(angle.factor[..., None], angles)
    by_path = position.flatten().numpy(), subcarriers, stride, waves.flatten(0, 1).numpy()
    for first in range(0, count, room):
        loops.tones(*by_path, first * length, turned.numpy())
        write(first)
        torch.bmm(turned.view(room, length, -1).mT, angles[:, :, 0], out=sums.flatten(1, 3))
        some = at[first : first + room]
        torch.complex(*sums[: len(some)].unbind(2), out=some)
    return energy, at


def _of_many(position: Tensor, angle: Kernel, waves: Tensor, subcarriers: int, stride: int) -> tuple[Tensor, Tensor]:
    """As `_of_few`, with phases at subcarrier `subcarriers // 2`.

    A non-uniform fast Fourier transform: paths are spread over a grid of twice as many delays, and what the kernel does
    to each subcarrier is divided out (Barnett, Magland and af Klinteberg, "A parallel nonuniform fast Fourier transform
    library based on an exponential of semicircle kernel", SIAM J. Sci. Comput. 41(5), 2019).
    """
    loops = compiled.for_device(position.device)
    assert loops is not None
    count, length, slots, _ = waves.shape
    size, antennas = 2 * subcarriers, len(angle.constant)
    size += -size % 36  # of small factors
    at_grid = position.double() * (size / subcarriers)
    cell = (at_grid - _WIDTH / 2).ceil()
    kernel = _semicircle((cell - at_grid)[..., None].float() + torch.arange(_WIDTH)).flatten(0, 1).numpy()
    by_path = cell.remainder(size).int().flatten().numpy(), kernel, waves.flatten(0, 1).numpy()
    order, gain = _after_spreading(subcarriers, size)
    room = max(1, min(count, _POLES["cpu"] // ((2 * size * slots + length) * antennas)))
    angles, grid = torch.empty(room, length, 1, antennas), torch.empty(room, size, slots, antennas, 2)
    write = angle.poles(angle.factor[..., None], angles)
    energy, wanted = torch.empty(count, slots), len(range(0, subcarriers, stride))
    at = torch.empty(count, slots, wanted, antennas, dtype=torch.complex64)
    for first in range(0, count, room):
        write(first)
        loops.spread(*by_path, angles.numpy(), first * length, grid.zero_().numpy())
        some = slice(first, min(first + room, count))
        band = torch.fft.fft(torch.view_as_complex(grid[: some.stop - first]), dim=1)[:, order] * gain
        energy[some] = torch.view_as_real(band).square().sum((1, 3, 4))
        at[some] = band[:, ::stride].transpose(1, 2)
    return energy / antennas, at  # over angles it is as many times that over antennas


def _semicircle(offset: Tensor) -> Tensor:
    """The kernel at offsets from its middle [cells]."""
    return ((1 - (offset * (2 / _WIDTH)).square()).clamp(min=0).sqrt() - 1).mul(2.3 * _WIDTH).exp()


@functools.lru_cache(maxsize=16)
def _after_spreading(subcarriers: int, size: int) -> tuple[Tensor, Tensor]:
    """Where the subcarriers are in the transform of a grid, [F] int64, and one over what the kernel made of them,
    [F, 1, 1] float32: its Fourier transform, by the rule of rectangles.
    """
    number = torch.arange(subcarriers) - subcarriers // 2
    offset = torch.linspace(-_WIDTH / 2, _WIDTH / 2, 4001, dtype=torch.float64)
    turns = number.double()[:, None] * offset * (2 * math.pi / size)
    made = (turns.cos() * _semicircle(offset)).sum(1) * (_WIDTH / 4000)
    return number % size, (1 / made).float()[:, None, None]


def spatial(paths: Paths, *, frequency_hz: float, antennas: int, spacing: float, doppler: Tensor) -> Tensor:
    """Channels [N, S, M] complex64 on one subcarrier, `frequency_hz` above the band's first; others as for `image`."""
    phase = paths.phase - paths.delay * (2 * math.pi * frequency_hz)
    turn = paths.cosine * (-2 * math.pi * spacing)
    real, imaginary = _waves(paths.amplitude, phase, paths.radial_speed, doppler).unbind(3)
    turns = turn[..., None] * torch.arange(antennas, device=turn.device)
    return torch.complex(real, imaginary).mT @ torch.polar(torch.ones_like(turns), turns)


def _waves(amplitude: Tensor, phase: Tensor, radial_speed: Tensor, doppler: Tensor) -> Tensor:
    """Each path at each slot, amplitude exp(j (phase + doppler radial_speed)), [N, L, S, 2]: real, imaginary."""
    at_slots = torch.addcmul(phase[..., None], radial_speed[..., None], doppler)
    waves = amplitude.new_empty(*at_slots.shape, 2)
    torch.mul(at_slots.cos(), amplitude[..., None], out=waves[..., 0])
    torch.mul(at_slots.sin_(), amplitude[..., None], out=waves[..., 1])
    return waves
