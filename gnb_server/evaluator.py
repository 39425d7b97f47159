"""Behind the wall: the only part of the gNB that sees the downlink truth. Nothing that decodes imports this module."""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gnb_server.places import Places
from gnb_server.sessions import Lease
from shared.channels.streams import Split
from shared.checkpoints import Checkpoint, CheckpointStore
from shared.conditions import RunConditions
from shared.errors import CsiError, DamagedCheckpoint, InvalidInput
from shared.link.decoding import check_probe
from shared.link.encoding import check_encoder
from shared.link.evaluation import evaluate, true_channels
from shared.metrics import Domain, Truth
from shared.schemes import scheme_class

CHECKED_UES: dict[Domain, int] = {"spatial": 256, "angular-delay": 64, "precoder": 64}
"""UEs of the test split that a card is checked on, a frame each."""

SLACK_DB, SLACK_SGCS, SLACK_SE = 0.5, 0.02, 4.0
"""How much worse than its card a version may be: so many decibels, or so much SGCS where there is no NMSE, and so many
standard errors of both.
"""


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
        if len(slots) == lease.conditions.scenario.slots:
            return self._drawn(lease, domain, rows, frame).swapped()
        key, picked = (lease.token, domain), torch.arange(slots.start, slots.stop)[:, None]
        held = self._held.get(key)
        new = rows if held is None else rows[held.places.frame[rows] != frame]
        if held is None or len(new):
            drawn = self._drawn(lease, domain, new, frame)
            if held is None:
                held = self._held[key] = _Held(Places(lease.ue_count), drawn.room_for(0))
            held.open(new, frame, drawn)
        truth = held.truth[torch.from_numpy(held.places.of(rows)), picked]
        if slots.stop == lease.conditions.scenario.slots:
            self._close(key, rows)
        return truth

    def later_truth(self, lease: Lease, domain: Domain, rows: NDArray[np.int64], frame: int, slot: int) -> Truth | None:
        """True channels [1, rows, ...] of a slot of a frame, or of one beyond its end, where the frame's process goes
        on, as with a feedback delay. None where the world (a data file) ends before.
        """
        held = self._held.get((lease.token, domain))
        if held is not None and slot < lease.conditions.scenario.slots and (held.places.frame[rows] == frame).all():
            return held.truth[torch.from_numpy(held.places.of(rows)), torch.tensor([[slot]])]
        try:
            drawn = self._drawn(lease, domain, rows, frame, range(slot, slot + 1))
        except InvalidInput:
            return None
        return drawn[torch.arange(len(rows)), torch.tensor([[0]])]

    def _close(self, key: tuple[str, Domain], ues: NDArray[np.int64]) -> None:
        places = self._held[key].places
        places.close(ues)
        if not places:
            del self._held[key]

    @staticmethod
    def _drawn(lease: Lease, domain: Domain, rows: NDArray[np.int64], frame: int, slots: range | None = None) -> Truth:
        """True channels [rows, T, ...] of a frame, or of some slots."""
        conditions = lease.by_frame.at(frame)
        samples = conditions.samples(Split.EMULATE, torch.from_numpy(rows + lease.first_ue), frame)
        return true_channels(conditions, domain, samples, slots)

    def abandon(self, token: str, ues: NDArray[np.int64]) -> None:
        """Free what is held for the open frames of a fleet's UEs [n]."""
        for key in [key for key in self._held if key[0] == token]:
            self._close(key, ues)

    def forget(self, token: str) -> None:
        """Free what is held for a fleet."""
        self._held = {key: held for key, held in self._held.items() if key[0] != token}


class CardCheck:
    """Does a version reach the NMSE, or, of precoders, the SGCS that its card says? Each pair of files is measured once
    for what its card says.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._passed: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, name: str, version: int) -> None:
        """Measure a version on the first UEs of its card's evaluation.

        Raises:
            DamagedCheckpoint: it is worse than its card says, or its files and card do not fit. NotFound.
        """
        card = self._store.card(name, version)
        if not card.get("evaluation"):
            return
        try:
            said = dict(card["evaluation"])
            conditions = RunConditions.from_json(said["settings"])
            has_nmse = scheme_class(card["scheme"]).domain != "precoder"
            names = ("nmse_db", "nmse_se_db") if has_nmse else ("sgcs", "sgcs_se")
            expected, expected_se = (float(said[name]) for name in names)
        except (CsiError, KeyError, TypeError, ValueError) as error:
            raise DamagedCheckpoint(f"checkpoint {name}/{version}: its evaluation cannot be read: {error!r}") from None
        with self._lock:  # one at a time
            if (key := f"{card['sha256']} {said}") in self._passed:
                return
            try:
                self._store.part(name, version, "encoder")
            except DamagedCheckpoint:  # a folder of decoders alone serves UEs that have their encoder
                logging.warning("%s/%d: its card is not checked, there is no encoder here", name, version)
                return
            scheme = self._store.load(name, version).scheme
            try:
                found = evaluate(scheme, conditions, ues=CHECKED_UES[scheme.domain])
            except CsiError as error:  # of channels that this machine does not have
                logging.warning("%s/%d: its card is not checked: %s", name, version, error)
                return
            measured, spread = found[names[0]], math.hypot(found[names[1]], expected_se)
            worse, slack = (measured - expected, SLACK_DB) if has_nmse else (expected - measured, SLACK_SGCS)
            if not worse <= slack + SLACK_SE * spread:
                what, unit = ("NMSE", " dB") if has_nmse else ("SGCS", "")
                raise DamagedCheckpoint(
                    f"checkpoint {name}/{version}: {what} {measured:.2f}{unit}, its card says {expected:.2f}; at most"
                    f" {slack}{unit} and {SLACK_SE:g} standard errors worse are allowed"
                )
            self._passed.add(key)


def check_ends(checkpoint: Checkpoint) -> None:
    """Have both ends of a checkpoint do what the probe of its card says. Raises DamagedCheckpoint."""
    probe = checkpoint.card.get("probe", {})
    check_probe(checkpoint.scheme, probe)
    check_encoder(checkpoint.scheme, probe)
