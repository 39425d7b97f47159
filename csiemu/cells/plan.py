"""What is to run in which cell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from csiemu.emulate import DURATION_S, Settings
from shared.errors import InvalidInput
from shared.settings import Rate

OF_ONE_GNB = ("swap", "air_change", "bits", "target_nmse")
"""Settings of `csiemu emulate` that cells cannot have."""


@dataclass(frozen=True)
class Fleet:
    """UEs of a cell: their scheme, reports a second of each, how many each sends, and the id of the first."""

    cell: str
    scheme: str
    rate: Rate
    slots: int
    first_ue: int

    def options(self) -> dict[str, Any]:
        """Of csiemu ue."""
        return {"scheme": self.scheme, "rate": self.rate, "slots": self.slots, "ue_base": self.first_ue}


def check(settings: Settings) -> None:
    """Raises InvalidInput for settings that cells cannot have."""
    for name in OF_ONE_GNB:
        if value := getattr(settings, name):
            raise InvalidInput(f"{name}: {value}, and ray: not for cells; wanted one of them")


def plan(settings: Settings, run: str, rates: Mapping[str, Rate]) -> list[Fleet]:
    """The fleets of all cells, which are named after the run: no two UEs of the store have the same id, hence channel.

    Args:
        rates: of each scheme.

    Raises:
        InvalidInput: UEs that send as fast as they can, and no number of reports, at which those end that were started
            again.
    """
    fleets = []
    for cell in range(settings.cells):
        for index, (scheme, rate) in enumerate(rates.items()):
            if (slots := settings.slots) is None:
                if rate == "max":
                    raise InvalidInput("slots: none, with ray and rate max; wanted the number of reports of a UE")
                slots = math.ceil(rate * (settings.duration or DURATION_S))
            first_ue = (cell * len(rates) + index) * settings.ues
            fleets.append(Fleet(f"{run}-{cell + 1}", scheme, rate, slots, first_ue))
    return fleets
