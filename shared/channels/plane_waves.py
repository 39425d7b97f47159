"""Worlds whose channels are sums of plane waves: paths of a frame, Doppler over its slots, one array, two carriers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from shared.channels import synthesis
from shared.channels.scenario import Link
from shared.channels.streams import Samples
from shared.channels.synthesis import Paths
from shared.channels.wideband import Wideband


@dataclass(frozen=True)
class PlaneWaves(Wideband):
    """A wideband world of paths.

    Attributes:
        uplink_ghz, downlink_ghz: centres of the two bands [GHz].
        speed_kmh, slot_ms: UE speed [km/h], in a random direction, and slot duration [ms].
    """

    uplink_ghz: float = 5.1
    downlink_ghz: float = 5.3
    speed_kmh: float = 3.6
    slot_ms: float = 1.0

    RANGES: ClassVar[dict[str, tuple[float, float]]] = Wideband.RANGES | {
        "uplink_ghz": (0.05, 100),
        "downlink_ghz": (0.05, 100),
        "speed_kmh": (0, 1e4),
        "slot_ms": (1e-6, 1e4),
    }

    @abstractmethod
    def pieces(self, samples: Samples, link: Link) -> Iterator[tuple[Tensor | slice, Paths]]:
        """Frames (rows of `samples`) whose paths have about the same number, and these."""

    @abstractmethod
    def element_spacing(self, link: Link) -> float:
        """Element spacing in wavelengths of the link's carrier."""

    @abstractmethod
    def doppler(self, link: Link, slots: Tensor) -> Tensor:
        """[S] radians that a slot turns a path by, per unit of `Paths.radial_speed`."""

    def carrier_hz(self, link: Link) -> float:
        """Centre of the link's band [Hz]."""
        return (self.uplink_ghz if link is Link.UPLINK else self.downlink_ghz) * 1e9

    def angular_delay(self, samples: Samples, link: Link, slots: Tensor, *, full: bool = False) -> Tensor:
        rows = self.rows(full).to(slots.device)
        shape = (len(samples), len(slots), len(rows), self.antennas)
        out = torch.empty(shape, dtype=torch.complex64, device=slots.device)
        for frames, held in self.pieces(samples, link):
            out[frames] = synthesis.image(
                held,
                rows=rows,
                subcarriers=self.subcarriers,
                subcarrier_hz=self.subcarrier_hz,
                antennas=self.antennas,
                spacing=self.element_spacing(link),
                doppler=self.doppler(link, slots),
            )
        return out

    def spatial(self, samples: Samples, link: Link, slots: Tensor) -> Tensor:
        """As `Scenario.spatial`, at the band's centre; each frame's power, summed over its paths, is 1 per antenna."""
        out = torch.empty(len(samples), len(slots), self.antennas, dtype=torch.complex64, device=slots.device)
        for frames, held in self.pieces(samples, link):
            channel = synthesis.spatial(
                held,
                frequency_hz=self.bandwidth_mhz * 0.5e6,
                antennas=self.antennas,
                spacing=self.element_spacing(link),
                doppler=self.doppler(link, slots),
            )
            out[frames] = channel / held.amplitude.square().sum(1).sqrt()[:, None, None]
        return out
