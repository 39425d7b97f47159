"""The figures of the last while as a line in the log, from time to time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from gnb_server.monitor import Clock


class FiguresLog:
    """Logs, every `every_s` seconds, the NMSE of each version over these seconds; of precoders the SGCS.

    Args:
        rows: figures of each version over the last seconds, as `/v1/nmse?by=version&window=` has them.
        every_s: 0: never.
        clock: monotonic [s].
    """

    def __init__(
        self, rows: Callable[[float], list[dict[str, Any]]], every_s: float, clock: Clock = time.monotonic
    ) -> None:
        self._rows = rows
        self._every_s = every_s
        self._clock = clock
        self._due = clock() + every_s

    def tick(self) -> None:
        """Log the line if it is due."""
        if not self._every_s or self._clock() < self._due:
            return
        self._due = self._clock() + self._every_s
        found = [row for row in self._rows(self._every_s) if row["reports"]]
        logging.info("last %g s: %s", self._every_s, ", ".join(map(_described, found)) or "no reports")


def _described(row: dict[str, Any]) -> str:
    figure = f"SGCS {row['sgcs']:.3f}" if row["nmse_db"] is None else f"{row['nmse_db']:.2f} dB"
    air = f" ({row['air']})" if row.get("air") else ""
    return f"{row['scheme']}/{row['version']}{air} {figure} at {row['feedback_bits']:.0f} bits"
