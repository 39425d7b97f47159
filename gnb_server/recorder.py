"""Payloads, estimates and true channels of decoded reports, for offline study (.npz)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gnb_server.sessions import Fleet

FLUSH_REPORTS = 4096


class Recorder:
    """Writes `<scheme>-<first_ue>-<n>.npz` with one row per report.

    Arrays: ue, sequence, decoder_version [K]; payload [K, bits] uint8; estimate, truth [K, M] or [K, Q, M] complex64;
    with `whole_band` estimate_whole_band [K, N_f, M], subcarrier by antenna; and as JSON text in `meta`: scheme,
    scenario, seed, delay_slots, encoder_id.
    """

    def __init__(self, folder: Path, every: int, *, whole_band: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.every = every
        self.whole_band = whole_band
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._fleets: dict[str, Fleet] = {}
        self._files: dict[str, int] = {}

    def wants(self, frame: int) -> bool:
        """Whether reports of this frame are recorded."""
        return frame % self.every == 0

    def add(self, fleet: Fleet, **arrays: Any) -> None:
        """Keep reports of a fleet; arrays with one row per report, as in the class's list."""
        self._fleets[fleet.token] = fleet
        rows = self._rows.setdefault(fleet.token, [])
        rows.append(arrays)
        if sum(len(part["ue"]) for part in rows) >= FLUSH_REPORTS:
            self._flush(fleet.token)

    def close(self) -> None:
        """Write what is still held."""
        for token in list(self._rows):
            self._flush(token)

    def _flush(self, token: str) -> None:
        rows, fleet = self._rows.pop(token), self._fleets[token]
        number = self._files[token] = self._files.get(token, -1) + 1
        path = self.folder / f"{fleet.lease.scheme}-{fleet.first_ue}-{number}.npz"
        while path.exists():  # of a gNB before a restart
            number = self._files[token] = number + 1
            path = self.folder / f"{fleet.lease.scheme}-{fleet.first_ue}-{number}.npz"
        meta = {
            "scheme": fleet.lease.scheme,
            "scenario": str(fleet.scenario),
            "seed": fleet.seed,
            "delay_slots": fleet.delay,
            "encoder_id": fleet.lease.encoder_id,
        }
        columns = {name: np.concatenate([part[name] for part in rows]) for name in rows[0]}
        np.savez(path, **{"meta": np.array(json.dumps(meta)), **columns}, allow_pickle=False)
