"""CRNet whose codeword may end after any bit: one checkpoint for all rates (nested dropout: Rippel, Gelbart and Adams,
"Learning ordered representations with nested dropout", ICML 2014).

The networks are CRNet's. Bits of the codeword go out in the order of what they are worth, and a report is as long as
its rate allows: entries that the gNB has no bit of are their means, others have coarser cells. Training gives reports
lengths at random, so that the decoder has seen all of them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from shared.errors import InvalidInput
from shared.fields import OneOf, Within
from shared.link.rate import MOST_BITS, Rates
from shared.quantizers import float32, scale
from shared.quantizers.embedded import EmbeddedQuantizer
from shared.schemes import SchemeConfig, register
from shared.schemes.crnet import CrNet, CrNetConfig
from shared.schemes.image_feedback import FullyConnectedEncoder, ImageEncoder

LEAST_BITS = 64
"""Of a rate in training."""


@dataclass(frozen=True)
class NestedConfig(CrNetConfig):
    """Attributes:
    entry_bits: most bits of an entry.
    allocation: `greedy`, bits are ordered by what they are worth, or `equal`, entries are, each with all of its bits.
    rates: bits of a report in training, each as often; the last is the most that a report may have.
    """

    compression: Annotated[int, Within(1, 1024)] = 16
    entry_bits: int = 8
    allocation: Annotated[str, OneOf(("equal", "greedy"))] = "greedy"
    quantised_training: bool = True
    rates: tuple[int, ...] = (264, 328, 392, 520, 648, 776)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.entry_bits == float32.BITS:
            raise InvalidInput(f"entry_bits: {self.entry_bits} is not 2 to 8")
        if self.companding:
            raise InvalidInput(f"companding: {self.companding}; cells of a nested codeword are measured, wanted 0")
        if not self.quantised_training:
            raise InvalidInput("quantised_training: False; a codeword cut at random is quantised in training")
        bounds = (LEAST_BITS - 1, *self.rates, MOST_BITS + 1)
        if not self.rates or any(before >= after for before, after in itertools.pairwise(bounds)):
            span = f"{LEAST_BITS} to {MOST_BITS}"
            raise InvalidInput(f"rates: {list(self.rates)}; wanted one or more numbers of bits, rising, {span}")

    def make_quantizer(self, entries: int) -> EmbeddedQuantizer:
        room, greedy = self.rates[-1] - scale.BITS, self.allocation == "greedy"
        return EmbeddedQuantizer("codeword", entries, self.entry_bits, room, allocated=greedy)


class NestedEncoder(ImageEncoder):
    """Sends as many bits of the codeword as the rate allows."""

    quantizer: EmbeddedQuantizer

    def encode_within(self, observation: Tensor, rates: Rates) -> dict[str, Tensor]:
        scale_sent, codeword = self.parts(observation)
        lengths = self.quantizer.lengths(rates.bits - scale.BITS)
        return {**scale_sent, **self.quantizer.encode_within(codeword, lengths)}


@register
class CrNetNested(CrNet):
    """CRNet with a codeword that may end after any bit."""

    name: ClassVar[str] = "crnet_nested"
    config_class: ClassVar[type[SchemeConfig]] = NestedConfig

    config: NestedConfig
    encoder: NestedEncoder

    @property
    def least_bits(self) -> int:
        return self.layout.least_bits

    def make_encoder(self) -> NestedEncoder:
        return NestedEncoder(self.world, self.config, FullyConnectedEncoder(self.features(), self.shape, self.entries))
