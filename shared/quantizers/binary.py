"""BLQ, binary-level quantisation of codewords: the sign of each entry (DualNet-MP paper, section IV.C)."""

from __future__ import annotations

from torch import Tensor

from shared.quantizers.sign import Sign, straight_through_sign


class BinaryLevels(Sign):
    """tanh to (-1, 1), then the nearer of -1 and 1; in training the gradient is that of tanh, whatever the slope."""

    def forward(self, values: Tensor, slope: float = 1.0) -> Tensor:
        return straight_through_sign(values.float(), 2.0)
