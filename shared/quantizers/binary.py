"""BLQ, binary-level quantisation of codewords: the sign of each entry (DualNet-MP paper, section IV.C)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BinaryLevels(nn.Module):
    """tanh to (-1, 1), then the nearer of -1 and 1; in training the gradient is that of tanh."""

    bits = 1

    def forward(self, values: Tensor) -> Tensor:
        """[N, n] reals to what the decoder's network gets, [N, n]: -1 or 1."""
        soft = torch.tanh(values.float())
        return soft + (torch.where(soft >= 0, 1.0, -1.0) - soft).detach()

    def to_levels(self, values: Tensor) -> Tensor:
        """[N, n] reals to [N, n] int64, 0 or 1."""
        return (values >= 0).long()

    def from_levels(self, levels: Tensor) -> Tensor:
        """[N, n] int64 to what the decoder's network gets, [N, n] float32."""
        return 2.0 * levels - 1
