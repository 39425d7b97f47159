"""A decode worker: a process that holds models, recurrent states and true channels of some UEs, and does as it is told.

It ends when the gNB's process has gone, whatever ended that: the pipe between them tells.
"""

from __future__ import annotations

import copy
import ctypes
import pickle
import signal
import traceback
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gnb_server.evaluator import Evaluator
from gnb_server.repository import ModelVersion
from gnb_server.serving.backend import Part
from gnb_server.serving.channel import Channel
from gnb_server.serving.execution import Failure, InProcessExecutor, Result
from gnb_server.serving.memory import Returning, return_memory

SharedBytes = ctypes.Array[ctypes.c_ubyte]


class Worker:
    """What a worker can be told: each method is a request, and what it returns is the answer."""

    def __init__(self, *, evaluate: bool) -> None:
        self._executor = InProcessExecutor(Evaluator() if evaluate else None)
        self._models: dict[tuple[str, int], ModelVersion] = {}

    def ping(self) -> None:
        """Answer."""

    def load(self, model: ModelVersion) -> None:
        """Hold a version, in place of what was held under its number."""
        # arrays of a message stand until the next one only
        self._models[model.name, model.version] = copy.deepcopy(model)

    def unload(self, name: str, version: int) -> None:
        """Hold a version no more."""
        self._models.pop((name, version), None)

    def execute(self, name: str, version: int, parts: list[Part], lane: str) -> list[Result | Failure]:
        """As `Executor.execute`, by a version that is held."""
        results = self._executor.execute(self._models[name, version], parts, lane)
        return [_portable(found) if isinstance(found, Failure) else found for found in results]

    def abandon(self, token: str, ues: NDArray[np.int64]) -> None:
        """As `Executor.abandon`."""
        self._executor.abandon(token, ues)

    def forget(self, token: str) -> None:
        """As `Executor.forget`."""
        self._executor.forget(token)
        return_memory()

    def end(self, lane: str) -> None:
        """As `Executor.end`."""
        self._executor.end(lane)


def work(connection: Connection, requests: SharedBytes, answers: SharedBytes, evaluate: bool) -> None:
    """Answer requests, (name of a `Worker`'s method, arguments), with what it returns, or with a Failure, until the
    other end has gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the gNB, which ends us in order
    torch.set_num_threads(1)
    channel, worker, returning = Channel(connection, answers, requests), Worker(evaluate=evaluate), Returning()
    while True:
        try:
            name, arguments = channel.receive()
            answer: Any = getattr(worker, name)(*arguments)
        except (EOFError, ConnectionError):
            return
        except Exception as error:  # to who asked, whatever it is
            answer = _portable(Failure(error))
        try:
            channel.send(answer)
        except ConnectionError:
            return
        returning.tick()


def _portable(failure: Failure) -> Failure:
    """A failure whose error says where it was raised, and can be sent."""
    error = failure.error
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # errors take what arguments they like
        return Failure(RuntimeError(f"{type(error).__name__}: {error}"), failure.by_version)
    return failure
