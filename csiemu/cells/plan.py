"""What is to run in which cell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from csiemu.emulate import DURATION_S, Settings
from shared.errors import InvalidInput
from shared.settings import Rate


@dataclass(frozen=True)
class Fleet:
    """UEs of a cell: their scheme, reports a second of each, how many each sends, the id of the first, and the most
    bits of a report and the NMSE [dB] to be held that are asked for, if they are.
    """

    cell: str
    scheme: str
    rate: Rate
    slots: int
    first_ue: int
    bits: int | None = None
    target_nmse: float | None = None

    def options(self) -> dict[str, Any]:
        """Of csiemu ue."""
        of_reports = {"bits": self.bits, "target_nmse": self.target_nmse}
        return {"scheme": self.scheme, "rate": self.rate, "slots": self.slots, "ue_base": self.first_ue, **of_reports}


def plan(settings: Settings, run: str, rates: Mapping[str, Rate], bits: Mapping[str, Mapping[str, Any]]) -> list[Fleet]:
    """The fleets of all cells, which are named after the run: no two UEs of the store have the same id, hence channel.

    Args:
        rates: of each scheme. bits: likewise, `bits` and `target_nmse` of those that can have them.

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
            fleets.append(Fleet(f"{run}-{cell + 1}", scheme, rate, slots, first_ue, **bits[scheme]))
    return fleets
