"""The gNB of a cell, kept alive by Ray on some node of a cluster.

What needs torch is imported where it is used: who has a handle of the actor, as UEs' actors do, imports this module.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import ray

from csiemu.cells.messages import Checked, Place
from csiemu.processes import Gnb, end
from shared.errors import NotReady, StoreUnavailable
from shared.link.rate import Rate
from shared.stopping import STOP_S

PAUSE_S = 1.0
"""Between two attempts to start it."""

AGAIN_S = 120.0
"""How long a gNB that was started again may be refused its run, which the store frees when it sees that the gNB before
is gone.
"""


class GnbActor:
    """Looks after a process `csiemu gnb`, which ends with it. When Ray starts it again, on another node if need be, the
    new gNB goes on where the store has the cell, with all leases and open frames. Methods may be called at once.

    Args:
        cell: name of the run in the store. store: its URL. token: that REST wants for whatever changes something.
        options: of `csiemu gnb`.
    """

    def __init__(self, cell: str, store: str, token: str, options: dict[str, Any]) -> None:
        os.environ["CSIEMU_GNB_STORE"] = store  # others could read a command line
        self._folder = Path(tempfile.mkdtemp(prefix="csiemu-gnb-"))
        of_token = self._folder / "token"
        of_token.touch(0o600)
        of_token.write_text(token)
        self._options = {**options, "run": cell, "host": ray.util.get_node_ip_address(), "token_file": of_token}
        self._cell, self._url = cell, store
        self._starts = 0
        self._gnb: Gnb | None = None
        self._ended = False
        self._lock = threading.Lock()

    def place(self) -> Place:
        """Where it is, once it serves; it is started if it does not run. Raises NotReady: it cannot be."""
        with self._lock:
            if self._ended:
                raise NotReady("gnb: has ended")
            if self._gnb is None or self._gnb.process.poll() is not None:
                self._gnb = self._start()
            return Place(self._gnb.grpc, self._gnb.rest, self._options["host"])

    def _start(self) -> Gnb:
        again = self._starts > 0 or ray.get_runtime_context().was_current_actor_reconstructed
        deadline = time.monotonic() + (AGAIN_S if again else 0.0)
        while True:
            self._starts += 1
            folder = self._folder / f"{self._starts:03}"
            folder.mkdir()
            try:
                return Gnb(
                    folder, orphaned=signal.SIGKILL, store=None, record=self._folder / "recorded", **self._options
                )
            except NotReady:
                if time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE_S)

    def lease(self, first_ue: int) -> tuple[str, bool] | None:
        """Token of the fleet whose first UE this is, and whether it has detached; None if it has never attached. A
        store that is away is waited for.
        """
        while True:
            try:
                return self._lease(first_ue)
            except StoreUnavailable:
                time.sleep(PAUSE_S)

    def _lease(self, first_ue: int) -> tuple[str, bool] | None:
        """As `lease`. Raises StoreUnavailable."""
        from gnb_server.store import Store

        with closing(Store(self._url, self._cell, 1)) as store:
            for lease, _, finished in store.leases():
                if lease.first_ue == first_ue:
                    return lease.token, finished
        return None

    def finish(self, rate: Rate) -> Checked:
        """End the gNB, and decode again what it recorded on this node, of UEs that were asked for a rate."""
        import torch

        from csiemu.verify import recoded
        from shared.checkpoints import CheckpointStore, default_checkpoints

        with self._lock:
            self._ended = True
            if self._gnb is not None:
                end(self._gnb.process, STOP_S)
            torch.set_num_threads(1)
            checkpoints = CheckpointStore(self._options["checkpoints"] or default_checkpoints())
            wrong, checked = recoded(checkpoints, sorted((self._folder / "recorded").glob("*.npz")), rate)
            log = "".join(path.read_text(errors="replace") for path in sorted(self._folder.glob("*/gnb.log")))
            shutil.rmtree(self._folder)
            return Checked(wrong, checked, log)
