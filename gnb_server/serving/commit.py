"""From scored chunks to acks: one transaction, then memory, monitor and recorder, then the answers.

Nothing is shown or acknowledged that is not stored.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import numpy as np

from gnb_server.monitor import Monitor
from gnb_server.recorder import Recorder
from gnb_server.rollouts import Rollouts
from gnb_server.serving.chunks import Job
from gnb_server.serving.monitoring import Monitoring
from gnb_server.serving.scoring import Scored
from gnb_server.store import Store
from shared.errors import NotReady, StoreUnavailable
from shared.metrics import COLUMNS

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Between attempts to write to a store that cannot be written, doubling from the first to the longest."""

Fail = Callable[[Job, Exception], None]
"""Called for a chunk that has failed, with the reason."""


class Committer:
    """Stores what chunks add and answers them. With `write` off (benchmarks) nothing is stored."""

    def __init__(
        self,
        store: Store,
        monitor: Monitor,
        recorder: Recorder | None,
        rollouts: Rollouts,
        monitoring: Monitoring | None = None,
        *,
        write: bool,
    ) -> None:
        self._store = store
        self._monitor = monitor
        self._recorder = recorder
        self._rollouts = rollouts
        self._monitoring = monitoring
        self._write = write
        self._giving_up = threading.Event()

    def give_up(self) -> None:
        """Wait no longer for a store that cannot be written."""
        self._giving_up.set()

    def commit(self, batch: list[Scored], fail: Fail) -> None:
        """Store a batch in one transaction, waiting for a store that cannot be written; if it is the batch's fault,
        each chunk in one of its own, so that one chunk's fault is its own. A chunk whose UEs' chunk before it has
        failed fails too. Where a store that cannot be written is not waited for any longer, nobody knows what is in it:
        all fail, and nothing is written any more.
        """
        try:
            self._store_patiently(batch)
        except StoreUnavailable as error:
            for scored in batch:
                fail(scored.job, error)
            return
        except Exception:
            if len(batch) > 1:
                logging.exception("serving: a batch could not be stored; trying its chunks one by one")
            batch = self._one_by_one(batch, fail)
        for scored in batch:
            try:
                self._apply(scored)
            except Exception as error:  # it is stored, but memory is behind
                fail(scored.job, error)
            else:
                scored.job.future.set_result(scored.ack)

    def _store_patiently(self, batch: list[Scored]) -> None:
        pause, told = FIRST_PAUSE_S, False
        while True:
            try:
                self._store_all(batch)
                break
            except StoreUnavailable as error:
                if not told:
                    logging.error("%s; UEs wait until it can be", error)
                told = True
                if self._giving_up.wait(pause):
                    raise
                pause = min(2 * pause, LONGEST_PAUSE_S)
        if told:
            logging.warning("store: can be written again")

    def _store_all(self, batch: list[Scored]) -> None:
        for scored in batch:
            fleet = scored.job.fleet
            for version in scored.facts.keys() - fleet.facts.keys() if self._write else ():
                self._store.keep_version(fleet.lease.model, version, scored.facts[version])
            fleet.facts |= scored.facts
        if self._write:
            self._store.commit(scored.stored for scored in batch)

    def _one_by_one(self, batch: list[Scored], fail: Fail) -> list[Scored]:
        done: list[Scored] = []
        failed: list[Job] = []
        for k, scored in enumerate(batch):
            try:
                if any(map(scored.job.overlaps, failed)):
                    raise NotReady("a chunk of these UEs before this one could not be stored")
                self._store_patiently([scored])
                done.append(scored)
            except StoreUnavailable as error:
                for left in batch[k:]:
                    fail(left.job, error)
                break
            except Exception as error:
                failed.append(scored.job)
                fail(scored.job, error)
        return done

    def _apply(self, scored: Scored) -> None:
        """Bring memory to what has been stored; the fleet's totals are there."""
        fleet, stored = scored.job.fleet, scored.stored
        for progress in stored.progress:
            fleet.next_sequence[progress.rows] = progress.next_sequence
            fleet.version[progress.rows] = progress.version
            fleet.dropped[progress.rows] = progress.dropped
        if scored.dropped:
            self._monitor.drop(fleet.lease, fleet.encoder_id, scored.dropped)
        saturated = dict(scored.saturated)
        for increment in stored.increments:
            slots = slice(increment.slots.start, increment.slots.stop)
            added = np.zeros((fleet.slots + 1, len(COLUMNS)))
            added[slots] = increment.sums.sum(axis=1)
            if len(increment.frame_means):
                added[-1] = increment.frame_means.sum(axis=0)
            version, encoder_id = increment.version, fleet.facts[increment.version].encoder_id
            wire_bytes = increment.wire_bytes * len(increment.rows) * len(increment.slots)
            at_an_end = saturated.pop(version, 0)
            ages_ms = [1e3 * age_s for age_s in scored.job.ages_s(scored.latency_ms)[-len(increment.slots) :]]
            self._monitor.add(
                fleet.lease,
                encoder_id,
                version,
                added,
                wire_bytes,
                increment.counted(),
                increment.fates,
                scored.latency_ms,
                at_an_end,
                increment.air_from,
                queue_ms=scored.queue_ms,
                ages_ms=dict(zip(increment.slots, ages_ms, strict=False)),
                aged=increment.aged,
            )
        self._rollouts.observe(fleet.lease, stored.increments, scored.pairs)
        if self._monitoring is not None:
            for frames, ratios in scored.watched:
                self._monitoring.add(fleet.lease, scored.job.frame, frames, ratios)
        if self._recorder is not None:
            try:
                for record in scored.records:
                    self._recorder.add(fleet.lease, scored.job.chunk.encoder_id, **record)
            except OSError:  # the reports are stored
                logging.exception("serving: reports could not be recorded")
