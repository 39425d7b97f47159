"""Live figures: totals since the start of the run and a sliding window, per scheme and overall; totals per UE."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnb_server.sessions import Fleet
from shared.metrics import DOMAIN_NAMES, MEASURED, Outcomes, Sums, summarise

LONGEST_WINDOW_S = 600.0
BUCKET_S = 0.5
"""The window moves in steps of this."""


@dataclass
class _Bucket:
    """What a group added within BUCKET_S."""

    started: float
    sums: Sums
    wire_bytes: float = 0.0
    latencies: list[NDArray[np.float64]] = field(default_factory=list)


@dataclass
class Group:
    """Fleets whose reports are averaged together: same scheme, encoder, scenario, seed and delay."""

    fleets: list[Fleet] = field(default_factory=list)
    buckets: deque[_Bucket] = field(default_factory=deque)
    versions: dict[int, int] = field(default_factory=dict)
    saturated: int = 0


class Monitor:
    """All fleets of the run. The serving thread adds, any thread asks."""

    def __init__(self) -> None:
        self._groups: dict[_Key, Group] = {}
        self._lock = threading.Lock()

    def watch(self, fleet: Fleet) -> None:
        """Count a fleet, instead of an earlier object of the same token."""
        with self._lock:
            group = self._groups.setdefault(_key(fleet), Group())
            group.fleets = [other for other in group.fleets if other.token != fleet.token] + [fleet]

    def add(
        self,
        fleet: Fleet,
        sums: Sums,
        wire_bytes: float,
        latencies: NDArray[np.float64],
        versions: NDArray[np.float64],
        saturated: int,
    ) -> None:
        """Note what a chunk added: sums [T + 1, COLUMNS], its bytes, its reports' latencies [ms] and decoder versions,
        and how many of them have a scale at an end of its range.

        The fleet's own arrays hold the totals already.
        """
        now = time.monotonic()
        with self._lock:
            group = self._groups[_key(fleet)]
            if not group.buckets or now - group.buckets[-1].started > BUCKET_S:
                group.buckets.append(_Bucket(now, np.zeros_like(sums)))
            bucket = group.buckets[-1]
            bucket.sums += sums
            bucket.wire_bytes += wire_bytes
            bucket.latencies.append(latencies)
            group.saturated += saturated
            for version, count in zip(*np.unique(versions, return_counts=True), strict=True):
                group.versions[int(version)] = group.versions.get(int(version), 0) + int(count)
            while group.buckets[0].started < now - LONGEST_WINDOW_S:
                group.buckets.popleft()

    def figures(self, window_s: float | None, scheme: str | None = None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """One row per group, and their sum, over the last `window_s` seconds or (None) the whole run."""
        with self._lock:
            groups = [group for key, group in self._groups.items() if scheme in (None, key[0])]
            parts = [_latencies(group, window_s) for group in groups]
        latencies = [np.concatenate([np.zeros(0), *part]) for part in parts]  # millions, in a long window
        with self._lock:
            rows = [self._row(group, window_s, latency) for group, latency in zip(groups, latencies, strict=True)]
        summed = ("ues", "ues_attached", "reports", "reports_per_s", "feedback_bits_total", "wire_bytes_total")
        overall = {name: sum(row[name] for row in rows) for name in summed}
        return rows, {**overall, "latency_ms": latency_figures(np.concatenate([np.zeros(0), *latencies]))}

    @staticmethod
    def _row(group: Group, window_s: float | None, latencies: NDArray[np.float64]) -> dict[str, Any]:
        fleet = group.fleets[0]
        now = time.monotonic()
        recent = _recent(group, window_s)
        if window_s is None:
            sums = sum((fleet.sums.sum(axis=0) for fleet in group.fleets), np.zeros_like(fleet.sums[0]))
            wire = sum(float(fleet.wire_bytes.sum()) for fleet in group.fleets)
        else:
            sums = sum((bucket.sums for bucket in recent), np.zeros_like(fleet.sums[0]))
            wire = sum(bucket.wire_bytes for bucket in recent)
        figures = summarise(sums[:-1], sums[-1])
        reports = figures["reports"]
        span = max(now - recent[0].started, BUCKET_S) if recent else 1.0
        return {
            **describe(fleet),
            "ues": sum(fleet.ue_count for fleet in group.fleets),
            "ues_attached": sum(fleet.ue_count for fleet in group.fleets if fleet.status == "attached"),
            **figures,
            "reports_per_s": len(latencies) / span,
            "feedback_bits": fleet.layout.bits,
            "feedback_bits_total": fleet.layout.bits * reports,
            "wire_bytes": wire / reports if reports else None,
            "wire_bytes_total": wire,
            "latency_ms": latency_figures(latencies),
            "saturated_scales": group.saturated,
            "decoder_versions": {str(version): count for version, count in sorted(group.versions.items())},
        }


def describe(fleet: Fleet) -> dict[str, Any]:
    """What every NMSE of a fleet must be shown with."""
    return {
        "scheme": fleet.lease.scheme,
        "encoder_id": fleet.lease.encoder_id,
        "scenario": str(fleet.scenario),
        "seed": fleet.seed,
        "delay_slots": fleet.delay,
        "average": "mean_of_ratios",
        "domain": DOMAIN_NAMES[fleet.domain],
    }


def ue_row(fleet: Fleet, ue: int, kept: list[dict[str, Any]], window_s: float | None) -> dict[str, Any]:
    """Figures of one UE: in total, or of those of its kept reports (rows of the store) that arrived in the window."""
    index, slots = ue - fleet.first_ue, fleet.scenario.slots
    sums = fleet.sums[index]
    if window_s is not None:
        kept = [row for row in kept if row["received_at"] >= time.time() - window_s]
        sums = np.zeros_like(sums)
        sequence, outcomes = np.array([row["sequence"] for row in kept], int), _outcomes(kept)
        np.add.at(sums, sequence % slots, outcomes.moments())
        frames, reports = np.unique(sequence // slots, return_counts=True)
        whole = np.isin(sequence // slots, frames[reports == slots])
        of_frames = Outcomes.of(outcomes.measured[:, whole].reshape(len(MEASURED), -1, slots)).frame_moments()
        sums[-1] = of_frames.sum(axis=0)
    figures = summarise(sums[:-1], sums[-1])
    wire = float(fleet.wire_bytes[index]) / max(1, int(fleet.next_sequence[index]))
    return {
        "ue": ue,
        "status": fleet.status,
        **describe(fleet),
        "next_sequence": int(fleet.next_sequence[index]),
        "decoder_version": int(fleet.version[index]),
        **figures,
        "feedback_bits": fleet.layout.bits,
        "feedback_bits_total": fleet.layout.bits * figures["reports"],
        "wire_bytes": wire,
        "wire_bytes_total": wire * figures["reports"],
        "latency_ms": latency_figures(np.array([row["latency_ms"] for row in kept])),
    }


def report_rows(fleet: Fleet, kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Single reports of a fleet's UE from rows of the store."""
    slots, outcomes = fleet.scenario.slots, _outcomes(kept)
    decibels = 10 * np.log10(np.maximum(outcomes.ratio_sf, 1e-30))
    return [
        {
            "sequence": row["sequence"],
            "slot": row["sequence"] % slots + 1,
            "frame": row["sequence"] // slots,
            "nmse": float(outcomes.ratio[index]),
            "nmse_db": float(outcomes.db[index]),
            "nmse_sf_db": float(decibels[index]),
            "sgcs": row["sgcs"],
            "rho": row["rho"],
            "decoder_version": row["decoder_version"],
            "feedback_bits": fleet.layout.bits,
            "latency_ms": row["latency_ms"],
            "received_at": row["received_at"],
        }
        for index, row in enumerate(kept)
    ]


def _outcomes(kept: list[dict[str, Any]]) -> Outcomes:
    """[reports], of rows of the store."""
    return Outcomes.of(np.array([[row[name] for row in kept] for name in MEASURED], float))


def _recent(group: Group, window_s: float | None) -> list[_Bucket]:
    return [b for b in group.buckets if window_s is None or b.started >= time.monotonic() - window_s]


def _latencies(group: Group, window_s: float | None) -> list[NDArray[np.float64]]:
    """Of single reports [ms], in parts, over the window or, without one, over LONGEST_WINDOW_S."""
    return [part for bucket in _recent(group, window_s) for part in bucket.latencies]


def latency_figures(latencies: NDArray[np.float64]) -> dict[str, float | None]:
    """Mean, median and 99th percentile [ms], from a chunk's arrival to when it was decoded."""
    if not len(latencies):
        return {"mean": None, "p50": None, "p99": None}
    return {
        "mean": float(latencies.mean()),
        "p50": float(np.percentile(latencies, 50)),
        "p99": float(np.percentile(latencies, 99)),
    }


_Key = tuple[str, str, str, int, int]


def _key(fleet: Fleet) -> _Key:
    return fleet.lease.scheme, fleet.lease.encoder_id, str(fleet.scenario), fleet.seed, fleet.delay
