"""Which chunks are decoded next, and together: fair among fleets, and each UE's chunks one after the other."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from gnb_server.serving.chunks import Job

MAX_BATCH_REPORTS = 4096
"""Reports decoded at once at most."""

BATCH_S = 0.1
"""How long a batch is to take: so long a chunk that has just come waits for its turn at most."""

MAX_QUEUED_REPORTS = 65_536
MAX_QUEUED_BYTES = 64 * 2**20
"""What may wait in all, in equal shares of the fleets that have chunks waiting; each may have one chunk at least."""

FIRST_PACE_S = 1e-4
"""Seconds that a report takes, until the first batch of a model has shown it."""

_Entry = tuple[float, int, float, Job]
"""Virtual time at which a chunk is done, a running number, virtual time at which it begins, the chunk."""


@dataclass
class _Fleet:
    """A fleet's chunks that wait: how many, and the virtual time at which the last that it has sent is done."""

    chunks: int = 0
    done: float = 0.0


@dataclass
class FairQueue:
    """Chunks that wait, in the order of fair queueing (Demers, Keshav and Shenker, SIGCOMM 1989): a chunk's turn is
    when it would be done if all fleets with waiting chunks were served at once, in equal shares of time. So a fleet
    that asks for little does not wait for those that ask for much. Virtual time is when the chunk in hand would have
    begun.

    Attributes:
        paces: seconds that a report takes, by model; measured.
    """

    paces: dict[str, float] = field(default_factory=dict)
    _by_model: dict[str, list[_Entry]] = field(default_factory=dict)
    _fleets: dict[str, _Fleet] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _now: float = 0.0

    def __bool__(self) -> bool:
        return bool(self._by_model)

    def add(self, job: Job) -> None:
        """Let a chunk wait for its turn."""
        lease = job.fleet.lease
        fleet = self._fleets.setdefault(lease.token, _Fleet())
        begun = max(self._now, fleet.done)
        fleet.done = begun + job.chunk.reports * self._pace(lease.model)
        fleet.chunks += 1
        heapq.heappush(self._by_model.setdefault(lease.model, []), (fleet.done, next(self._numbers), begun, job))

    def share(self) -> tuple[float, float]:
        """Reports and bytes that one fleet may have waiting."""
        fleets = max(1, sum(fleet.chunks > 0 for fleet in self._fleets.values()))
        return MAX_QUEUED_REPORTS / fleets, MAX_QUEUED_BYTES / fleets

    def take(self) -> list[Job]:
        """The chunk whose turn it is, and the next ones of its model that fit into a batch."""
        model = min(self._by_model, key=lambda name: self._by_model[name][0])
        waiting, reports = self._by_model[model], 0
        jobs: list[Job] = []
        room = min(MAX_BATCH_REPORTS, BATCH_S / self._pace(model))
        while waiting and (not jobs or reports + waiting[0][-1].chunk.reports <= room):
            *_, begun, job = heapq.heappop(waiting)
            self._now = max(self._now, begun)
            jobs.append(job)
            reports += job.chunk.reports
            self._fleets[job.fleet.lease.token].chunks -= 1
        if not waiting:
            del self._by_model[model]
        self._fleets = {token: fleet for token, fleet in self._fleets.items() if fleet.chunks or fleet.done > self._now}
        return jobs

    def remove(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Take out chunks that nobody waits for any more."""
        removed: list[Job] = []
        for model, waiting in list(self._by_model.items()):
            kept = [entry for entry in waiting if not unwanted(entry[-1])]
            removed += [entry[-1] for entry in waiting if unwanted(entry[-1])]
            heapq.heapify(kept)
            self._by_model[model] = kept
            if not kept:
                del self._by_model[model]
        for job in removed:
            self._fleets[job.fleet.lease.token].chunks -= 1
        return removed

    def took(self, model: str, reports: int, seconds: float) -> None:
        """Note how long a batch has taken."""
        measured = max(seconds / reports, 1e-9)
        self.paces[model] = measured if model not in self.paces else 0.8 * self.paces[model] + 0.2 * measured

    def _pace(self, model: str) -> float:
        return self.paces.get(model, FIRST_PACE_S)


def rounds_of(jobs: list[Job]) -> list[list[Job]]:
    """A batch split so that no UE occurs twice in a round and each UE's chunks keep their order."""
    rounds: list[list[Job]] = []
    for job in jobs:
        number = max((n + 1 for n, earlier in enumerate(rounds) if any(map(job.overlaps, earlier))), default=0)
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(job)
    return rounds
