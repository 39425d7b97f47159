"""SSQ, the sum-of-sigmoids quantiser of codewords (DualNet-MP paper, section III.A and its ref. [5])."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shared.quantizers.base import Quantizer

SLOPE = 25.0
"""Of the sigmoids, in units of a level."""


class SumOfSigmoids(Quantizer):
    """tanh to (-1, 1), times a weight of each entry's own, rounded to K bits; smooth in training.

    An entry x = 2^(K-1) w tanh(v) is rounded to the integers -2^(K-1) .. 2^(K-1) - 1: in training by a sum of sigmoids
    with thresholds in the middle between them, on the wire by rounding. The decoder divides by 2^(K-1) w.

    Attributes:
        weight: [n], w; learned.
    """

    def __init__(self, field: str, entries: int, bits: int) -> None:
        super().__init__(field, entries, bits)
        self.middle = 2 ** (bits - 1)
        self.weight = nn.Parameter(torch.ones(entries))

    def forward(self, values: Tensor, slope: float = 1.0) -> Tensor:
        """What the decoder's network gets, [N, n], by sigmoids of `SLOPE`."""
        x = self._scaled(values)
        low = x.detach().floor()
        # of the sum only the thresholds around x differ from 0 or 1 by more than 1e-16
        near = (torch.sigmoid(SLOPE * (x - low - offset)) for offset in (-0.5, 0.5, 1.5))
        soft = (low - 1 + sum(near, torch.zeros(()))).clamp(-self.middle, self.middle - 1)
        return soft / (self.middle * self.weight)

    def to_levels(self, values: Tensor) -> Tensor:
        return self._scaled(values).round().clamp(-self.middle, self.middle - 1).long() + self.middle

    def from_levels(self, levels: Tensor) -> Tensor:
        return (levels - self.middle) / (self.middle * self.weight)

    def _scaled(self, values: Tensor) -> Tensor:
        return self.middle * self.weight * torch.tanh(values.float())
