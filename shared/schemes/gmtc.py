"""GMTC: transform coding of angular-delay images by a mixture of transforms, entropy coded (after arXiv 2603.14325).

A channel belongs to one of some kinds (where the UE stands, which paths it has), each with a covariance and so with a
Karhunen-Loeve transform of its own. The UE finds the kind that codes its image best, and sends its label and the
coefficients: in units of one step for all of them (reverse water-filling), quantised and entropy coded by
`shared.quantizers.trellis` for the deviations that they have in this kind. A report is as long as its code: easy
channels take few bits, hard ones many, all are distorted alike. A rate names the step, and the most bits that a report
may have: where its code is longer, its step is the finest whose code is not.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.channels.wideband import require_wideband
from shared.errors import InvalidInput
from shared.fields import OneOf, Within, check_fields
from shared.link.payload import Field, PayloadLayout
from shared.link.rate import Rate, Rates
from shared.quantizers import scale
from shared.quantizers.scale import PowerScale
from shared.quantizers.trellis import PARTS, STEPS, Bits, Choice, TrellisCode
from shared.quantizers.unitary import UnitaryMatrices
from shared.schemes import SchemeConfig, register
from shared.schemes.base import Decoder, State
from shared.schemes.image_feedback import ImageEstimator, ImageObserver

LENGTH, CODE = "length", "code"
"""Names of the payload's fields: how many bits of code follow, and these."""

LEAST_BITS = 80
"""A report that sends no coefficient has fewer, whatever its kind."""

FLOOR = 0.02
"""Power that is added to each coefficient's before kinds are compared: about what is left of it at 800 bits."""


@dataclass(frozen=True)
class GmtcConfig(SchemeConfig):
    """Sizes and choices of a mixture of transforms.

    Attributes:
        bits: of a report, at most, the scale's 8 and those of the code's length among them.
        step: index of the step of reports that are not asked for another rate.
        mixtures: kinds of channels.
        components: coefficients that may be sent: in the strongest directions of all images.
        subspace: the strongest so many of these directions are transformed, by each kind's own transform.
        ranked: coefficients by which kinds are compared; the others count as white.
        tried: of the kinds that compare best, so many are tried out.
        observation: `perfect`, the UE knows its channel, or `estimated` at the scenario's SNR.
        scale_low_db, scale_high_db: range of the root of the image's mean power [dB], in 255 steps.
    """

    bits: Annotated[int, Within(LEAST_BITS, 1 << 16)] = 4096
    step: Annotated[int, Within(0, STEPS - 1)] = 144
    mixtures: Annotated[int, Within(1, 1024)] = 64
    components: Annotated[int, Within(1, 1 << 16)] = 448
    subspace: Annotated[int, Within(1, 1 << 16)] = 256
    ranked: Annotated[int, Within(1, 1 << 16)] = 64
    tried: Annotated[int, Within(1, 16)] = 3
    observation: Annotated[str, OneOf(("perfect", "estimated"))] = "perfect"
    scale_low_db: float = -88.0
    scale_high_db: float = -12.0

    def __post_init__(self) -> None:
        check_fields(self)
        PowerScale(self.scale_low_db, self.scale_high_db)  # checks them
        if not self.ranked <= self.subspace <= self.components:
            sizes = f"{self.ranked}, {self.subspace}, {self.components}"
            raise InvalidInput(f"ranked, subspace, components: {sizes}; wanted ranked <= subspace <= components")

    @property
    def length_bits(self) -> int:
        """Bits of a code's length."""
        return (self.bits - scale.BITS).bit_length()

    @property
    def code_bits(self) -> int:
        """Bits of a code, at most."""
        return self.bits - scale.BITS - self.length_bits


class SeparableBasis(nn.Module):
    """The strongest directions of images among products of a vector over delays and one over angles.

    Attributes:
        rows: [2, Q, Q], columns: [2, M, M], real and imaginary parts of orthonormal vectors, in columns.
        places: [P] int16, which of the Q M products, the strongest first.
    """

    rows: Tensor
    columns: Tensor
    places: Tensor

    def __init__(self, shape: tuple[int, int], components: int) -> None:
        super().__init__()
        for name, size in zip(("rows", "columns"), shape, strict=True):
            self.register_buffer(name, torch.stack([torch.eye(size), torch.zeros(size, size)]))
        self.register_buffer("places", torch.arange(components, dtype=torch.int16))

    def analyse(self, images: Tensor) -> Tensor:
        """[N, Q, M] complex64 to [N, P]."""
        left, right = torch.complex(*self.rows).mH, torch.complex(*self.columns).conj()
        return (left @ images @ right).flatten(1)[:, self.places.int()]

    def synthesise(self, points: Tensor) -> Tensor:
        """[N, P] to [N, Q, M]: the inverse within the span of the directions."""
        left, right = torch.complex(*self.rows), torch.complex(*self.columns).mT
        products = points.new_zeros(len(points), left.shape[0] * right.shape[0])
        products[:, self.places.int()] = points
        return left @ products.unflatten(1, (len(left), len(right))) @ right


class MixtureCode(nn.Module):
    """What both ends hold of a mixture: directions of all images, transforms of the kinds, and the code.

    Attributes:
        missed: [J], mean power of a scaled image of a kind that no coefficient has.
    """

    missed: Tensor

    def __init__(self, shape: tuple[int, int], config: GmtcConfig) -> None:
        super().__init__()
        self.basis = SeparableBasis(shape, config.components)
        self.transforms = UnitaryMatrices(config.mixtures, config.subspace)
        self.trellis = TrellisCode(config.mixtures, config.components)
        self.register_buffer("missed", torch.zeros(config.mixtures))

    def coefficients(self, points: Tensor, labels: Tensor) -> Tensor:
        """Coefficients of points [N, P] in kinds [N, T], [N, T, P, 2]."""
        transforms, size = self.transforms.matrices, self.transforms.packed.shape[1]
        found = points[:, None].repeat(1, labels.shape[1], 1)
        for point, kinds, coefficients in zip(points, labels.tolist(), found, strict=True):
            for place, kind in enumerate(kinds):
                coefficients[place, :size] = point[:size] @ transforms[kind].conj()
        return torch.view_as_real(found)

    def kinds(self) -> tuple[Tensor, Tensor, Tensor]:
        """Variances of the complex coefficients of each kind [J, P], mean power of what has none [J], and the kinds'
        probabilities [J], float64.
        """
        weights = self.trellis.kinds.double()
        return 2 * 2 ** (2 * self.trellis.deviations.double() / PARTS), self.missed.double(), weights / weights.sum()

    def point(self, label: int, coefficients: Tensor) -> Tensor:
        """[P] complex64 of coefficients [P] complex64 in a kind."""
        transform = self.transforms.matrices[label]
        return torch.cat([transform @ coefficients[: len(transform)], coefficients[len(transform) :]])


class GmtcEncoder(ImageObserver):
    """Scales the image, finds its kind and the finest step that its rate allows, and writes the code."""

    def __init__(self, scheme: Gmtc) -> None:
        super().__init__(scheme.world, noisy=scheme.config.observation == "estimated")
        self.config = scheme.config
        self.scale = PowerScale(scheme.config.scale_low_db, scheme.config.scale_high_db)
        self.code = MixtureCode(self.shape, scheme.config)

    def scaled(self, images: Tensor) -> Tensor:
        """[N, Q, M] complex64 over their scales, as sent."""
        return images / self.scale(images)[..., None]

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        return self.encode_within(observation, Rates.of(self.config.bits, self.config.step, len(observation)))

    def encode_within(self, observation: Tensor, rates: Rates) -> dict[str, Tensor]:
        images = self.images(observation)
        room = rates.bits.clamp(max=self.config.bits) - scale.BITS - self.config.length_bits
        codes = self._codes(self.scaled(images), room, rates.step.clamp(max=STEPS - 1))
        padded = np.zeros((len(codes), self.config.code_bits), np.int64)
        for row, code in zip(padded, codes, strict=True):
            row[: len(code)] = code
        lengths = torch.tensor([[len(code)] for code in codes])
        return {**self.scale.encode(images), LENGTH: lengths, CODE: torch.from_numpy(padded)}

    def choose(self, images: Tensor, room: Tensor, finest: Tensor) -> tuple[Tensor, Choice]:
        """Kinds [N] int64 of scaled images, and what is sent of their coefficients: of the least cost of error and bits
        whose code has at most `room` bits and whose step is at most `finest`, [N] int64 each.
        """
        points = self.code.basis.analyse(images)
        labels = self.rank(points).topk(min(self.config.tried, self.config.mixtures), largest=False).indices
        choice = self.code.trellis.choose(self.code.coefficients(points, labels), labels, room, finest)
        return labels.gather(1, choice.tried[:, None])[:, 0], choice

    def rank(self, points: Tensor, kinds: slice = slice(None)) -> Tensor:
        """Code lengths [nats, but for a constant] of points [N, P] as Gaussian vectors of J kinds, [N, J]."""
        code, ranked = self.code, self.config.ranked
        power = 2 * 2 ** (2 * code.trellis.deviations[kinds].float() / PARTS)
        others = max(1, points.shape[1] - ranked)
        first, rest = power[:, :ranked] + FLOOR, power[:, ranked:].sum(1) / others + FLOOR
        constant = first.log().sum(1) + (points.shape[1] - ranked) * rest.log() - code.trellis.kinds[kinds].log()
        vectors = code.transforms.matrices[kinds, :, :ranked].conj()
        products = points[:, : vectors.shape[1]] @ vectors.permute(1, 0, 2).flatten(1)
        energies = torch.view_as_real(products).square().sum(-1).unflatten(1, first.shape)
        total = torch.view_as_real(points).square().sum((1, 2))[:, None]
        return constant + (energies * (1 / first - 1 / rest[:, None])).sum(2) + total / rest

    def _codes(self, images: Tensor, room: Tensor, finest: Tensor) -> list[Bits]:
        """Codes of scaled images, of at most `room` bits."""
        labels, choice = self.choose(images, room, finest)
        reports = zip(labels.tolist(), choice.steps.tolist(), choice.levels, strict=True)
        codes = [self.code.trellis.write(*report) for report in reports]
        for report, code in enumerate(codes):
            # a code of few signs is longer than its ideal length
            if len(code) > room[report] and choice.steps[report] > 0:
                only = slice(report, report + 1)
                coarser = torch.minimum(finest[only], choice.steps[only] - 1)
                codes[report] = self._codes(images[only], room[only], coarser)[0]
        return codes


class GmtcDecoder(Decoder):
    """Code to coefficients, these to an image by the vectors of its kind, then the scale."""

    def __init__(self, scheme: Gmtc) -> None:
        super().__init__()
        self.shape = (len(scheme.world.rows()), scheme.world.antennas)
        self.scale = PowerScale(scheme.config.scale_low_db, scheme.config.scale_high_db)
        self.code = MixtureCode(self.shape, scheme.config)

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        labels, steps, levels = self._read(fields)
        coefficients = torch.view_as_complex(self.code.trellis.values(labels, steps, levels))
        points = torch.stack([self.code.point(*report) for report in zip(labels.tolist(), coefficients, strict=True)])
        return self.code.basis.synthesise(points) * self.scale.decode(fields)[..., None], {}

    def distortion(self, fields: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        labels, steps, levels = self._read(fields)
        expected = self.code.trellis.expected_errors(labels, steps, levels) + self.code.missed[labels]
        return expected / math.prod(self.shape), steps

    def _read(self, fields: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Kinds, steps [N] int64 and levels [N, P, 2] of reports. Raises InvalidInput."""
        read = [self.code.trellis.read(bits) for bits in codes(fields[LENGTH].numpy(), fields[CODE].numpy())]
        labels, steps, levels = zip(*read, strict=True)
        return torch.tensor(labels), torch.tensor(steps), torch.from_numpy(np.stack(levels))


def codes(lengths: NDArray[np.int64], padded: NDArray[np.int64]) -> Iterator[Bits]:
    """The codes of N reports, from the payload's fields [N, 1] and [N, most bits]."""
    for (length,), bits in zip(lengths.tolist(), padded.astype(np.uint8), strict=True):
        yield bits[:length]


@register
class Gmtc(ImageEstimator):
    """A mixture of Karhunen-Loeve transforms, entropy coded."""

    name: ClassVar[str] = "gmtc"
    config_class: ClassVar[type[SchemeConfig]] = GmtcConfig
    steps: ClassVar[int] = STEPS

    config: GmtcConfig
    encoder: GmtcEncoder
    decoder: GmtcDecoder

    @property
    def code(self) -> MixtureCode:
        """Of an end that is there."""
        return self.encoder.code if hasattr(self, "encoder") else self.decoder.code

    @property
    def layout(self) -> PayloadLayout:
        length, code = Field(LENGTH, 1, self.config.length_bits), Field(CODE, self.config.code_bits, 1, LENGTH)
        return PayloadLayout((*super().layout.fields, length, code))

    @property
    def least_bits(self) -> int:
        return LEAST_BITS

    def rates(self, rate: Rate, reports: int = 1) -> Rates:
        own = rate.bits is None and rate.step is None
        return super().rates(dataclasses.replace(rate, step=self.config.step) if own else rate, reports)

    def check_fields(self, fields: Mapping[str, NDArray[np.int64]]) -> None:
        super().check_fields(fields)
        for bits in codes(fields[LENGTH].reshape(-1, 1), fields[CODE].reshape(-1, self.config.code_bits)):
            self.code.trellis.read(bits)

    def check_sizes(self) -> None:
        self.world = require_wideband(self.scenario, self.name)
        entries = len(self.world.rows()) * self.world.antennas
        if self.config.components > entries:
            raise InvalidInput(f"components: {self.config.components} is more than {entries}, the entries of an image")

    def make_encoder(self) -> GmtcEncoder:
        return GmtcEncoder(self)

    def make_decoder(self) -> GmtcDecoder:
        return GmtcDecoder(self)
