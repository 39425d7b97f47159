"""What keeps a flood of bad input from flooding back: messages of bounded length, a log that repeats nothing."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

REPEAT_S = 60.0
"""A log message that repeats is written at most once in this time."""

MESSAGES_KNOWN = 1000
"""So many different messages are watched for repeats; with more, all begin anew."""


def shorten(text: str, most: int = 200) -> str:
    """A text of about `most` characters at most, its middle left out."""
    left_out = len(text) - most
    return text if left_out <= 0 else f"{text[: most // 2]}... ({left_out} characters) ...{text[-most // 2 :]}"


class NoRepeats(logging.Filter):
    """Lets a warning or error through once a minute, with the number of those in between. `clock`: monotonic [s]."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written, by all handlers alike; says in it how often it was left out."""
        if "written" not in record.__dict__:
            record.written = record.levelno < logging.WARNING or self._is_new(record)
        return bool(record.__dict__["written"])

    def _is_new(self, record: logging.LogRecord) -> bool:
        said = f"{record.name} {record.getMessage()} {record.exc_info[1]!r}" if record.exc_info else record.getMessage()
        key = re.sub("0x[0-9a-f]+", "0x", said)  # addresses of objects make no new message
        now = self._clock()
        written, left_out = self._seen.get(key, (-REPEAT_S, 0))
        if now - written < REPEAT_S:
            self._seen[key] = written, left_out + 1
            return False
        if len(self._seen) >= MESSAGES_KNOWN:
            self._seen.clear()
        self._seen[key] = now, 0
        if left_out:
            record.msg, record.args = (
                f"{record.getMessage()} (and {left_out} times since {now - written:.0f} s ago)",
                (),
            )
        return True


def limit_repeats() -> None:
    """Put the filter on whatever writes the process's log."""
    one = NoRepeats()
    for handler in logging.getLogger().handlers:
        handler.addFilter(one)
