"""Truncation of images to the first and last delay rows, and what it costs."""

from __future__ import annotations

import math

from torch import Tensor

from shared.channels.transforms import kept_rows


def truncate(image: Tensor, first: int, last: int = 0) -> Tensor:
    """[..., N_f, angle] to [..., first + last, angle]: the first and the last delay rows (DualNet-MP's Q_f and Q_l)."""
    return image[..., kept_rows(image.shape[-2], first, last).to(image.device), :]


def truncation_loss(image: Tensor, first: int, last: int = 0) -> Tensor:
    """Share of each channel's energy that truncation cuts off, [...] float, from full images [..., N_f, angle].

    Its mean is the NMSE floor of the full domain: what a perfect estimate of the kept rows still misses (by Parseval).
    """
    total = image.abs().square().sum((-2, -1))
    kept = truncate(image, first, last).abs().square().sum((-2, -1))
    return 1 - kept / total


def truncation_floor_db(image: Tensor, first: int, last: int = 0) -> float:
    """NMSE floor [dB] that truncation sets in the spatial-frequency domain, mean of ratios over all channels."""
    return 10 * math.log10(float(truncation_loss(image, first, last).double().mean().clamp(min=1e-30)))
