"""A roll-out: a new version of a model beside the old one, until it is promoted or aborted.

In a *shadow* the new version, of the same encoder, decodes every report beside the old one and serves nobody. In a
*canary* a share of the UEs is on the new version, whose encoder may be another one.
"""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gnb_server.additions import Increment
from gnb_server.comparison import Comparison, Difference
from gnb_server.sessions import Lease
from shared.errors import InvalidInput, NotFound
from shared.metrics import COLUMNS

Mode = Literal["shadow", "canary"]
State = Literal["running", "promoted", "aborted"]

Pairs = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean ratios of whole frames [n], by the new version and by the old one."""

RATIO = COLUMNS.index("ratio")


@dataclass(frozen=True)
class Guard:
    """When a roll-out ends by itself: it is looked at all the time, so that few standard errors would be reached by
    chance.

    Attributes:
        worse_db: abort when the new version is worse by more than this [dB].
        better_db: promote when it is better by more than this [dB]; None: never promote by itself.
        standard_errors: how many of them must lie between the difference and these limits.
        frames: whole frames that each version must have decoded before anything is decided.
    """

    worse_db: float = 0.2
    better_db: float | None = 0.0
    standard_errors: float = 3.0
    frames: int = 200

    def __post_init__(self) -> None:
        for name, value, most in (("worse_db", self.worse_db, 100.0), ("better_db", self.better_db or 0.0, 100.0)):
            if not 0 <= value <= most:
                raise InvalidInput(f"guard.{name}: {value} is not in [0, {most:g}] dB")
        if not 0 <= self.standard_errors <= 100:
            raise InvalidInput(f"guard.standard_errors: {self.standard_errors} is not in [0, 100]")
        if not 2 <= self.frames <= 10**9:
            raise InvalidInput(f"guard.frames: {self.frames} is not in [2, 10^9]")

    def verdict(self, found: Difference) -> tuple[State, str]:
        """What a difference calls for, with the reason."""
        difference, error = found.difference_db, found.standard_error_db
        if difference is None or error is None or min(found.frames_new, found.frames_old) < self.frames:
            return "running", ""
        text, margin = f"guard: {difference:+.2f} ± {error:.2f} dB", self.standard_errors * error
        sure = f"dB by {self.standard_errors:g} standard errors"
        if difference - margin > self.worse_db:
            return "aborted", f"{text}, worse than {self.worse_db:g} {sure}"
        if self.better_db is not None and difference + margin < -self.better_db:
            return "promoted", f"{text}, better than {self.better_db:g} {sure}"
        return "running", ""


@dataclass
class Rollout:
    """One roll-out of a run.

    Attributes:
        number: in the run, from 1.
        version, old_version: the new one, and the one that it is compared with.
        share: of the UEs that get the new version (canary).
        guard: None: people decide.
        by: who asked for it. started_at, decided_at: seconds since 1970.
        reason: of the decision. failure: why the new version could not decode, if so.
    """

    number: int
    model: str
    version: int
    old_version: int
    mode: Mode
    share: float
    guard: Guard | None
    by: str
    started_at: float
    comparison: Comparison
    state: State = "running"
    reason: str = ""
    decided_at: float | None = None
    failure: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON, without the comparison's sums."""
        names = [field.name for field in dataclasses.fields(self) if field.name not in ("comparison", "guard")]
        return {
            **{name: getattr(self, name) for name in names},
            "guard": None if self.guard is None else dataclasses.asdict(self.guard),
            "figures": dataclasses.asdict(self.comparison.difference()),
        }

    def to_store(self) -> dict[str, Any]:
        """As JSON, whole."""
        content = self.to_json() | {"comparison": self.comparison.to_json()}
        del content["figures"]
        return content

    @classmethod
    def from_store(cls, content: dict[str, Any]) -> Rollout:
        """From `to_store`."""
        guard = content["guard"]
        parts = {"guard": guard and Guard(**guard), "comparison": Comparison.from_json(content["comparison"])}
        return cls(**{**content, **parts})


class Rollouts:
    """The roll-outs of a run. The serving thread adds frames, any thread asks."""

    def __init__(self) -> None:
        self._all: dict[int, Rollout] = {}
        self._lock = threading.Lock()
        self._changed: set[int] = set()

    def put(self, rollout: Rollout) -> None:
        """Add a roll-out, or its new state."""
        with self._lock:
            self._all[rollout.number] = rollout

    def all(self) -> list[Rollout]:
        """Of the run, in the order of their numbers."""
        with self._lock:
            return [self._all[number] for number in sorted(self._all)]

    def get(self, number: int) -> Rollout:
        """One of them. Raises NotFound."""
        with self._lock:
            if number not in self._all:
                raise NotFound(
                    f"rollout: {number} is unknown; there are {', '.join(map(str, sorted(self._all))) or 'none'}"
                )
            return self._all[number]

    def running(self, model: str) -> Rollout | None:
        """The running one of a model."""
        with self._lock:
            found = (r for r in self._all.values() if r.model == model and r.state == "running")
            return next(found, None)

    def observe(self, lease: Lease, increments: list[Increment], pairs: list[Pairs]) -> None:
        """Add the whole frames of a stored chunk to the comparison that they belong to."""
        rollout = self.running(lease.model)
        if rollout is None:
            return
        with self._lock:
            for new, old in pairs:
                rollout.comparison.add_pairs(new, old)
            for increment in increments if rollout.mode == "canary" else []:
                if len(increment.frame_means) and increment.version in (rollout.version, rollout.old_version):
                    ratios = increment.frame_means[:, RATIO]
                    conditions = lease.by_frame.at(increment.air_from)  # frames of other seeds are alike
                    kind = f"{conditions.scenario} {conditions.air}".rstrip()
                    rollout.comparison.add(kind, new=increment.version == rollout.version, ratios=ratios)
            self._changed.add(rollout.number)

    def fail(self, model: str, version: int, reason: str) -> None:
        """Note that the new version of a roll-out cannot decode."""
        rollout = self.running(model)
        if rollout is not None and rollout.version == version:
            rollout.failure = reason

    def changed(self) -> list[tuple[Rollout, dict[str, Any]]]:
        """Roll-outs with frames that were added since the last call, each as it is to be stored."""
        with self._lock:
            found = [self._all[number] for number in self._changed]
            self._changed.clear()
            return [(rollout, rollout.to_store()) for rollout in found]
