"""Methods of phase feedback (DualNet-MP paper, sections III.A and IV.A): each an encoder, and a decoder to cos and sin.

Both ends are told which entries are dominant, [N, count] in order, indices of images [N, 1, Q, M].
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from shared.link.payload import Field
from shared.schemes.dualnet_mp.branches import BranchDecoder, BranchEncoder, Shape

_STEEPEST = 1e-6
"""Least 1 - cos^2 whose root is taken: its slope is infinite at 0."""

CosSin = tuple[Tensor, Tensor]

PHASE, SIGN = "phase", "sign"
"""Names of payload fields, or of their beginning."""


class BranchPhaseEncoder(BranchEncoder):
    """A branch's codeword of an image of the phases."""

    def encode(self, image: Tensor, dominant: Tensor) -> dict[str, Tensor]:
        """Images [N, Q, M] complex to payload fields."""
        return {PHASE: self.quantizer.to_levels(self.codeword(self.seen(image)))}

    def quantised(self, image: Tensor, dominant: Tensor) -> tuple[Tensor, ...]:
        """What the decoder makes of the fields (`received`), differentiable."""
        return (self.quantizer(self.codeword(self.seen(image))),)

    @abstractmethod
    def seen(self, image: Tensor) -> Tensor:
        """The phases as the network sees them, [N, 1, Q, M] in [-1, 1]."""


class CosineEncoder(BranchPhaseEncoder):
    """SMAPE: cosines by a branch, and signs of the sines of dominant entries."""

    def encode(self, image: Tensor, dominant: Tensor) -> dict[str, Tensor]:
        return {**super().encode(image, dominant), SIGN: _signs(image, dominant)}

    def quantised(self, image: Tensor, dominant: Tensor) -> tuple[Tensor, ...]:
        return (*super().quantised(image, dominant), _placed(_signs(image, dominant), dominant, image[0].numel()))

    def seen(self, image: Tensor) -> Tensor:
        return (image.real / image.abs().clamp(min=1e-30))[:, None]


class CosineDecoder(BranchDecoder):
    """SMAPE: sin = +-(1 - cos^2)^(1/2) where its sign was sent, else 0 (eq. 14b)."""

    def received(self, fields: dict[str, Tensor], dominant: Tensor) -> tuple[Tensor, ...]:
        """Payload fields to what `forward` takes."""
        sign = _placed(fields[SIGN], dominant, math.prod(self.shape))
        return self.quantizer.from_levels(fields[PHASE]), sign

    def forward(self, codeword: Tensor, sign: Tensor) -> CosSin:
        """Cosines and sines, [N, 1, Q, M] each."""
        cosine = self.image(codeword)
        return cosine, sign.unflatten(1, self.shape) * (1 - cosine.square()).clamp(min=_STEEPEST).sqrt()


class AngleEncoder(BranchPhaseEncoder):
    """MSE0 and MDPP: the angle itself."""

    def seen(self, image: Tensor) -> Tensor:
        return image.angle()[:, None] / math.pi


class AngleDecoder(BranchDecoder):
    """MSE0 and MDPP: cosine and sine are the last layer."""

    def received(self, fields: dict[str, Tensor], dominant: Tensor) -> tuple[Tensor, ...]:
        """Payload fields to what `forward` takes."""
        return (self.quantizer.from_levels(fields[PHASE]),)

    def forward(self, codeword: Tensor) -> CosSin:
        """Cosines and sines, [N, 1, Q, M] each."""
        angle = math.pi * self.image(codeword)
        return angle.cos(), angle.sin()


class AngleQuantizer(nn.Module):
    """MDPQ, at both ends: the angles of dominant entries, each rounded to bits that depend on its magnitude's rank."""

    EDGES = (0.0, 0.5, 0.7, 0.8, 0.9, 1.0)
    """Of the distribution of magnitudes."""

    def __init__(self, shape: Shape, bits: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, size = shape, math.prod(shape)
        places = [round(size * (1 - edge)) for edge in self.EDGES]
        pairs = zip(places[1:], places, bits, strict=False)
        self.groups = [(first, last, b) for first, last, b in pairs if b > 0 and last > first][::-1]
        """First and last place in the order of magnitudes, and bits; the largest first."""
        self.reach = max((last for _, last, _ in self.groups), default=0)

    def fields(self) -> tuple[Field, ...]:
        return tuple(Field(f"{PHASE}{first}", last - first, bits) for first, last, bits in self.groups)

    def encode(self, image: Tensor, dominant: Tensor) -> dict[str, Tensor]:
        """Images [N, Q, M] complex to payload fields."""
        turns = image.angle().flatten(1).gather(1, dominant) / (2 * math.pi)
        return {
            f"{PHASE}{first}": (turns[:, first:last] * 2**bits).round().long() % 2**bits
            for first, last, bits in self.groups
        }

    def quantised(self, image: Tensor, dominant: Tensor) -> tuple[Tensor, ...]:
        """What the decoder makes of the fields."""
        return self.received(self.encode(image, dominant), dominant)

    def received(self, fields: dict[str, Tensor], dominant: Tensor) -> tuple[Tensor, ...]:
        """Payload fields to what `forward` takes."""
        angle = torch.zeros(len(dominant), math.prod(self.shape), device=dominant.device)
        sent = torch.zeros_like(angle)
        for first, last, bits in self.groups:
            entries = dominant[:, first:last]
            angle.scatter_(1, entries, 2 * math.pi / 2**bits * fields[f"{PHASE}{first}"])
            sent.scatter_(1, entries, 1.0)
        return angle, sent

    def forward(self, angle: Tensor, sent: Tensor) -> CosSin:
        """Cosines and sines, [N, 1, Q, M] each; both 0 where no angle was sent."""
        return (sent * angle.cos()).unflatten(1, self.shape), (sent * angle.sin()).unflatten(1, self.shape)


def _signs(image: Tensor, entries: Tensor) -> Tensor:
    """Signs of the sines of entries [N, count], 0 or 1."""
    return (image.imag.flatten(1).gather(1, entries) >= 0).long()


def _placed(signs: Tensor, entries: Tensor, size: int) -> Tensor:
    """[N, size]: -1 or 1 at entries with a sign 0 or 1, elsewhere 0."""
    return torch.zeros(len(signs), size, device=signs.device).scatter(1, entries, 2.0 * signs - 1)
