"""Single reports of a run as a table, read from the store in parts and written in parts.

The store keeps the newest reports of each UE (`--reports-kept`). Each row says what its figures have to be named with,
and the file what holds for all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnb_server.sessions import Lease, VersionFacts
from gnb_server.store import Store
from gnb_server.tables import Columns, Format, write_table
from shared.link.air import fate_name
from shared.metrics import DOMAIN_NAMES, MEASURED, Outcomes

COLUMNS = {
    "ue": "int64",
    "sequence": "int64",
    "frame": "int64",
    "slot": "int64",
    "scheme": "string",
    "decoder_version": "int64",
    "encoder_id": "string",
    "scenario": "string",
    "seed": "uint64",
    "delay_slots": "int64",
    "air": "string",
    "fate": "string",
    "domain": "string",
    "feedback_bits": "int64",
    "nmse": "float64",
    "nmse_db": "float64",
    "nmse_sf_db": "float64",
    "sgcs": "float64",
    "rho": "float64",
    "error": "float64",
    "power": "float64",
    "total": "float64",
    "latency_ms": "float64",
    "received_at": "float64",
}
"""Column -> type. A report of precoders has no NMSE, and one that was dropped no figures at all."""

NAMED = {
    "nmse": "||e||^2/||h||^2 of one report; their mean is the mean of ratios",
    "nmse_db": "10 log10(nmse)",
    "nmse_sf_db": "the same in the full spatial-frequency domain",
    "sgcs": "|h_hat^H h|^2/(||h_hat||^2 ||h||^2), mean over subcarriers or subbands",
    "rho": "|h_hat^H h|/(||h_hat|| ||h||), likewise",
    "error": "||e||^2",
    "power": "||h||^2",
    "total": "||h||^2 with what was cut off",
    "slot": "of the frame, 1..T",
    "air": "what the simulated link did to reports; none: nothing",
    "fate": "on the air: received, corrupted, detected or lost; none: dropped, or an earlier program stored it",
    "decoder_version": "0: the report came too late and was dropped",
    "latency_ms": "from arrival to when it was decoded",
    "received_at": "seconds since 1970",
}
"""What columns mean whose names do not say it."""

ROWS = 8192
"""Reports of a part."""


@dataclass(frozen=True)
class Selection:
    """Which reports are wanted.

    Attributes:
        scheme: checkpoint name; None: all.
        first_ue, ues: so many UE ids from the first on; None: all from it on.
        since: received then or later [s since 1970].
        limit: reports at most, the first by UE and sequence; None: all.
    """

    scheme: str | None = None
    first_ue: int = 0
    ues: int | None = None
    since: float = 0.0
    limit: int | None = None


class Export:
    """The kept reports of a run that somebody wants, by UE and sequence.

    Raises:
        StoreUnavailable: here, or while the parts are made.
    """

    def __init__(self, store: Store, selection: Selection) -> None:
        self._store = store
        self._selection = selection
        self._leases = [lease for lease, *_ in store.leases() if self._ues(lease)]
        self._facts = store.versions()

    def write(self, file_format: Format) -> Iterator[bytes]:
        """The file, in parts. Raises NoParquet, at once."""
        return write_table(file_format, COLUMNS, self._parts(), self._header())

    def _ues(self, lease: Lease) -> range:
        """Those of a lease that are wanted."""
        wanted, ues = self._selection, lease.ues
        if wanted.scheme not in (None, lease.model):
            return range(0)
        stop = ues.stop if wanted.ues is None else min(ues.stop, wanted.first_ue + wanted.ues)
        return range(max(ues.start, wanted.first_ue), stop)

    def _header(self) -> dict[str, Any]:
        """What holds for all reports."""
        processes = self._store.processes()
        return {
            "run": self._store.run,
            "reports": "the newest of each UE that the store has",
            "selection": dataclasses.asdict(self._selection),
            "columns": NAMED,
            "domains": DOMAIN_NAMES,
            "fleets": [
                {"scheme": lease.model, "first_ue": lease.first_ue, "ues": lease.ue_count, **lease.by_frame.to_json()}
                for lease in self._leases
            ],
            "gnb": processes[-1][1] if processes else None,
        }

    def _parts(self) -> Iterator[Columns]:
        """Reports in parts of ROWS at most."""
        left = self._selection.limit
        for lease in self._leases:
            kept = self._store.kept_reports(self._ues(lease), self._selection.since)
            while rows := list(islice(kept, ROWS if left is None else min(ROWS, left))):
                left = None if left is None else left - len(rows)
                yield _columns(lease, self._facts.get(lease.model, {}), rows)


def _columns(lease: Lease, facts: dict[int, VersionFacts], rows: list[dict[str, Any]]) -> Columns:
    """Rows of the store with all that they have to be named with."""
    slots, nothing = lease.conditions.scenario.slots, VersionFacts("", 0, "spatial")
    of_row = [facts.get(row["version"], nothing) for row in rows]
    measured = np.array([[row[name] for row in rows] for name in MEASURED], float)
    outcomes = Outcomes.of(measured)
    decoded = np.array([row["version"] > 0 for row in rows])
    scaled = decoded & (outcomes.power > 0)
    decibels_sf = 10 * np.log10(np.maximum(outcomes.ratio_sf, 1e-30))
    conditions = lease.conditions.to_json()
    air_from = lease.by_frame.air_from(np.array([row["sequence"] // slots for row in rows]))
    airs = {frame: lease.by_frame.at(frame).air for frame in np.unique(air_from).tolist()}
    return {
        "ue": [row["ue"] for row in rows],
        "sequence": [row["sequence"] for row in rows],
        "frame": [row["sequence"] // slots for row in rows],
        "slot": [row["sequence"] % slots + 1 for row in rows],
        "scheme": [lease.model] * len(rows),
        "decoder_version": [row["version"] for row in rows],
        "encoder_id": [of.encoder_id or None for of in of_row],
        **{name: [conditions[name]] * len(rows) for name in ("scenario", "seed")},
        "delay_slots": [airs[frame].delay for frame in air_from.tolist()],
        "air": [str(airs[frame]) or None for frame in air_from.tolist()],
        "fate": [fate_name(row["fate"]) for row in rows],
        "domain": [of.domain if of.encoder_id else None for of in of_row],
        "feedback_bits": [row["feedback_bits"] if row["version"] else None for row in rows],
        "nmse": _where(scaled, outcomes.ratio),
        "nmse_db": _where(scaled, outcomes.db),
        "nmse_sf_db": _where(scaled, decibels_sf),
        "sgcs": _where(decoded, outcomes.sgcs),
        "rho": _where(decoded, outcomes.rho),
        "error": _where(scaled, outcomes.error),
        "power": _where(scaled, outcomes.power),
        "total": _where(scaled, outcomes.total),
        "latency_ms": [row["latency_ms"] for row in rows],
        "received_at": [row["received_at"] for row in rows],
    }


def _where(there: NDArray[np.bool_], values: NDArray[np.float64]) -> list[float | None]:
    return [value if is_there else None for value, is_there in zip(values.tolist(), there.tolist(), strict=True)]
