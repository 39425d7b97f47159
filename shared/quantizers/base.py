"""What a quantiser is: real values to the unsigned integers of payload fields, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.link.payload import Field


class Quantizer(nn.Module, ABC):
    """A quantiser of `entries` values, held by both ends. By default all its integers are one field of the payload.

    Args:
        field: name of its field, or the beginning of the names of its fields.
        entries: n, values that it quantises.
        bits: of an integer.
    """

    def __init__(self, field: str, entries: int, bits: int) -> None:
        super().__init__()
        self.field, self.entries, self.entry_bits = field, entries, bits

    @abstractmethod
    def to_levels(self, values: Tensor) -> Tensor:
        """[N, n] reals to [N, n] int64, each in [0, 2^bits)."""

    @abstractmethod
    def from_levels(self, levels: Tensor) -> Tensor:
        """[N, n] int64 to what the gNB takes them for, [N, n] float32."""

    def forward(self, values: Tensor, slope: float = 1.0) -> Tensor:
        """The path of training: [N, n] reals to what they are quantised to, or near it, with a gradient where the
        quantiser has one; `slope` is that of its thresholds, where it is annealed.
        """
        return self.from_levels(self.to_levels(values))

    def fields(self) -> tuple[Field, ...]:
        """Fields of the payload, in their order."""
        return (Field(self.field, self.entries, self.entry_bits),)

    def encode(self, values: Tensor) -> dict[str, Tensor]:
        """[N, n] reals to payload fields: name -> [N, count] int64."""
        return {self.field: self.to_levels(values)}

    def decode(self, fields: Mapping[str, Tensor]) -> Tensor:
        """Payload fields, others than its own among them, to [N, n] float32."""
        return self.from_levels(fields[self.field])

    def calibrate(self, values: Tensor, weight: Tensor | None = None) -> None:  # most have nothing to set
        """Set what is measured rather than trained.

        Args:
            values: [N, n], of the training split.
            weight: [n], what a unit of squared error in an entry costs.
        """

    def check(self, fields: Mapping[str, NDArray[np.int64]]) -> None:  # most integers mean something
        """Raises InvalidInput for integers that fit their bits but mean nothing."""
