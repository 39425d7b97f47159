"""Behind the wall: the only part of the gNB that sees the downlink truth. Nothing that decodes imports this module."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnb_server.sessions import Fleet
from shared.channels.downlink import DownlinkView
from shared.channels.streams import Samples, Split


class Evaluator:
    """True downlink channels of the frames that are open, per fleet."""

    def __init__(self) -> None:
        self._frames: dict[str, NDArray[np.int64]] = {}
        self._truth: dict[str, Tensor] = {}

    def truth(self, fleet: Fleet, rows: NDArray[np.int64], frame: int, slot: int) -> Tensor:
        """True channels [rows, M] complex64 that the estimates of `slot` are compared with (slot + delay)."""
        if fleet.token not in self._frames:
            self._frames[fleet.token] = np.full(fleet.ue_count, -1, np.int64)
            shape = (fleet.ue_count, fleet.scenario.slots, fleet.scenario.antennas)
            self._truth[fleet.token] = torch.zeros(shape, dtype=torch.complex64)
        frames, truth = self._frames[fleet.token], self._truth[fleet.token]
        new = rows[frames[rows] != frame]
        if len(new):
            ue = torch.from_numpy(new + fleet.first_ue)
            samples = Samples(fleet.seed, Split.EMULATE, ue, torch.full_like(ue, frame))
            truth[torch.from_numpy(new)] = DownlinkView(fleet.scenario, samples).channel(fleet.delay)
            frames[new] = frame
        return truth[torch.from_numpy(rows), slot]

    def forget(self, fleet: Fleet) -> None:
        """Free what is held for a fleet."""
        self._frames.pop(fleet.token, None)
        self._truth.pop(fleet.token, None)
