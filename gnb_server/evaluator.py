"""Behind the wall: the only part of the gNB that sees the downlink truth. Nothing that decodes imports this module."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gnb_server.places import Places
from gnb_server.sessions import Lease
from shared.channels.streams import Split
from shared.link.evaluation import true_channels
from shared.metrics import Domain, Truth


@dataclass
class _Held:
    """The UEs of a fleet whose frames are open, and the truth of these, a row for each."""

    places: Places
    truth: Truth

    def open(self, ues: NDArray[np.int64], frame: int, truth: Truth) -> None:
        """Begin a frame of UEs [n]."""
        self.places.open(ues, frame)
        if (held := len(self.truth.total)) < self.places.room:
            grown = truth.room_for(self.places.room)
            grown.put(torch.arange(held), self.truth)
            self.truth = grown
        self.truth.put(torch.from_numpy(self.places.of(ues)), truth)


class Evaluator:
    """True downlink channels of the frames that are open, per fleet."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, Domain], _Held] = {}

    def truth(self, lease: Lease, domain: Domain, rows: NDArray[np.int64], frame: int, slots: range) -> Truth:
        """True channels [slots, rows, ...] that the estimates of a frame's slots are compared with. They are drawn at
        the first slot that is asked for, and held until the frame's last.
        """
        key, picked = (lease.token, domain), torch.arange(slots.start, slots.stop)[:, None]
        if len(slots) == lease.conditions.scenario.slots:
            return self._drawn(lease, domain, rows, frame)[torch.arange(len(rows)), picked]
        held = self._held.get(key)
        new = rows if held is None else rows[held.places.frame[rows] != frame]
        if held is None or len(new):
            drawn = self._drawn(lease, domain, new, frame)
            if held is None:
                held = self._held[key] = _Held(Places(lease.ue_count), drawn.room_for(0))
            held.open(new, frame, drawn)
        truth = held.truth[torch.from_numpy(held.places.of(rows)), picked]
        if slots.stop == lease.conditions.scenario.slots:
            held.places.close(rows)
            if not held.places:
                del self._held[key]
        return truth

    @staticmethod
    def _drawn(lease: Lease, domain: Domain, rows: NDArray[np.int64], frame: int) -> Truth:
        """True channels [rows, T, ...] of a frame."""
        samples = lease.conditions.samples(Split.EMULATE, torch.from_numpy(rows + lease.first_ue), frame)
        return true_channels(lease.conditions, domain, samples)

    def forget(self, token: str) -> None:
        """Free what is held for a fleet."""
        self._held = {key: held for key, held in self._held.items() if key[0] != token}
