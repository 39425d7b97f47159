"""Decoded chunks against the truth: what they add to the sums, and what their acks say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnb_server.additions import Increment, Progress, Reports
from gnb_server.monitoring.watch import Frames
from gnb_server.recorder import Recorder
from gnb_server.results import Stored
from gnb_server.rollouts import Pairs
from gnb_server.serving.chunks import Ack, Admitted, Group, Job
from gnb_server.serving.execution import Result
from gnb_server.sessions import VersionFacts
from gnb_server.snapshots import Snapshots
from gnb_server.store import Store
from shared.errors import InvalidInput
from shared.link.air import Fates, count_fates
from shared.link.payload import saturated
from shared.metrics import COLUMNS, MEASURED, Outcomes

Decoded = list[tuple[Group, Result]]
"""What became of a chunk's groups."""


class NoChannel(InvalidInput):
    """A report whose values fit their bits and decode to none that a channel could have: its UE's fault."""


@dataclass(frozen=True)
class Scored:
    """A chunk that is decoded and compared, not yet stored.

    Attributes:
        facts: of the versions that decoded it.
        stored: what it adds to the store. ack: its answer, for when it is stored.
        dropped: its new reports that were.
        saturated: new reports of each version whose scale is at an end of its range.
        latency_ms: from arrival to when it was decoded. queue_ms: from arrival to when its turn came.
        records: for the recorder, one row per report.
        pairs: of the frames that it completes, where another version decodes them too.
        watched: frames that it completes as the monitoring sees them, with their true mean ratios [n].
    """

    job: Job
    facts: dict[int, VersionFacts]
    stored: Stored
    ack: Ack
    dropped: int
    saturated: dict[int, int]
    latency_ms: float
    queue_ms: float
    records: list[dict[str, NDArray[Any]]]
    pairs: list[Pairs] = field(default_factory=list)
    watched: list[tuple[Frames, NDArray[np.float64]]] = field(default_factory=list)


class Scorer:
    """Adds up how decoded chunks compare with the truth. With `evaluate` off (benchmarks) nothing is added."""

    def __init__(
        self, store: Store, recorder: Recorder | None, snapshots: Snapshots | None = None, *, evaluate: bool = True
    ) -> None:
        self._store = store
        self._evaluate = evaluate
        self._recorder = recorder
        self._snapshots = snapshots

    def score(
        self, job: Job, admitted: Admitted, decoded: Decoded, latency_ms: float, queue_ms: float, *, lost: bool
    ) -> Scored:
        """Add up a chunk; its frames in progress take notice of it.

        Args:
            latency_ms: from its arrival to when it was decoded. queue_ms: from its arrival to when its turn came.
            lost: fault injection: move on, but count nothing.
        """
        fleet, chunk = job.fleet, job.chunk
        assert fleet.open is not None  # admitted
        nmse = np.full((chunk.slot_count, chunk.ue_count), np.nan)
        new, dropped = np.zeros_like(nmse, bool), np.zeros_like(nmse, bool)
        versions = fleet.open.version[admitted.rows]
        stored, records = Stored(fleet), []
        air_from = int(fleet.lease.by_frame.air_from(np.array(job.frame)))
        for group, result in decoded:
            rows, first = admitted.rows[group.columns], chunk.first_slot + group.skipped
            fleet.open.keep(group.model.version, rows, first, admitted.bits[group.skipped :, group.columns])
            versions[group.columns] = group.model.version
            new[group.skipped :, group.columns] = not lost
            stored.progress.append(self._progress(job, group, rows))
            if result.measured is None:
                continue
            slots = job.slots[group.skipped :]
            if not np.isfinite(result.measured).all():
                raise NoChannel("payload: decodes to numbers beyond float32; wanted values as a channel has them")
            fleet.open.outcome[:, rows[:, None], np.array(slots)] = result.measured.swapaxes(1, 2)
            if lost:
                continue
            outcomes = Outcomes.of(result.measured)
            nmse[group.skipped :, group.columns] = outcomes.nmse
            whole = rows if slots.stop == fleet.slots else rows[:0]
            frame_means = Outcomes.of(fleet.open.outcome[:, whole]).frame_moments()
            version, each = group.model.version, chunk.wire_bytes / chunk.reports
            lengths = admitted.lengths[group.skipped :, group.columns]
            fates = admitted.fates[group.skipped :, group.columns]
            added = frame_means, each, lengths, count_fates(fates), air_from, result.aged
            stored.increments.append(Increment(version, rows, slots, outcomes.moments(), *added))
            kept = result.measured, lengths, latency_ms, job.received, fates
            stored.reports.append(Reports(version, rows, first, *kept))
            if result.estimates is None or result.truth is None:
                continue
            if self._snapshots is not None:
                last, received = first + len(slots) - 1, job.received
                self._snapshots.put(fleet.lease, group.model, rows, last, received, result.estimates, result.truth)
            if self._recorder is not None and self._recorder.wants(job.frame):
                bits = admitted.bits[group.skipped :, group.columns]
                shown = result.estimates, result.truth
                records.append(self._recorder.rows(fleet.lease, group.model, rows, first, bits, *shown))
        for late in admitted.dropped:
            rows, first = admitted.rows[late.columns], chunk.first_slot + late.skipped
            slots = job.slots[late.skipped :]
            fleet.open.drop(rows, first, len(slots))
            versions[late.columns] = 0
            dropped[late.skipped :, late.columns] = True
            reached = chunk.first_slot + chunk.slot_count
            stored.progress.append(Progress(rows, reached, 0, [b""] * len(rows), fleet.open.dropped[rows]))
            nothing = np.zeros((len(MEASURED), len(slots), len(rows)))
            lengths = admitted.lengths[late.skipped :, late.columns]
            stored.reports.append(Reports(0, rows, first, nothing, lengths, latency_ms, job.received))
        newly_dropped, first_time = int(dropped.sum()), new | dropped
        if self._evaluate and not first_time.all():
            self._add_repeats(job, admitted, versions, first_time, stored)
            self._fill_repeats(job, versions, first_time, nmse, dropped)
        at_an_end = np.broadcast_to(saturated(admitted.model.layout, admitted.fields), new.shape)
        ack = Ack(chunk, versions, nmse, int(dropped.sum()))
        facts = {group.model.version: group.model.facts for group, _ in decoded}
        ends = {version: int((at_an_end & new)[:, versions == version].sum()) for version in facts}
        return Scored(job, facts, stored, ack, newly_dropped, ends, latency_ms, queue_ms, records)

    @staticmethod
    def _progress(job: Job, group: Group, rows: NDArray[np.int64]) -> Progress:
        reached, version = job.slots.stop % job.fleet.slots, group.model.version
        assert job.fleet.open is not None
        kept = job.fleet.open.reports[version][rows, :reached] if reached else ()
        open_frame = [row.tobytes() for row in kept] or [b""] * len(rows)
        reached_in_all = job.chunk.first_slot + job.chunk.slot_count
        return Progress(rows, reached_in_all, version, open_frame, job.fleet.open.dropped[rows])

    @staticmethod
    def _add_repeats(
        job: Job, admitted: Admitted, versions: NDArray[np.int64], new: NDArray[np.bool_], stored: Stored
    ) -> None:
        """Count the bytes of reports that were stored before: they were on the wire again. No version has those of UEs
        whose frame is dropped.
        """
        for k, slot in enumerate(job.slots):
            for version in np.unique(versions[~new[k] & (versions > 0)]).tolist():
                rows = admitted.rows[~new[k] & (versions == version)]
                sums, none = np.zeros((1, len(rows), len(COLUMNS))), np.zeros((0, len(COLUMNS)))
                each = job.chunk.wire_bytes / job.chunk.reports
                added = none, each, np.zeros((1, len(rows)), np.int64), Fates()
                air_from = int(job.fleet.lease.by_frame.air_from(np.array(job.frame)))
                stored.increments.append(Increment(version, rows, range(slot, slot + 1), sums, *added, air_from))

    def _fill_repeats(
        self,
        job: Job,
        versions: NDArray[np.int64],
        new: NDArray[np.bool_],
        nmse: NDArray[np.float64],
        dropped: NDArray[np.bool_],
    ) -> None:
        """Put into the ack of a repeated chunk what the store has of its reports."""
        chunk = job.chunk
        for column in np.flatnonzero(~new.all(axis=0)).tolist():
            for row in self._store.reports(chunk.first_ue + column, chunk.first_slot, dropped=True):
                k = row["sequence"] - chunk.first_slot
                if k < chunk.slot_count and not new[k, column]:
                    versions[column] = row["version"]
                    if row["version"]:
                        nmse[k, column] = Outcomes.of(np.array([row[name] for name in MEASURED], float)).nmse
                    else:
                        dropped[k, column] = True
