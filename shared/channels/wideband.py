"""Scenarios with many subcarriers: their channels are images, angular-delay, of which the first rows matter.

Of most worlds they are sums of plane waves: paths of a frame, Doppler over its slots, one array, two carriers.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from shared.channels import compiled, synthesis
from shared.channels.scenario import Link, Scenario
from shared.channels.streams import Purpose, Samples
from shared.channels.synthesis import Paths
from shared.channels.transforms import kept_rows
from shared.errors import InvalidInput
from shared.fields import Within


@dataclass(frozen=True)
class Wideband(Scenario):
    """A world of channels [delay, angle].

    Attributes:
        subcarriers: N_f, evenly spaced over the band, its edges included.
        bandwidth_mhz: from the first to the last subcarrier [MHz].
        first_rows, last_rows: delay rows that are kept (Q_f, Q_l): the image has Q = Q_f + Q_l rows.
        subbands: N3, equal parts of the band, each with a precoder of its own where precoders are reported. The default
            is that of 52 resource blocks in subbands of 4 (TS 38.214, Table 5.2.1.4-2).
    """

    antennas: int = 32
    slots: int = 1
    subcarriers: Annotated[int, Within(2, 4096)] = 257
    bandwidth_mhz: Annotated[float, Within(1e-3, 1e5)] = 20.0
    first_rows: Annotated[int, Within(0, 65536)] = 32
    last_rows: Annotated[int, Within(0, 65536)] = 0
    subbands: Annotated[int, Within(3, 19)] = 13

    def __post_init__(self) -> None:
        super().__post_init__()
        kept_rows(self.subcarriers, self.first_rows, self.last_rows)

    @property
    def subcarrier_hz(self) -> float:
        """Spacing of the subcarriers [Hz]."""
        return self.bandwidth_mhz * 1e6 / (self.subcarriers - 1)

    @property
    def panel(self) -> str | None:
        """N1 x N2 positions of a cross-polarised panel, as `8x2`; None for a line of elements, or if it is unknown."""
        return None

    @property
    def comparison_stride(self) -> int:
        """Every how many subcarriers estimate and truth are compared (rho, SGCS): about 100 over the band."""
        return max(1, self.subcarriers // 100)

    def compared(self) -> Tensor:
        """Numbers of the subcarriers at which estimate and truth are compared, [F] int64."""
        return torch.arange(0, self.subcarriers, self.comparison_stride)

    def subband_of(self, subcarriers: Tensor) -> Tensor:
        """The subband that each subcarrier (int64) lies in, in [0, N3)."""
        return subcarriers * self.subbands // self.subcarriers

    def rows(self, full: bool = False) -> Tensor:
        """Numbers of the delay rows kept, [Q] int64, or of all N_f."""
        if full:
            return torch.arange(self.subcarriers)
        return kept_rows(self.subcarriers, self.first_rows, self.last_rows)

    @abstractmethod
    def angular_delay(self, samples: Samples, link: Link, slots: Tensor, *, full: bool = False) -> Tensor:
        """Channels in the angular-delay domain (`transforms`), in the world's own power.

        Args:
            samples: N frames.
            slots: [S] int64, slot numbers in the frame, ascending.
            full: all N_f delay rows instead of those kept.

        Returns:
            [N, S, Q or N_f, M] complex64.
        """

    def waves(self, chosen: Tensor, rows: Tensor) -> Tensor:
        """From delay rows [Q] to subcarriers [F], both int64: exp(-j 2 pi f n / N_f), [F, Q] complex64."""
        turns = chosen[:, None] * rows % self.subcarriers
        return torch.polar(torch.ones((), device=turns.device), turns * (-2 * math.pi / self.subcarriers))

    def whole_band(self, samples: Samples, link: Link, slots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Channels, and what nothing is cut off from; arguments as for `angular_delay`.

        Returns:
            Images [N, S, Q, M] complex64, squared norms of those of all rows [N, S], and the channels at the
            subcarriers of comparison, over angles [N, S, F, M] complex64.
        """
        full = self.angular_delay(samples, link, slots, full=True)
        return full[..., self.rows().to(full.device), :], *self._compared(full, self.rows(full=True))

    def _compared(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Squared norms [N, S], and channels at the subcarriers of comparison, of images [N, S, Q, M] of some rows."""
        # row by row: a tenth of the time that |x|^2 of each entry takes
        lengths = torch.linalg.vector_norm(torch.view_as_real(images).flatten(-2), dim=-1)
        return lengths.square().sum(-1), self.waves(self.compared(), rows).to(images.device) @ images

    def estimated(self, samples: Samples, purpose: Purpose, slots: Tensor, images: Tensor) -> Tensor:
        """Images [N, S, Q, M] as one knows them who estimates them at `snr_db` per subcarrier and antenna.

        Args:
            purpose: of the noise, the uplink's or the downlink's.
        """
        # white noise stays white: of variance N0 on each subcarrier and antenna, M N0 / N_f is left on each entry
        power = images.abs().square().sum((-2, -1), keepdim=True) / self.antennas**2  # per subcarrier and antenna
        unit = samples.complex_normal(purpose, slots, images[0, 0].numel()).view_as(images)
        return images + unit * (power * self.noise_power * self.antennas / self.subcarriers).sqrt()


@dataclass(frozen=True)
class PlaneWaves(Wideband):
    """A wideband world of paths.

    Attributes:
        uplink_ghz, downlink_ghz: centres of the two bands [GHz].
        speed_kmh, slot_ms: UE speed [km/h], in a random direction, and slot duration [ms].
    """

    uplink_ghz: Annotated[float, Within(0.05, 100)] = 5.1
    downlink_ghz: Annotated[float, Within(0.05, 100)] = 5.3
    speed_kmh: Annotated[float, Within(0, 1e4)] = 3.6
    slot_ms: Annotated[float, Within(1e-6, 1e4)] = 1.0

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
            out[frames] = self.image(held, link, slots, rows, self.antennas)
        return out

    def whole_band(self, samples: Samples, link: Link, slots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if compiled.for_device(slots.device) is None or self.panel:
            return super().whole_band(samples, link, slots)
        rows, leading = self.rows(), (len(samples), len(slots))
        images = torch.empty(*leading, len(rows), self.antennas, dtype=torch.complex64)
        energy = torch.empty(leading)
        at = torch.empty(*leading, len(self.compared()), self.antennas, dtype=torch.complex64)
        for frames, held in self.pieces(samples, link):
            images[frames] = self.image(held, link, slots, rows, self.antennas)
            energy[frames], at[frames] = synthesis.whole_band(
                held, stride=self.comparison_stride, **self._synthesis(link, slots, self.antennas)
            )
        return images, energy, at

    def image(self, paths: Paths, link: Link, slots: Tensor, rows: Tensor, antennas: int) -> Tensor:
        """Images [N, S, Q, antennas] of paths, for so many elements in a line."""
        return synthesis.image(paths, rows=rows, **self._synthesis(link, slots, antennas))

    def _synthesis(self, link: Link, slots: Tensor, antennas: int) -> dict[str, Any]:
        """What `synthesis` wants to know of the world."""
        return {
            "subcarriers": self.subcarriers,
            "subcarrier_hz": self.subcarrier_hz,
            "antennas": antennas,
            "spacing": self.element_spacing(link),
            "doppler": self.doppler(link, slots),
        }

    def spatial(self, samples: Samples, link: Link, slots: Tensor) -> Tensor:
        """As `Scenario.spatial`, at the band's centre; each frame's power, summed over its paths, is 1 per antenna."""
        out = torch.empty(len(samples), len(slots), self.antennas, dtype=torch.complex64, device=slots.device)
        for frames, held in self.pieces(samples, link):
            channel = self.middle(held, link, slots, self.antennas)
            out[frames] = channel / held.amplitude.square().sum(1).sqrt()[:, None, None]
        return out

    def middle(self, paths: Paths, link: Link, slots: Tensor, antennas: int) -> Tensor:
        """Channels [N, S, antennas] of paths at the band's centre, for so many elements in a line."""
        return synthesis.spatial(
            paths,
            frequency_hz=self.bandwidth_mhz * 0.5e6,
            antennas=antennas,
            spacing=self.element_spacing(link),
            doppler=self.doppler(link, slots),
        )


def require_wideband(scenario: Scenario, who: str, field: str = "scenario") -> Wideband:
    """The scenario, if it is wideband.

    Raises:
        InvalidInput: it is not; `who` needs its images. The message begins with `field`.
    """
    if not isinstance(scenario, Wideband):
        raise InvalidInput(f"{field}: {who} needs a wideband world (cost2100-..., tr38901-..., file), not {scenario}")
    return scenario
