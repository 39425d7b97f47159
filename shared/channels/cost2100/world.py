"""COST 2100 as a scenario."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, get_args

from torch import Tensor

from shared.channels.cost2100.parameters import ENVIRONMENTS, SPEED_OF_LIGHT
from shared.channels.cost2100.paths import Clusters, LosPower, clusters, paths
from shared.channels.cost2100.scene import LOCAL, Place, Scene, own_cells, shared_cell, visible_count
from shared.channels.scenario import PRESETS, Link
from shared.channels.streams import Purpose, Samples
from shared.channels.synthesis import Paths
from shared.channels.wideband import PlaneWaves
from shared.errors import InvalidInput
from shared.fields import OneOf, Within

_CLUSTERS = {"cpu": 40_000, "cuda": 200_000}
"""Clusters drawn at once: so many that a call's cost does not matter."""

_PATHS = {"cpu": 100_000, "cuda": 2_000_000}
"""Paths at once: on a CPU so many that the cache holds most."""

_FEW = {"cpu": 60_000, "cuda": 2_000_000}
"""So few paths that padding costs less than another call."""


@dataclass(frozen=True)
class Cost2100(PlaneWaves):
    """COST 2100 channels, one draw of positions and clusters per frame, Doppler over its slots.

    The links share clusters, positions, delays and |g| of the components; the components' phases are independent.

    Attributes:
        propagation: indoor-hall-5ghz, semi-urban-300mhz-los or semi-urban-300mhz-nlos.
        spacing: of the elements [wavelengths at the downlink centre]; the array is the same at both carriers.
        array_angle: `departure`, the azimuth at the BS, or `arrival`, that at the UE (which the public data have).
        los_power: `incoherent`, a multiple of the sum of the other paths' powers, the same for both links, or
            `coherent`, of the power of their sum in each link, as the code had it that the public data come from.
        bs_x, bs_y: BS position [m].
        ue_nearest, ue_farthest: UEs are uniform over nearest <= |x|, |y| <= farthest [m].
        environment: `per_sample`, each frame has a cell of its own, or `fixed`: UEs are dropped into one cell.
        cell: number of the fixed cell.
    """

    propagation: Annotated[str, OneOf(tuple(ENVIRONMENTS))] = "indoor-hall-5ghz"
    spacing: Annotated[float, Within(1e-3, 100)] = 0.5
    array_angle: Annotated[str, OneOf(("departure", "arrival"))] = "departure"
    los_power: Annotated[LosPower, OneOf(get_args(LosPower))] = "incoherent"
    bs_x: Annotated[float, Within(-1000, 1000)] = 0.0
    bs_y: Annotated[float, Within(-1000, 1000)] = 0.0
    ue_nearest: Annotated[float, Within(0, 1000)] = 0.0
    ue_farthest: Annotated[float, Within(0, 1000)] = 10.0
    environment: Annotated[str, OneOf(("per_sample", "fixed"))] = "per_sample"
    cell: Annotated[int, Within(0, 2**32 - 1)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        propagation = ENVIRONMENTS[self.propagation]
        edge = (propagation.cell_radius - propagation.vr_radius) / math.sqrt(2)
        if not self.ue_nearest < self.ue_farthest <= edge:
            raise InvalidInput(
                f"scenario ue_nearest, ue_farthest: {self.ue_nearest}, {self.ue_farthest}; wanted "
                f"nearest < farthest <= {edge:.1f} m, the cell of {self.propagation}"
            )

    def paths(self, samples: Samples, link: Link) -> Paths:
        """Plane waves of the given frames at slot 0, [N, L]."""
        return self._paths(*self._seen(samples), link)

    def pieces(self, samples: Samples, link: Link) -> Iterator[tuple[Tensor, Paths]]:
        """Frames (row numbers) and their paths, frames that see about as many clusters together: little is padding.

        The clusters of many frames are drawn at once, their components for fewer.
        """
        propagation, device = ENVIRONMENTS[self.propagation], samples.ue.device.type
        seen = visible_count(propagation, samples)[1]  # in a fixed cell a guess
        order = seen.argsort(stable=True)
        counts, start = seen[order].tolist(), 0
        while start < len(order):
            most = int(1.3 * counts[start]) + 2
            if (LOCAL + counts[-1]) * propagation.components * (len(order) - start) <= _FEW[device]:
                most = counts[-1]
            stop = min(start + _CLUSTERS[device] // (LOCAL + most) + 1, bisect.bisect_right(counts, most))
            scene, held = self._seen(samples.take(order[start:stop]))
            first = start
            while first < stop:
                room = max(1, _PATHS[device] // ((LOCAL + counts[first]) * propagation.components))
                last = min(first + room, stop)
                columns = slice(None)
                if self.environment == "per_sample":  # without those that none of them sees
                    columns = slice(0 if propagation.bs_local else 1, LOCAL + counts[last - 1])
                part = slice(first - start, last - start), columns
                yield order[first:last], self._paths(scene[part], held[part], link)
                first = last
            start = stop

    def _seen(self, samples: Samples) -> tuple[Scene, Clusters]:
        """What the frames see."""
        propagation, place = ENVIRONMENTS[self.propagation], Place(self.ue_nearest, self.ue_farthest)
        if self.environment == "fixed":
            scene = shared_cell(propagation, place, samples, self.cell)
        else:
            scene = own_cells(propagation, place, samples)
        return scene, clusters(propagation, scene, (self.bs_x, self.bs_y))

    def _paths(self, scene: Scene, held: Clusters, link: Link) -> Paths:
        carrier = self.carrier_hz(link)
        return paths(
            ENVIRONMENTS[self.propagation],
            scene,
            held,
            (self.bs_x, self.bs_y),
            carrier_hz=carrier,
            first_hz=carrier - self.bandwidth_mhz * 0.5e6,
            phase=Purpose.UPLINK_PHASE if link is Link.UPLINK else Purpose.DOWNLINK_PHASE,
            array_end="bs" if self.array_angle == "departure" else "ue",
            los_power=self.los_power,
        )

    def element_spacing(self, link: Link) -> float:
        """Element spacing in wavelengths of the link's carrier."""
        return self.spacing * self.carrier_hz(link) / self.carrier_hz(Link.DOWNLINK)

    def doppler(self, link: Link, slots: Tensor) -> Tensor:
        """[S] radians per unit of radial speed (as a share of the UE's) at each slot."""
        cycles = self.carrier_hz(link) / SPEED_OF_LIGHT * self.speed_kmh / 3.6 * self.slot_ms * 1e-3
        return slots * (2 * math.pi * cycles)


_INDOOR = Cost2100(subcarriers=1024)
_OUTDOOR = Cost2100(
    propagation="semi-urban-300mhz-los", downlink_ghz=0.285, uplink_ghz=0.265, ue_farthest=200, subcarriers=1024
)

PRESETS |= {
    # as the CsiNet papers say it: BS in the centre, 1024 subcarriers; the angle is that at the BS
    "cost2100-indoor": _INDOOR,
    "cost2100-outdoor": _OUTDOOR,
    "cost2100-outdoor-nlos": replace(_OUTDOOR, propagation="semi-urban-300mhz-nlos"),
    # as their public data set is: BS in a corner, or UEs away from it; 257 subcarriers; the angle is that at the UE;
    # the line of sight of the older code
    "cost2100-indoor-csinet": replace(_INDOOR, bs_x=10.0, bs_y=10.0, subcarriers=257, array_angle="arrival"),
    "cost2100-outdoor-csinet": replace(
        _OUTDOOR, ue_nearest=80.0, subcarriers=257, array_angle="arrival", los_power="coherent"
    ),
    # the pair of links of the DualNet-MP paper
    "cost2100-indoor-5g1-5g3": replace(_INDOOR, first_rows=16, last_rows=16),
}
