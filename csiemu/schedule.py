"""Swaps at set times of an emulation."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from csiemu.rest import Rest
from shared.checkpoints import NAME
from shared.errors import CsiError, InvalidInput

_SWAP = re.compile(rf"({NAME}):([1-9][0-9]{{0,8}})@([0-9]+(?:\.[0-9]+)?)s?")


@dataclass(frozen=True)
class Swap:
    """A version that all UEs of a model are to use, so many seconds after the first reports."""

    model: str
    version: int
    at_s: float


def parse_swaps(text: str) -> list[Swap]:
    """`NAME:VERSION@SECONDS`, comma-separated, in the order of their times. Raises InvalidInput."""
    swaps = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        found = _SWAP.fullmatch(part)
        if found is None:
            raise InvalidInput(f"swap: '{part}'; wanted NAME:VERSION@SECONDS, as hyperrnn:3@10s")
        swaps.append(Swap(found[1], int(found[2]), float(found[3])))
    return sorted(swaps, key=lambda swap: swap.at_s)


@dataclass
class Schedule:
    """Swaps that are still to come, and what of those before failed."""

    swaps: list[Swap]
    failed: list[str] = field(default_factory=list)
    _begun: float | None = None

    def step(self, rest: Rest) -> list[str]:
        """Ask for what is due, once reports have come; returns what there is to say about it."""
        if not self.swaps:
            return []
        if self._begun is None:
            if not rest.get("/v1/nmse")["overall"]["reports"]:
                return []
            self._begun = time.monotonic()
        said = []
        while self.swaps and time.monotonic() - self._begun >= self.swaps[0].at_s:
            swap = self.swaps.pop(0)
            try:
                rest.post(f"/v2/repository/models/{swap.model}/load", {"parameters": {"version": swap.version}})
                said.append(f"{swap.model}/{swap.version} is loaded: UEs use it from their next frame on")
            except CsiError as error:
                self.failed.append(f"swap of {swap.model} to version {swap.version} failed: {error}")
                said.append(self.failed[-1])
        return said
