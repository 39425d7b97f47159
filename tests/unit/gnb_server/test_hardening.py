"""A log that repeats nothing, and texts of bounded length."""

from __future__ import annotations

import logging

import pytest

from gnb_server.hardening import MESSAGES_KNOWN, NoRepeats, shorten


class Log:
    """A log with the filter, whose time stands still."""

    def __init__(self) -> None:
        self.now = 0.0
        self.filter = NoRepeats(lambda: self.now)

    def write(self, text: str, level: int = logging.WARNING, error: Exception | None = None) -> str | None:
        """What is written of a message."""
        info = (type(error), error, None) if error else None
        record = logging.LogRecord("gnb", level, __file__, 1, "%s", (text,), info)
        written = {self.filter.filter(record) for _handler in range(3)}
        return record.getMessage() if written == {True} else None


def test_the_first_is_written_at_once_then_one_a_minute() -> None:
    log = Log()
    assert log.write("malformed") == "malformed"
    for log.now in (0, 1, 59.9):
        assert log.write("malformed") is None
    log.now = 61
    assert log.write("malformed") == "malformed (and 3 times since 61 s ago)"
    assert log.write("malformed") is None
    log.now = 200
    assert log.write("malformed") == "malformed (and 1 times since 139 s ago)"
    log.now = 300
    assert log.write("malformed") == "malformed"


def test_only_repeats_are_left_out() -> None:
    log = Log()
    assert all(log.write(text) for text in ("a", "b", "a 1", "a 2"))
    assert [log.write("started", logging.INFO) for _ in range(3)] == ["started"] * 3
    assert all(log.write("failed", error=ValueError(text)) for text in "xy")
    assert log.write("failed", error=ValueError("x")) is None
    assert log.write("<Task at 0x7f00>")
    assert log.write("<Task at 0x7f99>") is None


def test_memory_is_bounded() -> None:
    log = Log()
    for number in range(5 * MESSAGES_KNOWN):
        assert log.write(str(number))
    assert len(log.filter._seen) <= MESSAGES_KNOWN


@pytest.mark.parametrize("length", [0, 1, 199, 200, 201, 10**6])
def test_shorten(length: int) -> None:
    text = "".join(chr(65 + i % 26) for i in range(length))
    short = shorten(text)
    assert short == text if length <= 200 else (short.startswith(text[:100]) and short.endswith(text[-100:]))
    assert len(short) < 240
