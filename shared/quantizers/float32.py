"""Values sent as they are, 32 bits each: for references, not for proposals."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.errors import InvalidInput

BITS = 32


def to_levels(values: Tensor) -> Tensor:
    """Reals to the bits of their float32, int64 in [0, 2^32). Of numbers from 0 up the order is kept."""
    return values.float().contiguous().view(torch.int32).long() & 0xFFFFFFFF


def check(field: str, levels: NDArray[np.int64]) -> None:
    """Raises InvalidInput if a level is not a number's."""
    if not np.isfinite(levels.astype(np.uint32).view(np.float32)).all():
        raise InvalidInput(f"payload {field}: NaN or infinite; wanted finite float32 values")


def from_levels(levels: Tensor) -> Tensor:
    """Inverse of `to_levels`, float32."""
    return levels.to(torch.int32).view(torch.float32)
