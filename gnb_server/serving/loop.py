"""The serving thread: chunks in; batches across UEs and fleets through all stages; acks out.

It runs beside the event loop (torch releases the interpreter lock in its kernels). Whatever goes wrong with a chunk
fails that chunk alone: its fleet is restored from the store when it attaches again, and the rest of its batch goes on.
"""

from __future__ import annotations

import contextlib
import ctypes
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

from gnb_server.evaluator import Evaluator
from gnb_server.faults import Faults
from gnb_server.monitor import Clock, Monitor
from gnb_server.rates import RateControl
from gnb_server.recorder import Recorder
from gnb_server.repository import Repository
from gnb_server.rollouts import RATIO, Rollouts
from gnb_server.serving.admission import admit, received_by_slot
from gnb_server.serving.backend import DecodeBackend, Estimates, Part
from gnb_server.serving.batching import FairQueue, rounds_of
from gnb_server.serving.chunks import Ack, Admitted, Chunk, Group, Job
from gnb_server.serving.commit import Committer
from gnb_server.serving.monitoring import Monitoring
from gnb_server.serving.scoring import Decoded, NoChannel, Scored, Scorer
from gnb_server.serving.shadow import Shadow
from gnb_server.sessions import Fleet
from gnb_server.snapshots import Snapshots
from gnb_server.store import Store
from shared.errors import Conflict, CsiError, NotReady
from shared.link.air import erased
from shared.link.decoding import distortion
from shared.metrics import Outcomes

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
        backend: DecodeBackend,
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
        self._backend = backend
        self._recorder = recorder
        self._faults = faults or Faults("none")
        self._evaluate = evaluate
        self._late_s = late_s
        self._clock = clock
        self._evaluator = Evaluator()
        self._scorer = Scorer(self._evaluator if evaluate else None, store, recorder, snapshots)
        self._monitoring = monitoring if evaluate else None
        self._committer = Committer(store, monitor, recorder, rollouts, self._monitoring, write=evaluate)
        self._shadow = Shadow(models, rollouts, self._evaluator)
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
                self._backend.forget(fleet.lease.token)
                self._evaluator.forget(fleet.lease.token)
                self._shadow.forget(fleet.lease.token)
                if self._monitoring is not None:
                    self._monitoring.forget(fleet.lease.token)
                _return_memory()

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
            now = self._clock()
            done: list[Scored] = []
            for job, found in admitted:
                if job.future.done():
                    continue
                try:
                    latency_ms, queue_ms = 1e3 * (now - job.arrived), 1e3 * (begun - job.arrived)
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
                token, rows = job.fleet.lease.token, found.rows[dropped.columns]
                for holder in (self._backend, self._evaluator, self._shadow):
                    holder.abandon(token, rows)

    def _decoded(self, admitted: list[tuple[Job, Admitted]]) -> dict[Job, Decoded]:
        """Estimates of chunks of disjoint UEs, all of a model version in one call."""
        decoded: dict[Job, Decoded] = {job: [] for job, _ in admitted}
        batches: dict[tuple[str, int], list[tuple[Job, Group, Part]]] = {}
        for job, found in admitted:
            for group in found.groups:
                key = group.model.name, group.model.version
                batches.setdefault(key, []).append((job, group, self._part(job, found, group)))
        for (name, version), members in batches.items():
            for (job, group, _), estimates in self._decode(name, version, members):
                decoded[job].append((group, estimates))
        return decoded

    def _decode(
        self, name: str, version: int, members: list[tuple[Job, Group, Part]]
    ) -> Iterator[tuple[tuple[Job, Group, Part], Estimates]]:
        """Estimates of members that can be decoded: together, or one by one if that fails."""
        try:
            yield from zip(members, self._backend.decode(name, version, [part for *_, part in members]), strict=True)
        except Exception as error:
            if len(members) == 1:
                if type(error) is not LookupError:  # of a state that is to be restored
                    self._rollouts.fail(name, version, str(error))
                _fail(members[0][0], error)
                return
            for member in members:
                yield from self._decode(name, version, [member])

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
        for (group, estimates), increment in zip(decoded, scored.stored.increments, strict=False):
            part = self._part(scored.job, admitted, group)
            target = None if admitted.target is None else admitted.target[torch.from_numpy(group.columns)]
            fleet = scored.job.fleet
            frames = self._monitoring.watch.observe(fleet, group.model, part, increment.lengths, estimates, target)
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
        self._shadow.forget(fleet.lease.token)  # it may be ahead of the store, and follows from the next frame on
        reached, frames = fleet.next_sequence % fleet.slots, fleet.next_sequence // fleet.slots
        open_frames = np.unique(np.stack([fleet.version, frames, reached], axis=1), axis=0)
        for version, frame, slots in open_frames.tolist():
            if not (slots and version):  # at a frame's beginning, or dropped
                continue
            rows = np.flatnonzero((fleet.version == version) & (frames == frame) & (reached == slots))
            model = self._models.version(fleet.lease.model, version)
            packed = fleet.open.reports[version][rows, :slots].swapaxes(0, 1)
            bits = np.unpackbits(packed, axis=-1, count=model.layout.bits)
            ues = rows + fleet.lease.first_ue
            fields, fates = received_by_slot(fleet.lease, model, ues, frame, range(slots), bits)
            part = Part(fleet.lease, rows, frame, 0, slots, fields, fates)
            estimates = self._backend.decode(model.name, version, [part])[0]
            truth = self._evaluator.truth(fleet.lease, model.scheme.domain, rows, frame, range(slots))
            outcomes = Outcomes.measure(torch.from_numpy(estimates), truth)
            fleet.open.outcome[:, rows, :slots] = outcomes.measured.swapaxes(1, 2)


def _return_memory() -> None:
    """Have the C library give back what is free: it keeps pages that hold anything else between them."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _started() -> Future[Any]:
    """A future that its waiter cannot cancel: a UE that hangs up does not undo what is queued."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def _fail(job: Job, error: Exception) -> None:
    """End a chunk that went wrong on its way; memory may be ahead of the store, from which its fleet is restored."""
    job.fleet.broken = True
    if isinstance(error, NoChannel):
        job.future.set_exception(error)
        return
    logging.error("serving: a chunk failed; its fleet is to be restored from the store", exc_info=error)
    job.future.set_exception(NotReady(f"gNB: {error}"))
