"""Live figures: totals since the start of the run and a sliding window, per scheme and overall; totals per UE."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gnb_server.latency import LatencyHistogram
from gnb_server.sessions import Fleet, Lease
from shared.conditions import RunConditions
from shared.metrics import COLUMNS, DOMAIN_NAMES, MEASURED, Outcomes, Sums, summarise

LONGEST_WINDOW_S = 600.0
BUCKET_S = 0.5
"""The window moves in steps of this."""

Clock = Callable[[], float]

_Key = tuple[str, str, RunConditions]
"""Model, encoder id and conditions: reports that have all in common are averaged together."""


@dataclass
class _Bucket:
    """What a group added within BUCKET_S: sums [T + 1, COLUMNS], bytes, latencies of its reports."""

    started: float
    sums: Sums
    wire_bytes: float = 0.0
    latencies: LatencyHistogram = field(default_factory=LatencyHistogram)


@dataclass
class _Group:
    """Recent buckets of a key; `saturated` counts since the gNB started."""

    buckets: deque[_Bucket] = field(default_factory=deque)
    saturated: int = 0

    def since(self, start: float) -> list[_Bucket]:
        """Buckets that began then or later."""
        return [bucket for bucket in self.buckets if bucket.started >= start]


class Monitor:
    """All fleets of the run. The serving thread adds, any thread asks. `clock` is monotonic [s]."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._fleets: dict[str, Fleet] = {}
        self._groups: dict[_Key, _Group] = {}
        self._lock = threading.Lock()

    def watch(self, fleet: Fleet) -> None:
        """Show a fleet, instead of an earlier object of the same token."""
        with self._lock:
            self._fleets[fleet.lease.token] = fleet

    def add(
        self,
        lease: Lease,
        encoder_id: str,
        sums: Sums,
        wire_bytes: float,
        latency_ms: float,
        reports: int,
        saturated: int,
    ) -> None:
        """Note what a stored chunk added: sums [T + 1, COLUMNS], its bytes, the latency of its new reports, and how
        many of them have a scale at an end of its range. The fleet's own arrays hold the totals already.
        """
        now = self._clock()
        with self._lock:
            group = self._groups.setdefault((lease.model, encoder_id, lease.conditions), _Group())
            if not group.buckets or now - group.buckets[-1].started > BUCKET_S:
                group.buckets.append(_Bucket(now, np.zeros_like(sums)))
            bucket = group.buckets[-1]
            bucket.sums += sums
            bucket.wire_bytes += wire_bytes
            bucket.latencies.add(latency_ms, reports)
            group.saturated += saturated
            while group.buckets[0].started < now - LONGEST_WINDOW_S:
                group.buckets.popleft()

    def figures(self, window_s: float | None, model: str | None = None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """One row per group, and their sum, over the last `window_s` seconds or (None) the whole run."""
        with self._lock:
            members: dict[_Key, list[Fleet]] = {}
            for fleet in self._fleets.values():
                if model not in (None, fleet.lease.model):
                    continue
                with_reports = [fleet.facts[version].encoder_id for version in fleet.totals]
                for encoder_id in dict.fromkeys([*with_reports, fleet.encoder_id]):
                    members.setdefault((fleet.lease.model, encoder_id, fleet.lease.conditions), []).append(fleet)
            latencies = LatencyHistogram()
            rows = [self._row(key, fleets, window_s, latencies) for key, fleets in members.items()]
            shown = {fleet.lease.token: fleet for fleets in members.values() for fleet in fleets}.values()
        overall = {
            "ues": sum(fleet.lease.ue_count for fleet in shown),
            "ues_attached": sum(fleet.lease.ue_count for fleet in shown if fleet.status == "attached"),
        }
        for name in ("reports", "reports_per_s", "feedback_bits_total", "wire_bytes_total"):
            overall[name] = sum(row[name] for row in rows)
        return rows, {**overall, "latency_ms": latencies.figures()}

    def _row(
        self, key: _Key, fleets: list[Fleet], window_s: float | None, all_latencies: LatencyHistogram
    ) -> dict[str, Any]:
        """Figures of a group; its latencies are added to those of all."""
        now, (_, encoder_id, _), group = self._clock(), key, self._groups.get(key, _Group())
        recent = group.since(now - (LONGEST_WINDOW_S if window_s is None else window_s))
        latencies = LatencyHistogram()
        for bucket in recent:
            latencies.merge(bucket.latencies)
        all_latencies.merge(latencies)
        by_version: dict[int, int] = {}
        sums, wire_bytes = np.zeros((fleets[0].slots + 1, len(COLUMNS))), 0.0
        for version, totals in ((v, fleet.totals[v]) for fleet in fleets for v in fleet.versions_for(encoder_id)):
            of_fleet = totals.sums.sum(axis=0)
            by_version[version] = by_version.get(version, 0) + int(of_fleet[:-1, 0].sum())
            sums, wire_bytes = sums + of_fleet, wire_bytes + float(totals.wire_bytes.sum())
        if window_s is not None:
            sums = sum((bucket.sums for bucket in recent), np.zeros_like(sums))
            wire_bytes = sum(bucket.wire_bytes for bucket in recent)
        figures, attached = summarise(sums[:-1], sums[-1]), [f for f in fleets if f.encoder_id == encoder_id]
        span = max(now - recent[0].started, BUCKET_S) if recent else 1.0
        bits, reports = fleets[0].facts_of(encoder_id).feedback_bits, figures["reports"]
        return {
            **describe(fleets[0], encoder_id),
            "ues": sum(fleet.lease.ue_count for fleet in fleets),
            "ues_attached": sum(fleet.lease.ue_count for fleet in attached if fleet.status == "attached"),
            **figures,
            "reports_per_s": latencies.count / span,
            "feedback_bits": bits,
            "feedback_bits_total": bits * reports,
            "wire_bytes": wire_bytes / reports if reports else None,
            "wire_bytes_total": wire_bytes,
            "latency_ms": latencies.figures(),
            "saturated_scales": group.saturated,
            "decoder_versions": {str(version): count for version, count in sorted(by_version.items())},
        }


def describe(fleet: Fleet, encoder_id: str) -> dict[str, Any]:
    """What every NMSE of a fleet's reports by an encoder must be shown with."""
    return {
        "scheme": fleet.lease.model,
        "encoder_id": encoder_id,
        **fleet.lease.conditions.to_json(),
        "average": "mean_of_ratios",
        "domain": DOMAIN_NAMES[fleet.facts_of(encoder_id).domain],
    }


def ue_row(
    fleet: Fleet, ue: int, kept: list[dict[str, Any]], window_s: float | None, clock: Clock = time.time
) -> dict[str, Any]:
    """Figures of one UE's reports by its present encoder: in total, or of those of its kept reports (rows of the store)
    that arrived in the window before `clock` [s since 1970].
    """
    index, slots = ue - fleet.lease.first_ue, fleet.slots
    encoder_id = fleet.encoder_of(index)
    versions = fleet.versions_for(encoder_id)
    kept = [row for row in kept if row["version"] in versions]
    sums = np.zeros((slots + 1, len(COLUMNS)))
    wire_bytes = 0.0
    for version in versions:
        sums += fleet.totals[version].sums[index]
        wire_bytes += float(fleet.totals[version].wire_bytes[index].sum())
    each = wire_bytes / max(1.0, float(sums[:-1, 0].sum()))
    if window_s is not None:
        kept = [row for row in kept if row["received_at"] >= clock() - window_s]
        sums = np.zeros_like(sums)
        sequence, outcomes = np.array([row["sequence"] for row in kept], int), _outcomes(kept)
        np.add.at(sums, sequence % slots, outcomes.moments())
        frames, reports = np.unique(sequence // slots, return_counts=True)
        whole = np.isin(sequence // slots, frames[reports == slots])
        of_frames = Outcomes.of(outcomes.measured[:, whole].reshape(len(MEASURED), -1, slots)).frame_moments()
        sums[-1] = of_frames.sum(axis=0)
    figures, latencies = summarise(sums[:-1], sums[-1]), LatencyHistogram()
    for row in kept:
        latencies.add(row["latency_ms"])
    bits = fleet.facts_of(encoder_id).feedback_bits
    return {
        "ue": ue,
        "status": fleet.status,
        **describe(fleet, encoder_id),
        "next_sequence": int(fleet.next_sequence[index]),
        "decoder_version": int(fleet.version[index]),
        **figures,
        "feedback_bits": bits,
        "feedback_bits_total": bits * figures["reports"],
        "wire_bytes": each,
        "wire_bytes_total": each * figures["reports"],
        "latency_ms": latencies.figures(),
    }


def report_rows(fleet: Fleet, kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Single reports of a fleet's UE from rows of the store."""
    slots, outcomes = fleet.slots, _outcomes(kept)
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
            "decoder_version": row["version"],
            "feedback_bits": fleet.facts[row["version"]].feedback_bits,
            "latency_ms": row["latency_ms"],
            "received_at": row["received_at"],
        }
        for index, row in enumerate(kept)
    ]


def _outcomes(kept: list[dict[str, Any]]) -> Outcomes:
    """[reports], of rows of the store."""
    return Outcomes.of(np.array([[row[name] for row in kept] for name in MEASURED], float))
