"""Which chunks are decoded together: models in turn, and each UE's chunks one after the other."""

from __future__ import annotations

from gnb_server.serving.chunks import Job

MAX_BATCH_REPORTS = 4096
"""Reports decoded at once, more or less; bounds the time until another model gets its turn."""


class Turns:
    """Chunks that wait, by model: one that is decoded quickly does not wait for the chunks of all others."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Job]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, job: Job) -> None:
        """Let a chunk wait for its model's turn."""
        self._waiting.setdefault(job.fleet.lease.model, []).append(job)

    def take(self) -> list[Job]:
        """Chunks of the model whose turn it is; those beyond MAX_BATCH_REPORTS wait for its next one."""
        name = next(iter(self._waiting))
        jobs, reports = self._waiting.pop(name), 0
        for count, job in enumerate(jobs, start=1):
            reports += job.chunk.reports
            if reports >= MAX_BATCH_REPORTS and jobs[count:]:
                self._waiting[name] = jobs[count:]
                return jobs[:count]
        return jobs


def rounds_of(jobs: list[Job]) -> list[list[Job]]:
    """A batch split so that no UE occurs twice in a round and each UE's chunks keep their order."""
    rounds: list[list[Job]] = []
    for job in jobs:
        number = max((n + 1 for n, earlier in enumerate(rounds) if any(map(job.overlaps, earlier))), default=0)
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(job)
    return rounds
