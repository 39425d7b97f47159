"""Live figures: totals since the start of the run and a sliding window, per scheme and overall; totals per UE."""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np

from gnb_server.aging import AgedSums, aged_figures, no_reports
from gnb_server.latency import Delays, LatencyHistogram, RecentDelays
from gnb_server.sessions import Fleet, Lease, VersionFacts
from shared.conditions import RunConditions
from shared.link.air import FATES, Air, Fates, fate_name
from shared.link.rate import Lengths, summarise_lengths
from shared.metrics import COLUMNS, DOMAIN_NAMES, MEASURED, Outcomes, Sums, averages, summarise
from shared.rate_watch import RateWatch

LONGEST_WINDOW_S = 600.0
BUCKET_S = 0.5
"""The window moves in steps of this."""

AIRS = 16
"""How many airs of a run are told apart in snapshots, which the store keeps; there is no end of those that UEs may ask
for.
"""

Clock = Callable[[], float]

_Key = tuple[str, str, RunConditions, int]
"""Model, encoder id, conditions and version (0: UEs that have not reported yet, and dropped reports, with the
conditions that their fleets begin in): reports that have all in common are averaged together.
"""

_Shown = tuple[str, str, RunConditions, int | None]
"""What a row is for: the same; version None for all of an encoder."""

_Series = tuple[str, int, str, str, str | None]
"""Model, version, encoder id, preset of scenarios, and air; None: of any."""


@dataclass
class _Bucket:
    """What a group added within BUCKET_S: sums [T + 1, COLUMNS], bytes, dropped reports; of the others lengths, fates,
    delays, and sums of those whose age is known.
    """

    started: float
    sums: Sums
    wire_bytes: float = 0.0
    dropped: int = 0
    lengths: Lengths = field(default_factory=Lengths)
    fates: Fates = field(default_factory=Fates)
    delays: Delays = field(default_factory=Delays)
    aged: AgedSums = field(default_factory=no_reports)


def limited_by(watch: RateWatch) -> Literal["gNB", "UE"] | None:
    """What limits a rate that is not held: the gNB, if the UEs wait for acks, or the UEs; None if that is not known."""
    if watch.held is not False or (waits := watch.waits_for_acks) is None:
        return None
    return "gNB" if waits else "UE"


def _added_if_known(one: float | None, other: float | None) -> float | None:
    """Their sum, or the one that is known; None if neither is."""
    return one if other is None else other if one is None else one + other


def _all_held(one: bool | None, other: bool | None) -> bool | None:
    """Whether both rates are held: not if one is not; unknown ones do not count."""
    return one if other is None else other if one is None else one and other


@dataclass
class _Group:
    """Recent buckets of a key; `saturated` counts since the gNB started."""

    buckets: deque[_Bucket] = field(default_factory=deque)
    saturated: int = 0

    def since(self, start: float) -> list[_Bucket]:
        """Buckets that began then or later."""
        return [bucket for bucket in self.buckets if bucket.started >= start]


@dataclass
class _Total:
    """What the reports of a key's fleets came to since the start of the run.

    Attributes:
        facts: of the encoder's versions.
        sums: [T + 1, COLUMNS] by slot of the frame; the last row sums frame means.
        lengths: reports by their feedback bits. fates: what the air did to them. reports: by version.
        dropped: reports that were, which is with version 0.
        aged: sums of reports whose age is known.
        offered_per_s: reports a second that are asked for, of fleets with a stream that say so; None if there are none.
        held: whether all of these are served; None if that is not known of any.
    """

    facts: VersionFacts
    sums: Sums
    wire_bytes: float = 0.0
    ues: int = 0
    ues_attached: int = 0
    lengths: Lengths = field(default_factory=Lengths)
    fates: Fates = field(default_factory=Fates)
    reports: dict[int, int] = field(default_factory=dict)
    dropped: int = 0
    aged: AgedSums = field(default_factory=no_reports)
    offered_per_s: float | None = None
    held: bool | None = None

    @classmethod
    def of(cls, fleet: Fleet, encoder_id: str, version: int, air_from: int, ues: int) -> _Total:
        """Of a fleet's reports that a version decoded over an air, and so many UEs whose open or last frame is such."""
        total = cls(fleet.facts_of(encoder_id), np.zeros((fleet.slots + 1, len(COLUMNS))), ues=ues)
        total.ues_attached = ues if fleet.attached else 0
        total.dropped = 0 if version else int(fleet.dropped.sum())
        if fleet.attached and fleet.watch is not None and fleet.offered_per_s is not None and ues:
            total.offered_per_s, total.held = ues * fleet.offered_per_s, fleet.watch.held
        if (totals := fleet.totals.get((version, air_from))) is not None:
            total.sums = totals.sums.sum(axis=0)
            total.wire_bytes = float(totals.wire_bytes.sum())
            total.lengths, total.fates, total.aged = totals.lengths.copy(), totals.fates.copy(), totals.aged.copy()
            total.reports[version] = int(total.sums[:-1, 0].sum())
        return total

    def merge(self, other: _Total) -> None:
        """Add what another key came to, of as many slots."""
        self.sums = self.sums + other.sums
        self.wire_bytes += other.wire_bytes
        self.ues += other.ues
        self.ues_attached += other.ues_attached
        self.dropped += other.dropped
        self.lengths.update(other.lengths)
        self.fates.update(other.fates)
        self.aged = self.aged + other.aged
        self.offered_per_s = _added_if_known(self.offered_per_s, other.offered_per_s)
        self.held = _all_held(self.held, other.held)
        for version, count in other.reports.items():
            self.reports[version] = self.reports.get(version, 0) + count

    def copy(self) -> _Total:
        """Another one, to add to."""
        return dataclasses.replace(
            self, reports=dict(self.reports), lengths=self.lengths.copy(), fates=self.fates.copy()
        )

    def of_all_slots(self) -> _Total:
        """A copy in which all slots are one."""
        sums = np.stack([self.sums[:-1].sum(axis=0), self.sums[-1]])
        return dataclasses.replace(self.copy(), sums=sums)


class Monitor:
    """All fleets of the run; of those that have detached, their sums by what they have in common; of those that have
    been gone for long, the same for each, since they may come back. Those that an earlier process of the run had, and
    that have not come back to this one, are apart: they are in the figures of the whole run alone. The serving thread
    adds, any thread asks. `clock` is monotonic [s].
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._fleets: dict[str, Fleet] = {}
        self._places: dict[tuple[str, str, RunConditions], int] = {}
        self._apart: set[str] = set()
        self._detached: dict[_Key, _Total] = {}
        self._detached_apart: dict[_Key, _Total] = {}
        self._evicted: dict[str, dict[_Key, _Total]] = {}
        self._recent: dict[str, RecentDelays] = {}
        self._groups: dict[_Key, _Group] = {}
        self._in_order: deque[_Group] = deque()
        self._lock = threading.Lock()

    def watch(self, fleet: Fleet) -> None:
        """Show a fleet, instead of an earlier object of the same token; its row keeps its place from now on."""
        with self._lock:
            self._apart.discard(fleet.lease.token)
            self._fleets[fleet.lease.token] = fleet
            self._evicted.pop(fleet.lease.token, None)
            self._place(_of_fleet(fleet))

    def set_apart(self, fleet: Fleet) -> None:
        """Show a fleet that an earlier process had in the figures of the whole run alone, until it is watched again."""
        self.watch(fleet)
        with self._lock:
            self._apart.add(fleet.lease.token)

    def is_apart(self, token: str) -> bool:
        """Whether an earlier process had the fleet, and this one has not."""
        with self._lock:
            return token in self._apart

    def evict(self, fleet: Fleet) -> None:
        """Keep of a fleet nothing but what it adds to the sums, until it is watched again."""
        with self._lock:
            self._fleets.pop(fleet.lease.token, None)
            self._recent.pop(fleet.lease.token, None)
            self._evicted[fleet.lease.token] = _of_fleet(fleet)

    def fold(self, fleet: Fleet) -> None:
        """Keep of a fleet that has detached nothing but what it adds to the sums, for good."""
        with self._lock:
            self._fleets.pop(fleet.lease.token, None)
            self._evicted.pop(fleet.lease.token, None)
            self._recent.pop(fleet.lease.token, None)
            totals = _of_fleet(fleet)
            self._place(totals)
            _add(self._detached_apart if fleet.lease.token in self._apart else self._detached, totals)

    def _place(self, totals: Iterable[_Key]) -> None:
        for model, encoder_id, conditions, _ in totals:
            self._places.setdefault((model, encoder_id, conditions), len(self._places))

    def add(
        self,
        lease: Lease,
        encoder_id: str,
        version: int,
        sums: Sums,
        wire_bytes: float,
        lengths: Lengths,
        fates: Fates,
        latency_ms: float,
        saturated: int,
        air_from: int = 0,
        *,
        queue_ms: float,
        ages_ms: Mapping[int, float],
        aged: AgedSums,
    ) -> None:
        """Note what a stored chunk added to a version: sums [T + 1, COLUMNS], bytes, lengths, fates and latency of its
        new reports, and how many of them have a scale at an end of its range; and whose air it came over. The fleet's
        arrays hold the totals already.

        Args:
            queue_ms: of the latency, until its turn came. ages_ms: by slot of the frame, from its measurement to when
                it was decoded; without those that are not known. aged: sums over these reports.
        """
        by_slot = sums[:-1, 0].astype(int).tolist()
        with self._lock:
            group = self._current(lease, encoder_id, version, lease.by_frame.at(air_from))
            bucket = group.buckets[-1]
            bucket.sums += sums
            bucket.wire_bytes += wire_bytes
            bucket.lengths.update(lengths)
            bucket.fates.update(fates)
            for delays in (bucket.delays, self._recent.setdefault(lease.token, RecentDelays()).at(self._clock())):
                delays.latency.add(latency_ms, sum(by_slot))
                delays.queue.add(queue_ms, sum(by_slot))
                for slot, age_ms in ages_ms.items():
                    delays.age.add(age_ms, by_slot[slot])
            bucket.aged += aged
            group.saturated += saturated

    def drop(self, lease: Lease, encoder_id: str, reports: int) -> None:
        """Note how many reports of a stored chunk were dropped. The fleet's own arrays have them already.

        Args:
            encoder_id: the fleet's.
        """
        with self._lock:
            self._current(lease, encoder_id, 0, lease.by_frame.at(0)).buckets[-1].dropped += reports

    def _current(self, lease: Lease, encoder_id: str, version: int, conditions: RunConditions) -> _Group:
        """The group of a key, its last bucket that of now."""
        now, key = self._clock(), (lease.model, encoder_id, conditions, version)
        self._place([key])
        group = self._groups.setdefault(key, _Group())
        if not group.buckets or now - group.buckets[-1].started > BUCKET_S:
            group.buckets.append(_Bucket(now, np.zeros((lease.conditions.scenario.slots + 1, len(COLUMNS)))))
            self._in_order.append(group)
        while self._in_order[0].buckets[0].started < now - LONGEST_WINDOW_S:
            self._in_order.popleft().buckets.popleft()
        return group

    def figures(
        self, window_s: float | None, model: str | None = None, *, by_version: bool = False, whole_run: bool = False
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """One row per model, encoder and conditions (and version), and their sum, over the last `window_s` seconds or
        (None) since the fleets attached first; with `whole_run` of those that are apart, too.
        """
        merged: dict[_Shown, tuple[_Total, list[_Group]]] = {}
        delays, rows = Delays(), []
        held: bool | None = None
        with self._lock:
            for key, total in self._totals(model, whole_run=whole_run).items():
                shown_as = (*key[:3], key[3] if by_version else None)
                _merge(merged, shown_as, total, self._groups.get(key))
            for (name, encoder_id, conditions, version), (total, groups) in merged.items():
                row, of_row = self._row(total, groups, window_s)
                delays.merge(of_row)
                held = _all_held(held, total.held)
                named = {"version": version or None} if by_version else {}
                rows.append({**_described(name, encoder_id, conditions, total.facts), **named, **row})
        added = (
            "ues",
            "ues_attached",
            "reports",
            "dropped",
            *FATES,
            "reports_per_s",
            "feedback_bits_total",
            "wire_bytes_total",
        )
        overall = {name: sum(row[name] for row in rows) for name in added}
        offered = functools.reduce(_added_if_known, (row["offered_reports_per_s"] for row in rows), None)
        return rows, {**overall, "offered_reports_per_s": offered, "rate_held": held, **delays.figures()}

    def pace(self, fleet: Fleet) -> dict[str, Any]:
        """What a fleet's UEs are to send, and what they were served lately."""
        with self._lock:
            delays, seconds = self._recent.get(fleet.lease.token, RecentDelays()).since(self._clock())
        watch = fleet.watch if fleet.attached else None
        return {
            "offered_reports_per_s": watch and watch.asked_per_s,
            "reports_per_s": delays.latency.count / max(seconds, BUCKET_S),
            "rate_held": watch and watch.held,
            "limited_by": watch and limited_by(watch),
            **delays.figures(),
        }

    def series(self) -> list[dict[str, Any]]:
        """One row per scheme, version, encoder and preset of scenarios since the start of the run, over all seeds,
        delays and fields that UEs have chosen: so there are never more rows than checkpoints and presets allow.
        With the sums of which NMSE and SGCS are the means.
        """
        with self._lock:
            return [
                {
                    "scheme": name,
                    "version": version or "none",
                    "encoder_id": encoder_id,
                    "preset": preset,
                    "nmse_sum": float(total.sums[0, COLUMNS.index("ratio")]),
                    "sgcs_sum": float(total.sums[0, COLUMNS.index("sgcs")]),
                    **self._row(total, groups, None)[0],
                }
                for (name, version, encoder_id, preset, _), (total, groups) in self._by_preset(()).items()
            ]

    def snapshot(self) -> list[dict[str, Any]]:
        """What all that was received has come to since the start of the run, in the rows of `series`, the first AIRS
        airs of the run apart: sums of reports and of frame means, [COLUMNS] each, to take the difference of two
        snapshots. `air` is None of all other airs.
        """
        with self._lock:
            airs = list(dict.fromkeys(conditions.air for _, _, conditions in self._places))[:AIRS]
            return [
                {
                    "scheme": name,
                    "version": version or None,
                    "encoder_id": encoder_id,
                    "preset": preset,
                    "air": air,
                    "domain": total.facts.domain,
                    "ues_attached": total.ues_attached,
                    "dropped": total.dropped,
                    **{name: total.fates[name] for name in FATES},
                    "feedback_bits": sum(bits * reports for bits, reports in total.lengths.items()),
                    "reports": total.sums[0].tolist(),
                    "frames": total.sums[1].tolist(),
                }
                for (name, version, encoder_id, preset, air), (total, _) in self._by_preset(airs).items()
            ]

    def _by_preset(self, airs: Collection[Air]) -> dict[_Series, tuple[_Total, list[_Group]]]:
        """Totals over all slots, and recent buckets, by scheme, version, encoder, preset of scenarios, and air if it is
        one of these.
        """
        merged: dict[_Series, tuple[_Total, list[_Group]]] = {}
        for key, total in self._totals(whole_run=True).items():
            name, encoder_id, conditions, version = key
            preset = str(conditions.scenario).partition(":")[0]
            air = str(conditions.air) if conditions.air in airs else None
            _merge(merged, (name, version, encoder_id, preset, air), total.of_all_slots(), self._groups.get(key))
        return merged

    def _totals(self, model: str | None = None, *, whole_run: bool) -> dict[_Key, _Total]:
        """Of all fleets of a model (None: of all), in the order in which they were seen first."""
        sums = [self._detached, *([self._detached_apart] if whole_run else [])]
        sums += [totals for token, totals in self._evicted.items() if whole_run or token not in self._apart]
        found: dict[_Key, _Total] = {}
        for totals in sums:
            _add(found, {key: total for key, total in totals.items() if model in (None, key[0])})
        for token, fleet in self._fleets.items():
            if model in (None, fleet.lease.model) and (whole_run or token not in self._apart):
                _add(found, _of_fleet(fleet))
        last = len(self._places)
        return dict(sorted(found.items(), key=lambda item: (self._places.get(item[0][:3], last), item[0][3])))

    def _row(self, total: _Total, groups: list[_Group], window_s: float | None) -> tuple[dict[str, Any], Delays]:
        """Figures of one group or several over the last seconds, or the whole run, and the delays in them."""
        now, delays = self._clock(), Delays()
        start = now - (LONGEST_WINDOW_S if window_s is None else window_s)
        recent = [bucket for group in groups for bucket in group.since(start)]
        for bucket in recent:
            delays.merge(bucket.delays)
        sums, wire_bytes, dropped, lengths, fates, aged = (
            total.sums,
            total.wire_bytes,
            total.dropped,
            total.lengths,
            total.fates,
            total.aged,
        )
        if window_s is not None:
            sums = sum((bucket.sums for bucket in recent), np.zeros_like(sums))
            wire_bytes = sum(bucket.wire_bytes for bucket in recent)
            dropped = sum(bucket.dropped for bucket in recent)
            lengths = sum((bucket.lengths for bucket in recent), Lengths())
            fates = sum((bucket.fates for bucket in recent), Fates())
            aged = sum((bucket.aged for bucket in recent), no_reports())
        figures = summarise(sums[:-1], sums[-1])
        span = max(now - min(bucket.started for bucket in recent), BUCKET_S) if recent else 1.0
        reports = figures["reports"]
        row = {
            "ues": total.ues,
            "ues_attached": total.ues_attached,
            **figures,
            "dropped": dropped,
            **{name: fates[name] for name in FATES},
            **aged_figures(aged, total.facts.domain),
            "offered_reports_per_s": total.offered_per_s,
            "reports_per_s": delays.latency.count / span,
            "rate_held": total.held,
            **summarise_lengths(lengths),
            "wire_bytes": wire_bytes / reports if reports else None,
            "wire_bytes_total": wire_bytes,
            **delays.figures(),
            "saturated_scales": sum(group.saturated for group in groups),
            "decoder_versions": {str(version): count for version, count in sorted(total.reports.items())},
        }
        return row, delays


def _of_fleet(fleet: Fleet) -> dict[_Key, _Total]:
    """A fleet's reports and UEs; with version 0 UEs whose open or last frame none decodes, and dropped reports."""
    found: dict[_Key, _Total] = {}
    of_ues = np.stack([fleet.version, np.where(fleet.version, fleet.air_from(), 0)], axis=1)
    kinds, counts = np.unique(of_ues, axis=0, return_counts=True)
    ues = dict(zip(map(tuple, kinds.tolist()), counts.tolist(), strict=True))
    without = [(0, 0)] if fleet.dropped.any() else []
    for version, air_from in sorted({*list(fleet.totals), *ues, *without}):
        encoder_id = fleet.facts[version].encoder_id if version else fleet.encoder_id
        key = (fleet.lease.model, encoder_id, fleet.lease.by_frame.at(air_from), version)
        found[key] = _Total.of(fleet, encoder_id, version, air_from, ues.get((version, air_from), 0))
    return found


def _add(totals: dict[_Key, _Total], others: dict[_Key, _Total]) -> None:
    """Add sums to sums."""
    for key, total in others.items():
        if key in totals:
            totals[key].merge(total)
        else:
            totals[key] = total.copy()


_T = TypeVar("_T")


def _merge(merged: dict[_T, tuple[_Total, list[_Group]]], key: _T, total: _Total, group: _Group | None) -> None:
    """Add a total, and its recent buckets, to those of a key."""
    if key in merged:
        merged[key][0].merge(total)
    else:
        merged[key] = total, []
    merged[key][1].extend([] if group is None else [group])


def _described(model: str, encoder_id: str, conditions: RunConditions, facts: VersionFacts) -> dict[str, Any]:
    return {
        "scheme": model,
        "encoder_id": encoder_id,
        **conditions.to_json(),
        "average": "mean_of_ratios",
        "domain": DOMAIN_NAMES[facts.domain],
    }


def describe(fleet: Fleet, encoder_id: str, conditions: RunConditions) -> dict[str, Any]:
    """What every NMSE of a fleet's reports by an encoder, in some conditions, must be shown with."""
    return _described(fleet.lease.model, encoder_id, conditions, fleet.facts_of(encoder_id))


def ue_row(
    fleet: Fleet, ue: int, kept: list[dict[str, Any]], window_s: float | None, clock: Clock = time.time
) -> dict[str, Any]:
    """Figures of one UE's reports by its present encoder over its present air: in total, or of those of its kept
    reports (rows of the store) that arrived in the window before `clock` [s since 1970]. The spread of their feedback
    bits is of kept ones always.
    """
    index, slots = ue - fleet.lease.first_ue, fleet.slots
    encoder_id, conditions = fleet.encoder_of(index), fleet.conditions_of(index)
    by_version = fleet.totals_for(encoder_id, conditions)
    at = fleet.lease.by_frame.at
    kept = [row for row in kept if row["version"] in by_version and at(row["sequence"] // slots) == conditions]
    sums = np.zeros((slots + 1, len(COLUMNS)))
    wire_bytes, bits = 0.0, 0
    for totals in by_version.values():
        sums += totals.sums[index]
        wire_bytes += float(totals.wire_bytes[index].sum())
        bits += int(totals.feedback_bits[index].sum())
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
    lengths = summarise_lengths(Lengths(row["feedback_bits"] for row in kept))
    if window_s is None and figures["reports"]:
        lengths |= {"feedback_bits": bits / figures["reports"], "feedback_bits_total": bits}
    return {
        "ue": ue,
        "status": fleet.status,
        **describe(fleet, encoder_id, conditions),
        "next_sequence": int(fleet.next_sequence[index]),
        "decoder_version": int(fleet.version[index]),
        "dropped": int(fleet.dropped[index]),
        **figures,
        **lengths,
        "wire_bytes": each,
        "wire_bytes_total": each * figures["reports"],
        "latency_ms": latencies.figures(),
    }


def ue_qualities(
    fleet: Fleet, rows: range, present: Sequence[tuple[str, RunConditions]]
) -> list[dict[str, float | None]]:
    """NMSE (mean of ratios) [dB] and SGCS of all reports of a fleet's UEs by their `present` encoders in their present
    conditions, one UE a row.
    """

    @functools.cache
    def sums(encoder_id: str, conditions: RunConditions) -> Sums:
        parts = fleet.totals_for(encoder_id, conditions).values()
        return sum(
            (part.sums[rows.start : rows.stop, :-1].sum(axis=1) for part in parts), np.zeros((len(rows), len(COLUMNS)))
        )

    found = []
    for place, (encoder_id, conditions) in enumerate(present):
        total = sums(encoder_id, conditions)[place]
        figures = averages(total, total)
        found.append({name: figures[name] for name in ("nmse_db", "sgcs")})
    return found


def report_rows(fleet: Fleet, kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Single reports of a fleet's UE from rows of the store."""
    slots, outcomes = fleet.slots, _outcomes(kept)
    decibels = 10 * np.log10(np.maximum(outcomes.ratio_sf, 1e-30))
    scaled = outcomes.power > 0
    return [
        {
            "sequence": row["sequence"],
            "slot": row["sequence"] % slots + 1,
            "frame": row["sequence"] // slots,
            "nmse": float(outcomes.ratio[index]) if scaled[index] else None,
            "nmse_db": float(outcomes.db[index]) if scaled[index] else None,
            "nmse_sf_db": float(decibels[index]) if scaled[index] else None,
            "sgcs": row["sgcs"],
            "rho": row["rho"],
            "decoder_version": row["version"],
            "feedback_bits": row["feedback_bits"],
            "air": str(fleet.lease.by_frame.at(row["sequence"] // slots).air) or None,
            "fate": fate_name(row["fate"]),
            "latency_ms": row["latency_ms"],
            "received_at": row["received_at"],
        }
        for index, row in enumerate(kept)
    ]


def _outcomes(kept: list[dict[str, Any]]) -> Outcomes:
    """[reports], of rows of the store."""
    return Outcomes.of(np.array([[row[name] for row in kept] for name in MEASURED], float))
