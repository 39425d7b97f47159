"""The gNB's own view of the world: uplink pilots that it receives (HyperRNN paper, eq. 1). No downlink in reach."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shared.channels import multipath
from shared.channels.scenario import Link, Scenario
from shared.channels.streams import Purpose, Samples
from shared.channels.wideband import require_wideband


@dataclass(frozen=True)
class UplinkView:
    """What the gNB can know of the given frames without feedback.

    Attributes:
        scenario, samples: which frames of which world; N rows.
    """

    scenario: Scenario
    samples: Samples

    def channel(self) -> Tensor:
        """Uplink channels [N, T, M], complex64."""
        return self.scenario.spatial(self.samples, Link.UPLINK, self._slots())

    def image(self, *, noisy: bool = False) -> Tensor:
        """Angular-delay images of the uplink [N, T, Q, M] complex64.

        Args:
            noisy: estimated at the scenario's SNR instead of perfectly known (DualNet-MP paper, footnote 2).
        """
        world = require_wideband(self.scenario, "an image")
        images = world.angular_delay(self.samples, Link.UPLINK, self._slots())
        return world.estimated(self.samples, Purpose.UPLINK_NOISE, self._slots(), images) if noisy else images

    def array_pilots(self, count: int) -> Tensor:
        """`array` reading: every antenna receives `count` unit pilots, y = h x + n with x = 1.

        Returns:
            [N, T, M, count] complex64, noise of power N0 on each sample.
        """
        world = self.scenario
        noise = self._noise(world.antennas * count).unflatten(-1, (world.antennas, count))
        return self.channel()[..., None] + noise

    def projected_pilots(self, pilots: Tensor) -> Tensor:
        """`projected` reading, eq. (1): y = h^H X_ul + n.

        Args:
            pilots: X_ul, [M, L_ul] complex64.

        Returns:
            [N, T, L_ul] complex64.
        """
        return self.channel().conj() @ pilots + self._noise(pilots.shape[1])

    def path_sines(self) -> Tensor:
        """Sines of the paths' angles, [N, P]. Only genie references may ask for them."""
        return multipath.path_sines(multipath.require_multipath(self.scenario, "path_sines"), self.samples)

    def _slots(self) -> Tensor:
        return torch.arange(self.scenario.slots, device=self.samples.ue.device)

    def _noise(self, count: int) -> Tensor:
        unit = self.samples.complex_normal(Purpose.UPLINK_NOISE, self._slots(), count)
        return unit * self.scenario.noise_power**0.5
