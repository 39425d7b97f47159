"""A PostgreSQL server of a benchmark's own, that can be killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from csiemu.processes import end, tail
from shared.errors import NotReady
from shared.stopping import end_with_parent

START_S = 60.0
"""How long the server may take to answer: what a killed one has left behind has to go first."""


def programs() -> Path | None:
    """Folder of the newest server's programs, as Debian installs them; None where there is none, or no driver."""
    if find_spec("psycopg") is None:
        return None
    folders = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    return max((file.parent for file in folders), key=lambda folder: int(folder.parent.name), default=None)


class Postgres:
    """A server on a Unix socket in a folder of its own; a context manager.

    Attributes:
        url: of its database.

    Args:
        binaries: folder of its programs. folder: empty; it is given to the user `postgres` if we are root, as whom no
            server runs. The name of its socket has 107 characters at most.

    Raises:
        NotReady: it does not start.
    """

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.url = f"postgresql://csiemu@/postgres?host={folder}"
        self._binaries, self._folder, self._log = binaries, folder, folder / "log"
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:
            self._as = {"user": "postgres", "group": "postgres", "extra_groups": []}
            subprocess.run(["chown", "postgres:postgres", folder], check=True)
        made = self._run("initdb", "-D", folder / "data", "-U", "csiemu", "-A", "trust", "--no-sync")
        if made.returncode:
            raise NotReady(f"postgres: initdb failed: {made.stderr.decode(errors='replace').strip()}")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers; again, as long as processes of a killed one hold its memory."""
        deadline = time.monotonic() + START_S
        self._process = self._spawn()
        while self._run("pg_isready", "-q", "-h", self._folder).returncode:
            if time.monotonic() > deadline:
                self.__exit__()
                raise NotReady(f"postgres: did not start; {self._log} ends:\n{tail(self._log)}")
            time.sleep(0.1)
            if self._process.poll() is not None:
                self._process = self._spawn()

    def stop(self, number: signal.Signals) -> None:
        """End it by SIGKILL, or by SIGQUIT, which is `pg_ctl stop -m immediate`."""
        self._process.send_signal(number)
        self._process.wait()

    def _spawn(self) -> subprocess.Popen[bytes]:
        # without fsync: the processes are killed, not the machine
        options = ["-D", "data", "-k", str(self._folder), "-c", "listen_addresses=", "-c", "fsync=off"]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [str(self._binaries / "postgres"), *options],
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: end_with_parent(signal.SIGQUIT),
                **self._as,
            )

    def _run(self, program: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
        line = [str(self._binaries / program), *map(str, arguments)]
        return subprocess.run(line, cwd=self._folder, capture_output=True, check=False, **self._as)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        end(self._process)
