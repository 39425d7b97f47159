"""TR 38.901 world: urban cells without line of sight (3GPP TR 38.901 7.5), large-scale parameters and rays by Sionna.

Sionna's ray generator (steps 5 to 9) runs on the numbers of our own streams, for many frames at once and in double
precision; the coefficients (steps 10 and 11) are ours. Uplink and downlink share a frame's position, large-scale
parameters and rays (delays, powers, angles at both ends); carrier and initial phases are each link's own.
"""

from __future__ import annotations

import functools
import importlib
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from shared.channels.scenario import PRESETS, SPEED_OF_LIGHT, Link
from shared.channels.streams import Purpose, Samples, Split
from shared.channels.synthesis import Paths
from shared.channels.transforms import to_angles, to_antennas
from shared.channels.wideband import PlaneWaves
from shared.errors import InvalidInput
from shared.fields import OneOf, Within

_AT_ONCE = 256
"""Frames drawn at once, and synthesised."""

_SIONNA = threading.Lock()
"""Held while rays are drawn: a world has one Sionna scenario, which every draw changes."""

_SUBCLUSTERS = (0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 0, 0)
"""Sub-cluster of each ray of the two strongest clusters (Table 7.5-5)."""


@dataclass(frozen=True)
class Tr38901(PlaneWaves):
    """TR 38.901 channels of a gNB in the middle of a circular cell, all UEs outdoors and without line of sight.

    The large-scale parameters are those at the uplink's carrier; UEs move horizontally.
    Horizontal uniform linear array, omnidirectional elements and UE antenna, all vertically polarised; or a panel of
    elements polarised at -45 and 45 degrees (7.3.2, model-2), its rows below each other, antennas in the order of
    TS 38.214's ports: polarisation, column (N1), row (N2). Of a panel the angles of an image are the DFT over all
    antennas in this order and no directions.

    A new UE position and new rays in each frame, Doppler with frozen rays over its slots. The first path has delay 0.
    Power is relative: each frame's paths have power 1 together; path loss and shadowing (step 12) are left out. Also
    left out: line of sight, indoor UEs, spatial consistency (7.6.3), blockage (7.6.4).

    Attributes:
        model: `umi`, urban microcell (street canyon), or `uma`, urban macrocell.
        array: `line`, or a panel of N1 x N2 positions with two elements each.
        spacing_m: element spacing of the one physical array [m], across and down; the default is half a wavelength at
            2.1 GHz.
        nearest_m, radius_m: UEs are uniform over this ring around the gNB [m].
        gnb_m, ue_m: antenna heights [m].
    """

    subcarriers: int = 1024
    first_rows: int = 26
    last_rows: int = 6
    model: Annotated[str, OneOf(("umi", "uma"))] = "umi"
    uplink_ghz: Annotated[float, Within(0.5, 100)] = 2.0
    downlink_ghz: Annotated[float, Within(0.5, 100)] = 2.1
    array: Annotated[str, OneOf(("line", "16x1", "8x2", "4x4"))] = "line"
    spacing_m: Annotated[float, Within(1e-6, 1e3)] = 0.0714
    nearest_m: Annotated[float, Within(1, 5000)] = 10.0
    radius_m: Annotated[float, Within(1, 5000)] = 200.0
    gnb_m: Annotated[float, Within(1.5, 150)] = 20.0
    ue_m: Annotated[float, Within(1.5, 22.5)] = 1.5
    speed_kmh: float = 30.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.nearest_m < self.radius_m:
            raise InvalidInput(
                f"scenario nearest_m, radius_m: {self.nearest_m}, {self.radius_m}; wanted the first less"
            )

        if self.panel and self.antennas != (wanted := 2 * math.prod(self.positions)):
            raise InvalidInput(f"scenario array, antennas: {self.array}, {self.antennas}; wanted {wanted} antennas")

    @property
    def panel(self) -> str | None:
        return None if self.array == "line" else self.array

    @property
    def positions(self) -> tuple[int, int]:
        """N1, N2 of a panel."""
        columns, rows = map(int, self.array.split("x"))
        return columns, rows

    def check_here(self, delay_slots: int = 0) -> None:
        """Raises InvalidInput if Sionna is not installed."""
        _import_sionna(self)

    def paths(self, samples: Samples, link: Link) -> Paths:
        """The frames' rays with the link's own initial phases on them (step 10), [N, L].

        Raises:
            InvalidInput: Sionna is not installed.
        """
        amplitude, delay, cosine, radial_speed, *_ = rays(self, samples).unbind()
        initial = self._initial_phases(samples, link, delay.shape[1])
        # an initial phase is the ray's at the carrier, `Paths` wants that at the band's lower edge
        return Paths(amplitude, initial + delay * (math.pi * self.bandwidth_mhz * 1e6), delay, cosine, radial_speed)

    def rows_of_panel(self, samples: Samples, link: Link) -> Iterator[tuple[int, int, Paths]]:
        """Polarisation, number and paths of each row of a panel: (7.5-22) for a UE antenna of vertical polarisation.

        Raises:
            InvalidInput: Sionna is not installed.
        """
        amplitude, delay, cosine, radial_speed, zenith, cross = rays(self, samples).unbind()
        initial = self._initial_phases(samples, link, 2 * delay.shape[1])
        upright, across = torch.polar(torch.ones_like(initial), initial).chunk(2, dim=1)
        at_edge = delay * (math.pi * self.bandwidth_mhz * 1e6)
        for polarisation, slant in enumerate((-math.pi / 4, math.pi / 4)):
            response = upright * math.cos(slant) + cross * across * math.sin(slant)
            for row in range(self.positions[1]):
                phase = response.angle() + at_edge - zenith * (2 * math.pi * self.element_spacing(link) * row)
                yield polarisation, row, Paths(amplitude * response.abs(), phase, delay, cosine, radial_speed)

    def angular_delay(self, samples: Samples, link: Link, slots: Tensor, *, full: bool = False) -> Tensor:
        if not self.panel:
            return super().angular_delay(samples, link, slots, full=full)
        rows = self.rows(full).to(slots.device)
        shape = (len(samples), len(slots), len(rows), 2, *self.positions)
        out = torch.empty(shape, dtype=torch.complex64, device=slots.device)
        for polarisation, row, held in self.rows_of_panel(samples, link):
            for start in range(0, len(samples), _AT_ONCE):
                frames = slice(start, start + _AT_ONCE)
                images = self.image(held[frames], link, slots, rows, self.positions[0])
                out[frames, ..., polarisation, :, row] = to_antennas(images)
        return to_angles(out.flatten(3))

    def spatial(self, samples: Samples, link: Link, slots: Tensor) -> Tensor:
        if not self.panel:
            return super().spatial(samples, link, slots)
        shape = (len(samples), len(slots), 2, *self.positions)
        out = torch.empty(shape, dtype=torch.complex64, device=slots.device)
        power = torch.zeros(len(samples), device=slots.device)
        for polarisation, row, held in self.rows_of_panel(samples, link):
            out[..., polarisation, :, row] = self.middle(held, link, slots, self.positions[0])
            power += held.amplitude.square().sum(1) / (2 * self.positions[1])
        return out.flatten(2) / power.sqrt()[:, None, None]

    @staticmethod
    def _initial_phases(samples: Samples, link: Link, count: int) -> Tensor:
        """The link's own (step 10), [N, count] radians."""
        purpose = Purpose.UPLINK_PHASE if link is Link.UPLINK else Purpose.DOWNLINK_PHASE
        return samples.uniform(purpose, count) * (2 * math.pi)

    def pieces(self, samples: Samples, link: Link) -> Iterator[tuple[Tensor | slice, Paths]]:
        held = self.paths(samples, link)
        for start in range(0, len(samples), _AT_ONCE):
            frames = slice(start, start + _AT_ONCE)
            yield frames, held[frames]

    def element_spacing(self, link: Link) -> float:
        return self.spacing_m * self.carrier_hz(link) / SPEED_OF_LIGHT

    def doppler(self, link: Link, slots: Tensor) -> Tensor:
        """[S] radians per m/s of radial speed at each slot."""
        return slots * (2 * math.pi * self.slot_ms * 1e-3 * self.carrier_hz(link) / SPEED_OF_LIGHT)


PRESETS |= {
    "tr38901-umi-nlos": Tr38901(),  # DualNet-MP's outdoor cell
    "tr38901-uma-nlos": Tr38901(  # heights and distances of Table 7.2-1
        model="uma", nearest_m=35, radius_m=250, gnb_m=25, first_rows=31, last_rows=1
    ),
}


def rays(world: Tr38901, samples: Samples) -> Tensor:
    """What both links share for a frame: the rays' amplitude, delay [s], cosine and radial speed [m/s] (see `Paths`),
    cosine of the zenith angle at the gNB, and amplitude of what changes polarisation, kappa^(-1/2) (step 9).

    Drawn on the CPU wherever `samples` are, and kept for the next calls with the same frames.

    Returns:
        [6, N, L] float32, L = clusters * rays per cluster; powers add up to 1, the first delay is 0.

    Raises:
        InvalidInput: Sionna is not installed.
    """
    held = _kept_rays(world, samples.seed, samples.split, tuple(samples.ue.tolist()), tuple(samples.frame.tolist()))
    return held.to(samples.ue.device)


@functools.lru_cache(maxsize=4)
def _kept_rays(world: Tr38901, seed: int, split: Split, ue: tuple[int, ...], frame: tuple[int, ...]) -> Tensor:
    samples = Samples(seed, split, torch.tensor(ue, dtype=torch.int64), torch.tensor(frame, dtype=torch.int64))
    parts = torch.arange(len(ue)).split(_AT_ONCE)
    with _SIONNA:
        return torch.cat([_draw(world, samples.take(rows)) for rows in parts], dim=1)


def _draw(world: Tr38901, samples: Samples) -> Tensor:
    """`rays` of a few frames: every ray a path of its own, with its cluster's power and its sub-cluster's delay."""
    scenario, _, drawn = sionna_rays(world, samples)
    strong = torch.zeros_like(drawn.powers).scatter(-1, drawn.strongest_cluster_indices, 1.0)
    step = strong * scenario.get_param("cDS")[..., None] * 1.28e-9  # (7.5-26)
    delay = drawn.delays[..., None] + step[..., None] * torch.tensor(_SUBCLUSTERS)
    amplitude = (drawn.powers / drawn.powers.sum(-1, keepdim=True) / delay.shape[-1]).sqrt()[..., None]
    cosine = -drawn.zod.sin() * drawn.aod.sin()  # (7.5-22) has exp(+j ...) and an array along y, `Paths` exp(-j ...)
    velocity = scenario.ut_velocities[:, 0, :, None, None, None, None]
    radial_speed = drawn.zoa.sin() * (drawn.aoa.cos() * velocity[:, 0] + drawn.aoa.sin() * velocity[:, 1])
    parts = (amplitude.expand_as(delay), delay, cosine, radial_speed, drawn.zod.cos(), drawn.xpr.rsqrt())
    return torch.stack([part.flatten(1).float() for part in parts])


def drop(world: Tr38901, samples: Samples) -> tuple[Tensor, Tensor]:
    """Positions [m] and velocities [m/s] of the frames' UEs, [N, 3] float64 each; the gNB is above the origin."""
    area, bearing, course = samples.uniform(Purpose.PLACE, 3).double().unbind(1)
    distance = (world.nearest_m**2 + area * (world.radius_m**2 - world.nearest_m**2)).sqrt()
    place = torch.polar(distance, bearing * (2 * math.pi))
    velocity = torch.polar(torch.full_like(course, world.speed_kmh / 3.6), course * (2 * math.pi))
    height = torch.full_like(area, world.ue_m)
    flat = torch.zeros_like(area)
    return torch.stack([place.real, place.imag, height], 1), torch.stack([velocity.real, velocity.imag, flat], 1)


def sionna_rays(world: Tr38901, samples: Samples) -> tuple[Any, Any, Any]:
    """Sionna's scenario, `LSP` and `Rays` (7.5, steps 1 to 9), float64: shapes [N, 1 (gNB), 1 (UE), cluster, ray].

    The scenario is the world's only one: the next call changes it.

    Raises:
        InvalidInput: Sionna is not installed.
    """
    scenario, generator, root = _sionna(world)
    _set_topology(world, scenario, *drop(world, samples))
    generator.reset_topology()
    generator.topology_updated_callback()
    clusters, per_cluster = scenario.num_clusters_max, scenario.rays_per_cluster
    numbers = _Numbers(samples, 7 + 10 * clusters + 5 * clusters * per_cluster)
    lsp = _large_scale(scenario, root, numbers.normal((len(samples), 1, 1, len(root))))
    # all that it draws; its own numbers come from one generator for all frames, whose seeds have 32 bits
    generator._spatial_normal = numbers.normal
    generator._spatial_uniform = numbers.uniform
    generator._spatial_binary_sign = numbers.sign
    drawn = generator(lsp)
    numbers.check_used_up()
    return scenario, lsp, drawn


@functools.lru_cache(maxsize=4)
def _sionna(world: Tr38901) -> tuple[Any, Any, Tensor]:
    """Sionna's scenario and `RaysGenerator`, which take long to make, and what correlates large-scale parameters with
    each other, [7, 7] float64, rows in the order of `LSP`.
    """
    _import_sionna(world)
    from sionna.phy.channel.tr38901 import PanelArray
    from sionna.phy.channel.tr38901.lsp import LSPGenerator
    from sionna.phy.channel.tr38901.rays import RaysGenerator
    from sionna.phy.channel.tr38901.uma_scenario import UMaScenario
    from sionna.phy.channel.tr38901.umi_scenario import UMiScenario

    place = {"precision": "double", "device": "cpu"}
    carrier = world.uplink_ghz * 1e9
    element = PanelArray(1, 1, "single", "V", "omni", carrier, **place)
    kind = UMiScenario if world.model == "umi" else UMaScenario
    scenario = kind(carrier, "low", element, element, "downlink", **place)
    anywhere = torch.tensor([[world.radius_m, 0.0, world.ue_m]], dtype=torch.float64)
    _set_topology(world, scenario, anywhere, torch.zeros_like(anywhere))
    correlations = LSPGenerator(scenario)
    correlations.topology_updated_callback()
    root = correlations._cross_lsp_correlation_matrix_sqrt[0, 0, 0]
    return scenario, RaysGenerator(scenario), root[correlations._internal_lsp_order]


def _set_topology(world: Tr38901, scenario: Any, location: Tensor, velocity: Tensor) -> None:
    """A UE [N, 3] in each of N cells, outdoors and without line of sight."""
    location, velocity = location[:, None], velocity[:, None]
    none = torch.zeros_like(location)
    gnb = none + torch.tensor([0.0, 0.0, world.gnb_m])
    outdoors = torch.zeros(len(location), 1, dtype=torch.bool)
    scenario.reset_topology()  # or it takes no other number of cells
    scenario.set_topology(location, gnb, none, none, velocity, outdoors, los=False, distance_2d_in=none[..., 0])


def _large_scale(scenario: Any, root: Tensor, normal: Tensor) -> Any:
    """Sionna's `LSP` (step 4): log-normal, correlated with each other."""
    from sionna.phy.channel.tr38901.lsp import LSP

    correlated = (root @ normal[..., None])[..., 0]
    ds, asd, asa, sf, k, zsa, zsd = (10 ** (scenario.lsp_log_mean + scenario.lsp_log_std * correlated)).unbind(-1)
    return LSP(ds, asd.clamp(max=104), asa.clamp(max=104), sf, k, zsa.clamp(max=52), zsd.clamp(max=52))


class _Numbers:
    """The random numbers of each frame's rays, handed out one after the other."""

    def __init__(self, samples: Samples, count: int) -> None:
        self._left = samples.uniform(Purpose.CLUSTER, count).double()

    def uniform(self, shape: tuple[int, ...], use_sign_matrix: bool = False) -> Tensor:
        """[N, ...] on (0, 1)."""
        count = math.prod(shape[1:])
        taken, self._left = self._left[:, :count], self._left[:, count:]
        return taken.reshape(shape)

    def normal(self, shape: tuple[int, ...], use_sign_matrix: bool = False) -> Tensor:
        """[N, ...], N(0, 1)."""
        return torch.special.ndtri(self.uniform(shape))

    def sign(self, shape: tuple[int, ...]) -> Tensor:
        """[N, ...], -1 or 1."""
        return 1 - 2 * self.uniform(shape).round()

    def check_used_up(self) -> None:
        """Another Sionna that draws in another way would be another world."""
        if self._left.shape[1]:
            raise RuntimeError(
                f"Sionna drew {self._left.shape[1]} numbers a frame less than expected: not version 2.2?"
            )


def _import_sionna(world: Tr38901) -> None:
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):  # Sionna reseeds torch when it is imported
            importlib.import_module("sionna.phy.channel.tr38901")
    except ImportError as error:
        raise InvalidInput(
            f"scenario: {world} needs Sionna, which is not installed: pip install csi-feedback-emulator[sionna]"
        ) from error
