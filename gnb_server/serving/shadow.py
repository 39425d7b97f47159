"""Another decoder beside the one that serves: the same reports, its own states, and no say in what is acknowledged."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from gnb_server.evaluator import Evaluator
from gnb_server.repository import Repository
from gnb_server.rollouts import Pairs, Rollout, Rollouts
from gnb_server.serving.backend import InProcessBackend, Part
from gnb_server.serving.chunks import Group, Job
from shared.errors import DamagedCheckpoint
from shared.metrics import Outcomes

Member = tuple[Job, Group, Part]


@dataclass
class _Frames:
    """A fleet's frames that the shadow decodes: number of each UE's (-1: none), ratios [ue_count, T]."""

    number: NDArray[np.int64]
    ratios: NDArray[np.float64]


@dataclass
class _Held:
    """What is held for a roll-out: recurrent states, and frames by token."""

    rollout: int
    backend: InProcessBackend
    frames: dict[str, _Frames] = field(default_factory=dict)


class Shadow:
    """Decodes what the old version of a running shadow roll-out has decoded, with the new version."""

    def __init__(self, models: Repository, rollouts: Rollouts, evaluator: Evaluator) -> None:
        self._models = models
        self._rollouts = rollouts
        self._evaluator = evaluator
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
            held = self._held[rollout.model] = _Held(rollout.number, InProcessBackend(self._models.version))
        try:
            return self._follow(rollout, held, members)
        except Exception as error:  # a fault of the new version alone
            logging.exception("serving: the shadow of %s failed", rollout.model)
            self._rollouts.fail(rollout.model, rollout.version, str(error))
            return {}

    def abandon(self, token: str, ues: NDArray[np.int64]) -> None:
        """Free what is held for the open frames of a fleet's UEs [n]."""
        for held in self._held.values():
            held.backend.abandon(token, ues)

    def forget(self, token: str) -> None:
        """Free what is held for a fleet."""
        for held in self._held.values():
            held.frames.pop(token, None)
            held.backend.forget(token)

    def _follow(self, rollout: Rollout, held: _Held, members: list[Member]) -> dict[Job, list[Pairs]]:
        chosen = [member for member in members if self._continues(rollout, held, *member)]
        if not chosen:
            return {}
        model = self._models.version(rollout.model, rollout.version)
        decoded = held.backend.decode(rollout.model, rollout.version, [part for *_, part in chosen])
        pairs: dict[Job, list[Pairs]] = {}
        for (job, _, part), estimates in zip(chosen, decoded, strict=True):
            slots = range(part.first_slot, part.first_slot + part.slots)
            truth = self._evaluator.truth(part.lease, model.scheme.domain, part.rows, part.frame, slots)
            found = Outcomes.measure(torch.from_numpy(estimates), truth).ratio
            if not np.isfinite(found).all():
                raise DamagedCheckpoint("it decodes reports to numbers beyond float32")
            ratios = held.frames[job.fleet.lease.token].ratios
            ratios[part.rows[:, None], np.array(slots)] = found.T
            if slots.stop == job.fleet.slots and job.fleet.open is not None:
                old = Outcomes.of(job.fleet.open.outcome[:, part.rows]).ratio
                pairs.setdefault(job, []).append((ratios[part.rows].mean(axis=1), old.mean(axis=1)))
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
