"""Angles, uniformly over the circle."""

from __future__ import annotations

import math

from torch import Tensor

from shared.quantizers.base import Quantizer


class Angle(Quantizer):
    """Angles [rad] to the nearest of 2^bits around the circle, the first of which is 0."""

    def to_levels(self, values: Tensor) -> Tensor:
        return (values / (2 * math.pi) * 2**self.entry_bits).round().long() % 2**self.entry_bits

    def from_levels(self, levels: Tensor) -> Tensor:
        return 2 * math.pi / 2**self.entry_bits * levels
