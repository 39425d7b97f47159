"""Behind the wall: the only part of the gNB that sees the downlink truth. Nothing that decodes imports this module."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gnb_server.sessions import Lease
from shared.channels.streams import Split
from shared.link.evaluation import true_channels
from shared.metrics import Domain, Truth


@dataclass
class _Held:
    """The frame whose truth is held for each UE of a fleet (-1: none), and that truth."""

    frames: NDArray[np.int64]
    truth: Truth | None = None


class Evaluator:
    """True downlink channels of the frames that are open, per fleet."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, Domain], _Held] = {}

    def truth(self, lease: Lease, domain: Domain, rows: NDArray[np.int64], frame: int, slots: range) -> Truth:
        """True channels [slots, rows, ...] that the estimates of a frame's slots are compared with."""
        held = self._held.setdefault((lease.token, domain), _Held(np.full(lease.ue_count, -1, np.int64)))
        new = rows[held.frames[rows] != frame]
        if held.truth is None or len(new):
            samples = lease.conditions.samples(Split.EMULATE, torch.from_numpy(new + lease.first_ue), frame)
            fresh = true_channels(lease.conditions, domain, samples)
            if held.truth is None:
                held.truth = fresh.room_for(lease.ue_count)
            held.truth.put(torch.from_numpy(new), fresh)
            held.frames[new] = frame
        return held.truth[torch.from_numpy(rows), torch.arange(slots.start, slots.stop)[:, None]]

    def forget(self, token: str) -> None:
        """Free what is held for a fleet."""
        self._held = {key: held for key, held in self._held.items() if key[0] != token}
