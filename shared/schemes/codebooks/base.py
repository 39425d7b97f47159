"""What the codebooks have in common: a UE that measures precoders, ports, beams, and payloads of indicators."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from shared.channels.scenario import Scenario
from shared.channels.wideband import Wideband, require_wideband
from shared.errors import InvalidInput
from shared.fields import OneOf, check_fields
from shared.link.payload import Field
from shared.metrics import Domain
from shared.schemes.base import Downlink, Encoder, Scheme, SchemeConfig, to_complex, to_real
from shared.schemes.codebooks.tables import PORTS, Ports


@dataclass(frozen=True)
class CodebookConfig(SchemeConfig):
    """Choices that all codebooks have.

    Attributes:
        ports: N1 x N2 positions, each with two polarisations: those of a panel. Of a uniform linear array `16x1` takes
            either half of the elements for a polarisation.
        observation: `perfect`, the UE knows its channel, or `estimated` at the scenario's SNR.
    """

    ports: Annotated[str, OneOf(tuple(PORTS))] = "16x1"
    observation: Annotated[str, OneOf(("perfect", "estimated"))] = "perfect"

    def __post_init__(self) -> None:
        check_fields(self)


class CodebookEncoder(Encoder):
    """A UE that measures the precoder of each subband, and chooses indicators that come near to them.

    Attributes:
        positions: [N1, N2]: not in the payload's text, so that it has to be part of what the encoder's id tells apart.
    """

    positions: Tensor

    def __init__(self, world: Wideband, config: CodebookConfig) -> None:
        super().__init__()
        self.subbands = world.subbands
        self.ports = PORTS[config.ports]
        self.noisy = config.observation == "estimated"
        self.register_buffer("positions", torch.tensor(self.ports[:2]))

    def observe(self, downlink: Downlink) -> Tensor:
        """[N, T, 2 S P]: real parts of the precoders [subband, port], then imaginary parts."""
        return to_real(downlink.precoders(noisy=self.noisy).flatten(2))

    def precoders(self, observation: Tensor) -> Tensor:
        """[N, 2 S P] to [N, S, 2, N1 N2] complex64: subband, polarisation, position."""
        return to_complex(observation).unflatten(1, (self.subbands, 2, self.ports.positions))


class CodebookScheme(Scheme):
    """Base of the codebooks. Each slot's report stands alone, the uplink is not read, and nothing is trained."""

    domain: ClassVar[Domain] = "precoder"
    sizes: ClassVar[tuple[str, ...]] = ("antennas", "subbands")
    trainable: ClassVar[bool] = False
    default_scenario: ClassVar[str] = "cost2100-indoor-csinet"

    config: CodebookConfig

    def check_sizes(self) -> None:
        self.world = self._wideband(self.scenario)
        self.ports = PORTS[self.config.ports]
        if self.world.antennas != self.ports.total:
            raise InvalidInput(f"scenario antennas: {self.world.antennas}; {self.name} has {self.ports.total} ports")

    def check_scenario(self, scenario: Scenario, delay_slots: int = 0) -> None:
        super().check_scenario(self._wideband(scenario), delay_slots)

    def _wideband(self, scenario: Scenario) -> Wideband:
        """The scenario, if each of its subbands has subcarriers. Raises InvalidInput."""
        world, ports = require_wideband(scenario, self.name), self.config.ports
        if world.panel not in (None, ports):
            raise InvalidInput(f"scenario array: {world.panel}; this {self.name} has ports {ports}")
        if len(world.subband_of(world.compared()).unique()) < world.subbands:
            raise InvalidInput(
                f"scenario subbands: {world.subbands} for {world.subcarriers} subcarriers; wanted one or more in each"
            )
        return world


def index_field(name: str, choices: int) -> Field:
    """An indicator of one out of so many: ceil(log2(choices)) bits, none where there is no choice."""
    bits = math.ceil(math.log2(choices))
    return Field(name, 1 if bits else 0, max(bits, 1))


def write_index(field: Field, values: Tensor) -> Tensor:
    """[N] int64 to the values of an `index_field`, [N, 1] or [N, 0]."""
    return values[:, None][:, : field.count]


def read_index(values: Tensor) -> Tensor:
    """Inverse of `write_index`; 0 where there is no choice."""
    return values.sum(-1)


def beams(ports: Ports, l: Tensor, m: Tensor) -> Tensor:  # noqa: E741  # as the standard has it
    """v_{l,m} (TS 38.214, 5.2.2.2.1): beams of numbers l in [0, N1 O1) and m in [0, N2 O2), [...] int64 each.

    Returns:
        [..., N1 N2] complex64 of magnitude 1, position n1 N2 + n2.
    """
    n1, n2 = torch.arange(ports.n1), torch.arange(ports.n2)
    along1 = l[..., None, None] * n1[:, None] / (ports.n1 * ports.o1)
    along2 = m[..., None, None] * n2 / (ports.n2 * ports.o2)
    turns = ((along1 + along2) % 1).flatten(-2)
    return torch.polar(torch.ones_like(turns), 2 * math.pi * turns)
