"""The downlink: what the UE measures (HyperRNN paper, eq. 2) and the truth that only the evaluator may see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.channels.files import DataFile
from shared.channels.files.layouts import HF_SUBCARRIERS
from shared.channels.scenario import Link, Scenario
from shared.channels.streams import Purpose, Samples
from shared.channels.subbands import precoders
from shared.channels.transforms import to_antennas
from shared.channels.wideband import require_wideband
from shared.metrics import Domain, Truth


@dataclass(frozen=True)
class DownlinkView:
    """The downlink of the given frames.

    Attributes:
        scenario, samples: which frames of which world; N rows.
        known: channels [N, T, M], or perfect images [N, T, Q, M], of slots 0 .. T-1, where they are at hand already
            (training needs them for the observation and for the loss).
    """

    scenario: Scenario
    samples: Samples
    known: Tensor | None = None

    def parts(self, frames: int) -> Iterator[DownlinkView]:
        """The same, so many frames at a time: their images need not be held all at once."""
        for first in range(0, len(self.samples), frames):
            rows = slice(first, first + frames)
            known = None if self.known is None else self.known[rows]
            yield DownlinkView(self.scenario, self.samples.take(rows), known)

    def truth(self, domain: Domain, delay_slots: int = 0, *, slots: range | None = None) -> Truth:
        """What estimates of the given domain are compared with, [N, T, ...]; slots as for `channel`, or [N, S, ...] of
        others of the frame.

        Where a data file has HF_all, images are compared with it at its subcarriers, as public evaluators do, and what
        the rows that are cut off hold follows from the share of HF_all that the kept ones explain.
        """
        if domain == "spatial":
            return Truth.narrowband(self.channel(delay_slots, slots=slots))
        if domain == "precoder":
            return Truth.precoders(self.precoders(delay_slots=delay_slots, slots=slots))
        world = require_wideband(self.scenario, "an image")
        chosen_slots = self._slots(delay_slots, slots)
        image, total, subcarriers = world.whole_band(self.samples, Link.DOWNLINK, chosen_slots)
        whole = world.whole(self.samples) if isinstance(world, DataFile) else None
        if whole is None:
            return Truth(image, total, subcarriers, world.waves(world.compared(), world.rows()).to(image.device))
        whole_channel, kept = whole
        synthesis = world.waves(torch.arange(HF_SUBCARRIERS), world.rows()).to(image.device)
        return Truth(image, total / kept[:, None].clamp(min=1e-6), whole_channel[:, None], synthesis)

    def image(self, *, noisy: bool = False) -> Tensor:
        """Angular-delay images [N, T, Q, M] complex64 as the UE knows them.

        Args:
            noisy: estimated at the scenario's SNR, per subcarrier and antenna, instead of perfect.
        """
        world = require_wideband(self.scenario, "an image")
        images = self.known
        if images is None:
            images = world.angular_delay(self.samples, Link.DOWNLINK, self._slots())
        return world.estimated(self.samples, Purpose.DOWNLINK_NOISE, self._slots(), images) if noisy else images

    def precoders(self, *, noisy: bool = False, delay_slots: int = 0, slots: range | None = None) -> Tensor:
        """Precoders of the subbands [N, T, S, M] complex64 (`subbands.precoders`), from the whole channel, nothing cut
        off, at the subcarriers of comparison (of a data file, from the rows that it has).

        Args:
            noisy: of a channel that is estimated at the scenario's SNR, per subcarrier and antenna.
            slots: of the frame, S instead of all T.
        """
        world = require_wideband(self.scenario, "a precoder per subband")
        chosen_slots = self._slots(delay_slots, slots)
        chosen = world.compared()
        if noisy:
            full = world.angular_delay(self.samples, Link.DOWNLINK, chosen_slots, full=True)
            full = world.estimated(self.samples, Purpose.DOWNLINK_NOISE, chosen_slots, full)
            over_angles = world.waves(chosen, world.rows(full=True)).to(full.device) @ full
        else:
            over_angles = world.whole_band(self.samples, Link.DOWNLINK, chosen_slots)[2]
        return precoders(to_antennas(over_angles), world.subband_of(chosen).to(over_angles.device), world.subbands)

    def channel(self, delay_slots: int = 0, *, slots: range | None = None) -> Tensor:
        """Downlink channels [N, T, M], complex64, of slots delay_slots .. T-1+delay_slots, or [N, S, M] of other slots
        than 0 .. T-1.

        With a feedback delay the frame's process goes on past slot T-1: its long-term features stay, its fading
        evolves.
        """
        if self.known is not None and not delay_slots and slots is None:
            return self.known
        return self.scenario.spatial(self.samples, Link.DOWNLINK, self._slots(delay_slots, slots))

    def pilots(self, pilots: Tensor) -> Tensor:
        """Received pilots y = h^H X_dl + n, eq. (2).

        Args:
            pilots: X_dl, [M, L_dl] complex64.

        Returns:
            [N, T, L_dl] complex64, noise of power N0 on each sample.
        """
        noise = self.samples.complex_normal(Purpose.DOWNLINK_NOISE, self._slots(), pilots.shape[1])
        return self.channel().conj() @ pilots + noise * self.scenario.noise_power**0.5

    def _slots(self, delay_slots: int = 0, slots: range | None = None) -> Tensor:
        chosen = range(self.scenario.slots) if slots is None else slots
        return torch.arange(chosen.start, chosen.stop, device=self.samples.ue.device) + delay_slots
