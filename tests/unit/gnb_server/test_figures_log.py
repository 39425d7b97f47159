"""One line from time to time, over just that time."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from gnb_server.figures_log import FiguresLog
from tests.unit.gnb_server.sending import Clock

ROWS: list[dict[str, Any]] = [
    {"scheme": "hyperrnn", "version": 1, "reports": 8, "nmse_db": -5.864, "sgcs": 0.9, "feedback_bits": 20.0},
    {"scheme": "hyperrnn", "version": 3, "reports": 0, "nmse_db": None, "sgcs": None, "feedback_bits": None},
    {"scheme": "etype2", "version": 1, "reports": 8, "nmse_db": None, "sgcs": 0.93, "feedback_bits": 279.4},
]


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (ROWS, "last 60 s: hyperrnn/1 -5.86 dB at 20 bits, etype2/1 SGCS 0.930 at 279 bits"),
        (ROWS[1:2], "last 60 s: no reports"),
    ],
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
