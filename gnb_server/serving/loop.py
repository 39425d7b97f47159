"""The serving thread: chunks in; batches across UEs and fleets through all stages; acks out.

It runs beside the event loop (torch releases the interpreter lock in its kernels). Whatever goes wrong with a chunk
fails that chunk alone: its fleet is restored from the store when it attaches again, and the rest of its batch goes on.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np
import torch

from gnb_server.faults import Faults
from gnb_server.monitor import Clock, Monitor
from gnb_server.rates import RateControl
from gnb_server.recorder import Recorder
from gnb_server.repository import Repository
from gnb_server.rollouts import RATIO, Rollouts
from gnb_server.serving.admission import admit
from gnb_server.serving.backend import Part
from gnb_server.serving.batching import FairQueue, rounds_of
from gnb_server.serving.chunks import Ack, Admitted, Chunk, Group, Job
from gnb_server.serving.commit import Committer
from gnb_server.serving.execution import Executor, Failure, Result
from gnb_server.serving.memory import Returning, return_memory
from gnb_server.serving.monitoring import Monitoring
from gnb_server.serving.recovery import Member, Recovery, Undecodable
from gnb_server.serving.scoring import Decoded, NoChannel, Scored, Scorer
from gnb_server.serving.shadow import Shadow
from gnb_server.sessions import Fleet
from gnb_server.snapshots import Snapshots
from gnb_server.store import Store
from shared.errors import Conflict, CsiError, NotReady
from shared.link.air import erased
from shared.link.decoding import distortion

SHUTTING_DOWN = "gNB: is shutting down"

CALL_S = 20.0
"""How long something may wait for the batch in hand: longer only while the store cannot be written."""

T = TypeVar("T")

_Call = tuple[Callable[[], Any], Future[Any]]
"""Something to run between batches, and where its result goes."""


class ServingLoop:
    """The serving thread and its queue. With `evaluate` off (benchmarks) nothing is compared nor stored.

    Args:
        late_s: chunks that have waited for longer than this [s] when their turn comes are dropped; None: none are.
        clock: monotonic [s].
    """

    def __init__(
        self,
        models: Repository,
        executor: Executor,
        store: Store,
        monitor: Monitor,
        rollouts: Rollouts,
        *,
        recorder: Recorder | None = None,
        snapshots: Snapshots | None = None,
        monitoring: Monitoring | None = None,
        faults: Faults | None = None,
        evaluate: bool = True,
        late_s: float | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._models = models
        self._executor = executor
        self._recorder = recorder
        self._snapshots = snapshots
        self._faults = faults or Faults("none")
        self._evaluate = evaluate
        self._late_s = late_s
        self._clock = clock
        self._scorer = Scorer(store, recorder, snapshots, evaluate=evaluate)
        self._monitoring = monitoring if evaluate else None
        self._committer = Committer(store, monitor, recorder, rollouts, self._monitoring, write=evaluate)
        self._recovery = Recovery(models, executor, store)
        self._shadow = Shadow(models, rollouts, executor)
        self._rollouts = rollouts
        self._changed = threading.Condition()
        self._waiting = FairQueue()
        self._calls: deque[_Call] = deque()
        self._later: list[tuple[float, int, _Call]] = []
        self._numbers = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="serving", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Finish the batch in hand and stop. What waits is not acknowledged: UEs send it again."""
        with self._changed:
            self._closed = True
            left = self._waiting.remove(lambda _: True)
            self._changed.notify()
        self._committer.give_up()
        for job in left:
            job.future.set_exception(NotReady(SHUTTING_DOWN))
        self._thread.join()
        if self._recorder is not None:
            self._recorder.close()

    def share(self) -> tuple[float, float]:
        """Reports and bytes that one fleet may have waiting; one chunk it may have in any case."""
        with self._changed:
            return self._waiting.share()

    def submit(self, fleet: Fleet, stream: int, chunk: Chunk) -> Future[Ack]:
        """Queue a chunk. The future holds its Ack once stored, or a CsiError."""
        job = Job(fleet, stream, chunk, _started(), arrived=self._clock())
        with self._changed:
            if not self._closed:
                self._waiting.add(job)
                self._changed.notify()
                return job.future
        job.future.set_exception(NotReady(SHUTTING_DOWN))
        return job.future

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Run something between two batches, the next time."""
        future: Future[Any] = _started()
        with self._changed:
            if not self._closed:
                self._calls.append((function, future))
                self._changed.notify()
                return future
        future.set_exception(NotReady(SHUTTING_DOWN))
        return future

    def run(self, function: Callable[[], T]) -> T:
        """Run something between two batches, and wait for it. Raises NotReady if that takes longer than CALL_S."""
        try:
            result: T = self.call(function).result(CALL_S)
        except TimeoutError:
            raise NotReady("gNB: is waiting for its store; try again") from None
        return result

    def undecodable(self) -> dict[tuple[str, int], int]:
        """Reports that were refused as `Undecodable`, by model and version."""
        return dict(self._recovery.refused)

    def drop(self, fleet: Fleet) -> None:
        """Drop what waits of a fleet's earlier streams: nobody hears the answers, and the UEs send it again."""
        with self._changed:
            dropped = self._waiting.remove(lambda job: job.fleet is fleet and job.stream != fleet.stream)
        for job in dropped:
            job.future.set_exception(Conflict("fleet-token: a newer stream of this fleet has taken over"))

    def forget(self, fleet: Fleet, after_s: float = 0.0) -> None:
        """Free what is held for the open frames of a fleet that has gone, unless it comes back within `after_s`."""
        stream = fleet.stream

        def free() -> None:
            if fleet.stream == stream:
                fleet.open, fleet.broken = None, True
                self._executor.forget(fleet.lease.token)
                self._shadow.forget(fleet.lease.token)
                if self._monitoring is not None:
                    self._monitoring.forget(fleet.lease.token)
                return_memory()

        if not after_s:
            self.call(free)
            return
        with self._changed:
            when = time.monotonic() + after_s
            heapq.heappush(self._later, (when, next(self._numbers), (free, _started())))
            self._changed.notify()

    def rebuild(self, fleet: Fleet) -> None:
        """Decode a fleet's stored reports of open frames again, which brings recurrent states and outcomes back.

        Raises:
            NotFound, DamagedCheckpoint: a version that they need is not there any more.
        """
        self.run(lambda: self._rebuild(fleet))

    def _serve(self) -> None:
        torch.set_num_threads(1)
        returning = Returning()
        while True:
            with self._changed:
                if not (self._calls or self._waiting or self._closed):
                    self._changed.wait(self._later[0][0] - time.monotonic() if self._later else None)
                while self._later and self._later[0][0] <= time.monotonic():
                    self._calls.append(heapq.heappop(self._later)[2])
                call = self._calls.popleft() if self._calls else None
                jobs = self._waiting.take() if call is None and self._waiting else []
            if call is not None:
                function, future = call
                try:
                    future.set_result(function())
                except Exception as error:  # to the caller, whatever it is
                    future.set_exception(error)
            elif jobs:
                self._timed(jobs)
                returning.tick()
            elif self._closed:
                return

    def _timed(self, jobs: list[Job]) -> None:
        """Process a batch, and note how long it takes."""
        begun, model = time.monotonic(), jobs[0].fleet.lease.model
        try:
            self._process(jobs)
        except Exception as error:  # the thread goes on, whatever it is
            for job in jobs:
                if not job.future.done():
                    _fail(job, error)
        with self._changed:
            self._waiting.took(model, sum(job.chunk.reports for job in jobs), time.monotonic() - begun)

    def _process(self, jobs: list[Job]) -> None:
        """Bring a batch of chunks to their acks."""
        self._faults.wait()
        scored: list[Scored] = []
        for round_ in rounds_of(jobs):
            begun = self._clock()
            admitted = list(self._admitted(round_))
            self._abandon(admitted)
            decoded = self._decoded(admitted)
            done: list[Scored] = []
            for job, found in admitted:
                if job.future.done():
                    continue
                try:
                    ready = max((result.decoded for _, result in decoded[job]), default=self._clock())
                    latency_ms, queue_ms = 1e3 * (ready - job.arrived), 1e3 * (begun - job.arrived)
                    lost = self._faults.loses()
                    result = self._scorer.score(job, found, decoded[job], latency_ms, queue_ms, lost=lost)
                    done.append(result if lost else self._watched(result, found, decoded[job]))
                    self._hold_target(job, found)
                except Exception as error:
                    _fail(job, error)
            scored += self._shadowed(done, dict(admitted))
        self._committer.commit(scored, _fail)

    def _admitted(self, jobs: list[Job]) -> Iterator[tuple[Job, Admitted]]:
        """Chunks that are taken; the others get their errors."""
        for job in jobs:
            late = self._late_s is not None and self._clock() - job.arrived > self._late_s
            try:
                yield job, admit(job, self._models, self._faults, late=late)
            except CsiError as error:  # the UE's to mend: nothing has changed
                job.future.set_exception(error)
            except Exception as error:
                _fail(job, error)

    def _abandon(self, admitted: list[tuple[Job, Admitted]]) -> None:
        """Free what is held for frames whose rest is dropped."""
        for job, found in admitted:
            for dropped in found.dropped:
                self._executor.abandon(job.fleet.lease.token, found.rows[dropped.columns])

    def _decoded(self, admitted: list[tuple[Job, Admitted]]) -> dict[Job, Decoded]:
        """What chunks of disjoint UEs are decoded to, all of a model version in one call."""
        decoded: dict[Job, Decoded] = {job: [] for job, _ in admitted}
        batches: dict[tuple[str, int], list[Member]] = {}
        for job, found in admitted:
            for group in found.groups:
                key = group.model.name, group.model.version
                part = self._to_serve(job, found, group)
                batches.setdefault(key, []).append((job, group, part))
        for members in batches.values():
            for (job, group, _), result in zip(members, self._recovery.execute(members), strict=True):
                if isinstance(result, Result):
                    decoded[job].append((group, result))
                elif not job.future.done():
                    if result.by_version:
                        self._rollouts.fail(group.model.name, group.model.version, str(result.error))
                    _fail(job, result.error)
        return decoded

    def _to_serve(self, job: Job, admitted: Admitted, group: Group) -> Part:
        """A group as it is decoded for its ack, with all that is wanted of it."""
        lease, rows = job.fleet.lease, admitted.rows[group.columns]
        recorded = self._recorder is not None and self._recorder.wants(job.frame)
        return dataclasses.replace(
            self._part(job, admitted, group),
            measured_at=tuple(job.arrived - waited_s for waited_s in job.chunk.waited_s[group.skipped :]),
            offered_per_s=job.fleet.offered_per_s,
            watched=self._monitoring is not None,
            shown=recorded or (self._snapshots is not None and self._snapshots.wants(lease, rows)),
        )

    def _hold_target(self, job: Job, admitted: Admitted) -> None:
        """Have UEs take more or fewer bits, where their fleet is to hold an NMSE."""
        if job.fleet.rate.target_nmse_db is None:
            return
        for group in admitted.groups:
            if (scheme := group.model.scheme).steps:
                part = self._part(job, admitted, group)
                there = ~erased(part.fates)
                expected, steps = np.full(there.shape, np.nan, np.float32), np.zeros(there.shape, np.int64)
                if there.any():
                    fields = {name: values[there] for name, values in part.fields.items()}
                    expected[there], steps[there] = distortion(scheme, fields)
                RateControl.observe(job.fleet, scheme, part.rows, expected, steps)

    def _watched(self, scored: Scored, admitted: Admitted, decoded: Decoded) -> Scored:
        """A chunk with what the monitoring sees of it."""
        if self._monitoring is None:
            return scored
        watched = []
        for (group, result), increment in zip(decoded, scored.stored.increments, strict=False):
            assert result.estimates is not None  # it is watched
            part = self._part(scored.job, admitted, group)
            target = None if admitted.target is None else admitted.target[torch.from_numpy(group.columns)]
            fleet = scored.job.fleet
            frames = self._monitoring.watch.observe(
                fleet, group.model, part, increment.lengths, result.estimates, target
            )
            if frames is not None:
                watched.append((frames, increment.frame_means[frames.columns, RATIO]))
        return dataclasses.replace(scored, watched=watched)

    def _shadowed(self, done: list[Scored], admitted: dict[Job, Admitted]) -> list[Scored]:
        """Chunks with what a shadow makes of them, if there is one."""
        if not done or not self._evaluate or self._rollouts.running(done[0].job.fleet.lease.model) is None:
            return done
        jobs = [(scored.job, admitted[scored.job]) for scored in done]
        pairs = self._shadow.follow(
            [(job, group, self._part(job, found, group)) for job, found in jobs for group in found.groups]
        )
        return [dataclasses.replace(scored, pairs=pairs.get(scored.job, [])) for scored in done]

    def _part(self, job: Job, admitted: Admitted, group: Group) -> Part:
        fields = {
            name: np.ascontiguousarray(values[group.skipped :, group.columns])
            for name, values in admitted.fields.items()
        }
        frame = job.frame if self._evaluate else 0  # in benchmarks the world is not drawn again for each frame
        rows, slots = admitted.rows[group.columns], job.slots[group.skipped :]
        fates = admitted.fates[group.skipped :, group.columns]
        return Part(job.fleet.lease, rows, frame, slots.start, len(slots), fields, fates)

    def _rebuild(self, fleet: Fleet) -> None:
        assert fleet.open is not None
        token, rows = fleet.lease.token, np.arange(fleet.lease.ue_count)
        self._executor.forget(token)  # it may be ahead of the store
        self._shadow.forget(token)  # as may be this; it follows from the next frame on
        for model, part in self._recovery.kept(fleet, rows):
            result = self._executor.execute(model, [part])[0]
            if isinstance(result, Failure):
                raise result.error
            if result.measured is not None:
                fleet.open.outcome[:, part.rows, : part.slots] = result.measured.swapaxes(1, 2)


def _started() -> Future[Any]:
    """A future that its waiter cannot cancel: a UE that hangs up does not undo what is queued."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def _fail(job: Job, error: Exception) -> None:
    """End a chunk that went wrong on its way; memory may be ahead of the store, from which its fleet is restored."""
    job.fleet.broken = True
    if isinstance(error, NoChannel | Undecodable):
        job.future.set_exception(error)
        return
    logging.error("serving: a chunk failed; its fleet is to be restored from the store", exc_info=error)
    job.future.set_exception(NotReady(f"gNB: {error}"))
