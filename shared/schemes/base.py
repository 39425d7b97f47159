"""What a scheme is: an encoder, a decoder and the exact layout of the bits between them."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.channels.scenario import Scenario
from shared.channels.uplink import UplinkView
from shared.errors import InvalidInput
from shared.payload import PayloadLayout

State = dict[str, Tensor]
"""Recurrent state of N UEs: name -> [N, ...]. Zeros at the start of a frame."""

UplinkReading = Literal["array", "projected", "none", "genie"]
"""What the decoder takes from the uplink: see `SchemeConfig.uplink_reading`."""


class DownlinkPilots(Protocol):
    """What an encoder may ask of the downlink."""

    def pilots(self, pilots: Tensor) -> Tensor:
        """[M, L] pilots to [N, T, L] received samples."""
        ...


@dataclass(frozen=True)
class SchemeConfig:
    """Sizes of a scheme on the multipath world, whose own sizes (M, T) come from the scenario.

    Attributes:
        feedback_bits: B, bits of a report (0 where the scheme has no say in it).
        downlink_pilots: L_dl.
        uplink_pilots: L_ul.
        uplink_reading: `array` (every antenna receives the uplink pilots), `projected` (eq. 1: h^H X_ul), `none`, or
            `genie` (long-term features given).
        beam_power: feed the hypernetwork the instantaneous and running-mean power in M beams too (array reading).
    """

    feedback_bits: int = 20
    downlink_pilots: int = 2
    uplink_pilots: int = 1
    uplink_reading: UplinkReading = "array"
    beam_power: bool = False

    def __post_init__(self) -> None:
        for name in ("downlink_pilots", "uplink_pilots"):
            if not 1 <= getattr(self, name) <= 1024:
                raise InvalidInput(f"{name}: {getattr(self, name)} is not in [1, 1024]")
        if not 0 <= self.feedback_bits <= 65536:
            raise InvalidInput(f"feedback_bits: {self.feedback_bits} is not in [0, 65536]")
        if self.uplink_reading not in ("array", "projected", "none", "genie"):
            raise InvalidInput(f"uplink_reading: '{self.uplink_reading}' is not array, projected, none or genie")
        if self.beam_power and self.uplink_reading != "array":
            raise InvalidInput("beam_power: needs uplink_reading=array")

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class Encoder(nn.Module):
    """The UE's side."""

    @abstractmethod
    def observe(self, downlink: DownlinkPilots) -> Tensor:
        """What the UE measures: [N, T, observation]."""

    @abstractmethod
    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        """[N, observation] to payload fields: name -> [N, count] int64."""


class Decoder(nn.Module):
    """The gNB's side. It sees payload fields and the uplink view, nothing else."""

    @abstractmethod
    def side_information(self, uplink: UplinkView) -> Tensor:
        """What the gNB takes from its own uplink: [N, T, S]; row t depends on slots 0..t only."""

    @abstractmethod
    def initial_state(self, count: int) -> State:
        """State of `count` UEs at the start of a frame."""

    @abstractmethod
    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        """Decode one report of each of N UEs.

        Args:
            fields: name -> [N, count] int64.
            side: [N, S], the slot's side information.
            state: of the same UEs, before this slot.

        Returns:
            Downlink estimates [N, M] complex64 and the state after this slot.
        """


class Scheme(nn.Module):
    """A matched pair of encoder and decoder, built for a scenario.

    Class attributes:
        name: how commands, cards and the wire call it.
        readings: what its decoder may take from the uplink.
        trainable: whether `csiemu train` has anything to optimise.
    """

    name: ClassVar[str]
    readings: ClassVar[tuple[UplinkReading, ...]]
    trainable: ClassVar[bool] = True

    encoder: Encoder
    decoder: Decoder

    def __init__(self, scenario: Scenario, config: SchemeConfig) -> None:
        super().__init__()
        if config.uplink_reading not in self.readings:
            raise InvalidInput(
                f"uplink_reading: '{config.uplink_reading}'; {self.name} takes {' or '.join(self.readings)}"
            )
        self.scenario = scenario
        self.config = config

    @property
    @abstractmethod
    def layout(self) -> PayloadLayout:
        """The payload of one report."""

    def reconstruct(self, observation: Tensor, side: Tensor, slope: float) -> Tensor:
        """Differentiable path from observation to estimate, for training.

        Args:
            observation: [N, T, observation].
            side: [N, T, S].
            slope: of the straight-through quantiser.

        Returns:
            [N, T, M] complex64.

        Raises:
            InvalidInput: the scheme has nothing to train.
        """
        raise InvalidInput(f"scheme: '{self.name}' has nothing to train")

    def check_fields(self, fields: Mapping[str, NDArray[np.int64]]) -> None:
        """Raises InvalidInput for payload values that fit their bits but mean nothing; by default there are none."""

    @torch.no_grad()
    def normalise(self) -> None:
        """Bring parameters back to their constraints after an optimiser step (pilot power)."""

    def check_scenario(self, scenario: Scenario) -> None:
        """Raises InvalidInput if the scenario's sizes are not those of this scheme, or it lacks what the decoder reads.

        Scenarios that need something of this machine are checked too (`Scenario.check_here`).
        """
        for name in ("antennas", "slots"):
            asked, built = getattr(scenario, name), getattr(self.scenario, name)
            if asked != built:
                raise InvalidInput(f"scenario {name}: {asked}; this {self.name} was built for {built}")
        scenario.check_here()
        if self.config.uplink_reading != "none" and not scenario.has_uplink:
            raise InvalidInput(f"scenario: {scenario} has no uplink; this {self.name} reads it")


def to_real(values: Tensor) -> Tensor:
    """[..., K] complex to [..., 2K]: real parts, then imaginary parts."""
    return torch.cat([values.real, values.imag], dim=-1)


def to_complex(values: Tensor) -> Tensor:
    """Inverse of `to_real`, in float32."""
    real, imaginary = values.float().chunk(2, dim=-1)
    return torch.complex(real, imaginary)
