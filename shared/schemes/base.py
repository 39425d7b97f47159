"""What a scheme is: an encoder, a decoder and the exact layout of the bits between them."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.channels.scenario import Scenario
from shared.channels.uplink import UplinkView
from shared.errors import InvalidInput
from shared.link.payload import PayloadLayout
from shared.link.precision import Precision
from shared.link.rate import OWN, Rate, Rates
from shared.metrics import Domain
from shared.quantizers.base import Quantizer

State = dict[str, Tensor]
"""Recurrent state of N UEs: name -> [N, ...]. Zeros at the start of a frame."""


class Downlink(Protocol):
    """What an encoder may ask of the downlink."""

    def pilots(self, pilots: Tensor) -> Tensor:
        """[M, L] pilots to [N, T, L] received samples."""
        ...

    def image(self, *, noisy: bool = False) -> Tensor:
        """Angular-delay images [N, T, Q, M] complex64, perfect or estimated at the scenario's SNR."""
        ...

    def precoders(self, *, noisy: bool = False) -> Tensor:
        """Precoders of subbands [N, T, S, M] complex64, of a perfect channel or one estimated at the scenario's SNR."""
        ...


@dataclass(frozen=True)
class SchemeConfig:
    """Sizes and choices of a scheme; each kind of scheme has its own subclass."""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class Encoder(nn.Module, ABC):
    """The UE's end.

    Where it is trained as any other, `forward(observation, slope)` is the differentiable path: [N, T, observation] to
    what the decoder's `forward` takes, by its quantisers' with the slope of straight-through gradients.
    """

    @abstractmethod
    def observe(self, downlink: Downlink) -> Tensor:
        """What the UE measures: [N, T, observation]."""

    @abstractmethod
    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        """[N, observation] to payload fields: name -> [N, count] int64, at the scheme's own rate."""

    def encode_frames(self, observation: Tensor) -> dict[str, Tensor]:
        """Whole frames [N, T, observation] to payload fields: name -> [N, T, count] int64. By default each report by
        itself; an encoder with a memory has its own, and its memory begins empty in every frame.
        """
        fields = self.encode(observation.flatten(0, 1))
        return {name: values.unflatten(0, observation.shape[:2]) for name, values in fields.items()}

    def encode_within(self, observation: Tensor, rates: Rates) -> dict[str, Tensor]:
        """As `encode`, each report as its rate allows: of schemes that have `least_bits`, others are never asked."""
        raise NotImplementedError  # not abstract: most schemes have one rate


class Decoder(nn.Module, ABC):
    """The gNB's end. It sees payload fields and the uplink view, nothing else.

    Where it is trained as any other, `forward(sent, side)` is the differentiable path: what the encoder's `forward`
    gives for whole frames, and [N, T, S], to estimates [N, T, M] or images [N, T, Q, M].
    """

    def side_information(self, uplink: UplinkView) -> Tensor:
        """What the gNB takes from its own uplink: [N, T, S]; row t depends on slots 0..t only. By default nothing."""
        return torch.zeros(len(uplink.samples), uplink.scenario.slots, 0, device=uplink.samples.ue.device)

    def initial_state(self, count: int) -> State:
        """State of `count` UEs at the start of a frame. By default reports stand alone."""
        return {}

    @abstractmethod
    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        """Decode one report of each of N UEs.

        Args:
            fields: name -> [N, count] int64.
            side: [N, S], the slot's side information.
            state: of the same UEs, before this slot.

        Returns:
            Downlink estimates [N, M] complex64, images [N, Q, M] or precoders [N, S, M], and the state after this slot.
        """

    def erased(self, side: Tensor, state: State) -> tuple[Tensor, State] | None:
        """As `step`, of N UEs whose report is missing: from the uplink and the state alone; None where that gives no
        estimate.
        """
        return None

    def predicted(self, side: Tensor, state: State) -> tuple[Tensor, State] | None:
        """As `step`, of N UEs whose report is missing: what is to be expected of the slot's channel after the reports
        before it, by a model of how channels change; None where the decoder has none. The state knows that a slot has
        passed.
        """
        return None

    def distortion(self, fields: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """||e||^2 / ||h||^2 that is to be expected of reports by what they say and the decoder knows, [N] float32, and
        the steps that they have, [N] int64: of schemes that have `steps`, others are never asked.
        """
        raise NotImplementedError  # not abstract: most schemes have no steps


End = Literal["encoder", "decoder"]
"""A part of a scheme: what runs at the UE, or at the gNB."""

ENDS: tuple[End, ...] = ("encoder", "decoder")


class Scheme(nn.Module, ABC):
    """A matched pair of encoder and decoder, built for a scenario; a UE builds the encoder alone, a gNB the decoder.

    Class attributes:
        name: how commands, cards and the wire call it.
        config_class: its configuration.
        domain: what it estimates.
        decoded_at_once: reports that its decoder takes in one call, at most; None: as many as there are.
        sizes: fields of the scenario that must be those that it was built for.
        steps: how many quantiser steps a report may choose from; 0 where it has no choice.
        trainable: whether `csiemu train` has anything to optimise.
        default_scenario: what it is trained for where nothing else is asked for.

    Attributes:
        precision: that its decoder computes in, by `shared.link.decoding`; the encoder's is float32.

    Args:
        scenario: the world that it is built for: its sizes are those of the networks.
        config: an instance of `config_class`.
        ends: what to build; the other end's attribute is missing.

    Raises:
        InvalidInput: configuration and scenario do not fit this scheme.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[SchemeConfig]]
    domain: ClassVar[Domain] = "spatial"
    decoded_at_once: ClassVar[int | None] = None
    sizes: ClassVar[tuple[str, ...]] = ("antennas", "slots")
    steps: ClassVar[int] = 0
    trainable: ClassVar[bool] = True
    default_scenario: ClassVar[str] = "multipath-p2"

    encoder: Encoder
    decoder: Decoder
    precision: Precision = "fp32"

    def __init__(self, scenario: Scenario, config: SchemeConfig, ends: tuple[End, ...] = ENDS) -> None:
        super().__init__()
        self.scenario = scenario
        self.config = config
        self.check_sizes()
        if "encoder" in ends:
            self.encoder = self.make_encoder()
        if "decoder" in ends:
            self.decoder = self.make_decoder()

    def check_sizes(self) -> None:
        """Raises InvalidInput if configuration and scenario do not fit this scheme; by default they do."""

    @abstractmethod
    def make_encoder(self) -> Encoder:
        """The UE's end, with initial weights."""

    @abstractmethod
    def make_decoder(self) -> Decoder:
        """The gNB's end, with initial weights; whatever both ends hold is the encoder's, if that is there."""

    @cached_property
    def quantizers(self) -> tuple[Quantizer, ...]:
        """Those of an end that is there: both have the same."""
        end = self.encoder if hasattr(self, "encoder") else self.decoder
        return tuple(module for module in end.modules() if isinstance(module, Quantizer))

    @property
    def layout(self) -> PayloadLayout:
        """The payload of one report, from either end: the fields of its quantisers."""
        return PayloadLayout(tuple(field for quantizer in self.quantizers for field in quantizer.fields()))

    @property
    def least_bits(self) -> int | None:
        """The fewest bits that every report can be kept within; None where all have the same rate."""
        return None

    def rates(self, rate: Rate, reports: int = 1) -> Rates:
        """What a rate comes to for so many reports; of schemes that have `least_bits`. By default its bits, or as many
        as the layout has, and the finest step.
        """
        step = max(0, self.steps - 1) if rate.step is None else rate.step
        return Rates.of(self.layout.bits if rate.bits is None else rate.bits, step, reports)

    def check_rate(self, rate: Rate) -> None:
        """Raises InvalidInput for a rate that reports of this scheme cannot have."""
        layout = self.layout
        if rate != OWN and self.least_bits is None:
            raise InvalidInput(f"rate: all reports of this {self.name} have {layout.bits} bits; wanted none")
        if rate.bits is not None and not (self.least_bits or 0) <= rate.bits <= layout.bits:
            raise InvalidInput(f"bits: {rate.bits}; this {self.name} takes {self.least_bits} to {layout.bits} a report")
        if (rate.step, rate.target_nmse_db) != (None, None) and not self.steps:
            raise InvalidInput(f"step, target_nmse_db: {self.name} has no steps to choose from; wanted bits alone")
        if rate.step is not None and rate.step >= self.steps:
            raise InvalidInput(f"step: {rate.step}; {self.name} has steps 0 to {self.steps - 1}")

    @property
    def reads_uplink(self) -> bool:
        """Whether its decoder takes anything from the uplink."""
        return False

    def check_fields(self, fields: Mapping[str, NDArray[np.int64]]) -> None:
        """Raises InvalidInput for payload values that fit their bits but mean nothing to a quantiser."""
        for quantizer in self.quantizers:
            quantizer.check(fields)

    def check_scenario(self, scenario: Scenario, delay_slots: int = 0) -> None:
        """Raises InvalidInput if the scenario's sizes are not those of this scheme, or it lacks what the decoder reads.

        Scenarios that need something of this machine are checked too (`Scenario.check_here`), with the slots that a
        feedback delay needs.
        """
        for name in self.sizes:
            asked, built = getattr(scenario, name, "none"), getattr(self.scenario, name)
            if asked != built:
                raise InvalidInput(f"scenario {name}: {asked}; this {self.name} was built for {built}")
        scenario.check_here(delay_slots)
        if self.reads_uplink and not scenario.has_uplink:
            raise InvalidInput(f"scenario: {scenario} has no uplink; this {self.name} reads it")


def to_real(values: Tensor) -> Tensor:
    """[..., K] complex to [..., 2K]: real parts, then imaginary parts."""
    return torch.cat([values.real, values.imag], dim=-1)


def to_complex(values: Tensor) -> Tensor:
    """Inverse of `to_real`, in float32."""
    real, imaginary = values.float().chunk(2, dim=-1)
    return torch.complex(real, imaginary)
