"""Tasks of a Ray cluster that each work in a folder of their own. Nodes share no disk: what a task begins with, and
what it writes while it runs, goes as bytes between the node where it runs and the folder of the driver, which began it.
A task whose process or node dies is begun again elsewhere, with what has come until then.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from shared.errors import CsiError, InvalidInput

LOOK_S = 1.0
"""Seconds between two looks for what is new: of a task at its folder, of the driver at what has come."""

MOST_LOSSES = 5
"""How often a task is begun again; one that loses its process whenever it runs would go on for ever."""

GRACE_S = 20.0
"""How long tasks that are interrupted may take to send what they have [s]."""

SHORTLY_S = 0.1
"""Seconds between two looks at what they have sent."""


class TasksFailed(CsiError):
    """Tasks ended with errors, which were printed; the others are done."""


@dataclass(frozen=True)
class Task:
    """What is run.

    Attributes:
        name: in what is printed.
        work: is called with the folder, by a process that imports its module. What it prints is printed by the driver.
        takes: files and folders, relative to the folder, that it begins with where they are there.
        cpus, gpus: what it takes of a node, fractions too.
    """

    name: str
    work: Callable[[Path], None]
    takes: tuple[str, ...]
    cpus: float
    gpus: float


class Phase(Enum):
    """What a task says of itself."""

    BEGUN = "it is in its folder"
    ENDED = "all that it has written is sent"


class Change(NamedTuple):
    """Of a folder's files: path relative to it -> content, and the paths of those that are gone."""

    written: dict[str, bytes]
    gone: list[str]


def run_tasks(tasks: Sequence[Task], folder: Path) -> None:
    """Run tasks on the cluster that is connected (`csiemu.cluster`), as many at once as it has room for; the folder has
    then what they have written, and while they run what they have written until then. After SIGINT they stop as by
    SIGINT, and what they leave is sent.

    Raises:
        InvalidInput: no node has what a task takes.
        TasksFailed: some ended with errors of their own, or were lost more than `MOST_LOSSES` times.
    """
    _check_room(tasks)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    outbox = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    remote = ray.remote(max_retries=0)(_work)  # begun again here, with what has come
    begun: Counter[str] = Counter()
    running: dict[Any, Task] = {}
    at_work: set[str] = set()
    failed: list[str] = []

    def begin(task: Task) -> None:
        begun[task.name] += 1
        at_work.discard(task.name)
        sender = task.name, begun[task.name]
        placed = remote.options(name=task.name, num_cpus=task.cpus, num_gpus=task.gpus)
        running[placed.remote(task.work, sender, _read(folder, task.takes), outbox)] = task

    def receive() -> None:
        for (name, times), what in outbox.get_nowait_batch(outbox.qsize()):
            if times != begun[name]:  # one that was given up, on a node that was cut off
                continue
            match what:
                case Phase.BEGUN:
                    at_work.add(name)
                case Phase.ENDED:
                    at_work.discard(name)
                case str():
                    print(what, flush=True)
                case _:
                    _apply(what, folder)

    for task in tasks:
        begin(task)
    try:
        while running:
            ended, _ = ray.wait(list(running), timeout=LOOK_S)
            receive()
            for reference in ended:
                task = running.pop(reference)
                try:
                    ray.get(reference)
                except RayTaskError as error:
                    print(f"{task.name}: {_reason(error)}", file=sys.stderr, flush=True)
                    failed.append(task.name)
                except RayError as error:
                    lost = f"{task.name}: lost, {type(error).__name__}"
                    if begun[task.name] > MOST_LOSSES:
                        print(f"{lost}, {begun[task.name]} times", file=sys.stderr, flush=True)
                        failed.append(task.name)
                    else:
                        print(f"{lost}; begun again with what it has sent", flush=True)
                        begin(task)
    except KeyboardInterrupt:
        for reference in running:
            ray.cancel(reference)
        deadline = time.monotonic() + GRACE_S
        while at_work and time.monotonic() < deadline:  # for Ray, those that are cancelled have ended already
            time.sleep(SHORTLY_S)
            receive()
        raise
    if failed:
        raise TasksFailed(f"ray: {len(failed)} of {len(tasks)} failed: {', '.join(failed)}")


def _check_room(tasks: Iterable[Task]) -> None:
    """Raises InvalidInput for a task that would wait for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for task in tasks:
        if not any(node.get("CPU", 0) >= task.cpus and node.get("GPU", 0) >= task.gpus for node in nodes):
            there = "; ".join(f"{node.get('CPU', 0):g} and {node.get('GPU', 0):g}" for node in nodes)
            raise InvalidInput(
                f"{task.name}: num_cpus: {task.cpus:g} and num_gpus: {task.gpus:g}; no node of the cluster has as many:"
                f" {there}"
            )


def _reason(error: RayTaskError) -> str:
    """What a task ended with: our own errors are for the user, others for who mends them."""
    if isinstance(error.cause, CsiError):
        return str(error.cause)
    return str(error)


def _work(work: Callable[[Path], None], sender: tuple[str, int], files: dict[str, bytes], outbox: Queue) -> None:
    """A task, in a process of Ray's."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what Ray cancels by, and shells ignore in the background
    with tempfile.TemporaryDirectory(prefix="csiemu-") as name:
        folder = Path(name)
        _apply(Change(files, []), folder)

        def send(what: str | Change | Phase) -> None:
            outbox.put((sender, what))

        send(Phase.BEGUN)
        try:
            with _changes_sent(folder, send), contextlib.redirect_stdout(_Lines(send)):
                work(folder)
        finally:
            send(Phase.ENDED)


@contextlib.contextmanager
def _changes_sent(folder: Path, send: Callable[[Change], None]) -> Iterator[None]:
    """What is written in a folder is sent: each second what is new, and the rest at the end."""
    known = _stamps(folder)
    over = threading.Event()

    def look() -> None:
        nonlocal known
        now = _stamps(folder)
        if now == known:
            return
        try:
            written = {path: (folder / path).read_bytes() for path in now if now[path] != known.get(path)}
        except FileNotFoundError:  # replaced meanwhile
            return
        if _stamps(folder) == now:  # all of one moment, as a kill at this moment would leave it
            send(Change(written, [path for path in known if path not in now]))
            known = now

    def watch() -> None:
        while not over.wait(LOOK_S):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        look()


class _Lines:
    """A text stream that hands on whole lines."""

    def __init__(self, send: Callable[[str], None]) -> None:
        self.send, self.begun = send, ""

    def write(self, text: str) -> int:
        *lines, self.begun = (self.begun + text).split("\n")
        for line in lines:
            self.send(line)
        return len(text)

    def flush(self) -> None:
        """Lines are sent when they are whole."""


def _stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Path relative to the folder -> what changes with its content, for files that are not being written."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.suffix != ".partial" and path.is_file():
                state = path.stat()
                found[str(path.relative_to(folder))] = (state.st_mtime_ns, state.st_size, state.st_ino)
    return found


def _read(folder: Path, paths: Iterable[str]) -> dict[str, bytes]:
    """Path relative to the folder -> content, of files and of all in folders, where they are there."""
    files = [file for path in paths for file in [folder / path, *(folder / path).rglob("*")] if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def _apply(change: Change, folder: Path) -> None:
    """Make a change. One that is broken off leaves what was there before: the files of JSON, which name others, come
    after these, each in one move.
    """
    for name in sorted(change.written, key=lambda name: name.endswith(".json")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        partial.write_bytes(change.written[name])
        partial.replace(path)
    for name in change.gone:
        path = folder / name
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty
            path.parent.rmdir()
