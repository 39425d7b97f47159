"""Transform coding of angular-delay images at a fixed length: a linear transform and scalar quantisers, nothing of
which is learned by gradient.

The image is scaled to mean power 1 and projected on the strongest eigenvectors of its covariance (Karhunen-Loeve
transform). The phase of a channel is free, so that the covariance is complex and proper, and real and imaginary part of
a coefficient are alike. The bits of a report are shared out, one by one, to the coefficients whose squared error they
lower most: reverse water-filling for scalar quantisers (Gersho and Gray, "Vector quantization and signal compression",
section 8.3). Names of the field: transform coding of CSI, "GMTC" (arXiv 2603.14325).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from shared.channels.wideband import require_wideband
from shared.errors import InvalidInput
from shared.fields import OneOf, Within, check_fields
from shared.quantizers import scale
from shared.quantizers.scale import PowerScale
from shared.quantizers.uniform import MOST_BITS, UniformQuantizer
from shared.schemes import SchemeConfig, register
from shared.schemes.base import Decoder, State, to_complex, to_real
from shared.schemes.image_feedback import ImageEstimator, ImageObserver


@dataclass(frozen=True)
class TransformConfig(SchemeConfig):
    """Sizes and choices of a transform coder of fixed length.

    Attributes:
        bits: of a report, the scale's 8 among them.
        components: complex coefficients that may get bits; both ends hold a vector for each.
        companding: mu of the mu-law by which coefficients are compressed before they are quantised; 0 leaves them.
        observation: `perfect`, the UE knows its channel, or `estimated` at the scenario's SNR.
        scale_low_db, scale_high_db: range of the root of the image's mean power [dB], in 255 steps.
    """

    bits: Annotated[int, Within(scale.BITS + 1, 1 << 16)] = 776
    components: Annotated[int, Within(1, 1 << 16)] = 128
    companding: Annotated[float, Within(0, 1000)] = 10.0
    observation: Annotated[str, OneOf(("perfect", "estimated"))] = "perfect"
    scale_low_db: float = -88.0
    scale_high_db: float = -12.0

    def __post_init__(self) -> None:
        check_fields(self)
        PowerScale(self.scale_low_db, self.scale_high_db)  # checks them
        if self.bits - scale.BITS > (most := 2 * self.components * MOST_BITS):
            raise InvalidInput(f"bits: {self.bits} is more than {self.components} components take, {most + scale.BITS}")

    def make_quantizer(self) -> UniformQuantizer:
        """Of the coefficients, for either end."""
        entries = 2 * self.components
        each, extra = divmod(self.bits - scale.BITS, entries)
        return UniformQuantizer("coefficients", entries, each, allocated=True, mu=self.companding, extra=extra)


class Basis(nn.Module):
    """Orthonormal vectors of images: the strongest directions of their covariance.

    Attributes:
        vectors: [2, Q M, K], real and imaginary parts.
    """

    vectors: Tensor

    def __init__(self, entries: int, components: int) -> None:
        super().__init__()
        eye = torch.eye(entries, components)
        self.register_buffer("vectors", torch.stack([eye, torch.zeros_like(eye)]))


class Analysis(Basis):
    """Images to their coefficients."""

    def forward(self, images: Tensor) -> Tensor:
        """[N, Q, M] complex64 to [N, 2 K] float32: real parts, then imaginary parts."""
        return to_real(images.flatten(1) @ torch.complex(*self.vectors).conj())


class Synthesis(Basis):
    """Coefficients to images: the inverse of `Analysis` within the span of the vectors."""

    def forward(self, coefficients: Tensor) -> Tensor:
        """[N, 2 K] to flat images [N, Q M] complex64."""
        return to_complex(coefficients) @ torch.complex(*self.vectors).mT


class TransformEncoder(ImageObserver):
    """Scales the image, projects it and quantises the coefficients."""

    def __init__(self, scheme: Transform) -> None:
        super().__init__(scheme.world, noisy=scheme.config.observation == "estimated")
        self.scale = PowerScale(scheme.config.scale_low_db, scheme.config.scale_high_db)
        self.basis = Analysis(math.prod(self.shape), scheme.config.components)
        self.quantizer = scheme.config.make_quantizer()

    def scaled(self, images: Tensor) -> Tensor:
        """[N, Q, M] complex64 over their scales, as sent."""
        return images / self.scale(images)[..., None]

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        images = self.images(observation)
        return {**self.scale.encode(images), **self.quantizer.encode(self.basis(self.scaled(images)))}


class TransformDecoder(Decoder):
    """Coefficients to an image, then the scale."""

    def __init__(self, scheme: Transform) -> None:
        super().__init__()
        self.shape = (len(scheme.world.rows()), scheme.world.antennas)
        self.scale = PowerScale(scheme.config.scale_low_db, scheme.config.scale_high_db)
        self.basis = Synthesis(math.prod(self.shape), scheme.config.components)
        self.quantizer = scheme.config.make_quantizer()

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        images = self.basis(self.quantizer.decode(fields)) * self.scale.decode(fields)
        return images.unflatten(1, self.shape), {}


@register
class Transform(ImageEstimator):
    """Karhunen-Loeve transform, greedy bits, mu-law quantisers."""

    name: ClassVar[str] = "transform"
    config_class: ClassVar[type[SchemeConfig]] = TransformConfig
    trainable: ClassVar[bool] = False

    config: TransformConfig
    encoder: TransformEncoder
    decoder: TransformDecoder

    def check_sizes(self) -> None:
        self.world = require_wideband(self.scenario, self.name)
        entries = len(self.world.rows()) * self.world.antennas
        if self.config.components > entries:
            raise InvalidInput(f"components: {self.config.components} is more than {entries}, the entries of an image")

    def make_encoder(self) -> TransformEncoder:
        return TransformEncoder(self)

    def make_decoder(self) -> TransformDecoder:
        return TransformDecoder(self)
