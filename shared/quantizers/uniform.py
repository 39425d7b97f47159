"""Uniform scalar quantiser of codewords: K bits an entry, each entry over a range of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class UniformQuantizer(nn.Module):
    """2^K levels in the middle of equal cells between `low` and `high`, for each of n entries.

    The ranges are buffers, so that they travel with the weights of whoever holds the quantiser.
    """

    low: Tensor
    high: Tensor

    def __init__(self, entries: int, bits: int) -> None:
        super().__init__()
        self.levels = 2**bits
        self.register_buffer("low", -torch.ones(entries))
        self.register_buffer("high", torch.ones(entries))

    def to_levels(self, values: Tensor) -> Tensor:
        """[N, n] values to [N, n] int64 in [0, 2^K); what is out of range goes to the next level."""
        unit = (values - self.low) / (self.high - self.low)
        return (unit * self.levels).floor().clamp(0, self.levels - 1).long()

    def from_levels(self, levels: Tensor) -> Tensor:
        """[N, n] int64 to the middles of their cells, [N, n] float32."""
        return self.low + (levels + 0.5) * ((self.high - self.low) / self.levels)

    def forward(self, values: Tensor) -> Tensor:
        """Quantised values with a straight-through gradient; none for what is out of range."""
        within = torch.minimum(torch.maximum(values, self.low), self.high)
        return within + (self.from_levels(self.to_levels(values)) - within).detach()

    @torch.no_grad()
    def calibrate(self, values: Tensor) -> None:
        """Set each entry's range to mean +- c standard deviations, with the c in 1 .. 8 of least squared error.

        Args:
            values: [N, n] codewords of training samples.
        """
        mean, deviation = values.mean(0), values.std(0).clamp(min=1e-8)
        best: Tensor | None = None
        for width in torch.linspace(1, 8, 57):
            self.low.copy_(mean - width * deviation)
            self.high.copy_(mean + width * deviation)
            error = (self.from_levels(self.to_levels(values)) - values).square().mean(0)
            if best is None:
                best, chosen = error, torch.full_like(error, float(width))
            chosen = torch.where(error < best, float(width), chosen)
            best = torch.minimum(error, best)
        self.low.copy_(mean - chosen * deviation)
        self.high.copy_(mean + chosen * deviation)
