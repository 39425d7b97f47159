"""Stores of runs, made without UEs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnb_server.additions import Increment
from gnb_server.results import Stored
from gnb_server.sessions import Fleet, Lease, VersionFacts
from gnb_server.store import Store
from shared.channels.scenario import Scenario
from shared.conditions import RunConditions
from shared.link.air import Fates
from shared.metrics import COLUMNS, MEASURED, Outcomes, Sums

SLOTS = 2


def conditions(**fields: Any) -> RunConditions:
    return RunConditions(Scenario.parse(f"multipath-p2:slots={SLOTS}"), **fields)


def measured(ratios: NDArray[np.float64], *, scaled: bool = True) -> Outcomes:
    """Of reports with these NMSEs, [...]; SGCS is 1 - ratio."""
    values = np.ones((len(MEASURED), *ratios.shape))
    values[0], values[3] = ratios, 1 - ratios
    values[:3] *= scaled
    return Outcomes.of(values)


def totals_of(ratios: NDArray[np.float64], **options: Any) -> tuple[Sums, Sums]:
    """Sums of reports [SLOTS, ues, COLUMNS] and of frame means [ues, COLUMNS] of ratios [ues, frames, SLOTS]."""
    outcomes = measured(ratios, **options)
    frames = measured(ratios.reshape(-1, SLOTS), **options).frame_moments()
    return outcomes.moments().sum(axis=1).swapaxes(0, 1), frames.reshape(*ratios.shape[:2], len(COLUMNS)).sum(axis=1)


Row = tuple[str, int | None, NDArray[np.float64]]


class MadeRun:
    """A run in a store of a folder."""

    def __init__(self, folder: Path, *, by_history: bool = True) -> None:
        folder.mkdir(exist_ok=True)
        self._fleets: dict[str, Fleet] = {}
        self.store = Store(f"sqlite:///{folder / 'gnb.sqlite'}", "default", 4)
        if by_history:
            machine = {"processor": "P", "cores": 2, "csiemu": "1"}
            self.store.keep_process(100.0, {"machine": machine, "settings": {"a": 1}})

    def decoded(
        self,
        ratios: NDArray[np.float64],
        model: str = "rnn",
        version: int = 1,
        bits: int = 20,
        first_ue: int = 0,
        domain: Any = "spatial",
        air_from: int = 0,
        fates: Fates | None = None,
        **fields: Any,
    ) -> None:
        """A fleet whose reports had these ratios, [ues, frames, SLOTS]."""
        lease = Lease(f"t{first_ue}-{model}", model, conditions(**fields), first_ue, len(ratios))
        if lease.token not in {known.token for known, *_ in self.store.leases()}:
            self.store.lease(lease, f"{version:016x}")
        fleet = self._fleets.setdefault(lease.token, Fleet(lease, f"{version:016x}"))
        rows, lengths = np.arange(len(ratios)), np.full((SLOTS, len(ratios)), bits)
        self.store.keep_version(model, version, VersionFacts(f"{version:016x}", bits, domain))
        for frame in range(ratios.shape[1]):
            by_slot, means = totals_of(ratios[:, frame : frame + 1], scaled=domain != "precoder")
            increment = Increment(version, rows, range(SLOTS), by_slot, means, 3.0, lengths, fates or Fates(), air_from)
            self.store.commit([Stored(fleet, increments=[increment])])

    def snapshot(
        self, at: float, rows: Sequence[Row], dropped: int = 0, airs: Sequence[str] = (), **fates: int
    ) -> None:
        """The totals at a time: (scheme, version, ratios so far [ues, frames, SLOTS]) each, and the airs of the first
        rows; those of others are not told apart.
        """
        self.store.keep_snapshot(
            at,
            [
                {
                    "scheme": scheme,
                    "version": version,
                    "encoder_id": "ab" * 8,
                    "preset": "multipath-p2",
                    "air": air,
                    "domain": "spatial",
                    "ues_attached": len(ratios),
                    "dropped": dropped,
                    **fates,
                    "feedback_bits": 20 * ratios.size,
                    "reports": totals_of(ratios)[0].sum(axis=(0, 1)).tolist(),
                    "frames": totals_of(ratios)[1].sum(axis=0).tolist(),
                }
                for (scheme, version, ratios), air in zip_longest(rows, airs)
            ],
        )
