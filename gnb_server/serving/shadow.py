"""Another decoder beside the one that serves: the same reports, its own states, and no say in what is acknowledged."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gnb_server.repository import Repository
from gnb_server.rollouts import Pairs, Rollout, Rollouts
from gnb_server.serving.backend import Part
from gnb_server.serving.chunks import Group, Job
from gnb_server.serving.execution import Executor, Failure
from gnb_server.serving.recovery import Member
from shared.errors import DamagedCheckpoint
from shared.metrics import Outcomes

MOST_ENDED = 3
"""Batches in a row over which a worker ends: more than chance, whoever else ends workers."""


@dataclass
class _Frames:
    """A fleet's frames that the shadow decodes: number of each UE's (-1: none), ratios [ue_count, T]."""

    number: NDArray[np.int64]
    ratios: NDArray[np.float64]


@dataclass
class _Held:
    """What is held for a roll-out: frames by token, and in its lane recurrent states. `ended`: batches in a row over
    which a worker has ended.
    """

    rollout: int
    frames: dict[str, _Frames] = field(default_factory=dict)
    ended: int = 0

    @property
    def lane(self) -> str:
        return f"shadow {self.rollout}"


class Shadow:
    """Decodes what the old version of a running shadow roll-out has decoded, with the new version."""

    def __init__(self, models: Repository, rollouts: Rollouts, executor: Executor) -> None:
        self._models = models
        self._rollouts = rollouts
        self._executor = executor
        self._held: dict[str, _Held] = {}  # by model

    def follow(self, members: list[Member]) -> dict[Job, list[Pairs]]:
        """Decode the groups of chunks of one model again, whose outcomes are in their fleets' open frames already.

        Returns:
            Mean ratios of the frames that they complete, by chunk.
        """
        rollout = self._rollouts.running(members[0][0].fleet.lease.model) if members else None
        if rollout is None or rollout.mode != "shadow" or rollout.failure:
            return {}
        held = self._held.get(rollout.model)
        if held is None or held.rollout != rollout.number:
            if held is not None:
                self._executor.end(held.lane)
            held = self._held[rollout.model] = _Held(rollout.number)
        try:
            return self._follow(rollout, held, members)
        except Exception as error:  # a fault of the new version alone
            logging.exception("serving: the shadow of %s failed", rollout.model)
            self._rollouts.fail(rollout.model, rollout.version, str(error))
            return {}

    def forget(self, token: str) -> None:
        """Follow a fleet's UEs no more before their next frames."""
        for held in self._held.values():
            held.frames.pop(token, None)

    def _follow(self, rollout: Rollout, held: _Held, members: list[Member]) -> dict[Job, list[Pairs]]:
        chosen = [member for member in members if self._continues(rollout, held, *member)]
        if not chosen:
            return {}
        model = self._models.version(rollout.model, rollout.version)
        results = self._executor.execute(model, [part for *_, part in chosen], held.lane)
        over = any(isinstance(found, Failure) and found.worker_ended for found in results)
        held.ended = held.ended + 1 if over else 0
        if held.ended == MOST_ENDED:
            raise DamagedCheckpoint(f"the decode worker has ended over what it decoded, {MOST_ENDED} times in a row")
        pairs: dict[Job, list[Pairs]] = {}
        for (job, _, part), result in zip(chosen, results, strict=True):
            slots, frames = range(part.first_slot, part.first_slot + part.slots), held.frames[job.fleet.lease.token]
            if isinstance(result, Failure):
                if not result.state_gone:
                    raise result.error
                frames.number[part.rows] = -1  # followed from the next frame on
                continue
            assert result.measured is not None  # no roll-out runs where nothing is compared
            if not np.isfinite(result.measured).all():
                raise DamagedCheckpoint("it decodes reports to numbers beyond float32")
            frames.ratios[part.rows[:, None], np.array(slots)] = Outcomes.of(result.measured).ratio.T
            if slots.stop == job.fleet.slots and job.fleet.open is not None:
                old = Outcomes.of(job.fleet.open.outcome[:, part.rows]).ratio
                pairs.setdefault(job, []).append((frames.ratios[part.rows].mean(axis=1), old.mean(axis=1)))
        return pairs

    @staticmethod
    def _continues(rollout: Rollout, held: _Held, job: Job, group: Group, part: Part) -> bool:
        """Whether the old version decodes a part, of a frame that the new one has decoded from its beginning."""
        if group.model.version != rollout.old_version or job.fleet.open is None:
            return False
        token, shape = job.fleet.lease.token, (job.fleet.lease.ue_count, job.fleet.slots)
        if token not in held.frames:
            held.frames[token] = _Frames(np.full(shape[0], -1, np.int64), np.zeros(shape))
        frames = held.frames[token].number
        if part.first_slot == 0:
            frames[part.rows] = part.frame
        return bool((frames[part.rows] == part.frame).all())
