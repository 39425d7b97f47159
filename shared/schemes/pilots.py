"""Schemes whose UE measures learned pilots, under a power constraint (HyperRNN paper, eqs. 7b and 7c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from shared.errors import InvalidInput
from shared.fields import OneOf, Within, check_fields
from shared.quantizers.base import Quantizer
from shared.schemes.base import Downlink, Encoder, Scheme, SchemeConfig, to_real

UplinkReading = Literal["array", "projected", "none", "genie"]
"""What the decoder takes from the uplink: see `PilotConfig.uplink_reading`."""


@dataclass(frozen=True)
class PilotConfig(SchemeConfig):
    """Sizes of a scheme with pilots; the world's own (M, T) come from the scenario.

    Attributes:
        feedback_bits: B, bits of a report (0 where the scheme has no say in it).
        downlink_pilots: L_dl.
        uplink_pilots: L_ul.
        uplink_reading: `array` (every antenna receives the uplink pilots), `projected` (eq. 1: h^H X_ul), `none`, or
            `genie` (long-term features given).
        beam_power: feed the hypernetwork the instantaneous and running-mean power in M beams too (array reading).
    """

    feedback_bits: Annotated[int, Within(0, 65536)] = 20
    downlink_pilots: Annotated[int, Within(1, 1024)] = 2
    uplink_pilots: Annotated[int, Within(1, 1024)] = 1
    uplink_reading: Annotated[UplinkReading, OneOf(get_args(UplinkReading))] = "array"
    beam_power: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.beam_power and self.uplink_reading != "array":
            raise InvalidInput("beam_power: needs uplink_reading=array")


@dataclass(frozen=True)
class NoUplinkConfig(PilotConfig):
    """Sizes of a scheme whose decoder takes nothing from the uplink."""

    uplink_reading: UplinkReading = "none"


class Pilots(nn.Module):
    """X, [M, L] complex with unit-norm columns, stored as real and imaginary parts."""

    def __init__(self, antennas: int, count: int) -> None:
        super().__init__()
        self.parts = nn.Parameter(torch.randn(2, antennas, count))
        self.normalise()

    def forward(self) -> Tensor:
        """[M, L] complex64."""
        return torch.complex(self.parts[0], self.parts[1])

    @torch.no_grad()
    def normalise(self) -> None:
        """Put every column back on ||X_l||^2 = 1, as the paper does in each iteration."""
        self.parts.div_(self.parts.square().sum(dim=(0, 1), keepdim=True).sqrt())


class PilotEncoder(Encoder):
    """A UE that measures its pilots X_dl.

    Attributes:
        quantizer: of what it sends.
    """

    quantizer: Quantizer

    def __init__(self, pilots: Pilots) -> None:
        super().__init__()
        self.pilots = pilots

    def observe(self, downlink: Downlink) -> Tensor:
        """[N, T, 2 L_dl]: real parts of the received pilots, then imaginary parts."""
        return to_real(downlink.pilots(self.pilots()))


class PilotScheme(Scheme):
    """Base of the schemes with pilots.

    Class attributes:
        readings: what the decoder may take from the uplink.
    """

    config_class: ClassVar[type[SchemeConfig]] = PilotConfig
    readings: ClassVar[tuple[UplinkReading, ...]]

    config: PilotConfig

    def check_sizes(self) -> None:
        if (reading := self.config.uplink_reading) not in self.readings:
            raise InvalidInput(f"uplink_reading: '{reading}'; {self.name} takes {' or '.join(self.readings)}")

    @property
    def reads_uplink(self) -> bool:
        return self.config.uplink_reading != "none"
