"""What is sent of the magnitudes, and what the gNB makes of it and of its uplink (DualNet-MP paper, section III.A)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from shared.quantizers.float32 import Float32
from shared.schemes.dualnet_mp.branches import BranchDecoder, Shape

MAGNITUDE = "magnitude"
"""Name of the payload's field."""


class MagnitudeDecoder(BranchDecoder):
    """A codeword and uplink magnitudes to magnitudes."""

    def forward(self, codeword: Tensor, side: Tensor) -> Tensor:
        """[N, entries] and [N, Q M], or [N, 0], to [N, 1, Q, M]."""
        return self.image(codeword, side.unflatten(1, self.shape) if side.shape[1] else None)


class PerfectMagnitudes(nn.Module):
    """At both ends, for reference: the codeword is every magnitude, as float32."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.quantizer = Float32(MAGNITUDE, math.prod(shape))

    def codeword(self, magnitude: Tensor) -> Tensor:
        """[N, 1, Q, M] to [N, Q M]."""
        return magnitude.flatten(1)

    def forward(self, codeword: Tensor, side: Tensor) -> Tensor:
        """Inverse of `codeword`."""
        return codeword.unflatten(1, self.shape)
