"""One-bit (sign) quantisers with a straight-through gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from shared.quantizers.base import Quantizer


class Sign(Quantizer):
    """+1 where values >= 0, else -1: one bit an entry."""

    def __init__(self, field: str, entries: int) -> None:
        super().__init__(field, entries, bits=1)

    def forward(self, values: Tensor, slope: float = 1.0) -> Tensor:
        """Signs, with the gradient of `straight_through_sign`."""
        return straight_through_sign(values, slope)

    def to_levels(self, values: Tensor) -> Tensor:
        return (values >= 0).long()

    def from_levels(self, levels: Tensor) -> Tensor:
        return 2.0 * levels - 1


class BinaryLevels(Sign):
    """BLQ, binary-level quantisation of codewords (DualNet-MP paper, section IV.C): tanh to (-1, 1), then the nearer of
    -1 and 1; in training the gradient is that of tanh, whatever the slope.
    """

    def forward(self, values: Tensor, slope: float = 1.0) -> Tensor:
        return straight_through_sign(values.float(), 2.0)


def straight_through_sign(values: Tensor, slope: float) -> Tensor:
    """+1 where values >= 0, else -1; backward the gradient of 2 sigmoid(slope * values) - 1.

    Annealing the slope upwards during training narrows the gradient around the threshold (Sohrabi, Attiah, Yu,
    "Deep learning for distributed channel feedback", section III).
    """
    soft = torch.tanh(values * (slope / 2))
    return soft + (torch.where(values >= 0, 1.0, -1.0).to(values.dtype) - soft).detach()
