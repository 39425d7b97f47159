"""Behind the wall: the only part of the gNB that sees the downlink truth. Nothing that decodes imports this module."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from gnb_server.sessions import Fleet
from shared.channels.downlink import DownlinkView
from shared.channels.streams import Samples, Split
from shared.metrics import Truth


class Evaluator:
    """True downlink channels of the frames that are open, per fleet."""

    def __init__(self) -> None:
        self._frames: dict[str, NDArray[np.int64]] = {}
        self._truth: dict[str, Truth] = {}

    def truth(self, fleet: Fleet, rows: NDArray[np.int64], frame: int, slot: int) -> Truth:
        """True channels [rows, ...] that the estimates of `slot` are compared with (slot + delay)."""
        frames = self._frames.setdefault(fleet.token, np.full(fleet.ue_count, -1, np.int64))
        new = rows[frames[rows] != frame]
        if len(new):
            ue = torch.from_numpy(new + fleet.first_ue)
            samples = Samples(fleet.seed, Split.EMULATE, ue, torch.full_like(ue, frame))
            fresh = DownlinkView(fleet.scenario, samples).truth(fleet.domain, fleet.delay)
            if fleet.token not in self._truth:
                self._truth[fleet.token] = fresh.room_for(fleet.ue_count)
            self._truth[fleet.token].put(torch.from_numpy(new), fresh)
            frames[new] = frame
        return self._truth[fleet.token][torch.from_numpy(rows), slot]

    def forget(self, fleet: Fleet) -> None:
        """Free what is held for a fleet."""
        self._frames.pop(fleet.token, None)
        self._truth.pop(fleet.token, None)
