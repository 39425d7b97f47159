"""The downlink: what the UE measures (HyperRNN paper, eq. 2) and the truth that only the evaluator may see."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shared.channels.scenario import Link, Scenario
from shared.channels.streams import Purpose, Samples


@dataclass(frozen=True)
class DownlinkView:
    """The downlink of the given frames.

    Attributes:
        scenario, samples: which frames of which world; N rows.
    """

    scenario: Scenario
    samples: Samples

    def channel(self, delay: int = 0) -> Tensor:
        """Downlink channels [N, T, M], complex64, of slots delay .. T-1+delay.

        With a delay the frame's own process goes on past slot T-1: its long-term features stay, its fading evolves.
        """
        slots = torch.arange(self.scenario.slots, device=self.samples.ue.device) + delay
        return self.scenario.spatial(self.samples, Link.DOWNLINK, slots)

    def pilots(self, pilots: Tensor) -> Tensor:
        """Received pilots y = h^H X_dl + n, eq. (2).

        Args:
            pilots: X_dl, [M, L_dl] complex64.

        Returns:
            [N, T, L_dl] complex64, noise of power N0 on each sample.
        """
        return self.receive(self.channel(), pilots)

    def receive(self, channel: Tensor, pilots: Tensor) -> Tensor:
        """`pilots` with the channels [N, T, M] already at hand (training needs both)."""
        slots = torch.arange(self.scenario.slots, device=channel.device)
        noise = self.samples.complex_normal(Purpose.DOWNLINK_NOISE, slots, pilots.shape[1])
        return channel.conj() @ pilots + noise * self.scenario.noise_power**0.5
