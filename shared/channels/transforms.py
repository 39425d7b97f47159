"""Domains of a wideband channel: spatial-frequency <-> angular-delay, and truncation of the delay rows.

Conventions (those of the public COST 2100 data set): delay = inverse DFT over subcarriers (1/N_f in front), angle = DFT
over antennas, shifted so that the middle row is broadside. Both are unitary up to a factor common to all channels,
so an NMSE is the same in both domains as long as nothing is cut off.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shared.errors import InvalidInput


def to_angular_delay(channel: Tensor) -> Tensor:
    """[..., subcarrier, antenna] to [..., delay, angle], complex."""
    return to_angles(torch.fft.ifft(channel, dim=-2))


def to_spatial_frequency(image: Tensor) -> Tensor:
    """[..., delay, angle] to [..., subcarrier, antenna], complex: the exact inverse of `to_angular_delay`."""
    return torch.fft.fft(to_antennas(image), dim=-2)


def to_angles(channel: Tensor) -> Tensor:
    """[..., antenna] to [..., angle], complex: the DFT over antennas alone."""
    return torch.fft.fftshift(torch.fft.fft(channel, dim=-1), dim=-1)


def to_antennas(channel: Tensor) -> Tensor:
    """[..., angle] to [..., antenna], complex: the exact inverse of `to_angles`."""
    return torch.fft.ifft(torch.fft.ifftshift(channel, dim=-1), dim=-1)


def kept_rows(subcarriers: int, first: int, last: int) -> Tensor:
    """Delay rows that truncation keeps, [first + last] int64: 0 .. first-1, then N_f-last .. N_f-1.

    Raises:
        InvalidInput: none, or more than there are.
    """
    if not (first >= 0 and last >= 0 and 1 <= first + last <= subcarriers):
        raise InvalidInput(f"first_rows, last_rows: {first} + {last}; wanted 1 to {subcarriers} (subcarriers) together")
    return torch.cat([torch.arange(first), torch.arange(subcarriers - last, subcarriers)])


def zero_fill(rows: Tensor, first: int, last: int, subcarriers: int) -> Tensor:
    """[..., first + last, angle] to [..., N_f, angle], zeros where nothing was kept.

    Raises:
        InvalidInput: the rows are not first + last.
    """
    kept = kept_rows(subcarriers, first, last)
    if rows.shape[-2] != len(kept):
        raise InvalidInput(f"image: {rows.shape[-2]} delay rows; wanted {first} + {last}")
    image = rows.new_zeros(*rows.shape[:-2], subcarriers, rows.shape[-1])
    image[..., kept.to(rows.device), :] = rows
    return image
