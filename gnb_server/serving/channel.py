"""Messages between two processes that take turns: their arrays in shared memory, the rest through a pipe."""

from __future__ import annotations

import ctypes
import pickle
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

SHARED_BYTES = 8 * 2**20
"""Shared memory of one direction; an array that it has no room for goes through the pipe."""

_ALIGNED = 64
"""Bytes that arrays begin at a multiple of."""


class Channel:
    """One end. Who has sent waits for the answer before it sends again: arrays of a message that was received are views
    of shared memory, and stand until the next message is sent.

    Args:
        outgoing, incoming: [SHARED_BYTES] each, shared by both ends; the other end has them the other way round.
    """

    def __init__(
        self, connection: Connection, outgoing: ctypes.Array[ctypes.c_ubyte], incoming: ctypes.Array[ctypes.c_ubyte]
    ) -> None:
        self._connection = connection
        self._outgoing = np.frombuffer(memoryview(outgoing), np.uint8)
        self._incoming = np.frombuffer(memoryview(incoming), np.uint8).data

    def send(self, message: Any) -> None:
        """Send a message. Raises OSError if the other end has gone; what cannot be pickled is not sent."""
        spans: list[tuple[int, int]] = []
        end = 0

        def place(buffer: pickle.PickleBuffer) -> bool:
            """Whether an array (PEP 574) is to stay in the message: shared memory has no room for it."""
            nonlocal end
            values = np.frombuffer(buffer.raw(), np.uint8)
            begin = -(-end // _ALIGNED) * _ALIGNED
            if begin + len(values) > len(self._outgoing):
                return True
            end = begin + len(values)
            self._outgoing[begin:end] = values
            spans.append((begin, end))
            return False

        data = pickle.dumps(message, protocol=5, buffer_callback=place)
        self._connection.send_bytes(pickle.dumps((spans, data)))

    def receive(self) -> Any:
        """Wait for a message. Raises EOFError, or OSError, if the other end has gone."""
        spans, data = pickle.loads(self._connection.recv_bytes())
        return pickle.loads(data, buffers=[self._incoming[begin:end] for begin, end in spans])

    def close(self) -> None:
        """Have the other end find this one gone."""
        self._connection.close()
