"""Rel-16 enhanced Type II, rank 1 (TS 38.214, 5.2.2.2.5): beams for the whole band, each with a few delays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from shared.channels.wideband import Wideband
from shared.fields import Within
from shared.link.payload import PayloadLayout
from shared.schemes import register
from shared.schemes.base import Decoder, SchemeConfig, State
from shared.schemes.codebooks.base import CodebookConfig, CodebookEncoder, CodebookScheme, beams
from shared.schemes.codebooks.pmi import PmiFields
from shared.schemes.codebooks.selection import Selection
from shared.schemes.codebooks.tables import COMBINATIONS, PORTS, Ports


@dataclass(frozen=True)
class EnhancedTypeIIConfig(CodebookConfig):
    """Choices of enhanced Type II.

    Attributes:
        combination: paramCombination-r16, which sets the numbers of beams, delays and coefficients.
    """

    combination: Annotated[int, Within(1, len(COMBINATIONS))] = 6

    def make_fields(self, subbands: int) -> PmiFields:
        """The fields of a PMI, for either end."""
        return PmiFields(PORTS[self.ports], COMBINATIONS[self.combination], subbands)


class EnhancedTypeIIEncoder(CodebookEncoder):
    """Chooses the PMI (`selection`)."""

    def __init__(self, world: Wideband, config: EnhancedTypeIIConfig) -> None:
        super().__init__(world, config)
        self.fields = config.make_fields(world.subbands)
        self.selection = Selection(self.ports, self.fields)

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        return self.fields.write(self.selection(self.precoders(observation)))


class EnhancedTypeIIDecoder(Decoder):
    """The precoder that a PMI stands for (Table 5.2.2.2.5-5, one layer)."""

    def __init__(self, world: Wideband, config: EnhancedTypeIIConfig) -> None:
        super().__init__()
        self.ports = PORTS[config.ports]
        self.fields = config.make_fields(world.subbands)

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        pmi = self.fields.read(fields)
        by_beam = self.fields.basis(pmi) @ self.fields.coefficients(pmi)  # [N, N3, 2L]
        chosen = chosen_beams(self.ports, pmi.rotation, pmi.beams)
        precoder = by_beam.unflatten(2, (2, -1)) @ chosen[:, None]  # [N, N3, 2, N1 N2]
        gamma = by_beam.abs().square().sum(-1) * self.ports.positions
        return precoder.flatten(2) / gamma.clamp(min=1e-30).sqrt()[..., None], {}


def chosen_beams(ports: Ports, rotation: Tensor, numbers: Tensor) -> Tensor:
    """Beams v of the orthogonal numbers n = N1 n_2 + n_1 ([N, L]) under a rotation (q1, q2) ([N, 2]): [N, L, N1 N2]."""
    first = ports.o1 * (numbers % ports.n1) + rotation[:, :1]
    second = ports.o2 * (numbers // ports.n1) + rotation[:, 1:]
    return beams(ports, first, second)


@register
class EnhancedTypeII(CodebookScheme):
    """Enhanced Type II of Rel-16, rank 1, R = 1."""

    name: ClassVar[str] = "etype2"
    config_class: ClassVar[type[SchemeConfig]] = EnhancedTypeIIConfig

    config: EnhancedTypeIIConfig

    def make_encoder(self) -> EnhancedTypeIIEncoder:
        return EnhancedTypeIIEncoder(self.world, self.config)

    def make_decoder(self) -> EnhancedTypeIIDecoder:
        return EnhancedTypeIIDecoder(self.world, self.config)

    @property
    def layout(self) -> PayloadLayout:
        return PayloadLayout(self.config.make_fields(self.world.subbands).fields)

    def check_fields(self, fields: Mapping[str, NDArray[np.int64]]) -> None:
        self.config.make_fields(self.world.subbands).check(fields)
