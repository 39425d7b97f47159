"""References without training: what pilots, angles and unquantised feedback allow.

`genie_lmmse` knows the paths' angles and gains, `angle_lmmse` estimates the angles from the uplink's array reading;
both get the UE's received pilots as float32 (32 bits a value, counted) and form the LMMSE estimate of the channel from
all slots of the frame so far. `uplink_only` gets no feedback: it moves the uplink's paths to the downlink carrier.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import torch
from torch import Tensor

from shared.channels import multipath
from shared.channels.multipath import Multipath, require_multipath
from shared.channels.scenario import Link, Scenario
from shared.channels.uplink import UplinkView
from shared.quantizers.float32 import Float32
from shared.schemes import register
from shared.schemes.base import Decoder, Downlink, Encoder, SchemeConfig, State, to_complex, to_real
from shared.schemes.pilots import PilotConfig, PilotEncoder, Pilots, PilotScheme, UplinkReading

GRID = 256
"""Angles tried over the scenario's sector in the first step of the maximum-likelihood search."""

COARSE_SWEEPS, FINE_SWEEPS = 3, 4
"""Over all paths: on that grid once all are there, and around what it gave."""

SAMPLES = "samples"
"""Name of the payload's field."""


class FloatEncoder(PilotEncoder):
    """Sends the received pilots as they are, float32."""

    def __init__(self, pilots: Pilots) -> None:
        super().__init__(pilots)
        self.quantizer = Float32(SAMPLES, 2 * pilots.parts.shape[-1])

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        return self.quantizer.encode(observation)


class LmmseDecoder(Decoder):
    """LMMSE of the path amplitudes from the pilots of the frame's slots so far, given angles and gains.

    The scenario's statistics (fading correlation, noise power, gains) are known, as is the pilot matrix.
    Side information, real: [sines of the P angles, 0]. State: received pilots and their ages.
    """

    def __init__(self, scenario: Multipath, config: PilotConfig, pilots: Pilots) -> None:
        super().__init__()
        self.scenario = scenario
        self.config = config
        self.pilots = pilots
        self.quantizer = Float32(SAMPLES, 2 * config.downlink_pilots)

    def side_information(self, uplink: UplinkView) -> Tensor:
        if self.config.uplink_reading == "genie":
            return uplink.path_sines()[:, None].expand(-1, self.scenario.slots, -1)
        return estimate_angles(self.scenario, uplink.array_pilots(self.config.uplink_pilots).mean(-1))

    def initial_state(self, count: int) -> State:
        length = self.scenario.slots * 2 * self.config.downlink_pilots
        return {"received": torch.zeros(count, length), "slots": torch.zeros(count, 1)}

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        newest = self.quantizer.decode(fields)
        received = torch.cat([newest, state["received"][:, : -newest.shape[1]]], dim=1)
        slots = state["slots"] + 1
        return self._estimate(received, slots, side), {"received": received, "slots": slots}

    def _estimate(self, received: Tensor, slots: Tensor, sine: Tensor) -> Tensor:
        """[N, M] complex64 from pilots of the slots t, t-1, ... ([N, T * 2 L_dl]), their number and the angles."""
        world, slots_max = self.scenario, self.scenario.slots
        pilots = to_complex(received.unflatten(1, (slots_max, -1))).conj()  # y* = X^H h + n*
        vectors = world.gain * multipath.steering(world, world.downlink_ghz, sine)  # [N, M, P]
        response = self.pilots().mH @ vectors  # [N, L, P]
        age = torch.arange(slots_max, device=sine.device)
        correlation = torch.tensor(world.correlation(Link.DOWNLINK), device=sine.device) ** (age[:, None] - age).abs()
        known = (age < slots).to(response.dtype)  # [N, T]
        gram = response @ response.mH  # [N, L, L]
        covariance = torch.einsum("ns,st,nt,nij->nsitj", known, correlation.to(gram.dtype), known, gram)
        covariance = covariance.flatten(3, 4).flatten(1, 2)
        noise = torch.eye(covariance.shape[-1], device=sine.device) * world.noise_power
        weighted = torch.linalg.solve(covariance + noise, (pilots * known[..., None]).flatten(1)[..., None])
        weight = known * correlation[0]
        amplitudes = torch.einsum(
            "nlp,nt,ntl->np", response.conj(), weight, weighted.unflatten(1, (slots_max, -1))[..., 0]
        )
        return (vectors @ amplitudes[..., None])[..., 0]


@dataclasses.dataclass(frozen=True)
class ReferenceConfig(PilotConfig):
    """Sizes of a reference: it has no say in its feedback bits."""

    feedback_bits: int = 0


@dataclasses.dataclass(frozen=True)
class GenieConfig(ReferenceConfig):
    """Sizes of a reference that is given the long-term features."""

    uplink_reading: UplinkReading = "genie"


class Reference(PilotScheme):
    """Base of the references: they know the multipath world that they were built for, and no other."""

    config_class: ClassVar[type[SchemeConfig]] = ReferenceConfig
    trainable: ClassVar[bool] = False
    sizes: ClassVar[tuple[str, ...]] = tuple(field.name for field in dataclasses.fields(Multipath))

    def check_sizes(self) -> None:
        super().check_sizes()
        require_multipath(self.scenario, self.name)

    def check_scenario(self, scenario: Scenario, delay_slots: int = 0) -> None:
        super().check_scenario(require_multipath(scenario, self.name), delay_slots)


class FloatFeedbackScheme(Reference):
    """Base of the references whose report is the received pilots in float32."""

    encoder: FloatEncoder

    def make_encoder(self) -> FloatEncoder:
        return FloatEncoder(self._new_pilots())

    def make_decoder(self) -> LmmseDecoder:
        pilots = self.encoder.pilots if hasattr(self, "encoder") else self._new_pilots()
        return LmmseDecoder(require_multipath(self.scenario, self.name), self.config, pilots)

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
        return UplinkOnlyDecoder(require_multipath(self.scenario, self.name), self.config)


def estimate_angles(scenario: Multipath, received: Tensor) -> Tensor:
    """Path angles by maximum likelihood from the array's snapshots so far, one path at a time, others projected out.

    Alternating projection (Ziskind and Wax, "Maximum likelihood localization of multiple sources by alternating
    projection", 1988): each path in turn over the whole sector, several times, then on finer grids around it.

    Args:
        received: [N, T, M] complex64.

    Returns:
        [N, T, P] float32 sines of the angles; row t uses snapshots 0..t.
    """
    # near its peak the likelihood is flat: in single precision another batch would find another point
    received = received.to(torch.complex128)
    edge = math.sin(math.radians(scenario.angle_deg))
    sector = torch.linspace(-edge, edge, GRID, dtype=torch.float64, device=received.device)[None]
    estimates = []
    for t in range(received.shape[1]):
        snapshots = received[:, : t + 1].transpose(1, 2)  # [N, M, t+1]
        sine = sector.new_zeros(len(received), 0)
        sweeps = 1 + COARSE_SWEEPS if scenario.paths > 1 else 1  # the first adds one path after the other
        for path in [*range(scenario.paths)] * sweeps:
            sine = _improved(scenario, snapshots, sine, path, sector)
        step = 2 * edge / (GRID - 1)
        for _ in range(FINE_SWEEPS):
            offsets = torch.linspace(-step, step, 17, dtype=torch.float64, device=received.device)
            for path in range(scenario.paths):
                around = (sine[:, path : path + 1] + offsets).clamp(-edge, edge)
                sine = _improved(scenario, snapshots, sine, path, around)
            step /= 4
        estimates.append(sine.float())
    return torch.stack(estimates, dim=1)


def _improved(scenario: Multipath, snapshots: Tensor, sine: Tensor, path: int, candidates: Tensor) -> Tensor:
    """The sines [N, P] with the best candidate for one path, given the others."""
    before, after = sine[:, :path], sine[:, path + 1 :]
    return torch.cat([before, _best(scenario, snapshots, torch.cat([before, after], dim=1), candidates), after], dim=1)


def _best(scenario: Multipath, snapshots: Tensor, others: Tensor, candidates: Tensor) -> Tensor:
    """Of candidate sines [N or 1, G] the one [N, 1] that explains most once the paths `others` are projected out."""
    vectors = multipath.steering(scenario, scenario.uplink_ghz, candidates)  # [N or 1, M, G]
    norms = torch.full_like(candidates, float(vectors.shape[1]))
    if others.shape[1]:
        basis = torch.linalg.qr(multipath.steering(scenario, scenario.uplink_ghz, others)).Q
        snapshots = snapshots - basis @ (basis.mH @ snapshots)
        norms = (norms - (basis.mH @ vectors).abs().square().sum(1)).clamp(min=1e-3)
    explained = (vectors.mH @ snapshots).abs().square().sum(-1) / norms
    return candidates.expand(len(explained), -1).gather(1, explained.argmax(1, keepdim=True))


def _least_squares(vectors: Tensor, received: Tensor) -> Tensor:
    """Amplitudes [..., P] of the paths [..., M, P] in `received` [..., M]; the ridge keeps equal angles harmless."""
    gram = vectors.mH @ vectors + torch.eye(vectors.shape[-1], device=vectors.device)
    return torch.linalg.solve(gram, vectors.mH @ received[..., None])[..., 0]
