"""GMTC: transform coding of angular-delay images by a mixture of transforms, entropy coded (after arXiv 2603.14325).

A channel belongs to one of a few kinds (where the UE stands, which paths it has), each with a covariance and so with a
Karhunen-Loeve transform of its own. The UE finds the kind that codes its image best, and sends its label and the
coefficients: in units of one step for all of them (reverse water-filling), with a dead zone, entropy coded by tables
for the deviation that the coefficient has in this kind. The step is the finest whose code fits into the report.

Deviations and steps are powers of 2^(1/16), so that the table of a coefficient follows from whole numbers, and both
ends agree on it. A report's code is a binary number that begins with a one, zeros in front of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
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
from shared.quantizers import scale
from shared.quantizers.entropy import Bits, EntropyTables, Run, SymbolReader
from shared.quantizers.scale import PowerScale
from shared.schemes import SchemeConfig, register
from shared.schemes.base import Decoder, State, to_complex, to_real
from shared.schemes.image_feedback import ImageEstimator, ImageObserver
from shared.schemes.transform import Analysis, Synthesis

CODE = "code"
"""Name of the payload's field."""

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

FLOOR = 0.02
"""Power that is added to each coefficient's before kinds are compared: about what is left of it at 800 bits."""


@dataclass(frozen=True)
class GmtcConfig(SchemeConfig):
    """Sizes and choices of a mixture of transforms.

    Attributes:
        bits: of a report, the scale's 8 among them.
        mixtures: kinds of channels.
        subspace: complex dimensions in which the kinds are told apart: the strongest of all images together.
        components: coefficients of a kind that may be sent.
        ranked: the strongest so many by which kinds are compared; the others count as white.
        tried: of the kinds that compare best, so many are tried out for the least error.
        observation: `perfect`, the UE knows its channel, or `estimated` at the scenario's SNR.
        scale_low_db, scale_high_db: range of the root of the image's mean power [dB], in 255 steps.
    """

    bits: Annotated[int, Within(64, 1 << 16)] = 776
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


class MixtureCode(nn.Module):
    """What both ends hold of a mixture: orthonormal vectors of each kind, deviations, tables; and the code by them.

    Attributes:
        vectors: [2, J, P, K], real and imaginary parts: coefficients of kind j are products with conj(vectors[:, j]).
        levels: [J, K] int16, deviations of coefficients' real and imaginary parts, 2^(level / PARTS), falling with k.
        tables: of magnitudes by class, labels, step indices.
    """

    vectors: Tensor
    levels: Tensor

    def __init__(self, config: GmtcConfig) -> None:
        super().__init__()
        self.capacity = config.bits - scale.BITS
        eye = torch.eye(config.subspace, config.components).expand(config.mixtures, -1, -1)
        self.register_buffer("vectors", torch.stack([eye, torch.zeros_like(eye)]))
        self.register_buffer("levels", torch.zeros(config.mixtures, config.components, dtype=torch.int16))
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

    def write(self, label: int, step: int, coefficients: Tensor) -> Bits:
        """The code of a report's coefficients [K, 2] float32."""
        labels, steps = torch.tensor([label]), torch.tensor([step])
        classes = self.classes(labels, steps)
        sent = self.magnitudes(coefficients[None], classes, steps)[0].numpy().astype(np.int32)
        runs: list[Run] = [(LABELS, np.array([label], np.int32)), (STEP_INDICES, np.array([step], np.int32))]
        runs += [(kind, sent[first:last].ravel()) for kind, first, last in _runs(classes[0].numpy())]
        return self.tables.write(runs, (coefficients.numpy() < 0)[sent > 0].astype(np.uint8))

    def read(self, bits: Bits) -> tuple[int, int, NDArray[np.int32]]:
        """Label, step index and the parts of coefficients in steps, [K, 2], of a report's code. Raises InvalidInput."""
        reader = SymbolReader(self.tables, bits)
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
    """Scales the image, finds its kind and the finest step that fits, and writes the code."""

    def __init__(self, scheme: Gmtc) -> None:
        super().__init__(scheme.world, noisy=scheme.config.observation == "estimated")
        self.ranked, self.tried = scheme.config.ranked, scheme.config.tried
        self.scale = PowerScale(scheme.config.scale_low_db, scheme.config.scale_high_db)
        self.basis = Analysis(math.prod(self.shape), scheme.config.subspace)
        self.code = MixtureCode(scheme.config)

    def scaled(self, images: Tensor) -> Tensor:
        """[N, Q, M] complex64 over their scales, as sent."""
        return images / self.scale(images)[..., None]

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        images = self.images(observation)
        labels, steps, coefficients = self.choose(self.scaled(images))
        codes = [self._write(*report) for report in zip(labels.tolist(), steps.tolist(), coefficients, strict=True)]
        return {**self.scale.encode(images), CODE: torch.from_numpy(np.stack(codes)).long()}

    def choose(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Kinds [N] int64 of scaled images, step indices [N] int64, and coefficients [N, K, 2]: of the least error."""
        points = self.points(images)
        first, *others = self.rank(points).argsort(1)[:, : self.tried].unbind(1)
        labels, steps, coefficients, least = self._tried(points, first)
        for other in others:
            _, fine, found, error = self._tried(points, other)
            better = error < least
            labels, steps, least = (
                torch.where(better, new, old) for new, old in ((other, labels), (fine, steps), (error, least))
            )
            coefficients = torch.where(better[:, None, None], found, coefficients)
        return labels, steps, coefficients

    def _tried(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Labels, their steps and coefficients, and the squared error that is left, but for the points' power, [N]."""
        coefficients = self.coefficients(points, labels)
        steps = self.finest_steps(labels, coefficients)
        sent = self.code.magnitudes(coefficients, self.code.classes(labels, steps), steps)
        missed = coefficients.abs() - self.code.values(sent, steps)
        return labels, steps, coefficients, (missed.square() - coefficients.square()).sum((1, 2))

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
        first = power[:, : self.ranked] + FLOOR
        rest = power[:, self.ranked :].sum(1) / max(1, count - self.ranked) + FLOOR
        weights = code.tables.weights[code.tables.starts[LABELS] : code.tables.starts[LABELS + 1]]
        constant = first.log().sum(1) + (count - self.ranked) * rest.log() - weights.float().log()
        products = points @ code.directions[..., : self.ranked].conj().permute(1, 0, 2).flatten(1)
        energies = torch.view_as_real(products).square().sum(-1).unflatten(1, first.shape)
        total = torch.view_as_real(points).square().sum((1, 2))[:, None]
        return constant + (energies * (1 / first - 1 / rest[:, None])).sum(2) + total / rest

    def finest_steps(self, labels: Tensor, coefficients: Tensor) -> Tensor:
        """The finest steps whose code fits, by its ideal length, [N] int64."""
        low, high = torch.zeros_like(labels), torch.full_like(labels, STEPS - 1)
        for _ in range(STEPS.bit_length()):
            middle = (low + high + 1) // 2
            fits = self.lengths(labels, middle, coefficients) <= self.code.capacity - 1
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

    def _write(self, label: int, step: int, coefficients: Tensor) -> Bits:
        """The code as the payload has it, [capacity]; a step coarser where it is longer than it should be."""
        bits = self.code.write(label, step, coefficients)
        while len(bits) > self.code.capacity and step > 0:
            step -= 1
            bits = self.code.write(label, step, coefficients)
        return np.concatenate([np.zeros(self.code.capacity - len(bits), np.uint8), bits])


class GmtcDecoder(Decoder):
    """Code to coefficients, these to an image by the vectors of its kind, then the scale."""

    def __init__(self, scheme: Gmtc) -> None:
        super().__init__()
        self.shape = (len(scheme.world.rows()), scheme.world.antennas)
        self.scale = PowerScale(scheme.config.scale_low_db, scheme.config.scale_high_db)
        self.basis = Synthesis(math.prod(self.shape), scheme.config.subspace)
        self.code = MixtureCode(scheme.config)

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        points = torch.stack([self._point(bits) for bits in fields[CODE].numpy().astype(np.uint8)])
        images = self.basis(to_real(points)) * self.scale.decode(fields)
        return images.unflatten(1, self.shape), {}

    def _point(self, bits: Bits) -> Tensor:
        """[P] complex64 of a report's code. Raises InvalidInput."""
        label, step, sent = self.code.read(bits)
        coefficients = self.code.values(torch.from_numpy(sent)[None], torch.tensor([step]))[0]
        return self.code.directions[label] @ torch.view_as_complex(coefficients)


@register
class Gmtc(ImageEstimator):
    """A mixture of Karhunen-Loeve transforms, entropy coded."""

    name: ClassVar[str] = "gmtc"
    config_class: ClassVar[type[SchemeConfig]] = GmtcConfig

    config: GmtcConfig
    encoder: GmtcEncoder
    decoder: GmtcDecoder

    @property
    def code(self) -> MixtureCode:
        """Of an end that is there."""
        return self.encoder.code if hasattr(self, "encoder") else self.decoder.code

    @property
    def layout(self) -> PayloadLayout:
        return PayloadLayout((*super().layout.fields, Field(CODE, self.code.capacity, 1)))

    def check_fields(self, fields: Mapping[str, NDArray[np.int64]]) -> None:
        super().check_fields(fields)
        for bits in fields[CODE].reshape(-1, self.code.capacity).astype(np.uint8):
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
