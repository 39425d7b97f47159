"""What decodes parts of frames and compares them with the truth, behind an interface of plain arrays.

Decoder and evaluator are two modules that know nothing of each other; here they are called one after the other, where
the states and the truth of a UE's frame are held.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from gnb_server.aging import AgedSums, no_reports
from gnb_server.evaluator import Evaluator
from gnb_server.repository import ModelVersion
from gnb_server.serving.aged import aged_sums
from gnb_server.serving.backend import Estimates, InProcessBackend, Part, StateNotHeld
from shared.metrics import Outcomes

SERVING = "serving"
"""The lane of what UEs are answered with."""


@dataclass(frozen=True)
class Result:
    """What became of a part.

    Attributes:
        decoded: when it was decoded [s, monotonic].
        measured: [MEASURED, slots, n] float64, as `shared.metrics.Outcomes.of` takes it; None where nothing is
            compared (benchmarks).
        aged: sums over the reports whose age is known, against the channels when they were ready.
        estimates: [slots, n, M], or images [slots, n, Q, M], complex64; None unless the part is watched or shown.
        truth: true channels, as the estimates; None unless it is shown.
    """

    decoded: float
    measured: NDArray[np.float64] | None = None
    aged: AgedSums = field(default_factory=no_reports)
    estimates: Estimates | None = None
    truth: NDArray[np.complex64] | None = None


class WorkerEnded(StateNotHeld):
    """The process that was to decode a part has ended over it, and the states that it held have gone."""


@dataclass(frozen=True)
class Failure:
    """Why there is no result of a part. The states of its frames, and what is held of their truth, count for nothing
    then: they are to be decoded again from the beginning.

    Attributes:
        by_version: whether the version could not decode it.
    """

    error: Exception
    by_version: bool = False

    @property
    def state_gone(self) -> bool:
        """Whether it is that a frame's state is not held: decoded from its beginning, the part may do."""
        return isinstance(self.error, StateNotHeld)

    @property
    def worker_ended(self) -> bool:
        """Whether it is that the process which decoded it has ended over it."""
        return isinstance(self.error, WorkerEnded)


class Executor(Protocol):
    """Decodes and compares. States are those of a lane: a shadow decodes reports again, with states of its own."""

    def load(self, model: ModelVersion) -> None:
        """Get a version that is to be used. Raises DamagedCheckpoint if it cannot be."""
        ...

    def unload(self, name: str, version: int) -> None:
        """Free a version that is not used any more."""
        ...

    def execute(self, model: ModelVersion, parts: list[Part], lane: str = SERVING) -> list[Result | Failure]:
        """Decode parts of different UEs by one model version, together, and compare each. A part that goes on with a
        frame whose state is not held fails with StateNotHeld, one whose process ends over it with WorkerEnded.
        """
        ...

    def abandon(self, token: str, ues: NDArray[np.int64]) -> None:
        """Free what is held, in all lanes, for the open frames of a fleet's UEs [n]: the rest of them is dropped."""
        ...

    def forget(self, token: str) -> None:
        """Free what is held for a fleet, in all lanes."""
        ...

    def end(self, lane: str) -> None:
        """Free the states of a lane that is not used any more."""
        ...

    def close(self) -> None:
        """Decode no more."""
        ...


class InProcessExecutor:
    """Decodes and compares in this process.

    Args:
        evaluator: compares; None: nothing is (benchmarks), and side information stays when a frame ends.
        clock: monotonic [s].
    """

    def __init__(self, evaluator: Evaluator | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._evaluator = evaluator
        self._clock = clock
        self._backends = defaultdict[str, InProcessBackend](lambda: InProcessBackend(keep=evaluator is None))  # by lane

    def load(self, model: ModelVersion) -> None:
        """Nothing to be done: it is in this process."""

    def unload(self, name: str, version: int) -> None:
        """Nothing to be done."""

    def execute(self, model: ModelVersion, parts: list[Part], lane: str = SERVING) -> list[Result | Failure]:
        found = _decoded(self._backends[lane], model, parts)
        now = self._clock()
        return [
            each if isinstance(each, Failure) else self._compared(model, part, each, now)
            for part, each in zip(parts, found, strict=True)
        ]

    def abandon(self, token: str, ues: NDArray[np.int64]) -> None:
        for backend in self._backends.values():
            backend.abandon(token, ues)
        if self._evaluator is not None:
            self._evaluator.abandon(token, ues)

    def forget(self, token: str) -> None:
        for backend in self._backends.values():
            backend.forget(token)
        if self._evaluator is not None:
            self._evaluator.forget(token)

    def end(self, lane: str) -> None:
        self._backends.pop(lane, None)

    def close(self) -> None:
        """Nothing to be done."""

    def _compared(self, model: ModelVersion, part: Part, estimates: Estimates, decoded: float) -> Result | Failure:
        if self._evaluator is None:
            return Result(decoded)
        slots = range(part.first_slot, part.first_slot + part.slots)
        try:
            truth = self._evaluator.truth(part.lease, model.scheme.domain, part.rows, part.frame, slots)
            outcomes = Outcomes.measure(torch.from_numpy(estimates), truth)
            aged = aged_sums(self._evaluator, model.scheme.domain, part, estimates, outcomes, decoded)
        except Exception as error:  # of one part alone, whatever it is
            return Failure(error)
        wanted = estimates if part.watched or part.shown else None
        return Result(decoded, outcomes.measured, aged, wanted, truth.channel.numpy() if part.shown else None)


def _decoded(backend: InProcessBackend, model: ModelVersion, parts: list[Part]) -> list[Estimates | Failure]:
    """Estimates of parts: together, or one by one if that fails."""
    try:
        return list(backend.decode(model, parts))
    except Exception as error:  # of a part, whatever it is
        if len(parts) == 1:
            return [Failure(error, by_version=not isinstance(error, StateNotHeld))]
        return [found for part in parts for found in _decoded(backend, model, [part])]
