"""Multipath world (HyperRNN paper, eq. 3 and Table I): few paths, AR(1) fading, narrowband."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from scipy.special import j0
from torch import Tensor

from shared.channels.scenario import PRESETS, SPEED_OF_LIGHT, Link, Scenario
from shared.channels.streams import Purpose, Samples
from shared.errors import InvalidInput
from shared.fields import Within


@dataclass(frozen=True)
class Multipath(Scenario):
    """Channels of P paths, long-term features fixed for a frame of T slots, AR(1) fading.

    Attributes:
        paths: P.
        fading_correlation: AR(1) coefficient a (the paper's rho), both links; None computes J0(2 pi f_d tau) per link.
        speed_kmh: UE speed [km/h], used when fading_correlation is None.
        slot_ms: slot duration tau [ms], used when fading_correlation is None.
        uplink_ghz, downlink_ghz: carriers [GHz].
        spacing_m: element spacing of the one physical array [m].
        angle_deg: angles of departure are uniform on (-angle_deg, angle_deg) [degrees].
    """

    paths: Annotated[int, Within(1, 256)] = 2
    fading_correlation: Annotated[float | None, Within(-1, 1)] = None
    speed_kmh: Annotated[float, Within(0, 1e4)] = 30.0
    slot_ms: Annotated[float, Within(1e-6, 1e4)] = 0.1
    uplink_ghz: Annotated[float, Within(1e-3, 1e3)] = 3.0
    downlink_ghz: Annotated[float, Within(1e-3, 1e3)] = 3.1
    spacing_m: Annotated[float, Within(1e-6, 1e3)] = 0.05
    angle_deg: Annotated[float, Within(1e-6, 90)] = 30.0

    @property
    def gain(self) -> float:
        """Path gain alpha_p, equal for all paths, so that E|h_m|^2 = 1."""
        return self.paths**-0.5

    def carrier_ghz(self, link: Link) -> float:
        """The link's carrier [GHz]."""
        return self.uplink_ghz if link is Link.UPLINK else self.downlink_ghz

    def correlation(self, link: Link) -> float:
        """AR(1) coefficient of the link's fading from slot to slot."""
        if self.fading_correlation is not None:
            return self.fading_correlation
        doppler = self.speed_kmh / 3.6 * self.carrier_ghz(link) * 1e9 / SPEED_OF_LIGHT
        return float(j0(2 * math.pi * doppler * self.slot_ms * 1e-3))

    def spatial(self, samples: Samples, link: Link, slots: Tensor) -> Tensor:
        """h_t = sum_p alpha_p a(theta_p) beta_{p,t} (eq. 3), [N, S, M] complex64."""
        purpose = Purpose.UPLINK_FADING if link is Link.UPLINK else Purpose.DOWNLINK_FADING
        beta = fading(samples, purpose, self.correlation(link), slots, self.paths)
        vectors = steering(self, self.carrier_ghz(link), path_sines(self, samples))
        return self.gain * torch.einsum("nmp,nsp->nsm", vectors, beta)


PRESETS |= {
    "multipath-p2": Multipath(paths=2, fading_correlation=0.99),  # Fig. 5: correlated fading, few paths
    "multipath-p8": Multipath(paths=8, fading_correlation=0.0),  # Fig. 4: independent fading
    "multipath-30kmh": Multipath(paths=2),  # Table I: fading correlation computed from speed and slot duration
}


def path_sines(scenario: Multipath, samples: Samples) -> Tensor:
    """Sines of the angles of departure, [N, P] float32: uniform on +-angle_deg, one draw per (ue, frame), shared by
    uplink and downlink: this is the partial reciprocity.
    """
    spread = math.radians(scenario.angle_deg)
    return ((samples.uniform(Purpose.PATH_ANGLE, scenario.paths) * 2 - 1) * spread).sin()


def steering(scenario: Multipath, carrier_ghz: float, sine: Tensor) -> Tensor:
    """Steering vectors a(theta)_m = exp(j 2 pi d m sin(theta) / lambda) of the physical array at a carrier.

    Args:
        sine: [..., P] sine of the angle.

    Returns:
        [..., M, P] complex64.
    """
    cycles = scenario.spacing_m * carrier_ghz * 1e9 / SPEED_OF_LIGHT
    element = torch.arange(scenario.antennas, dtype=torch.float32, device=sine.device)
    phase = (2 * math.pi * cycles) * element[:, None] * sine[..., None, :]
    return torch.polar(torch.ones_like(phase), phase)


def fading(samples: Samples, purpose: Purpose, correlation: float, slots: Tensor, paths: int) -> Tensor:
    """Stationary AR(1) fading: beta_0 ~ CN(0,1), beta_t = a beta_{t-1} + sqrt(1-a^2) w_t.

    Args:
        slots: [S] int64, slot numbers in the frame, ascending; numbers beyond T go on with the same process.

    Returns:
        [N, S, P] complex64.
    """
    last = int(slots[-1])
    if correlation == 0:
        return samples.complex_normal(purpose, slots, paths)
    times = torch.arange(last + 1, device=slots.device)
    innovation = samples.complex_normal(purpose, times, paths)
    lag = slots[:, None] - times[None]
    weight = torch.where(lag >= 0, torch.pow(correlation, lag.clamp(min=0).double()), 0.0)
    weight[:, 1:] *= math.sqrt(1 - correlation**2)
    return torch.einsum("st,ntp->nsp", weight.to(torch.complex64), innovation)


def require_multipath(scenario: Scenario, who: str) -> Multipath:
    """The scenario, if it is a multipath world.

    Raises:
        InvalidInput: it is another one; `who` needs its paths.
    """
    if not isinstance(scenario, Multipath):
        raise InvalidInput(f"scenario: {who} needs a multipath world, {scenario} is none")
    return scenario
