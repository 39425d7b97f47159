"""The conditions of a run: what every figure has to be named with, beside scheme and bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from shared.channels.scenario import Scenario
from shared.channels.streams import Samples, Split
from shared.fields import Within, check_fields
from shared.link.air import UNDISTURBED, Air

MAX_DELAY_SLOTS = 1024
"""Longest feedback delay."""


@dataclass(frozen=True)
class RunConditions:
    """Which world reports are made in, and which channel their estimates are compared with.

    Attributes:
        scenario: the world.
        seed: of the world, 64 bits.
        delay_slots: feedback delay: the estimate of slot t is compared with the channel of slot t + delay_slots.
        air: what the link does to reports.

    Raises:
        InvalidInput: a value is out of range.
    """

    scenario: Scenario
    seed: Annotated[int, Within(0, 2**64 - 1)] = 0
    delay_slots: Annotated[int, Within(0, MAX_DELAY_SLOTS)] = 0
    air: Air = UNDISTURBED

    def __post_init__(self) -> None:
        check_fields(self)

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
        return cls(scenario, int(found["seed"]), int(found["delay_slots"]), Air.parse(found.get("air", "")))
