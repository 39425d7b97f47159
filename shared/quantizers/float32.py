"""Values sent as they are, 32 bits each: for references, not for proposals."""

from __future__ import annotations

import torch
from torch import Tensor

BITS = 32


def to_levels(values: Tensor) -> Tensor:
    """Reals to the bits of their float32, int64 in [0, 2^32). Of numbers from 0 up the order is kept."""
    return values.float().contiguous().view(torch.int32).long() & 0xFFFFFFFF


def from_levels(levels: Tensor) -> Tensor:
    """Inverse of `to_levels`, float32."""
    return levels.to(torch.int32).view(torch.float32)
