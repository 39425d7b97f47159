"""Changes at set times in all cells, of versions and of airs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from csiemu.rest import Rest
from csiemu.schedule import Schedule

PAUSE_S = 0.2
"""Between two looks at what is due, or attempts to reach a gNB that is away."""


class Changes:
    """Asks each cell's gNB for its changes by a thread of its own: one that is away, or takes long, holds up no other.

    Args:
        schedules: of each cell.
        rest: of a cell's gNB, wherever it is now.
        say: what is to be done with what there is to say.
    """

    def __init__(
        self, schedules: Mapping[str, Schedule], rest: Callable[[str], Rest], say: Callable[[str], None]
    ) -> None:
        self._schedules = schedules
        self._rest = rest
        self._say = say
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def begin(self) -> None:
        """Count the seconds from now on, in all cells; not again if they are counted."""
        if self._threads:
            return
        now = time.monotonic()
        self._threads = [
            threading.Thread(target=self._follow, args=(cell, now), daemon=True) for cell in self._schedules
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> list[str]:
        """Ask for nothing more; returns what failed, or was not asked for."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        return [f"{cell}: {text}" for cell, schedule in self._schedules.items() for text in schedule.end()]

    def _follow(self, cell: str, begun: float) -> None:
        schedule = self._schedules[cell]
        while schedule.changes and not self._over.wait(PAUSE_S):
            for text in schedule.step(self._rest(cell), time.monotonic() - begun):
                self._say(f"{cell}: {text}")
