"""Parameters of the two published propagation environments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SPEED_OF_LIGHT = 3e8
"""m/s, as the model has it."""


@dataclass(frozen=True)
class Spread:
    """Log-normal quantity: mean 10^(0.1 sigma_db x) mu with x ~ N(0, 1)."""

    mu: float
    sigma_db: float

    @classmethod
    def from_moments(cls, mean: float, deviation: float) -> Spread:
        """From its mean and standard deviation."""
        variance = math.log1p(deviation**2 / mean**2)
        return cls(mean * math.exp(-variance / 2), 10 / math.log(10) * math.sqrt(variance))


@dataclass(frozen=True)
class Environment:
    """One propagation environment. Lengths in m, times in s, angles in degrees.

    Attributes:
        cell_radius: R, of the disc about the origin in which visibility regions (VR) lie.
        vr_radius, vr_transition: r_c, l_c.
        attenuation_per_us: k_tau, natural exponent of a cluster's power [1/us]. cutoff: tau_b.
        los_distance: d_co, largest distance with a line of sight; 0: none. los_power: K, linear.
        bs_local: a local cluster at the BS (there is one at the UE in every environment).
        far_clusters: mean of n_c, the average number of clusters seen; a Poisson draw of at least 1 if `far_random`.
        single_bounce: k_sel, probability that a far cluster is single-bounce; else it is a twin.
        components: multipath components of a cluster.
        delay_spread, azimuth_bs, elevation_bs, azimuth_ue, elevation_ue: cluster spreads.
        shadow_db: sigma of a cluster's shadow fading. correlations: of (shadow, delay, el. BS, az. BS, el. UE, az. UE).
        link_delay_mean, link_delay_min: of twins.
        shared_vrs: mean number of further VRs of a cluster (MS_common); 0: each VR has its own cluster.
    """

    cell_radius: float
    vr_radius: float
    vr_transition: float
    attenuation_per_us: float
    cutoff: float
    los_distance: float
    los_power: Spread
    bs_local: bool
    far_clusters: float
    far_random: bool
    single_bounce: float
    components: int
    delay_spread: Spread
    azimuth_bs: Spread
    elevation_bs: Spread
    azimuth_ue: Spread
    elevation_ue: Spread
    shadow_db: float
    link_delay_mean: float
    link_delay_min: float
    shared_vrs: float
    correlations: tuple[tuple[int, int, float], ...] = ()

    def vr_count(self, far_clusters: int) -> int:
        """n_VR, visibility regions of a cell with `far_clusters` = n_c."""
        return round(far_clusters * (self.cell_radius / (self.vr_radius - self.vr_transition)) ** 2)

    @property
    def seen(self) -> float:
        """Probability that a UE well inside the cell is in a given visibility region."""
        return (self.vr_radius / self.cell_radius) ** 2

    @property
    def cholesky(self) -> Tensor:
        """[6, 6] float32, upper factor U of the correlations, U^T U = C: a row x ~ N(0, I) becomes x U."""
        correlations = torch.eye(6, dtype=torch.float64)
        for i, j, value in self.correlations:
            correlations[i, j] = correlations[j, i] = value
        return torch.linalg.cholesky(correlations).mT.float()


_SHADOW, _DELAY, _AZIMUTH_BS, _AZIMUTH_UE = 0, 1, 3, 5
AZIMUTH_MEAN, AZIMUTH_DEVIATION = math.radians(43.0), math.radians(39.0)
"""Of the azimuth of far clusters about the direction of their reference VR, in every environment [radians]."""

_SPREADS = ((_DELAY, _AZIMUTH_BS, 0.9), (_DELAY, _AZIMUTH_UE, 0.9), (_AZIMUTH_BS, _AZIMUTH_UE, 0.9))
_SHADOWED = ((_SHADOW, _DELAY, -0.1), (_SHADOW, _AZIMUTH_BS, -0.1), (_SHADOW, _AZIMUTH_UE, -0.1))

_NAMES = ("indoor-hall-5ghz", "semi-urban-300mhz-los", "semi-urban-300mhz-nlos")
_TABLE: dict[str, tuple[Any, Any, Any]] = {
    "cell_radius": (30, 500, 500),
    "vr_radius": (2.72, 32.8, 24.5),
    "vr_transition": (1, 16.8, 12.2),
    "attenuation_per_us": (16, math.log(10**1.21), math.log(10**0.72)),
    "cutoff": (0.1, 2.4e-6, 4.2e-6),
    "los_distance": (0, 350, 0),
    "los_power": (Spread(10**-1, 7.2), Spread(10**-0.47, 2.0), Spread(1, 0)),
    "bs_local": (True, False, False),
    "far_clusters": (3.8, 6, 6),
    "far_random": (True, False, False),
    "single_bounce": (0, 0.1, 0.2),
    "components": (3, 27, 48),
    "delay_spread": (Spread.from_moments(3e-9, 0.6e-9), Spread(1.39e-7, 3.66), Spread(3.17e-7, 2.5)),
    "azimuth_bs": (Spread.from_moments(3, 2), Spread(math.degrees(0.255), 2.43), Spread(math.degrees(0.3254), 2.02)),
    "elevation_bs": (Spread.from_moments(1.5, 1.5), Spread(math.degrees(1.578), 0), Spread(math.degrees(1.578), 0)),
    "azimuth_ue": (Spread.from_moments(4, 2), Spread(math.degrees(0.2575), 2.68), Spread(math.degrees(0.3318), 2.03)),
    "elevation_ue": (Spread.from_moments(1, 1), Spread(1.578, 0), Spread(1.578, 0)),
    "shadow_db": (0, 2.05, 2.27),
    "link_delay_mean": (1.07e-7, 8.54e-7, 1.02e-6),
    "link_delay_min": (3.36e-8, 4.79e-8, 5.24e-8),
    "shared_vrs": (4, 0, 0),
    "correlations": ((), _SPREADS, (*_SPREADS, *_SHADOWED)),
}
"""Fields of `Environment` in each. Quirks of the published tables are kept: no LOS power indoors although the label
says LOS, a cut-off there that acts as 0.1 s, and outdoors an elevation spread of 90.41 degrees at the BS against 1.578
at the UE."""

ENVIRONMENTS: dict[str, Environment] = {
    name: Environment(**{field: values[column] for field, values in _TABLE.items()})
    for column, name in enumerate(_NAMES)
}
"""By name."""
