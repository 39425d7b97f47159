"""A fleet of UEs in a thread, and waiting for what it brings about."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from shared.checkpoints import CheckpointStore
from ue_client.fleet import UeFleet
from ue_client.settings import Settings as UeSettings

Gnb = Any
"""As `conftest` has it."""


def until(condition: Callable[[], Any], patience_s: float = 60.0) -> Any:
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


class LiveFleet:
    """A fleet that runs in a thread while the test does other things."""

    def __init__(self, gnb: Gnb, fleet_class: type[UeFleet] = UeFleet, **settings: Any) -> None:
        chosen = UeSettings(**{"gnb": gnb.grpc, "checkpoints": gnb.checkpoints, "rate": 200.0, **settings})
        checkpoint = CheckpointStore(gnb.checkpoints).load(chosen.scheme, chosen.version, ("encoder",))
        self.fleet = fleet_class(chosen, checkpoint)
        self.loop = asyncio.new_event_loop()
        self.done: Future[UeFleet] = Future()
        threading.Thread(target=self._live, daemon=True).start()  # which holds no failed test up

    def _live(self) -> None:
        try:
            self.loop.run_until_complete(self.fleet.run())
            self.done.set_result(self.fleet)
        except BaseException as error:
            logging.exception("the fleet has ended")  # a test that waits in vain shows why
            self.done.set_exception(error)

    def stop(self) -> UeFleet:
        self.loop.call_soon_threadsafe(self.fleet.stop)
        return self.done.result(60)
