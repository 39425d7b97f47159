"""Predictive quantisation of a frame's slots: differential PCM with a leak (Jayant and Noll, "Digital coding of
waveforms", 1984, chapter 6), its tables by Lloyd and Max.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from shared.quantizers.lloyd_max import LloydMax


class Predictive(LloydMax):
    """What is sent of a value is its difference from a prediction that both ends make of what was sent before, by the
    slot's own table. With difference d_t as it is sent and prediction p_t, p_0 = 0, the gNB takes the value for
    p_t + d_t, and p_{t+1} = memory (p_t + gain_t d_t).

    A difference that is received wrongly by e makes the values of the k-th slot after it wrong by memory^k gain_t e:
    the less memory, the sooner an error is gone, and the more bits the differences need.

    Attributes:
        levels: [T, n, 2^most bits], the tables of the slots.
        distortion: [T, n], mean squared error of what the tables were made by.
        gains: [T, n], set with the tables; 0 in the last slot.

    Args:
        slots: T.
        memory: in [0, 1].
    """

    gains: Tensor

    def __init__(self, field: str, entries: int, bits: int, slots: int, memory: float) -> None:
        super().__init__(field, entries, bits)
        self.memory = memory
        self.levels = self.levels.repeat(slots, 1, 1)
        self.distortion = self.distortion.repeat(slots, 1)
        self.register_buffer("gains", torch.zeros(slots, entries))

    def encode_frames(self, values: Tensor) -> dict[str, Tensor]:
        """[N, T, n] reals to payload fields: name -> [N, T, count] int64."""
        prediction, sent = torch.zeros_like(values[:, 0]), []
        for slot, value in enumerate(values.unbind(1)):
            levels = self.nearest(self.levels[slot], value - prediction)
            prediction = self.following(self.chosen(self.levels[slot], levels), prediction, self.gains[slot])
            sent.append(levels)
        return self.to_fields(torch.stack(sent, dim=1))

    def decode_slot(self, fields: Mapping[str, Tensor], slot: Tensor, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """What the gNB takes values for, and its prediction of the next slot's, [N, n] each.

        Args:
            fields: name -> [N, count] int64, of one report of each UE.
            slot: [N] int64, in [0, T).
            prediction: [N, n]; zeros in slot 0.
        """
        levels = self.of_fields(fields)
        difference = self.levels[slot].gather(2, levels[..., None])[..., 0]
        return prediction + difference, self.following(difference, prediction, self.gains[slot])

    def following(self, difference: Tensor, prediction: Tensor, gain: Tensor) -> Tensor:
        """p_{t+1}. Both ends compute it in these steps, so that they have the same numbers."""
        return (prediction + gain * difference) * self.memory

    def to_levels(self, values: Tensor) -> Tensor:
        """Of slot 0."""
        return self.nearest(self.levels[0], values)

    def from_levels(self, levels: Tensor) -> Tensor:
        """Of slot 0."""
        return self.chosen(self.levels[0], levels)

    @torch.no_grad()
    def calibrate(self, values: Tensor, weight: Tensor | None = None) -> None:
        """Make tables and gains slot by slot, each by the differences that those before leave, from values [N, T, n].
        The gains are those of the least squared differences.
        """
        prediction = torch.zeros_like(values[:, 0])
        for slot, value in enumerate(values.unbind(1)):
            self.levels[slot] = self.table(value - prediction)
            difference = self.chosen(self.levels[slot], self.nearest(self.levels[slot], value - prediction))
            self.distortion[slot] = (prediction + difference - value).square().mean(0)
            if slot + 1 < values.shape[1] and self.memory:
                missing = values[:, slot + 1] / self.memory - prediction
                self.gains[slot] = (missing * difference).mean(0) / difference.square().mean(0)
            prediction = self.following(difference, prediction, self.gains[slot])
