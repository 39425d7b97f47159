"""Processes of gNBs and UEs on loopback that end with the one that started them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Self

from shared.errors import NotReady
from shared.stopping import end_with_parent

START_S = 120.0
"""How long a gNB may take to answer."""

STORE = "gnb.sqlite"
"""A gNB's store, in its folder."""

LOG = "gnb.log"
"""Its log, there."""

RESULTS = "results.json"
"""What an emulation found, in its folder."""

OURS_ALONE = re.compile(r"CSIEMU_(GNB_TOKEN|GNB_TOKEN_FILE|(GNB|UE)_TLS_.*)", re.IGNORECASE)
"""Variables that are not for processes on loopback: TLS and tokens are for those who come from elsewhere."""


def spawn(module: str, log: Path, *, orphaned: Any = signal.SIGTERM, **options: Any) -> subprocess.Popen[bytes]:
    """`python -m module --option value ...` (True `--option`, False `--no-option`, None nothing), output in `log`; in
    the clear, without a token. It gets the signal `orphaned` when this process is gone.
    """
    line = [sys.executable, "-P", "-m", module]  # -P: nothing is imported from the current folder
    for option, value in options.items():
        name = option.replace("_", "-")
        if isinstance(value, bool):
            line.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            line += [f"--{name}", str(value)]
    with log.open("wb") as file:
        return subprocess.Popen(
            line,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if not OURS_ALONE.fullmatch(name)},
            start_new_session=True,  # Ctrl-C is for us; we pass it on in order
            preexec_fn=partial(_begin, orphaned),
        )


def _begin(orphaned: signal.Signals) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a thread of a library that starts it may have blocked some
    end_with_parent(orphaned)


def end(process: subprocess.Popen[bytes], patience_s: float = 20.0) -> None:
    """Ask a process to end, and make it end."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def family(pid: int) -> list[int]:
    """A process, those that it has started, those that these have started, and so on (Linux)."""
    found = [pid]
    for file in Path(f"/proc/{pid}").glob("task/*/children"):
        with contextlib.suppress(OSError):  # its thread has ended meanwhile
            found += [each for child in file.read_text().split() for each in family(int(child))]
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time so far of a process and its family (Linux)."""
    ticks = 0
    for each in family(pid):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def tail(path: Path, lines: int = 5) -> str:
    """The last lines of a log."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"


class Gnb:
    """A gNB process with its store and log in `folder`; a context manager.

    Args:
        options: of `csiemu gnb`; `store` None: the environment says it.

    Attributes:
        grpc, rest: its addresses, host:port. store: its URL.
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        store = options.pop("store", f"sqlite:///{folder / STORE}")
        self.store = str(store or os.environ["CSIEMU_GNB_STORE"])
        ready, log = folder / "gnb.json", folder / LOG
        ready.unlink(missing_ok=True)
        ports = {"grpc_port": 0, "rest_port": 0}
        self.process = spawn("gnb_server", log, **{**ports, "store": store, "ready_file": ready, **options})
        deadline = time.monotonic() + START_S
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                end(self.process)
                raise NotReady(f"gnb: did not start; {log} ends:\n{tail(log)}")
            time.sleep(0.05)
        addresses = json.loads(ready.read_text())
        self.grpc, self.rest = str(addresses["grpc"]), str(addresses["rest"])

    def cpu_seconds(self) -> float:
        """User and system time so far, with that of its decode workers (Linux)."""
        return cpu_seconds(self.process.pid)

    def memory_mb(self) -> float:
        """Resident memory [MB], with that of its decode workers (Linux)."""
        pages = 0
        for pid in family(self.process.pid):
            with contextlib.suppress(OSError):  # a worker has ended meanwhile
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def workers(self) -> list[int]:
        """Process ids of its decode workers (Linux)."""
        started = family(self.process.pid)[1:]
        return [pid for pid in started if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        end(self.process)
