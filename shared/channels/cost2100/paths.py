"""From a scene to plane waves at the array: clusters, their multipath components, their power."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from shared.channels.cost2100.parameters import AZIMUTH_DEVIATION, AZIMUTH_MEAN, SPEED_OF_LIGHT, Environment
from shared.channels.cost2100.scene import LOCAL, Part, Scene
from shared.channels.streams import Purpose
from shared.channels.synthesis import Paths

End = Literal["bs", "ue"]
"""Whose azimuth the array resolves: that of departure at the BS, or that of arrival at the UE."""

LosPower = Literal["incoherent", "coherent"]
"""What the power of the line of sight is a multiple of: the other paths' powers, added up (version 3.1 of the published
code), or the power of their sum in amplitude and phase at the carrier (version 2.3.5)."""


@dataclass(frozen=True)
class Side:
    """One end of clusters, [N, C] each: where their components are.

    Attributes:
        x, y: centre [m].
        cosine, sine: direction of the first axis, from the centre to the BS or to the reference VR.
        along, across, up: standard deviations of the components about the centre [m].
    """

    x: Tensor
    y: Tensor
    cosine: Tensor
    sine: Tensor
    along: Tensor
    across: Tensor
    up: Tensor

    def __getitem__(self, part: Part) -> Side:
        return Side(*(getattr(self, name)[part] for name in self.__dataclass_fields__))

    def where(self, condition: Tensor, other: Side) -> Side:
        """Self where `condition`, else `other`."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__)
        return Side(*(torch.where(condition, mine, theirs) for mine, theirs in pairs))


@dataclass(frozen=True)
class Clusters:
    """Clusters of N frames, [N, C] each.

    Attributes:
        bs, ue: both ends; the same for single-bounce and local clusters.
        link_delay: s, between the ends of a twin.
        attenuation: power factor, of shadow fading and delay.
        los_power: [N, 1], of the line of sight over that of the other paths (`LosPower`).
    """

    bs: Side
    ue: Side
    link_delay: Tensor
    attenuation: Tensor
    los_power: Tensor

    def __getitem__(self, part: Part) -> Clusters:
        ends, of_each = (self.bs[part], self.ue[part]), (self.link_delay[part], self.attenuation[part])
        return Clusters(*ends, *of_each, self.los_power[part[0]])


def clusters(environment: Environment, scene: Scene, bs: tuple[float, float]) -> Clusters:
    """Large-scale draws, placement and attenuation of the scene's clusters."""
    numbers = scene.numbers
    shadow, delay, elevation_bs, azimuth_bs, elevation_ue, azimuth_ue = _large_scale(environment, numbers)
    along = delay * (SPEED_OF_LIGHT / 2 / 3)  # a / 3
    towards = torch.atan2(scene.reference_y - bs[1], scene.reference_x - bs[0]) + AZIMUTH_MEAN  # phi0 in its mean
    turn_bs, turn_ue = _normal_pair(numbers[0][1], numbers[1][1])
    distance = environment.cell_radius * numbers[2][1]
    half_bs, half_ue = _half_tangent(azimuth_bs), _half_tangent(azimuth_ue)
    distance_ue = distance * half_bs / half_ue
    far_bs = _far_side(bs, towards + AZIMUTH_DEVIATION * turn_bs, distance, along, half_bs, elevation_bs)
    reference = (scene.reference_x, scene.reference_y)
    far_ue = _far_side(reference, towards + AZIMUTH_DEVIATION * turn_ue, distance_ue, along, half_ue, elevation_ue)
    far = torch.arange(along.shape[1], device=along.device) >= LOCAL
    at_ue = torch.arange(along.shape[1], device=along.device) == 1
    one, nought = torch.ones_like(along), torch.zeros_like(along)
    x, y = torch.where(at_ue, scene.x, bs[0]), torch.where(at_ue, scene.y, bs[1])
    local = Side(x, y, one, nought, along, along, along / 20)
    near_bs = far_bs.where(far, local)
    twin = (numbers[0][2] > environment.single_bounce) & far
    near_ue = far_ue.where(twin, near_bs)
    link = environment.link_delay_min - environment.link_delay_mean * numbers[3][1].log()
    link = torch.where(twin, link, 0.0)
    length = torch.hypot(near_bs.x - bs[0], near_bs.y - bs[1]) + torch.hypot(near_ue.x - scene.x, near_ue.y - scene.y)
    direct = torch.hypot(scene.x - bs[0], scene.y - bs[1])
    excess = (length - direct) / SPEED_OF_LIGHT + link
    excess = torch.minimum(excess, environment.cutoff - direct / SPEED_OF_LIGHT)
    fade = torch.where(far, (-environment.attenuation_per_us * 1e6 * excess).exp(), 1.0)
    # a normal that no cluster uses: the one about the UE is not placed
    k_factor = environment.los_power.mu * _decibel(environment.los_power.sigma_db * turn_bs[:, 1:2])
    los_power = torch.where(direct <= environment.los_distance, k_factor, 0.0)
    return Clusters(near_bs, near_ue, link, shadow * fade, los_power)


def _far_side(
    origin: tuple[float | Tensor, float | Tensor],
    direction: Tensor,
    distance: Tensor,
    along: Tensor,
    half_azimuth: Tensor,
    elevation: Tensor,
) -> Side:
    """Clusters seen from `origin` at an azimuth and distance, as wide as their spreads make them there."""
    cosine, sine = direction.cos(), direction.sin()
    x, y = origin[0] + distance * cosine, origin[1] + distance * sine
    return Side(x, y, -cosine, -sine, along, distance * half_azimuth / 3, distance * _half_tangent(elevation) / 3)


def paths(
    environment: Environment,
    scene: Scene,
    held: Clusters,
    bs: tuple[float, float],
    *,
    carrier_hz: float,
    first_hz: float,
    phase: Purpose,
    array_end: End,
    los_power: LosPower,
) -> Paths:
    """Multipath components of all clusters, the first of each before the second, then the line of sight:
    L = components * C + 1.

    The phase of a component is uniform, so that of its delay is taken to be part of it.

    Args:
        held: the scene's clusters.
        bs: position [m].
        carrier_hz: centre of the band. first_hz: its first subcarrier.
        phase: the link's stream of phases.
        array_end: at which end the azimuth is seen.
        los_power: of which power of the other paths `held.los_power` is a multiple. The phases are a link's own, and so
            is the power of the line of sight where it is that of their coherent sum.
    """
    count = environment.components
    pairs = -(-count // 2)
    numbers = _uniforms(scene, Purpose.SCATTERER, (count, count, pairs, pairs, count))
    along, across = _normal_pair(numbers[0], numbers[1])
    up = torch.cat(_normal_pair(numbers[2], numbers[3]))[:count]
    power = -numbers[4].log()  # |g|^2 of CN(0, 1), then normalised over the cluster
    at_bs = _span(held.bs, along, across, up, bs[0], bs[1])
    at_ue = _span(held.ue, along, across, up, scene.x, scene.y)
    wavelength = SPEED_OF_LIGHT / carrier_hz
    direct = torch.hypot(scene.x - bs[0], scene.y - bs[1])  # [N, 1]
    free_space = wavelength / (4 * math.pi * direct)
    visibility = 0.5 - (scene.border * (2 * math.sqrt(2 / (wavelength * environment.vr_transition)))).atan() / math.pi
    gain = torch.where(scene.there, visibility * held.attenuation.sqrt(), 0.0) * free_space
    amplitude = (power / power.sum(0)).sqrt_().mul_(gain)
    delay = (at_bs.length + at_ue.length).div_(SPEED_OF_LIGHT).add_(held.link_delay)
    (drawn,) = _uniforms(scene, phase, (count,))
    seen = at_bs if array_end == "bs" else at_ue
    moving_x, moving_y = scene.heading.cos(), scene.heading.sin()
    radial_speed = (at_ue.x * moving_x).addcmul_(at_ue.y, moving_y).div_(at_ue.length)
    sight_x, sight_y = scene.x - bs[0], scene.y - bs[1]
    drawn = drawn * (2 * math.pi)
    if los_power == "coherent":
        at_carrier = drawn - delay * (2 * math.pi * (carrier_hz - first_hz))
        real, imaginary = ((amplitude * part).sum((0, 2)) for part in (at_carrier.cos(), at_carrier.sin()))
        others = torch.hypot(real, imaginary)[:, None]
    else:
        others = gain.square().sum(1, keepdim=True).sqrt()
    los_amplitude = held.los_power.sqrt() * others
    los_cosine = sight_x / direct * (1 if array_end == "bs" else -1)
    los_phase = -2 * math.pi * (direct.double() * (first_hz / SPEED_OF_LIGHT)).frac().float()

    def join(components: Tensor, sight: Tensor) -> Tensor:
        joined = components.new_empty(len(sight), components[:, 0].numel() + 1)
        joined[:, :-1].unflatten(1, (count, -1)).copy_(components.transpose(0, 1))
        joined[:, -1:] = sight
        return joined

    return Paths(
        join(amplitude, los_amplitude),
        join(drawn, los_phase),
        join(delay, direct / SPEED_OF_LIGHT),
        join((seen.x.square() + seen.y.square()).rsqrt_().mul_(seen.x), los_cosine),
        join(radial_speed, -(sight_x * moving_x + sight_y * moving_y) / direct),
    )


@dataclass(frozen=True)
class _Span:
    """From an end of the link to the components: x, y and length, [components, N, C] m."""

    x: Tensor
    y: Tensor
    length: Tensor


def _span(side: Side, along: Tensor, across: Tensor, up: Tensor, x: float | Tensor, y: float | Tensor) -> _Span:
    """Components at standard normal offsets (along, across, up) from the cluster's centre, seen from (x, y)."""
    dx = torch.addcmul(side.x - x, along, side.along * side.cosine).addcmul_(across, side.across * side.sine, value=-1)
    dy = torch.addcmul(side.y - y, along, side.along * side.sine).addcmul_(across, side.across * side.cosine)
    dz = up * side.up
    return _Span(dx, dy, dz.square_().addcmul_(dx, dx).addcmul_(dy, dy).sqrt_())


def _uniforms(scene: Scene, purpose: Purpose, counts: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Uniforms of each cluster, [count, N, C] for each of `counts`."""
    numbers = scene.source.draw(purpose, -(-sum(counts) // 6)).flatten(0, 1)
    return numbers[: sum(counts)].split(counts)


def _large_scale(environment: Environment, numbers: tuple[Tensor, ...]) -> list[Tensor]:
    """Shadow (power), delay [s], elevation BS, azimuth BS, elevation UE, azimuth UE [radians], [N, C] each."""
    pairs = ((numbers[i][0], numbers[i + 1][0]) for i in (0, 2, 4))
    normals = torch.stack([normal for pair in pairs for normal in _normal_pair(*pair)])
    correlated = torch.einsum("ij,inc->jnc", environment.cholesky.to(normals.device), normals)
    of = environment
    angles = (of.elevation_bs, of.azimuth_bs, of.elevation_ue, of.azimuth_ue)
    spreads = [(1.0, of.shadow_db), (of.delay_spread.mu, of.delay_spread.sigma_db)]
    spreads += [(math.radians(spread.mu), spread.sigma_db) for spread in angles]
    return [mu * _decibel(sigma * x) for (mu, sigma), x in zip(spreads, correlated, strict=True)]


def _half_tangent(angle: Tensor) -> Tensor:
    return (angle / 2).tan()


def _decibel(level: Tensor) -> Tensor:
    """10^(level / 10)."""
    return (level * (math.log(10) / 10)).exp()


def _normal_pair(radius: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent N(0, 1) from two uniforms (Box and Muller)."""
    r, phi = radius.log().mul_(-2).sqrt_(), angle * (2 * math.pi)
    return phi.cos().mul_(r), phi.sin_().mul_(r)
