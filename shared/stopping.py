"""How a command ends on request: SIGINT and SIGTERM are the same; the first asks, the second ends at once."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)

STOP_S = 60.0
"""How long a command may take to end once it is asked to [s]; then it is as if it were asked again."""


def interrupt() -> None:
    """Break off what is being done, as Ctrl-C does by default."""
    raise KeyboardInterrupt


def end_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Linux: this process gets a signal when its parent is gone, so that a killed command leaves nothing behind."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, number)


@contextlib.contextmanager
def stopping(ask: Callable[[], object] = interrupt) -> Iterator[None]:
    """The first signal calls `ask`, between two steps of the main thread; the next ends the process by the signal's
    own action, which no running code can delay. SIGTERM comes as SIGINT, so that who has a handler of SIGINT for a
    while gets both.
    """
    limit = threading.Timer(STOP_S, signal.raise_signal, (signal.SIGTERM,))
    limit.daemon = True

    def asked(number: int, _: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if number == signal.SIGTERM:
            signal.raise_signal(signal.SIGINT)
            return
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        limit.start()
        ask()

    try:
        with handled_by(asked):
            yield
    finally:
        limit.cancel()


@contextlib.contextmanager
def handled_by(handler: Any) -> Iterator[None]:
    """Both signals go to a handler; outside of the main thread they stay as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
