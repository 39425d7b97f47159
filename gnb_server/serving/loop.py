"""The serving thread: chunks in; batches across UEs and fleets through all stages; acks out.

It runs beside the event loop (torch releases the interpreter lock in its kernels). Whatever goes wrong with a chunk
fails that chunk alone: its fleet is restored from the store when it attaches again, and the rest of its batch goes on.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch

from gnb_server.evaluator import Evaluator
from gnb_server.faults import Faults
from gnb_server.monitor import Monitor
from gnb_server.recorder import Recorder
from gnb_server.repository import Repository
from gnb_server.serving.admission import admit
from gnb_server.serving.backend import DecodeBackend, Estimates, Part
from gnb_server.serving.batching import Turns, rounds_of
from gnb_server.serving.chunks import Ack, Admitted, Chunk, Group, Job
from gnb_server.serving.commit import Committer
from gnb_server.serving.scoring import Decoded, Scored, Scorer
from gnb_server.sessions import Fleet
from gnb_server.store import Store
from shared.errors import CsiError, NotReady
from shared.metrics import Outcomes

_Call = tuple[Callable[[], Any], Future[Any]]
"""Something to run between batches, and where its result goes."""


class ServingLoop:
    """The serving thread and its queue. With `evaluate` off (benchmarks) nothing is compared nor stored."""

    def __init__(
        self,
        models: Repository,
        backend: DecodeBackend,
        store: Store,
        monitor: Monitor,
        *,
        recorder: Recorder | None = None,
        faults: Faults | None = None,
        evaluate: bool = True,
    ) -> None:
        self._models = models
        self._backend = backend
        self._recorder = recorder
        self._faults = faults or Faults("none")
        self._evaluate = evaluate
        self._evaluator = Evaluator()
        self._scorer = Scorer(self._evaluator if evaluate else None, store, recorder)
        self._committer = Committer(store, monitor, recorder, write=evaluate)
        self._queue: queue.SimpleQueue[Job | _Call] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="serving", daemon=True)
        self._closed = self._ended = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Finish what is queued and stop."""

        def end() -> None:
            self._ended = True

        self._closed = True
        self._queue.put((end, _started()))
        self._thread.join()
        if self._recorder is not None:
            self._recorder.close()

    def submit(self, fleet: Fleet, chunk: Chunk) -> Future[Ack]:
        """Queue a chunk. The future holds its Ack once stored, or a CsiError."""
        future: Future[Ack] = _started()
        self._put(Job(fleet, chunk, future), future)
        return future

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Run something between batches, when all that came before it is decoded."""
        future: Future[Any] = _started()
        self._put((function, future), future)
        return future

    def forget(self, fleet: Fleet) -> None:
        """Free what is held for a fleet's open frames, once all that it has sent is decoded."""

        def free() -> None:
            fleet.open = None
            self._backend.forget(fleet.lease.token)
            self._evaluator.forget(fleet.lease.token)

        self.call(free)

    def rebuild(self, fleet: Fleet) -> None:
        """Decode a fleet's stored reports of open frames again, which brings recurrent states and outcomes back.

        Raises:
            NotFound, DamagedCheckpoint: a version that they need is not there any more.
        """
        self.call(lambda: self._rebuild(fleet)).result()

    def _put(self, item: Job | _Call, future: Future[Any]) -> None:
        if self._closed:
            future.set_exception(NotReady("gNB: is shutting down"))
        else:
            self._queue.put(item)

    def _serve(self) -> None:
        torch.set_num_threads(1)
        waiting = Turns()
        while not self._ended:
            call = self._collect(waiting)
            while waiting:
                jobs = waiting.take()
                try:
                    self._process(jobs)
                except Exception as error:  # the thread goes on, whatever it is
                    for job in jobs:
                        if not job.future.done():
                            _fail(job, error)
                if call is None:
                    break  # see first what has come meanwhile
            if call is not None:
                function, future = call
                try:
                    future.set_result(function())
                except Exception as error:  # to the caller, whatever it is
                    future.set_exception(error)

    def _collect(self, waiting: Turns) -> _Call | None:
        """Add the chunks that have come, if none wait at least one. Stops at a call."""
        while not waiting or not self._queue.empty():
            item = self._queue.get()
            if not isinstance(item, Job):
                return item
            waiting.add(item)
        return None

    def _process(self, jobs: list[Job]) -> None:
        """Bring a batch of chunks to their acks."""
        self._faults.delay()
        scored: list[Scored] = []
        for round_ in rounds_of(jobs):
            admitted = list(self._admitted(round_))
            decoded = self._decoded(admitted)
            now = time.monotonic()
            for job, found in admitted:
                if job.future.done():
                    continue
                try:
                    latency_ms = 1e3 * (now - job.arrived)
                    lost = self._faults.loses()
                    scored.append(self._scorer.score(job, found, decoded[job], latency_ms, lost=lost))
                except Exception as error:
                    _fail(job, error)
        self._committer.commit(scored, _fail)

    def _admitted(self, jobs: list[Job]) -> Iterator[tuple[Job, Admitted]]:
        """Chunks that are taken; the others get their errors."""
        for job in jobs:
            try:
                yield job, admit(job, self._models, self._faults)
            except CsiError as error:  # the UE's to mend: nothing has changed
                job.future.set_exception(error)
            except Exception as error:
                _fail(job, error)

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
                _fail(members[0][0], error)
                return
            for member in members:
                yield from self._decode(name, version, [member])

    def _part(self, job: Job, admitted: Admitted, group: Group) -> Part:
        fields = {
            name: np.ascontiguousarray(values[group.skipped :, group.columns])
            for name, values in admitted.fields.items()
        }
        frame = job.frame if self._evaluate else 0  # in benchmarks the world is not drawn again for each frame
        rows, slots = admitted.rows[group.columns], job.slots[group.skipped :]
        return Part(job.fleet.lease, rows, frame, slots.start, len(slots), fields)

    def _rebuild(self, fleet: Fleet) -> None:
        assert fleet.open is not None
        reached, frames = fleet.next_sequence % fleet.slots, fleet.next_sequence // fleet.slots
        open_frames = np.unique(np.stack([fleet.version, frames, reached], axis=1), axis=0)
        for version, frame, slots in open_frames.tolist():
            if not slots:
                continue
            rows = np.flatnonzero((fleet.version == version) & (frames == frame) & (reached == slots))
            model = self._models.version(fleet.lease.model, version)
            packed = fleet.open.reports[version][rows, :slots].swapaxes(0, 1)
            layout = model.layout
            bits = np.unpackbits(packed, axis=-1, count=layout.bits).reshape(slots * len(rows), layout.bits)
            fields = {name: v.reshape(slots, len(rows), v.shape[1]) for name, v in layout.fields_of(bits).items()}
            part = Part(fleet.lease, rows, frame, 0, slots, fields)
            estimates = self._backend.decode(model.name, version, [part])[0]
            truth = self._evaluator.truth(fleet.lease, model.scheme.domain, rows, frame, range(slots))
            outcomes = Outcomes.measure(torch.from_numpy(estimates), truth)
            fleet.open.outcome[:, rows, :slots] = outcomes.measured.swapaxes(1, 2)


def _started() -> Future[Any]:
    """A future that its waiter cannot cancel: a UE that hangs up does not undo what is queued."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def _fail(job: Job, error: Exception) -> None:
    """End a chunk that went wrong on its way; memory may be ahead of the store, from which its fleet is restored."""
    logging.error("serving: a chunk failed; its fleet is to be restored from the store", exc_info=error)
    job.fleet.broken = True
    job.future.set_exception(NotReady(f"gNB: {error}"))
