"""The conditions of a run: what every figure has to be named with, beside scheme and bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.channels.scenario import Scenario
from shared.channels.streams import Samples, Split
from shared.fields import Within, check_fields
from shared.link.air import UNDISTURBED, Air


@dataclass(frozen=True)
class RunConditions:
    """Which world reports are made in, and which channel their estimates are compared with.

    Attributes:
        scenario: the world.
        seed: of the world, 64 bits.
        air: what the link does to reports, and how late their estimates are.

    Raises:
        InvalidInput: a value is out of range.
    """

    scenario: Scenario
    seed: Annotated[int, Within(0, 2**64 - 1)] = 0
    air: Air = UNDISTURBED

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def delay_slots(self) -> int:
        """Feedback delay, of the air."""
        return self.air.delay

    def samples(self, split: Split, ue: Tensor, frame: int | Tensor) -> Samples:
        """The frames [N] of UEs `ue` ([N] int64): the same number for all, or one each."""
        return Samples(self.seed, split, ue, frame if isinstance(frame, Tensor) else torch.full_like(ue, frame))

    def to_json(self) -> dict[str, Any]:
        """For cards, results and stores; `from_json` reads it back. An undisturbed link is not mentioned."""
        found = {"scenario": str(self.scenario), "seed": self.seed, "delay_slots": self.delay_slots}
        return found if self.air == UNDISTURBED else {**found, "air": str(self.air)}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> RunConditions:
        """Inverse of `to_json`; other keys are ignored. Raises NotFound, InvalidInput."""
        scenario = Scenario.parse(found["scenario"])
        air = Air.parse(found.get("air", "")).delayed(int(found["delay_slots"]))  # which older ones name there alone
        return cls(scenario, int(found["seed"]), air)


class AirChange(NamedTuple):
    """Another air, of the reports of a frame and all later ones."""

    from_frame: int
    air: Air


@dataclass(frozen=True)
class ChangingConditions:
    """The conditions of a run whose air changes between frames: all reports of a frame have the same.

    Attributes:
        first: from frame 0 on.
        changes: in the order of their frames, which differ; one from frame 0 on stands for `first`.
    """

    first: RunConditions
    changes: tuple[AirChange, ...] = ()

    def at(self, frame: int) -> RunConditions:
        """Of a frame."""
        return self._periods[int(self.air_from(np.array(frame)))]

    def air_from(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """The frame from which on the air of each of some frames was in force first: frames with the same number have
        the same conditions, others have not. Any shape.
        """
        if not self.changes:
            return np.zeros_like(frames)
        first_with: dict[Air, int] = {}
        numbers = [first_with.setdefault(found.air, start) for start, found in self._periods.items()]
        return np.array(numbers)[np.searchsorted(list(self._periods), frames, side="right") - 1]

    def split(self, frames: NDArray[np.int64]) -> Iterator[tuple[RunConditions, NDArray[np.int64]]]:
        """Conditions of some frames [n], each with the indices [m] of its frames."""
        air_from = self.air_from(frames)
        for number in np.unique(air_from).tolist():
            yield self._periods[number], np.flatnonzero(air_from == number)

    def changed(self, change: AirChange) -> ChangingConditions:
        """With one more change, instead of those that were to begin then or later."""
        before = (earlier for earlier in self.changes if earlier.from_frame < change.from_frame)
        return dataclasses.replace(self, changes=(*before, change))

    @property
    def newest(self) -> AirChange:
        """The air that no other one follows."""
        return self.changes[-1] if self.changes else AirChange(0, self.first.air)

    @cached_property
    def _periods(self) -> dict[int, RunConditions]:
        """By the frame that they begin with, ascending."""
        later = {change.from_frame: dataclasses.replace(self.first, air=change.air) for change in self.changes}
        return {0: self.first, **later}

    def to_json(self) -> dict[str, Any]:
        """As that of the first conditions, with `air_changes` if there are any; `from_json` reads it back."""
        changes = [[change.from_frame, str(change.air)] for change in self.changes]
        return {**self.first.to_json(), **({"air_changes": changes} if changes else {})}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> ChangingConditions:
        """Inverse of `to_json`; other keys are ignored. Raises NotFound, InvalidInput."""
        changes = (AirChange(int(frame), Air.parse(text)) for frame, text in found.get("air_changes", []))
        return cls(RunConditions.from_json(found), tuple(changes))
