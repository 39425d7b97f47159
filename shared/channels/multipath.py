"""Multipath physics common to both links (HyperRNN paper, eq. 3): long-term features, steering, AR(1) fading."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.channels.scenario import SPEED_OF_LIGHT, Scenario
from shared.channels.streams import Purpose, Samples


@dataclass(frozen=True)
class Features:
    """Long-term features of a frame, shared by uplink and downlink: this is the partial reciprocity.

    Attributes:
        sine: [N, P] float32, sine of the angle of departure.
        gain: path gain alpha_p, equal for all paths: 1/sqrt(P), so that E|h_m|^2 = 1.
    """

    sine: Tensor
    gain: float


def features(scenario: Scenario, samples: Samples) -> Features:
    """Angles uniform on +-angle_deg, equal gains, one draw per (ue, frame)."""
    spread = math.radians(scenario.angle_deg)
    angle = (samples.uniform(Purpose.PATH_ANGLE, scenario.paths) * 2 - 1) * spread
    return Features(angle.sin(), scenario.paths**-0.5)


def steering(scenario: Scenario, carrier_ghz: float, sine: Tensor) -> Tensor:
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


def fading(samples: Samples, purpose: Purpose, rho: float, slots: Tensor, paths: int) -> Tensor:
    """Stationary AR(1) fading: beta_0 ~ CN(0,1), beta_t = rho beta_{t-1} + sqrt(1-rho^2) w_t.

    Args:
        slots: [S] int64, slot numbers in the frame, ascending; numbers beyond T go on with the same process.

    Returns:
        [N, S, P] complex64.
    """
    last = int(slots[-1])
    if rho == 0:
        return samples.complex_normal(purpose, slots, paths)
    times = torch.arange(last + 1, device=slots.device)
    innovation = samples.complex_normal(purpose, times, paths)
    lag = slots[:, None] - times[None]
    weight = torch.where(lag >= 0, torch.tensor(rho, dtype=torch.float64, device=lag.device) ** lag.clamp(min=0), 0.0)
    weight[:, 1:] *= math.sqrt(1 - rho**2)
    return torch.einsum("st,ntp->nsp", weight.to(torch.complex64), innovation)


def channel(
    scenario: Scenario, samples: Samples, carrier_ghz: float, purpose: Purpose, rho: float, slots: Tensor
) -> Tensor:
    """Channel vectors h_t = sum_p alpha_p a(theta_p) beta_{p,t} (eq. 3).

    Returns:
        [N, S, M] complex64.
    """
    long_term = features(scenario, samples)
    beta = fading(samples, purpose, rho, slots, scenario.paths)
    vectors = steering(scenario, carrier_ghz, long_term.sine)
    return long_term.gain * torch.einsum("nmp,nsp->nsm", vectors, beta)
