"""What is sent of the magnitudes, and what the gNB makes of it and of its uplink (DualNet-MP paper, section III.A)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from shared.quantizers.float32 import Float32
from shared.schemes.dualnet_mp.branches import BranchDecoder, BranchEncoder, Shape

MAGNITUDE = "magnitude"
"""Name of the payload's field."""


class MagnitudeEncoder(BranchEncoder):
    """Magnitudes in [0, 1] to a codeword."""

    def to_levels(self, magnitude: Tensor) -> Tensor:
        """[N, 1, Q, M] to [N, entries] int64."""
        return self.quantizer.to_levels(self.codeword(magnitude))


class MagnitudeDecoder(BranchDecoder):
    """A codeword and uplink magnitudes to magnitudes."""

    def forward(self, levels: Tensor, side: Tensor) -> Tensor:
        """[N, entries] int64 and [N, Q M], or [N, 0], to [N, 1, Q, M]."""
        return self.magnitude(self.quantizer.from_levels(levels), side)

    def magnitude(self, codeword: Tensor, side: Tensor) -> Tensor:
        """`forward` from a dequantised codeword."""
        return self.image(codeword, side.unflatten(1, self.shape) if side.shape[1] else None)


class PerfectMagnitudes(nn.Module):
    """At both ends, for reference: every magnitude is sent as float32."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.quantizer = Float32(MAGNITUDE, math.prod(shape))

    def to_levels(self, magnitude: Tensor) -> Tensor:
        """[N, 1, Q, M] to [N, Q M] int64."""
        return self.quantizer.to_levels(magnitude.flatten(1))

    def forward(self, levels: Tensor, side: Tensor) -> Tensor:
        """Inverse of `to_levels`."""
        return self.quantizer.from_levels(levels).unflatten(1, self.shape)
