"""GMTC: transform coding of angular-delay images by a mixture of transforms, entropy coded (after arXiv 2603.14325).

A channel belongs to one of a few kinds (where the UE stands, which paths it has), each with a covariance and so with a
Karhunen-Loeve transform of its own. The UE finds the kind that codes its image best, and sends its label and the
coefficients: in units of one step for all of them (reverse water-filling), with a dead zone, entropy coded by tables
for the deviation that the coefficient has in this kind. A report is as long as its code: easy channels take few bits,
hard ones many, all are distorted alike. A rate names the step, and the most bits that a report may have: where its code
is longer, its step is the finest whose code is not.

Deviations and steps are powers of 2^(1/16), so that the table of a coefficient follows from whole numbers, and both
ends agree on it. A code is a binary number that begins with a one; what is sent is what follows that one.
"""

from __future__ import annotations

import dataclasses
import itertools
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
from shared.quantizers.entropy import Bits, EntropyTables, Run, SymbolReader
from shared.quantizers.scale import PowerScale
from shared.schemes import SchemeConfig, register
from shared.schemes.base import Decoder, State, to_complex, to_real
from shared.schemes.image_feedback import ImageEstimator, ImageObserver
from shared.schemes.transform import Analysis, Synthesis

LENGTH, CODE = "length", "code"
"""Names of the payload's fields: how many bits of code follow, and these."""

PARTS = 16
"""Deviations and steps are powers of 2^(1/PARTS)."""

COARSEST = 7 * PARTS
"""Step index 0 stands for 2^7, which rounds whole images of mean power 1 to nothing."""

STEPS = 192
"""Steps 2^((COARSEST - index) / PARTS), down to 2^-5."""

CLASS_PARTS = 4
"""A class of coefficients, with a table of its own, is so much of an octave of deviation over step."""

OCTAVES = 10
"""Of classes, from a deviation of a quarter of the step on; below, a coefficient is not sent."""

CLASSES = CLASS_PARTS * OCTAVES
SIZES = tuple(4 + (12 << kind // CLASS_PARTS) for kind in range(CLASSES))
"""Symbols of a class, magnitudes from 0 on: 24 deviations or more. What is beyond saturates."""

LABELS, STEP_INDICES = CLASSES, CLASSES + 1
"""Rows of the tables that labels and step indices have."""

ROUNDING = 0.45
"""Added before magnitudes, in steps, are rounded down: less than a half makes a dead zone."""

INWARDS = 0.05
"""By which the decoder takes magnitudes for smaller, in steps: small ones are the likelier."""

PRICE = 0.15
"""What a bit is worth in squared steps: between two kinds it decides, beside their errors."""

LEAST_BITS = 80
"""A report that sends no coefficient has fewer, whatever its kind."""

MAGNITUDES = 4
"""Of which errors are told apart: 0, 1, 2, and 3 or more."""

FLOOR = 0.02
"""Power that is added to each coefficient's before kinds are compared: about what is left of it at 800 bits."""


@dataclass(frozen=True)
class GmtcConfig(SchemeConfig):
    """Sizes and choices of a mixture of transforms.

    Attributes:
        bits: of a report, at most, the scale's 8 and those of the code's length among them.
        step: index of the step of reports that are not asked for another rate.
        mixtures: kinds of channels.
        subspace: complex dimensions in which the kinds are told apart: the strongest of all images together.
        components: coefficients of a kind that may be sent.
        ranked: the strongest so many by which kinds are compared; the others count as white.
        tried: of the kinds that compare best, so many are tried out for the least error.
        observation: `perfect`, the UE knows its channel, or `estimated` at the scenario's SNR.
        scale_low_db, scale_high_db: range of the root of the image's mean power [dB], in 255 steps.
    """

    bits: Annotated[int, Within(LEAST_BITS, 1 << 16)] = 4096
    step: Annotated[int, Within(0, STEPS - 1)] = 124
    mixtures: Annotated[int, Within(2, 1024)] = 16
    subspace: Annotated[int, Within(1, 1 << 16)] = 320
    components: Annotated[int, Within(1, 1 << 16)] = 208
    ranked: Annotated[int, Within(1, 1 << 16)] = 96
    tried: Annotated[int, Within(1, 16)] = 3
    observation: Annotated[str, OneOf(("perfect", "estimated"))] = "perfect"
    scale_low_db: float = -88.0
    scale_high_db: float = -12.0

    def __post_init__(self) -> None:
        check_fields(self)
        PowerScale(self.scale_low_db, self.scale_high_db)  # checks them
        if not self.ranked <= self.components <= self.subspace:
            sizes = f"{self.ranked}, {self.components}, {self.subspace}"
            raise InvalidInput(f"ranked, components, subspace: {sizes}; wanted ranked <= components <= subspace")

    @property
    def length_bits(self) -> int:
        """Bits of a code's length."""
        return (self.bits - scale.BITS).bit_length()

    @property
    def code_bits(self) -> int:
        """Bits of a code, at most."""
        return self.bits - scale.BITS - self.length_bits


class MixtureCode(nn.Module):
    """What both ends hold of a mixture: orthonormal vectors of each kind, deviations, tables; and the code by them.

    Attributes:
        vectors: [2, J, P, K], real and imaginary parts: coefficients of kind j are products with conj(vectors[:, j]).
        levels: [J, K] int16, deviations of coefficients' real and imaginary parts, 2^(level / PARTS), falling with k.
        errors: [CLASSES, MAGNITUDES], mean squared errors of the parts that are sent, over the step's square.
        missed: [J], mean power of an image of kind j, but for its coefficients.
        tables: of magnitudes by class, labels, step indices.
    """

    vectors: Tensor
    levels: Tensor
    errors: Tensor
    missed: Tensor

    def __init__(self, config: GmtcConfig) -> None:
        super().__init__()
        eye = torch.eye(config.subspace, config.components).expand(config.mixtures, -1, -1)
        self.register_buffer("vectors", torch.stack([eye, torch.zeros_like(eye)]))
        self.register_buffer("levels", torch.zeros(config.mixtures, config.components, dtype=torch.int16))
        self.register_buffer("errors", torch.full((CLASSES, MAGNITUDES), 1 / 12))
        self.register_buffer("missed", torch.zeros(config.mixtures))
        self.tables = EntropyTables((*SIZES, config.mixtures, STEPS))
        self._directions: Tensor | None = None
        nn.Module.register_load_state_dict_post_hook(self, lambda *_: self._forget())

    def _forget(self) -> None:
        """What was made of other vectors."""
        self._directions = None

    def set_kinds(self, vectors: Tensor, levels: Tensor, counts: Tensor) -> None:
        """Set vectors [J, P, K] complex, levels [J, K] and the labels' table, by how many images [J] are of a kind."""
        self.vectors.copy_(torch.stack([vectors.real, vectors.imag]))
        self.levels.copy_(levels)
        self.tables.set(LABELS, counts.double().numpy() + 1)
        self._forget()

    @property
    def directions(self) -> Tensor:
        """Vectors of the kinds, [J, P, K] complex64."""
        if self._directions is None:
            self._directions = torch.complex(*self.vectors)
        return self._directions

    def classes(self, labels: Tensor, steps: Tensor) -> Tensor:
        """Classes of coefficients at a step: [N] int64 each to [N, K] int64; below 0 where nothing is sent."""
        places = self.levels[labels].long() + steps[:, None] - COARSEST + 2 * PARTS + PARTS // (2 * CLASS_PARTS)
        return (places // (PARTS // CLASS_PARTS)).clamp(max=CLASSES - 1)

    def magnitudes(self, coefficients: Tensor, classes: Tensor, steps: Tensor) -> Tensor:
        """What is sent of coefficients [N, K, 2], their parts' magnitudes in steps: [N, K, 2] int64."""
        rounded = (coefficients.abs() / step_size(steps)[:, None, None] + ROUNDING).long()
        largest = torch.tensor(SIZES)[classes.clamp(min=0)] - 1
        return torch.where(classes[..., None] < 0, 0, rounded.minimum(largest[..., None]))

    def values(self, sent: Tensor, steps: Tensor) -> Tensor:
        """What the decoder takes whole numbers of steps [N, K, 2] for."""
        return (sent - INWARDS * sent.sign()) * step_size(steps)[:, None, None]

    def kinds(self) -> tuple[Tensor, Tensor, Tensor]:
        """Variances of the complex coefficients of each kind [J, K], mean power of what has none [J], and the kinds'
        probabilities [J], float64.
        """
        weights = self.tables.weights[self.tables.starts[LABELS] : self.tables.starts[LABELS + 1]].double()
        return 2 * 2 ** (2 * self.levels.double() / PARTS), self.missed.double(), weights / weights.sum()

    def expected(self, labels: Tensor, steps: Tensor, sent: Tensor) -> Tensor:
        """Squared errors to be expected of images [N] of what is sent of them, [N, K, 2] whole numbers of steps: of
        what is sent as measured in training, of other coefficients their power.
        """
        classes, power = self.classes(labels, steps), 2 * 2 ** (2 * self.levels[labels].float() / PARTS)
        of_sent = self.errors[classes.clamp(min=0)[..., None], sent.abs().clamp(max=MAGNITUDES - 1)].sum(2)
        found = torch.where(classes < 0, power, of_sent * step_size(steps)[:, None].square())
        return found.sum(1) + self.missed[labels]

    def write(self, label: int, step: int, coefficients: Tensor) -> Bits:
        """The code of a report's coefficients [K, 2] float32, without the one that it begins with."""
        labels, steps = torch.tensor([label]), torch.tensor([step])
        classes = self.classes(labels, steps)
        sent = self.magnitudes(coefficients[None], classes, steps)[0].numpy().astype(np.int32)
        runs: list[Run] = [(LABELS, np.array([label], np.int32)), (STEP_INDICES, np.array([step], np.int32))]
        runs += [(kind, sent[first:last].ravel()) for kind, first, last in _runs(classes[0].numpy())]
        return self.tables.write(runs, (coefficients.numpy() < 0)[sent > 0].astype(np.uint8))[1:]

    def read(self, bits: Bits) -> tuple[int, int, NDArray[np.int32]]:
        """Label, step index and parts of coefficients in steps, [K, 2], of what `write` made. Raises InvalidInput."""
        reader = SymbolReader(self.tables, np.concatenate([np.ones(1, np.uint8), bits]))
        label, step = (int(reader.read(row, 1)[0]) for row in (LABELS, STEP_INDICES))
        found = np.zeros((self.levels.shape[1], 2), np.int32)
        for kind, first, last in _runs(self.classes(torch.tensor([label]), torch.tensor([step]))[0].numpy()):
            found[first:last] = reader.read(kind, 2 * (last - first)).reshape(-1, 2)
        present = found > 0
        negative = np.zeros(found.shape, bool)
        negative[present] = reader.rest(int(present.sum())).astype(bool)
        return label, step, np.where(negative, -found, found)


def step_size(steps: Tensor) -> Tensor:
    """Steps of step indices, float32."""
    return 2 ** ((COARSEST - steps) / PARTS)


def _runs(classes: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """(class, first, after the last) of coefficients of the same class that are sent; classes [K] fall."""
    sent = classes[: int((classes >= 0).sum())]
    if not len(sent):
        return []
    edges = [0, *(np.flatnonzero(np.diff(sent)) + 1).tolist(), len(sent)]
    return [(int(sent[first]), first, last) for first, last in itertools.pairwise(edges)]


class GmtcEncoder(ImageObserver):
    """Scales the image, finds its kind and the finest step that its rate allows, and writes the code."""

    def __init__(self, scheme: Gmtc) -> None:
        super().__init__(scheme.world, noisy=scheme.config.observation == "estimated")
        self.config = scheme.config
        self.scale = PowerScale(scheme.config.scale_low_db, scheme.config.scale_high_db)
        self.basis = Analysis(math.prod(self.shape), scheme.config.subspace)
        self.code = MixtureCode(scheme.config)

    def scaled(self, images: Tensor) -> Tensor:
        """[N, Q, M] complex64 over their scales, as sent."""
        return images / self.scale(images)[..., None]

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        return self.encode_within(observation, Rates.of(self.config.bits, self.config.step, len(observation)))

    def encode_within(self, observation: Tensor, rates: Rates) -> dict[str, Tensor]:
        images = self.images(observation)
        room = rates.bits.clamp(max=self.config.bits) - scale.BITS - self.config.length_bits
        labels, steps, coefficients = self.choose(self.scaled(images), room, rates.step.clamp(max=STEPS - 1))
        reports = zip(labels.tolist(), steps.tolist(), coefficients, room.tolist(), strict=True)
        codes = [self._write(*report) for report in reports]
        padded = np.zeros((len(codes), self.config.code_bits), np.int64)
        for row, code in zip(padded, codes, strict=True):
            row[: len(code)] = code
        lengths = torch.tensor([[len(code)] for code in codes])
        return {**self.scale.encode(images), LENGTH: lengths, CODE: torch.from_numpy(padded)}

    def choose(self, images: Tensor, room: Tensor, finest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Kinds [N] int64 of scaled images, step indices [N] int64, and coefficients [N, K, 2]: those of the least cost
        of error and bits whose code has at most `room` bits and whose step is at most `finest`, [N] int64 each.
        """
        points = self.points(images)
        first, *others = self.rank(points).argsort(1)[:, : self.config.tried].unbind(1)
        labels, steps, coefficients, errors, lengths = self._tried(points, first, room, finest)
        for other in others:
            _, fine, found, error, length = self._tried(points, other, room, finest)
            price = PRICE * step_size(torch.maximum(steps, fine)).square()
            better = error + price * length < errors + price * lengths
            labels, steps, errors, lengths = (
                torch.where(better, new, old)
                for new, old in ((other, labels), (fine, steps), (error, errors), (length, lengths))
            )
            coefficients = torch.where(better[:, None, None], found, coefficients)
        return labels, steps, coefficients

    def _tried(
        self, points: Tensor, labels: Tensor, room: Tensor, finest: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Labels, their steps and coefficients, the squared error that is left, but for the points' power, [N], and
        the bits that it takes.
        """
        coefficients = self.coefficients(points, labels)
        steps = self.finest_steps(labels, coefficients, room, finest)
        sent = self.code.magnitudes(coefficients, self.code.classes(labels, steps), steps)
        missed = coefficients.abs() - self.code.values(sent, steps)
        error = (missed.square() - coefficients.square()).sum((1, 2))
        return labels, steps, coefficients, error, self.lengths(labels, steps, coefficients)

    def coefficients(self, points: Tensor, labels: Tensor) -> Tensor:
        """Coefficients of points [N, P] in kinds [N], [N, K, 2]."""
        # one by one: how a product of several rows is rounded would depend on which reports are coded together
        pairs = zip(points, labels.tolist(), strict=True)
        return torch.view_as_real(torch.stack([point @ self.code.directions[label].conj() for point, label in pairs]))

    def points(self, images: Tensor) -> Tensor:
        """Scaled images in the basis of all kinds, [N, P] complex64."""
        return to_complex(self.basis(images))

    def rank(self, points: Tensor) -> Tensor:
        """Code lengths [nats, but for a constant] of points [N, P] as Gaussian vectors of each kind, [N, J]."""
        code, count = self.code, points.shape[1]
        power = 2 * 2 ** (2 * code.levels.float() / PARTS)
        first = power[:, : self.config.ranked] + FLOOR
        rest = power[:, self.config.ranked :].sum(1) / max(1, count - self.config.ranked) + FLOOR
        weights = code.tables.weights[code.tables.starts[LABELS] : code.tables.starts[LABELS + 1]]
        constant = first.log().sum(1) + (count - self.config.ranked) * rest.log() - weights.float().log()
        products = points @ code.directions[..., : self.config.ranked].conj().permute(1, 0, 2).flatten(1)
        energies = torch.view_as_real(products).square().sum(-1).unflatten(1, first.shape)
        total = torch.view_as_real(points).square().sum((1, 2))[:, None]
        return constant + (energies * (1 / first - 1 / rest[:, None])).sum(2) + total / rest

    def finest_steps(self, labels: Tensor, coefficients: Tensor, room: Tensor, finest: Tensor) -> Tensor:
        """The finest steps, up to `finest`, whose code has at most `room` bits by its ideal length; all [N] int64."""
        low, high = torch.zeros_like(labels), finest
        for _ in range(STEPS.bit_length()):
            middle = (low + high + 1) // 2
            fits = self.lengths(labels, middle, coefficients) <= room
            low, high = torch.where(fits, middle, low), torch.where(fits, high, middle - 1).maximum(low)
        return low

    def lengths(self, labels: Tensor, steps: Tensor, coefficients: Tensor) -> Tensor:
        """Ideal lengths of codes [bits], [N] float32, of coefficients [N, K, 2]."""
        tables, classes = self.code.tables, self.code.classes(labels, steps)
        sent = self.code.magnitudes(coefficients, classes, steps)
        starts, lengths = torch.from_numpy(tables.starts), tables.lengths()
        found = lengths[starts[classes.clamp(min=0)][..., None] + sent] * (classes >= 0)[..., None]
        heads = lengths[starts[LABELS] + labels] + lengths[starts[STEP_INDICES] + steps]
        return heads + found.sum((1, 2)) + (sent > 0).sum((1, 2))

    def _write(self, label: int, step: int, coefficients: Tensor, room: int) -> Bits:
        """The code of a report, a step coarser where it is longer than it may be."""
        bits = self.code.write(label, step, coefficients)
        while len(bits) > room and step > 0:
            step -= 1
            bits = self.code.write(label, step, coefficients)
        return bits


class GmtcDecoder(Decoder):
    """Code to coefficients, these to an image by the vectors of its kind, then the scale."""

    def __init__(self, scheme: Gmtc) -> None:
        super().__init__()
        self.shape = (len(scheme.world.rows()), scheme.world.antennas)
        self.scale = PowerScale(scheme.config.scale_low_db, scheme.config.scale_high_db)
        self.basis = Synthesis(math.prod(self.shape), scheme.config.subspace)
        self.code = MixtureCode(scheme.config)

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        points = torch.stack([self._point(bits) for bits in codes(fields[LENGTH].numpy(), fields[CODE].numpy())])
        images = self.basis(to_real(points)) * self.scale.decode(fields)
        return images.unflatten(1, self.shape), {}

    def distortion(self, fields: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        read = [self.code.read(bits) for bits in codes(fields[LENGTH].numpy(), fields[CODE].numpy())]
        labels, steps = (torch.tensor([report[part] for report in read]) for part in (0, 1))
        sent = torch.from_numpy(np.stack([report[2] for report in read])).long()
        return self.code.expected(labels, steps, sent) / math.prod(self.shape), steps

    def _point(self, bits: Bits) -> Tensor:
        """[P] complex64 of a report's code. Raises InvalidInput."""
        label, step, sent = self.code.read(bits)
        coefficients = self.code.values(torch.from_numpy(sent)[None], torch.tensor([step]))[0]
        return self.code.directions[label] @ torch.view_as_complex(coefficients)


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
            self.code.read(bits)

    def check_sizes(self) -> None:
        self.world = require_wideband(self.scenario, self.name)
        entries = len(self.world.rows()) * self.world.antennas
        if self.config.subspace > entries:
            raise InvalidInput(f"subspace: {self.config.subspace} is more than {entries}, the entries of an image")

    def make_encoder(self) -> GmtcEncoder:
        return GmtcEncoder(self)

    def make_decoder(self) -> GmtcDecoder:
        return GmtcDecoder(self)
