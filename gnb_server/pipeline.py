"""The serving thread: chunks in; decode in batches across UEs and fleets, evaluate, commit; acks out.

Decoding runs beside the event loop in one thread (torch releases the interpreter lock in its kernels). The order
within a batch: check and unpack every chunk, decode slot by slot with all chunks of a model version in one call, then
compare with the truth, write one transaction, and only then answer.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnb_server.evaluator import Evaluator
from gnb_server.faults import Faults
from gnb_server.monitor import Monitor
from gnb_server.recorder import Recorder
from gnb_server.repository import Repository
from gnb_server.sessions import Fleet
from gnb_server.store import Store, Stored
from shared.channels.streams import Samples, Split
from shared.checkpoints import Checkpoint
from shared.errors import Conflict, CsiError, InvalidInput, NotReady, SequenceGap
from shared.link.decoding import decode_slot, side_information, whole_band
from shared.link.payload import saturated
from shared.metrics import MEASURED, Outcomes, Sums
from shared.schemes import State

MAX_CHUNK_REPORTS = 65_536
MAX_BATCH_REPORTS = 4096
"""Reports decoded at once, more or less; bounds the time until another model gets its turn."""

_Call = tuple[Callable[[], Any], Future[Any]]
"""Something to run between batches, and where its result goes."""


@dataclass(frozen=True)
class Chunk:
    """A chunk as it came: coordinates as in `FeedbackRequest`, and its size on the wire [bytes]."""

    encoder_id: str
    first_ue: int
    ue_count: int
    first_slot: int
    slot_count: int
    payload: bytes
    wire_bytes: int


@dataclass(frozen=True)
class Ack:
    """A stored chunk: decoder version per UE [U], NMSE [slots, U] (NaN where a repeat's result is not kept)."""

    chunk: Chunk
    versions: NDArray[np.int64]
    nmse: NDArray[np.float64]


@dataclass
class _Job:
    """A chunk in work; it came at `received` [s since 1970] and `arrived` [s, monotonic]. `rows` [U] are UE rows of
    the fleet; `fresh` [slots, U] marks reports not stored before, `versions` [U] are those that decode the chunk;
    `decoder` is that of frames which begin in it.
    """

    fleet: Fleet
    chunk: Chunk
    future: Future[Ack]
    received: float = field(default_factory=time.time)
    arrived: float = field(default_factory=time.monotonic)
    bits: NDArray[np.uint8] = field(init=False)
    fields: dict[str, NDArray[np.int64]] = field(init=False)
    rows: NDArray[np.int64] = field(init=False)
    fresh: NDArray[np.bool_] = field(init=False)
    versions: NDArray[np.int64] = field(init=False)
    decoder: Checkpoint | None = None
    estimates: Tensor | None = None

    @property
    def frame(self) -> int:
        return self.chunk.first_slot // self.fleet.scenario.slots

    @property
    def slots(self) -> list[int]:
        """Slots of the frame, 0-based."""
        first = self.chunk.first_slot % self.fleet.scenario.slots
        return list(range(first, first + self.chunk.slot_count))


@dataclass(frozen=True)
class _Result:
    """Of a decoded chunk: what is stored and answered, and for after the commit what it `added` to the fleet's sums
    [T + 1, COLUMNS], its reports whose scale is `saturated`, and the recorder's rows.
    """

    stored: Stored
    ack: Ack
    added: Sums
    saturated: int
    records: list[dict[str, NDArray[Any]]]


class Pipeline:
    """The serving thread and its queue."""

    def __init__(
        self,
        repository: Repository,
        store: Store,
        monitor: Monitor,
        evaluator: Evaluator,
        *,
        recorder: Recorder | None = None,
        faults: Faults | None = None,
        evaluate: bool = True,
    ) -> None:
        self._repository = repository
        self._store = store
        self._monitor = monitor
        self._evaluator = evaluator
        self._recorder = recorder
        self._faults = faults or Faults("none")
        self._evaluate = evaluate
        self._queue: queue.SimpleQueue[_Job | _Call] = queue.SimpleQueue()
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
        self._put(_Job(fleet, chunk, future), future)
        return future

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Run something between batches, where no frame is being decoded."""
        future: Future[Any] = _started()
        self._put((function, future), future)
        return future

    def _put(self, item: Any, future: Future[Any]) -> None:
        if self._closed:
            future.set_exception(NotReady("gNB: is shutting down"))
        else:
            self._queue.put(item)

    def _serve(self) -> None:
        """Models in turn, a batch each: one that is decoded quickly does not wait for the chunks of all others."""
        torch.set_num_threads(1)
        waiting: dict[str, list[_Job]] = {}
        while not self._ended:
            call = self._collect(waiting)
            while waiting:
                self._batch(_turn(waiting))
                if call is None:
                    break  # see first what has come meanwhile
            if call is not None:
                function, future = call
                try:
                    future.set_result(function())
                except Exception as error:  # to the caller, whatever it is
                    future.set_exception(error)

    def _collect(self, waiting: dict[str, list[_Job]]) -> _Call | None:
        """Add the chunks that have come, if none wait at least one, by model. Stops at a call: it is to run when all
        that came before it are decoded.
        """
        while not waiting or not self._queue.empty():
            item = self._queue.get()
            if not isinstance(item, _Job):
                return item
            waiting.setdefault(item.fleet.lease.scheme, []).append(item)
        return None

    def _batch(self, jobs: list[_Job]) -> None:
        self._faults.delay()
        accepted: list[_Job] = []
        try:
            for round_ in _rounds(jobs):
                prepared = [job for job in round_ if self._prepare(job)]
                self._decode(prepared)
                accepted += prepared
            decoded = time.monotonic()
            results = [self._outcome(job, decoded) for job in accepted]
            if self._evaluate:
                self._store.commit(result.stored for result in results)
        except Exception as error:
            logging.exception("serving: a batch failed; its fleets are to be restored from the store")
            for job in jobs:
                if not job.future.done():  # those refused before have their error
                    job.fleet.broken = True
                    job.future.set_exception(NotReady(f"gNB: {error}"))
            return
        for job, result in zip(accepted, results, strict=True):
            try:
                self._note(job, result)
            except OSError:  # of the recorder; the reports are stored
                logging.exception("serving: reports could not be recorded")
            job.future.set_result(result.ack)

    def _prepare(self, job: _Job) -> bool:
        """Unpack and check a chunk; a refused one gets its error."""
        fleet, chunk = job.fleet, job.chunk
        try:
            if fleet.broken:
                raise NotReady("fleet: its state is being restored; attach again with its token")
            check_coordinates(fleet, chunk)
            layout = fleet.layout
            reports = chunk.ue_count * chunk.slot_count
            bits = layout.unpack_bits(chunk.payload, reports)
            bits = self._faults.flip(bits)
            job.fields = layout.fields_of(bits)
            self._repository.serving(fleet.lease.scheme).scheme.check_fields(job.fields)
            job.bits = bits.reshape(chunk.slot_count, chunk.ue_count, layout.bits)
            job.rows = np.arange(chunk.ue_count) + (chunk.first_ue - fleet.first_ue)
            expected = fleet.next_sequence[job.rows]
            if (gap := int(expected.min())) < chunk.first_slot:
                ue = chunk.first_ue + int(expected.argmin())
                raise SequenceGap(f"first_slot: {chunk.first_slot} of UE {ue} leaves a gap; expected {gap}", gap)
            job.versions = fleet.version[job.rows]
            sequence = chunk.first_slot + np.arange(chunk.slot_count)
            job.fresh = sequence[:, None] >= expected[None]
            new, within = job.fresh.any(axis=0), expected % fleet.scenario.slots > 0
            if (new & ~within).any():
                job.decoder = self._decoder_for(fleet)
            if not fleet.open.side.keys() >= set(job.versions[new & within].tolist()):
                fleet.broken = True  # it was detached meanwhile
                raise NotReady("fleet: its state is being restored; attach again with its token")
        except CsiError as error:
            job.future.set_exception(error)
            return False
        return True

    def _decode(self, jobs: list[_Job]) -> None:
        """Decode chunks of disjoint UEs, one slot of all of them at a time."""
        for k in range(max((job.chunk.slot_count for job in jobs), default=0)):
            parts: dict[tuple[str, int], list[tuple[_Job, NDArray[np.int64]]]] = {}
            for job in jobs:
                if k >= job.chunk.slot_count:
                    continue
                columns = np.flatnonzero(job.fresh[k])
                if job.slots[k] == 0 and len(columns):
                    assert job.decoder is not None  # frames begin here
                    self._start_frames(job.fleet, job.rows[columns], job.frame, job.decoder)
                versions = job.versions[columns] = job.fleet.version[job.rows[columns]]
                for version in np.unique(versions).tolist():
                    parts.setdefault((job.fleet.lease.scheme, version), []).append((job, columns[versions == version]))
            for (name, version), members in parts.items():
                self._decode_together(self._repository.version(name, version), k, members)

    def _start_frames(self, fleet: Fleet, rows: NDArray[np.int64], frame: int, checkpoint: Checkpoint) -> None:
        """Begin a frame on a version; without evaluation (benchmark) all frames are frame 0."""
        side = fleet.open.side.get(checkpoint.version)
        if self._evaluate or side is None or not (fleet.version[rows] == checkpoint.version).all():
            number = frame if self._evaluate else 0
            side = self.side_of(checkpoint, fleet, rows, number)
        else:
            side = side[torch.from_numpy(rows)]
        fleet.start_frames(rows, checkpoint.version, side, checkpoint.scheme.decoder.initial_state(len(rows)))

    def _decoder_for(self, fleet: Fleet) -> Checkpoint:
        """The version that decodes the fleet's next frames. Raises Conflict if it was trained for another encoder."""
        checkpoint = self._repository.serving(fleet.lease.scheme)
        if checkpoint.encoder_id != fleet.lease.encoder_id:
            raise Conflict(
                f"encoder_id: {fleet.lease.encoder_id}; {checkpoint.name}/{checkpoint.version} decodes for"
                f" {checkpoint.encoder_id}"
            )
        return checkpoint

    @staticmethod
    def side_of(checkpoint: Checkpoint, fleet: Fleet, rows: NDArray[np.int64], frame: int) -> Tensor:
        """Side information [rows, T, S] of the frame, from the gNB's own uplink."""
        ue = torch.from_numpy(rows + fleet.first_ue)
        samples = Samples(fleet.seed, Split.EMULATE, ue, torch.full_like(ue, frame))
        return side_information(checkpoint.scheme, fleet.scenario, samples)

    def _decode_together(self, checkpoint: Checkpoint, k: int, members: list[tuple[_Job, NDArray[np.int64]]]) -> None:
        """The k-th slot of chunks whose UEs (`columns` of each) are on one version."""
        fields: dict[str, list[NDArray[np.int64]]] = {}
        sides, states = [], []
        for job, columns in members:
            fleet, index = job.fleet, torch.from_numpy(job.rows[columns])
            start = k * job.chunk.ue_count
            for name, numbers in job.fields.items():
                fields.setdefault(name, []).append(numbers[start + columns])
            sides.append(fleet.open.side[checkpoint.version][index, job.slots[k]])
            states.append({name: v[index] for name, v in fleet.open.state[checkpoint.version].items()})
        state: State = {name: torch.cat([s[name] for s in states]) for name in states[0]}
        together = {name: np.concatenate(parts) for name, parts in fields.items()}
        estimates, state = decode_slot(checkpoint.scheme, together, torch.cat(sides), state)
        start = 0
        for job, columns in members:
            fleet, rows, end = job.fleet, job.rows[columns], start + len(columns)
            index = torch.from_numpy(rows)
            for name, values in state.items():
                fleet.open.state[checkpoint.version][name][index] = values[start:end]
            if job.estimates is None:
                shape = (job.chunk.slot_count, job.chunk.ue_count, *estimates.shape[1:])
                job.estimates = torch.zeros(shape, dtype=estimates.dtype)
            job.estimates[k, torch.from_numpy(columns)] = estimates[start:end]
            fleet.open.bits[rows, job.slots[k]] = job.bits[k, columns]
            fleet.next_sequence[rows] += 1
            start = end

    def _outcome(self, job: _Job, decoded: float) -> _Result:
        """Compare a chunk, decoded at a time [s, monotonic], with the truth and add it to the fleet's sums."""
        fleet, chunk = job.fleet, job.chunk
        slots_per_frame = fleet.scenario.slots
        nmse = np.full((chunk.slot_count, chunk.ue_count), np.nan)
        added = np.zeros_like(fleet.sums[0])
        touched, table, records = [], [], []
        moved = job.rows[job.fresh.any(axis=0)]
        fleet.wire_bytes[job.rows] += chunk.wire_bytes / chunk.ue_count
        if self._faults.loses():
            job.fresh[:] = False
        for k, slot in enumerate(job.slots):
            columns = np.flatnonzero(job.fresh[k])
            if not len(columns) or not self._evaluate:
                continue
            rows = job.rows[columns]
            truth = self._evaluator.truth(fleet, rows, job.frame, slot)
            assert job.estimates is not None  # there are columns
            estimates = job.estimates[k, torch.from_numpy(columns)]
            outcomes = Outcomes.measure(estimates, truth)
            moments = outcomes.moments()
            fleet.sums[rows, slot] += moments
            added[slot] += moments.sum(axis=0)
            touched.append(slot)
            nmse[k, columns] = outcomes.ratio
            fleet.open.outcome[:, rows, slot] = outcomes.measured
            if slot == slots_per_frame - 1:
                of_frames = Outcomes.of(fleet.open.outcome[:, rows]).frame_moments()
                fleet.sums[rows, -1] += of_frames
                added[-1] += of_frames.sum(axis=0)
                touched.append(slots_per_frame)
            sequence = np.full(len(rows), chunk.first_slot + k)
            latency, received = np.full(len(rows), 1e3 * (decoded - job.arrived)), np.full(len(rows), job.received)
            versions = job.versions[columns]
            columns_ = (rows, sequence, versions, latency, received, *outcomes.measured)
            table.append(np.stack([column.astype(np.float64) for column in columns_], axis=1))
            if self._recorder is not None and self._recorder.wants(job.frame):
                records.append(
                    {
                        "ue": rows + fleet.first_ue,
                        "sequence": sequence,
                        "decoder_version": versions,
                        "payload": job.bits[k, columns],
                        "estimate": estimates.numpy(),
                        "truth": truth.channel.numpy(),
                    }
                )
                if self._recorder.whole_band:
                    scheme = self._repository.serving(fleet.lease.scheme).scheme
                    records[-1]["estimate_whole_band"] = whole_band(scheme, fleet.scenario, estimates).numpy()
        reports = np.concatenate(table) if table else np.zeros((0, 5 + len(MEASURED)))
        if not job.fresh.all():
            self._fill_repeats(job, nmse)
        at_an_end = np.broadcast_to(saturated(fleet.layout, job.fields), nmse.size).reshape(nmse.shape)
        stored, ack = Stored(fleet, moved, touched, reports), Ack(chunk, job.versions, nmse)
        return _Result(stored, ack, added, int((at_an_end & job.fresh).sum()), records)

    def _note(self, job: _Job, result: _Result) -> None:
        """Show and record what has been committed."""
        reports = result.stored.reports
        wire_bytes = job.chunk.wire_bytes
        self._monitor.add(job.fleet, result.added, wire_bytes, reports[:, 3], reports[:, 2], result.saturated)
        if self._recorder is not None:
            for record in result.records:
                self._recorder.add(job.fleet, **record)

    def _fill_repeats(self, job: _Job, nmse: NDArray[np.float64]) -> None:
        """Put into the ack of a repeated chunk what the store has of its reports."""
        chunk = job.chunk
        for column in np.flatnonzero(~job.fresh.all(axis=0)).tolist():
            for row in self._store.reports(chunk.first_ue + column, chunk.first_slot, None):
                k = row["sequence"] - chunk.first_slot
                if k < chunk.slot_count and not job.fresh[k, column]:
                    job.versions[column] = row["decoder_version"]
                    nmse[k, column] = row["error"] / row["power"]

    def rebuild(self, fleet: Fleet) -> None:
        """Decode the stored payload bits of open frames again, to bring back states after a restart.

        Runs in the serving thread (`call`). Outcomes of the open frames come back with them.
        """
        slots = fleet.scenario.slots
        reached = fleet.next_sequence % slots
        for version, frame in {
            (v, f)
            for v, f, t in zip(
                fleet.version.tolist(), (fleet.next_sequence // slots).tolist(), reached.tolist(), strict=True
            )
            if t
        }:
            rows = np.flatnonzero((fleet.version == version) & (fleet.next_sequence // slots == frame) & (reached > 0))
            checkpoint = self._repository.version(fleet.lease.scheme, version)
            initial = checkpoint.scheme.decoder.initial_state(len(rows))
            fleet.start_frames(rows, version, self.side_of(checkpoint, fleet, rows, frame), initial)
            for slot in range(int(reached[rows].max())):
                active = rows[reached[rows] > slot]
                index = torch.from_numpy(active)
                fields = fleet.layout.fields_of(fleet.open.bits[active, slot])
                state = {name: values[index] for name, values in fleet.open.state[version].items()}
                side = fleet.open.side[version][index, slot]
                estimates, state = decode_slot(checkpoint.scheme, fields, side, state)
                for name, values in state.items():
                    fleet.open.state[version][name][index] = values
                outcomes = Outcomes.measure(estimates, self._evaluator.truth(fleet, active, frame, slot))
                fleet.open.outcome[:, active, slot] = outcomes.measured


def _started() -> Future[Any]:
    """A future that its waiter cannot cancel: a UE that hangs up does not undo what is queued."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def check_coordinates(fleet: Fleet, chunk: Chunk) -> None:
    """Raises InvalidInput or Conflict for a chunk that cannot belong to the fleet."""
    slots = fleet.scenario.slots
    if chunk.encoder_id != fleet.lease.encoder_id:
        raise Conflict(f"encoder_id: {chunk.encoder_id or 'empty'}; this fleet attached with {fleet.lease.encoder_id}")
    if chunk.ue_count < 1 or chunk.first_ue < fleet.first_ue or chunk.first_ue + chunk.ue_count > fleet.ues.stop:
        raise InvalidInput(
            f"first_ue, ue_count: {chunk.first_ue}, {chunk.ue_count}; this fleet leases"
            f" {fleet.ues.start}..{fleet.ues.stop - 1}"
        )
    if chunk.slot_count < 1 or chunk.first_slot % slots + chunk.slot_count > slots:
        raise InvalidInput(
            f"first_slot, slot_count: {chunk.first_slot}, {chunk.slot_count}; wanted 1..{slots} slots of one frame"
            f" (frames start at multiples of {slots})"
        )
    if chunk.first_slot + chunk.slot_count >= 2**32 * slots:
        raise InvalidInput(f"first_slot: {chunk.first_slot} is beyond the last frame, 2^32 - 1")
    if chunk.ue_count * chunk.slot_count > MAX_CHUNK_REPORTS:
        raise InvalidInput(f"ue_count * slot_count: more than {MAX_CHUNK_REPORTS} reports in one chunk")


def _turn(waiting: dict[str, list[_Job]]) -> list[_Job]:
    """Chunks of the model whose turn it is; those beyond MAX_BATCH_REPORTS wait for its next one."""
    name = next(iter(waiting))
    jobs, reports = waiting.pop(name), 0
    for count, job in enumerate(jobs, start=1):
        reports += job.chunk.ue_count * job.chunk.slot_count
        if reports >= MAX_BATCH_REPORTS and jobs[count:]:
            waiting[name] = jobs[count:]
            return jobs[:count]
    return jobs


def _rounds(jobs: list[_Job]) -> list[list[_Job]]:
    """Split a batch so that no UE occurs twice in a round and each UE's chunks keep their order."""
    rounds: list[list[_Job]] = []
    placed: dict[str, list[tuple[range, int]]] = {}
    for job in jobs:
        ues = range(job.chunk.first_ue, job.chunk.first_ue + job.chunk.ue_count)
        before = placed.setdefault(job.fleet.token, [])
        number = max((n + 1 for other, n in before if other.start < ues.stop and ues.start < other.stop), default=0)
        before.append((ues, number))
        while len(rounds) <= number:
            rounds.append([])
        rounds[number].append(job)
    return rounds
