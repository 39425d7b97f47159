"""Methods of phase feedback (DualNet-MP paper, sections III.A and IV.A): each an encoder, and a decoder to cos and sin.

Both ends are told which entries are dominant, [N, count] in order, indices of images [N, 1, Q, M].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import pairwise

import torch
from torch import Tensor, nn

from shared.quantizers.sign import Sign
from shared.quantizers.uniform import Angle
from shared.schemes.dualnet_mp.branches import Branch, BranchDecoder, BranchEncoder, Shape

_STEEPEST = 1e-6
"""Least 1 - cos^2 whose root is taken: its slope is infinite at 0."""

CosSin = tuple[Tensor, Tensor]

PHASE, SIGN = "phase", "sign"
"""Names of payload fields, or of their beginning."""


class BranchPhaseEncoder(BranchEncoder, ABC):
    """A branch's codeword of an image of the phases."""

    def encode(self, image: Tensor, dominant: Tensor) -> dict[str, Tensor]:
        """Images [N, Q, M] complex to payload fields."""
        return self.quantizer.encode(self.codeword(self.seen(image)))

    def quantised(self, image: Tensor, dominant: Tensor) -> tuple[Tensor, ...]:
        """What the decoder makes of the fields (`received`), differentiable."""
        return (self.quantizer(self.codeword(self.seen(image))),)

    @abstractmethod
    def seen(self, image: Tensor) -> Tensor:
        """The phases as the network sees them, [N, 1, Q, M] in [-1, 1]."""


class CosineEncoder(BranchPhaseEncoder):
    """SMAPE: cosines by a branch, and signs of the sines of as many dominant entries."""

    def __init__(self, branch: Branch, signs: int) -> None:
        super().__init__(branch)
        self.signs = Sign(SIGN, signs)

    def encode(self, image: Tensor, dominant: Tensor) -> dict[str, Tensor]:
        return {**super().encode(image, dominant), **self.signs.encode(_sines(image, dominant))}

    def quantised(self, image: Tensor, dominant: Tensor) -> tuple[Tensor, ...]:
        signs = self.signs.decode(self.signs.encode(_sines(image, dominant)))
        return (*super().quantised(image, dominant), _placed(signs, dominant, image[0].numel()))

    def seen(self, image: Tensor) -> Tensor:
        return (image.real / image.abs().clamp(min=1e-30))[:, None]


class CosineDecoder(BranchDecoder):
    """SMAPE: sin = +-(1 - cos^2)^(1/2) where its sign was sent, else 0 (eq. 14b)."""

    def __init__(self, branch: Branch, signs: int, *, kernel: int) -> None:
        super().__init__(branch, kernel=kernel)
        self.signs = Sign(SIGN, signs)

    def received(self, fields: dict[str, Tensor], dominant: Tensor) -> tuple[Tensor, ...]:
        """Payload fields to what `forward` takes."""
        signs = _placed(self.signs.decode(fields), dominant, math.prod(self.shape))
        return self.quantizer.decode(fields), signs

    def forward(self, codeword: Tensor, signs: Tensor) -> CosSin:
        """Cosines and sines, [N, 1, Q, M] each."""
        cosine = self.image(codeword)
        return cosine, signs.unflatten(1, self.shape) * (1 - cosine.square()).clamp(min=_STEEPEST).sqrt()


class AngleEncoder(BranchPhaseEncoder):
    """MSE0 and MDPP: the angle itself."""

    def seen(self, image: Tensor) -> Tensor:
        return image.angle()[:, None] / math.pi


class AngleDecoder(BranchDecoder):
    """MSE0 and MDPP: cosine and sine are the last layer."""

    def received(self, fields: dict[str, Tensor], dominant: Tensor) -> tuple[Tensor, ...]:
        """Payload fields to what `forward` takes."""
        return (self.quantizer.decode(fields),)

    def forward(self, codeword: Tensor) -> CosSin:
        """Cosines and sines, [N, 1, Q, M] each."""
        angle = math.pi * self.image(codeword)
        return angle.cos(), angle.sin()


class DominantAngles(nn.Module):
    """MDPQ, at both ends: the angles of dominant entries, each rounded to bits that depend on its magnitude's rank.

    Attributes:
        groups: quantiser and places, in the order of magnitudes, of entries that get the same number of bits.
        reach: places that get bits.
    """

    EDGES = (0.0, 0.5, 0.7, 0.8, 0.9, 1.0)
    """Of the distribution of magnitudes."""

    def __init__(self, shape: Shape, bits: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, size = shape, math.prod(shape)
        places = [round(size * (1 - edge)) for edge in self.EDGES][::-1]
        groups = zip(pairwise(places), bits[::-1], strict=True)
        sent = [(start, stop, b) for (start, stop), b in groups if b > 0 and stop > start]
        self.groups = [(Angle(f"{PHASE}{start}", stop - start, b), slice(start, stop)) for start, stop, b in sent]
        self.quantizers = nn.ModuleList(quantizer for quantizer, _ in self.groups)
        self.reach = max((stop for _, stop, _ in sent), default=0)

    def encode(self, image: Tensor, dominant: Tensor) -> dict[str, Tensor]:
        """Images [N, Q, M] complex to payload fields."""
        angle = image.angle().flatten(1).gather(1, dominant)
        return {quantizer.field: quantizer.to_levels(angle[:, places]) for quantizer, places in self.groups}

    def quantised(self, image: Tensor, dominant: Tensor) -> tuple[Tensor, ...]:
        """What the decoder makes of the fields."""
        return self.received(self.encode(image, dominant), dominant)

    def received(self, fields: dict[str, Tensor], dominant: Tensor) -> tuple[Tensor, ...]:
        """Payload fields to what `forward` takes."""
        angle = torch.zeros(len(dominant), math.prod(self.shape), device=dominant.device)
        sent = torch.zeros_like(angle)
        for quantizer, places in self.groups:
            angle.scatter_(1, dominant[:, places], quantizer.decode(fields))
            sent.scatter_(1, dominant[:, places], 1.0)
        return angle, sent

    def forward(self, angle: Tensor, sent: Tensor) -> CosSin:
        """Cosines and sines, [N, 1, Q, M] each; both 0 where no angle was sent."""
        return (sent * angle.cos()).unflatten(1, self.shape), (sent * angle.sin()).unflatten(1, self.shape)


def _sines(image: Tensor, entries: Tensor) -> Tensor:
    """Imaginary parts of entries [N, count], whose signs are those of their sines."""
    return image.imag.flatten(1).gather(1, entries)


def _placed(signs: Tensor, entries: Tensor, size: int) -> Tensor:
    """[N, size]: signs at their entries, elsewhere 0."""
    return torch.zeros(len(signs), size, device=signs.device).scatter(1, entries, signs)
