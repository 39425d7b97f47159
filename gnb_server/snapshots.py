"""Newest estimate and true channel of UEs that somebody looks at. Behind the wall: what decodes knows nothing of it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gnb_server.monitor import Clock
from gnb_server.repository import ModelVersion
from gnb_server.sessions import Lease
from shared.channels.transforms import to_angles
from shared.metrics import Domain

AXES: dict[Domain, tuple[str, str]] = {
    "spatial": ("subcarrier", "angle"),
    "angular-delay": ("delay", "angle"),
    "precoder": ("subband", "antenna port"),
}
"""What rows and columns of a snapshot are; the spatial channel is shown by its DFT over antennas."""


@dataclass(frozen=True)
class Snapshot:
    """One decoded report beside the truth.

    Attributes:
        estimate, truth: [M], or [rows, M] of images and precoders, complex64.
        received: seconds since 1970.
    """

    domain: Domain
    sequence: int
    version: int
    received: float
    estimate: NDArray[np.complex64]
    truth: NDArray[np.complex64]

    def to_json(self) -> dict[str, Any]:
        """As magnitudes [rows, columns] (AXES), in units of the true channel's largest."""
        truth, estimate = self._magnitudes(self.truth), self._magnitudes(self.estimate)
        unit = float(truth.max()) or 1.0
        rows, columns = AXES[self.domain]
        return {
            "sequence": self.sequence,
            "decoder_version": self.version,
            "received_at": self.received,
            "rows": rows,
            "columns": columns,
            "truth": (truth / unit).round(4).tolist(),
            "estimate": (estimate / unit).round(4).tolist(),
        }

    def _magnitudes(self, channel: NDArray[np.complex64]) -> NDArray[np.float64]:
        """[rows, columns]."""
        if self.domain == "spatial":
            channel = to_angles(torch.from_numpy(channel)[None]).numpy()
        return np.abs(channel).astype(float)


@dataclass
class _Watched:
    """When a UE was asked for last, and its newest report since the first time."""

    asked: float
    newest: Snapshot | None = None


class Snapshots:
    """The newest report of UEs that were asked for within `keep_s`, of at most `most_ues`. The serving thread puts, any
    thread asks.

    Args:
        clock: monotonic [s].
    """

    def __init__(self, most_ues: int = 64, keep_s: float = 60.0, clock: Clock = time.monotonic) -> None:
        self._most_ues = most_ues
        self._keep_s = keep_s
        self._clock = clock
        self._watched: dict[int, _Watched] = {}
        self._lock = threading.Lock()

    def ask(self, ue: int) -> Snapshot | None:
        """A UE's newest report; None until it has sent one since it was asked for. Who was asked for longest ago gives
        way to who is new.
        """
        with self._lock:
            now = self._clock()
            self._watched = {u: seen for u, seen in self._watched.items() if now - seen.asked < self._keep_s}
            newest = seen.newest if (seen := self._watched.pop(ue, None)) else None
            while len(self._watched) >= self._most_ues:
                del self._watched[next(iter(self._watched))]
            self._watched[ue] = _Watched(now, newest)
            return newest

    def wants(self, lease: Lease, rows: NDArray[np.int64]) -> bool:
        """Whether somebody looks at one of a fleet's UEs (`rows` of it)."""
        with self._lock:
            return any(ue - lease.first_ue in rows for ue in self._watched)

    def put(
        self,
        lease: Lease,
        model: ModelVersion,
        rows: NDArray[np.int64],
        last_sequence: int,
        received: float,
        estimates: NDArray[np.complex64],
        truth: NDArray[np.complex64],
    ) -> None:
        """Take notice of decoded reports of a fleet's UEs (`rows` of it): estimates and truth [slots, rows, ...], up to
        `last_sequence`.
        """
        if not self._watched:
            return
        domain = model.scheme.domain
        with self._lock:
            for ue, watched in self._watched.items():
                for column in np.flatnonzero(rows + lease.first_ue == ue).tolist():
                    mine, true = estimates[-1, column].copy(), truth[-1, column].copy()
                    watched.newest = Snapshot(domain, last_sequence, model.version, received, mine, true)
