"""References without training: what pilots, angles and unquantised feedback allow.

`genie_lmmse` knows the paths' angles and gains, `angle_lmmse` estimates the angles from the uplink's array reading;
both get the UE's received pilots as float32 (32 bits a value, counted) and form the LMMSE estimate of the channel from
all slots of the frame so far. `uplink_only` gets no feedback: it moves the uplink's paths to the downlink carrier.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from shared.channels import multipath
from shared.channels.multipath import Multipath
from shared.channels.uplink import UplinkView
from shared.quantizers.float32 import Float32
from shared.schemes import register
from shared.schemes.angles import estimate_angles
from shared.schemes.base import Decoder, Downlink, Encoder, SchemeConfig, State, to_complex, to_real
from shared.schemes.lmmse import LmmseDecoder, MultipathScheme
from shared.schemes.pilots import PilotConfig, PilotEncoder, Pilots, UplinkReading

SAMPLES = "samples"
"""Name of the payload's field."""


class FloatEncoder(PilotEncoder):
    """Sends the received pilots as they are, float32."""

    def __init__(self, pilots: Pilots) -> None:
        super().__init__(pilots)
        self.quantizer = Float32(SAMPLES, 2 * pilots.parts.shape[-1])

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        return self.quantizer.encode(observation)


@dataclasses.dataclass(frozen=True)
class ReferenceConfig(PilotConfig):
    """Sizes of a reference: it has no say in its feedback bits."""

    feedback_bits: int = 0


@dataclasses.dataclass(frozen=True)
class GenieConfig(ReferenceConfig):
    """Sizes of a reference that is given the long-term features."""

    uplink_reading: UplinkReading = "genie"


class Reference(MultipathScheme):
    """Base of the references."""

    config_class: ClassVar[type[SchemeConfig]] = ReferenceConfig
    trainable: ClassVar[bool] = False


class FloatFeedbackScheme(Reference):
    """Base of the references whose report is the received pilots in float32."""

    encoder: FloatEncoder

    def make_encoder(self) -> FloatEncoder:
        return FloatEncoder(self._new_pilots())

    def make_decoder(self) -> LmmseDecoder:
        pilots = self.encoder.pilots if hasattr(self, "encoder") else self._new_pilots()
        quantizer = Float32(SAMPLES, 2 * self.config.downlink_pilots)
        return LmmseDecoder(self.world, self.config, pilots, quantizer)

    def _new_pilots(self) -> Pilots:
        return Pilots(self.scenario.antennas, self.config.downlink_pilots).requires_grad_(False)


@register
class GenieLmmse(FloatFeedbackScheme):
    """Angles and gains given: the bound that pilots set."""

    name: ClassVar[str] = "genie_lmmse"
    config_class: ClassVar[type[SchemeConfig]] = GenieConfig
    readings: ClassVar[tuple[UplinkReading, ...]] = ("genie",)


@register
class AngleLmmse(FloatFeedbackScheme):
    """Angles by maximum likelihood from the uplink array, then LMMSE."""

    name: ClassVar[str] = "angle_lmmse"
    readings: ClassVar[tuple[UplinkReading, ...]] = ("array",)


class SilentEncoder(Encoder):
    """A UE that measures and sends nothing."""

    def __init__(self, antennas: int) -> None:
        super().__init__()
        self.antennas = antennas

    def observe(self, downlink: Downlink) -> Tensor:
        """[N, T, 0]: no pilots, no samples."""
        return downlink.pilots(torch.zeros(self.antennas, 0, dtype=torch.complex64)).real

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        return {}


class UplinkOnlyDecoder(Decoder):
    """The slot's uplink channel, its paths moved to the downlink carrier: angles by ML, amplitudes by least squares."""

    def __init__(self, scenario: Multipath, config: PilotConfig) -> None:
        super().__init__()
        self.scenario = scenario
        self.config = config

    def side_information(self, uplink: UplinkView) -> Tensor:
        world = self.scenario
        received = uplink.array_pilots(self.config.uplink_pilots).mean(-1)
        sine = estimate_angles(world, received)
        uplink_vectors = multipath.steering(world, world.uplink_ghz, sine)
        amplitudes = _least_squares(uplink_vectors, received)
        moved = multipath.steering(world, world.downlink_ghz, sine) @ amplitudes[..., None]
        return to_real(moved[..., 0])

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        return to_complex(side), {}


@register
class UplinkOnly(Reference):
    """What the uplink alone gives, at 0 feedback bits: the fading of the two links is independent."""

    name: ClassVar[str] = "uplink_only"
    readings: ClassVar[tuple[UplinkReading, ...]] = ("array",)

    def make_encoder(self) -> SilentEncoder:
        return SilentEncoder(self.scenario.antennas)

    def make_decoder(self) -> UplinkOnlyDecoder:
        return UplinkOnlyDecoder(self.world, self.config)


def _least_squares(vectors: Tensor, received: Tensor) -> Tensor:
    """Amplitudes [..., P] of the paths [..., M, P] in `received` [..., M]; the ridge keeps equal angles harmless."""
    gram = vectors.mH @ vectors + torch.eye(vectors.shape[-1], device=vectors.device)
    return torch.linalg.solve(gram, vectors.mH @ received[..., None])[..., 0]
