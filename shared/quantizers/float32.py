"""Values sent as they are, 32 bits each: for references, not for proposals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.errors import InvalidInput
from shared.quantizers.base import Quantizer

BITS = 32


class Float32(Quantizer):
    """The bits of float32 values. Of numbers from 0 up the integers keep the order."""

    def __init__(self, field: str, entries: int) -> None:
        super().__init__(field, entries, BITS)

    def forward(self, values: Tensor, slope: float = 1.0) -> Tensor:
        """The values themselves."""
        return values

    def to_levels(self, values: Tensor) -> Tensor:
        return values.float().contiguous().view(torch.int32).long() & 0xFFFFFFFF

    def from_levels(self, levels: Tensor) -> Tensor:
        return levels.to(torch.int32).view(torch.float32)

    def check(self, fields: Mapping[str, NDArray[np.int64]]) -> None:
        if not np.isfinite(fields[self.field].astype(np.uint32).view(np.float32)).all():
            raise InvalidInput(f"payload {self.field}: NaN or infinite; wanted finite float32 values")
