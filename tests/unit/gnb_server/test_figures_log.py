"""One line from time to time, over just that time."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from gnb_server.figures_log import FiguresLog
from tests.unit.gnb_server.sending import Clock


def row(scheme: str, version: int, nmse_db: float | None, bits: float | None, **conditions: str) -> dict[str, Any]:
    similarity = None if bits is None else 0.93
    figures = {"reports": 0 if bits is None else 8, "nmse_db": nmse_db, "sgcs": similarity, "feedback_bits": bits}
    return {"scheme": scheme, "version": version, **conditions, **figures}


ROWS = [
    row("hyperrnn", 1, -5.864, 20.0),
    row("hyperrnn", 3, None, None),
    row("hyperrnn", 1, -3.2, 20.0, air="loss=0.1"),
    row("etype2", 1, None, 279.4),
]
LINE = (
    "last 60 s: hyperrnn/1 -5.86 dB at 20 bits, hyperrnn/1 (loss=0.1) -3.20 dB at 20 bits,"
    " etype2/1 SGCS 0.930 at 279 bits"
)


@pytest.mark.parametrize(
    ("rows", "text"),
    [(ROWS, LINE), (ROWS[1:2], "last 60 s: no reports")],
)
def test_a_line_a_minute(caplog: pytest.LogCaptureFixture, clock: Clock, rows: list[dict[str, Any]], text: str) -> None:
    caplog.set_level(logging.INFO)
    asked: list[float] = []

    def figures(window_s: float) -> list[dict[str, Any]]:
        asked.append(window_s)
        return rows

    log = FiguresLog(figures, 60.0, clock)
    for _ in range(180):
        log.tick()
        clock.now += 1.0
    assert asked == [60.0, 60.0]
    assert caplog.messages == [text, text]


def test_off(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    caplog.set_level(logging.INFO)
    log = FiguresLog(lambda _: ROWS, 0.0, clock)
    clock.now += 1e6
    log.tick()
    assert caplog.messages == []
