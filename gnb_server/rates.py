"""How many bits UEs are asked for: a rate for a fleet, or for each UE the step that holds a target NMSE.

The gNB knows no truth. What a report says, its step and what was sent, gives the distortion that is to be expected of
it (`Decoder.distortion`), and from report to report how far a UE's step may be coarser, or has to be finer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gnb_server.sessions import Asked, Fleet
from gnb_server.store import Store
from shared.link.rate import OWN, Rate
from shared.schemes import Scheme

DB_A_STEP = 0.25
"""By how much the next finer step improves the NMSE, about [dB]; the loop closes whatever it is."""

MEMORY = 16
"""Reports over which a UE's distortion is averaged."""


class RateControl:
    """Sets rates, keeps them in the store, and tells UEs."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def set(self, fleet: Fleet, scheme: Scheme, rate: Rate) -> None:
        """Ask a fleet's UEs for a rate, from their next frames on. Raises InvalidInput if they cannot have it."""
        scheme.check_rate(rate)
        self._store.keep_rate(fleet.lease.token, rate)
        fleet.rate = rate
        self.begin(fleet, scheme)
        _tell(fleet)

    def begin(self, fleet: Fleet, scheme: Scheme) -> None:
        """Work out what a fleet's rate comes to for a scheme; where it cannot have it, the scheme's own stands."""
        fleet.asked = None
        if fleet.rate == OWN or scheme.least_bits is None:
            return
        resolved, ues = scheme.rates(fleet.rate), fleet.lease.ue_count
        if fleet.rate.target_nmse_db is not None and fleet.rate.step is None:
            step = int(scheme.rates(OWN).step)
        else:
            step = int(resolved.step)
        most = min(int(resolved.bits), scheme.layout.bits)
        fleet.asked = Asked(np.full(ues, most), np.full(ues, step), np.zeros(ues), np.zeros(ues, np.int64))

    @staticmethod
    def observe(
        fleet: Fleet, scheme: Scheme, rows: NDArray[np.int64], expected: NDArray[np.float32], steps: NDArray[np.int64]
    ) -> None:
        """Take notice of reports of UEs [n], in the order of their slots: the NMSE that is to be expected of them and
        their steps, [slots, n] each, NaN of those that did not come. Where a target is to be held, UEs are asked for
        the step that does.
        """
        asked, target = fleet.asked, fleet.rate.target_nmse_db
        if asked is None or target is None:
            return
        for ratio, step in zip(expected, steps, strict=True):
            there = np.isfinite(ratio)
            came = rows[there]
            asked.seen[came] += 1
            share = 1 / np.minimum(asked.seen[came], MEMORY)
            asked.level[came] += share * (ratio[there] * 10 ** (DB_A_STEP * step[there] / 10) - asked.level[came])
        rows = rows[asked.seen[rows] > 0]
        wanted = (10 * np.log10(np.maximum(asked.level[rows], 1e-30)) - target) / DB_A_STEP
        finest = scheme.steps - 1 if fleet.rate.step is None else fleet.rate.step
        chosen = np.ceil(wanted).astype(np.int64).clip(0, finest)
        if (chosen != asked.step[rows]).any():
            asked.step[rows] = chosen
            _tell(fleet)


def _tell(fleet: Fleet) -> None:
    """Have the UEs told, once for all that changes before they are."""
    if fleet.asked is not None:
        if not fleet.asked.told:
            return
        fleet.asked.told = False
    if fleet.on_rates is not None:
        fleet.on_rates()
