"""Payloads, estimates and true channels of decoded reports, for offline study (.npz)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gnb_server.repository import ModelVersion
from gnb_server.sessions import Lease
from shared.link.decoding import whole_band
from shared.link.precision import Precision

FLUSH_REPORTS = 4096

_Key = tuple[Lease, str]
"""Reports of a fleet that were encoded by one encoder go to one file."""


class Recorder:
    """Writes `<model>-<first_ue>-<n>.npz` with one row per report.

    Arrays: ue, sequence, decoder_version [K]; payload [K, bits] uint8; estimate, truth [K, M], [K, Q, M] or
    [K, S, M] complex64; with `whole_band` estimate_whole_band [K, N_f, M], subcarrier by antenna; and as JSON text in
    `meta`: model, encoder_id, precision (that was asked for), and the conditions by frame (`ChangingConditions`).
    """

    def __init__(self, folder: Path, every: int, precision: Precision = "fp32", *, whole_band: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.every = every
        self.precision = precision
        self.whole_band = whole_band
        self._rows: dict[_Key, list[dict[str, NDArray[Any]]]] = {}
        self._files: dict[str, int] = {}

    def wants(self, frame: int) -> bool:
        """Whether reports of this frame are recorded."""
        return frame % self.every == 0

    def rows(
        self,
        lease: Lease,
        model: ModelVersion,
        rows: NDArray[np.int64],
        first_sequence: int,
        bits: NDArray[np.uint8],
        estimates: NDArray[np.complex64],
        truth: NDArray[np.complex64],
    ) -> dict[str, NDArray[Any]]:
        """Columns of the reports of some UEs (`rows` of the fleet): bits, estimates and truth [slots, rows, ...]."""
        slots, flat = len(bits), estimates.reshape(-1, *estimates.shape[2:])
        columns = {
            "ue": np.tile(rows + lease.first_ue, slots),
            "sequence": np.repeat(first_sequence + np.arange(slots), len(rows)),
            "decoder_version": np.full(slots * len(rows), model.version),
            "payload": bits.reshape(len(flat), bits.shape[2]),
            "estimate": flat,
            "truth": truth.reshape(flat.shape),
        }
        if self.whole_band:
            scenario = lease.conditions.scenario
            columns["estimate_whole_band"] = whole_band(model.scheme, scenario, torch.from_numpy(flat)).numpy()
        return columns

    def add(self, lease: Lease, encoder_id: str, **columns: NDArray[Any]) -> None:
        """Keep reports of a fleet, as `rows` makes them."""
        parts = self._rows.setdefault((lease, encoder_id), [])
        parts.append(columns)
        if sum(len(part["ue"]) for part in parts) >= FLUSH_REPORTS:
            self._flush((lease, encoder_id))

    def close(self) -> None:
        """Write what is still held."""
        for key in list(self._rows):
            self._flush(key)

    def _flush(self, key: _Key) -> None:
        parts, (lease, encoder_id) = self._rows.pop(key), key
        stem = f"{lease.model}-{lease.first_ue}"
        number = self._files.get(stem, 0)
        while (path := self.folder / f"{stem}-{number}.npz").exists():  # of a gNB before a restart
            number += 1
        self._files[stem] = number + 1
        asked = {"encoder_id": encoder_id, "precision": self.precision}
        meta = {"model": lease.model, **lease.by_frame.to_json(), **asked}
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        np.savez(path, **{"meta": np.array(json.dumps(meta)), **columns}, allow_pickle=False)
