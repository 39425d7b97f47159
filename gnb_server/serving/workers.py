"""Decode workers: processes that decode and compare at the same time, each for UEs of its own.

A worker that ends, whatever ended it, is started again. The states that it held have gone: parts that go on with them
fail with StateNotHeld, and the serving loop decodes what is kept of their frames again.
"""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import threading
import zlib
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnb_server.repository import ModelVersion
from gnb_server.serving.backend import Part, StateNotHeld
from gnb_server.serving.channel import SHARED_BYTES, Channel
from gnb_server.serving.execution import SERVING, Failure, Result, WorkerEnded
from gnb_server.serving.worker import work
from shared.errors import DamagedCheckpoint, NotReady

BLOCK_UES = 8
"""UEs that follow each other and are of one worker: large enough for a batch to pay, small enough to spread a fleet."""

END_S = 10.0
"""How long a worker may take to end when it is told."""

Request = tuple[str, tuple[Any, ...]]
"""A method of `worker.Worker`, and its arguments."""

Piece = tuple[NDArray[np.int64], Result | Failure]
"""Columns of a part that one worker had, and what became of them."""


def workers_of(token: str, rows: NDArray[np.int64], workers: int) -> NDArray[np.int64]:
    """Which of so many workers each of a fleet's UEs (`rows` of it, [n]) is of, [n]: always the same."""
    return (rows // BLOCK_UES + zlib.crc32(token.encode())) % workers


class _Process:
    """A worker's process, with the versions that it holds."""

    def __init__(self, number: int, *, evaluate: bool) -> None:
        context = multiprocessing.get_context("spawn")
        connection, theirs = context.Pipe()
        requests, answers = (context.RawArray("B", SHARED_BYTES) for _ in range(2))
        arguments = (theirs, requests, answers, evaluate)
        self.process = context.Process(target=work, args=arguments, name=f"decode-{number}", daemon=True)
        self.process.start()
        theirs.close()  # or else we would not find it gone
        self.channel = Channel(connection, requests, answers)
        self.models: dict[tuple[str, int], ModelVersion] = {}

    def close(self) -> None:
        """End it, and wait for that."""
        self.channel.close()
        self.process.join(END_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class Workers:
    """The `Executor` of so many decode workers. Safe to use from any thread.

    Args:
        evaluate: as `InProcessExecutor` has an evaluator.

    Raises:
        NotReady: one does not start.
    """

    def __init__(self, count: int, *, evaluate: bool) -> None:
        self._evaluate = evaluate
        self._lock = threading.Lock()
        self._processes = [_Process(number, evaluate=evaluate) for number in range(count)]
        if any(isinstance(answer, Failure) for answer in self._ask_all("ping")):
            self.close()
            raise NotReady(f"workers: {count}; one of them does not start")

    @property
    def pids(self) -> list[int | None]:
        """Their process ids."""
        return [worker.process.pid for worker in self._processes]

    def load(self, model: ModelVersion) -> None:
        """Have all hold a version. Raises DamagedCheckpoint if one cannot."""
        with self._lock:
            failures = self._load(model, range(len(self._processes)))
        for failure in failures.values():
            if not failure.state_gone:  # or else it has it with the first part
                raise DamagedCheckpoint(
                    f"checkpoint {model.name}/{model.version}: a decode worker cannot load it: {failure.error}"
                )

    def unload(self, name: str, version: int) -> None:
        """Have none hold a version any more."""
        with self._lock:
            for worker in self._processes:
                worker.models.pop((name, version), None)
        self._ask_all("unload", name, version)

    def execute(self, model: ModelVersion, parts: list[Part], lane: str = SERVING) -> list[Result | Failure]:
        shares: dict[int, list[tuple[int, NDArray[np.int64]]]] = defaultdict(list)
        for index, part in enumerate(parts):
            owners = workers_of(part.lease.token, part.rows, len(self._processes))
            for number in np.unique(owners).tolist():
                shares[number].append((index, np.flatnonzero(owners == number)))
        requests: dict[int, Request] = {}
        for number, share in shares.items():
            mine = [_columns_of(parts[index], columns) for index, columns in share]
            requests[number] = ("execute", (model.name, model.version, mine, lane))
        pieces: list[list[Piece]] = [[] for _ in parts]
        with self._lock:
            failed = self._load(model, shares)
            answers = failed | self._ask({n: request for n, request in requests.items() if n not in failed})
            for number, share in shares.items():
                answer = answers[number]
                results = [answer] * len(share) if isinstance(answer, Failure) else answer
                for (index, columns), result in zip(share, results, strict=True):
                    pieces[index].append((columns, result))
            return [_joined(found) for found in pieces]

    def abandon(self, token: str, ues: NDArray[np.int64]) -> None:
        self._ask_all("abandon", token, ues)

    def forget(self, token: str) -> None:
        self._ask_all("forget", token)

    def end(self, lane: str) -> None:
        self._ask_all("end", lane)

    def close(self) -> None:
        """End all workers."""
        with self._lock:
            for worker in self._processes:
                worker.close()

    def _ask_all(self, name: str, *arguments: Any) -> list[Any]:
        with self._lock:
            return list(self._ask(dict.fromkeys(range(len(self._processes)), (name, arguments))).values())

    def _load(self, model: ModelVersion, numbers: Any) -> dict[int, Failure]:
        """Have workers hold a version, if they do not; returns who cannot."""
        key = model.name, model.version
        without = [number for number in numbers if self._processes[number].models.get(key) is not model]
        answers = self._ask(dict.fromkeys(without, ("load", (model,))))
        for number, answer in answers.items():
            if not isinstance(answer, Failure):
                self._processes[number].models[key] = model
        return {number: answer for number, answer in answers.items() if isinstance(answer, Failure)}

    def _ask(self, requests: dict[int, Request]) -> dict[int, Any]:
        """Answers of workers to their requests, on which they work at the same time; arrays in them stand until the
        next request. A Failure where a worker has ended over it, which is started again.
        """
        answers: dict[int, Any] = {}
        for number, request in requests.items():
            try:
                self._processes[number].channel.send(request)
            except OSError:
                answers[number] = _ended(number, request)
            except Exception as error:  # it cannot be sent
                answers[number] = Failure(error)
        for number in requests.keys() - answers.keys():  # every answer is taken, or the next would be taken for it
            try:
                answers[number] = self._processes[number].channel.receive()
            except (EOFError, OSError):
                answers[number] = _ended(number, requests[number])
            except Exception as error:  # it cannot be read
                answers[number] = Failure(error)
        for number, answer in answers.items():
            if isinstance(answer, Failure) and answer.state_gone:
                self._start_again(number)
        return answers

    def _start_again(self, number: int) -> None:
        ended = self._processes[number]
        ended.close()
        logging.error("decode worker %d has ended (exit code %s); starting it again", number, ended.process.exitcode)
        try:
            self._processes[number] = _Process(number, evaluate=self._evaluate)
        except OSError as error:  # no memory, or too many processes: the next request tries again
            logging.error("decode worker %d does not start: %s", number, error)


def _ended(number: int, request: Request) -> Failure:
    kind = WorkerEnded if request[0] == "execute" else StateNotHeld  # one that has just started may be ended, too
    return Failure(kind(f"decode worker {number} has ended, and the states that it held have gone"))


def _columns_of(part: Part, columns: NDArray[np.int64]) -> Part:
    """A part of some of its UEs."""
    fields = {name: values[:, columns] for name, values in part.fields.items()}
    return dataclasses.replace(part, rows=part.rows[columns], fields=fields, fates=part.fates[:, columns])


def _joined(pieces: list[Piece]) -> Result | Failure:
    """What became of a part, in memory of its own."""
    results = [result for _, result in pieces if isinstance(result, Result)]
    if failures := [result for _, result in pieces if isinstance(result, Failure)]:
        # what cannot be mended comes first, then what may not be
        return min(failures, key=lambda failure: (failure.state_gone, not failure.worker_ended))
    order = np.argsort(np.concatenate([columns for columns, _ in pieces]))

    def join(name: str, axis: int) -> Any:
        found = [getattr(result, name) for result in results]
        return None if found[0] is None else np.concatenate(found, axis).take(order, axis)

    decoded = max(result.decoded for result in results)
    aged = np.sum([result.aged for result in results], axis=0)
    return Result(decoded, join("measured", 2), aged, join("estimates", 1), join("truth", 1))
