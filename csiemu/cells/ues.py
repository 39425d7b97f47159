"""A fleet of UEs of a cell, kept alive by Ray on some node of a cluster."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import ray

from csiemu.cells.messages import Ended
from csiemu.processes import end, spawn, tail

FOLLOW_S = 1.0
"""How often UEs are told where their gNB is."""


class UesActor:
    """Looks after a process `csiemu ue`, which ends with it. When Ray starts it again, on another node if need be, the
    new UEs have the ids of their lease, and go on with the report that the gNB waits for. `stop` may be called while
    `run` is at work.

    Args:
        cell: name of their gNB's actor. options: of `csiemu ue`.
    """

    def __init__(self, cell: str, options: dict[str, Any]) -> None:
        self._gnb: Any = ray.get_actor(cell)
        self._folder = Path(tempfile.mkdtemp(prefix="csiemu-ues-"))
        self._token, self._address = self._folder / "token", self._folder / "address"
        self._options = {**options, "gnb_file": self._address, "token_file": self._token}
        self._logs: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._lock = threading.Lock()

    def run(self) -> Ended:
        """Have them send all that they are to send; UEs that were killed are started again. Raises NotReady: their gNB
        cannot be started.
        """
        try:
            while (process := self._start()) is not None and self._wait(process) < 0 and not self._stopping:
                pass
            return self._how_it_ended(process)
        finally:
            if self._process is not None:
                end(self._process)
            shutil.rmtree(self._folder)

    def stop(self) -> None:
        """Have them bring in what they have measured, and measure no more."""
        with self._lock:
            self._stopping = True
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()

    def _start(self) -> subprocess.Popen[bytes] | None:
        """With the lease of those before, if there were any; None if there is nothing left to send."""
        self._follow()
        if (lease := ray.get(self._gnb.lease.remote(self._options["ue_base"]))) is not None:
            token, finished = lease
            if finished:
                return None
            self._token.touch(0o600)
            self._token.write_text(token)
        with self._lock:
            if self._stopping:
                return None
            self._logs.append(self._folder / f"{len(self._logs) + 1:03}.log")
            self._process = spawn("ue_client", self._logs[-1], orphaned=signal.SIGKILL, **self._options)
            return self._process

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        """For their end; meanwhile they are told where their gNB is. Returns the exit code."""
        while True:
            try:
                return process.wait(FOLLOW_S)
            except subprocess.TimeoutExpired:
                self._follow()

    def _follow(self) -> None:
        """Note where the gNB is now; it is waited for while it is started again."""
        partial = self._address.with_suffix(".partial")
        partial.write_text(ray.get(self._gnb.place.remote()).grpc)
        partial.replace(self._address)

    def _how_it_ended(self, process: subprocess.Popen[bytes] | None) -> Ended:
        log = "".join(path.read_text(errors="replace") for path in self._logs)
        early = self._stopping and (process is None or process.returncode in (-signal.SIGTERM, 130))
        if process is None or process.returncode == 0 or early:
            return Ended("", log)
        return Ended(f"ended with {process.returncode}: {tail(self._logs[-1])}", log)
