"""One-bit (sign) quantiser with a straight-through gradient."""

from __future__ import annotations

import torch
from torch import Tensor


def hard_sign(values: Tensor) -> Tensor:
    """+1 where values >= 0, else -1, in the dtype of `values`: what a UE sends."""
    return torch.where(values >= 0, 1.0, -1.0).to(values.dtype)


def straight_through_sign(values: Tensor, slope: float) -> Tensor:
    """`hard_sign` forward; backward the gradient of 2 sigmoid(slope * values) - 1.

    Annealing the slope upwards during training narrows the gradient around the threshold (Sohrabi, Attiah, Yu,
    "Deep learning for distributed channel feedback", section III).
    """
    soft = torch.tanh(values * (slope / 2))
    return soft + (hard_sign(values) - soft).detach()


def to_bits(signs: Tensor) -> Tensor:
    """+-1 to the integers 1 and 0 (int64)."""
    return (signs > 0).to(torch.int64)


def from_bits(bits: Tensor) -> Tensor:
    """The integers 1 and 0 to +-1 (float32)."""
    return bits.to(torch.float32) * 2 - 1
