"""Learned pilots under a power constraint (HyperRNN paper, eqs. 7b and 7c): every column has unit norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Pilots(nn.Module):
    """X, [M, L] complex with unit-norm columns, stored as real and imaginary parts."""

    def __init__(self, antennas: int, count: int) -> None:
        super().__init__()
        self.parts = nn.Parameter(torch.randn(2, antennas, count))
        self.normalise()

    def forward(self) -> Tensor:
        """[M, L] complex64."""
        return torch.complex(self.parts[0], self.parts[1])

    @torch.no_grad()
    def normalise(self) -> None:
        """Put every column back on ||X_l||^2 = 1, as the paper does in each iteration."""
        self.parts.div_(self.parts.square().sum(dim=(0, 1), keepdim=True).sqrt())
