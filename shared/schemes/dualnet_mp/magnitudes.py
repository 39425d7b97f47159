"""What is sent of the magnitudes, and what the gNB makes of it and of its uplink (DualNet-MP paper, section III.A);
which entries of an image are the dominant ones.

These are known to UE and gNB bit for bit, or all signs would be misplaced: they follow from what both hold exactly, the
integers of the magnitude codeword: no uplink, no rounding, ties by index.
"""

from __future__ import annotations

import math

import torch
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


class DominantEntries(nn.Module):
    """A score of each entry is a linear map of the codeword with int8 weights, fitted to the magnitudes; the highest
    are chosen. Sums of such integers are exact in float64 in any order, so that UE, gNB, batches and machines agree.

    Attributes:
        weight: [entries of the image, entries of the codeword] int8.
        offset: [entries of the image] int64.
    """

    weight: Tensor
    offset: Tensor

    def __init__(self, size: int, codeword: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(size, codeword, dtype=torch.int8))
        self.register_buffer("offset", torch.zeros(size, dtype=torch.int64))

    def forward(self, levels: Tensor, count: int) -> Tensor:
        """[N, codeword] int64 to [N, count] int64, entries in the order of their scores."""
        return in_order((levels.double() @ self.weight.double().mT + self.offset).long(), count)


class LargestEntries(nn.Module):
    """For magnitudes that are sent perfectly: the codeword's integers are scores themselves."""

    def forward(self, levels: Tensor, count: int) -> Tensor:
        """As `DominantEntries`."""
        return in_order(levels, count)


def in_order(scores: Tensor, count: int) -> Tensor:
    """[N, count], indices of the highest of scores [N, size] int64 in falling order, of equal ones the lower first."""
    size = scores.shape[1]
    unique = scores * size - torch.arange(size, device=scores.device)
    return unique.topk(count, dim=1).indices
