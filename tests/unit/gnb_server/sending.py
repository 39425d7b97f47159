"""UEs of a gNB without its protocols, and a clock for it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gnb_server.handlers import Attachment, Handlers
from gnb_server.serving.chunks import Ack, Chunk
from shared.checkpoints import CheckpointStore

UES = 2


@dataclasses.dataclass
class Clock:
    """Monotonic [s]; tests move it."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class Ues:
    """Two UEs, the first of a fleet, that send zeros, encoded by any version of a model."""

    def __init__(
        self,
        handlers: Handlers,
        store: CheckpointStore,
        name: str = "hyperrnn",
        version: int = 1,
        ues: int = UES,
        **others: Any,
    ) -> None:
        self.handlers, self.store = handlers, store
        self.checkpoint = store.load(name, version)
        self.wanted = Attachment(name, str(self.checkpoint.scenario), 0, self.checkpoint.encoder_id, ues, **others)
        self.fleet, _ = handlers.attach(self.wanted)
        self.stream = 0

    def open(self) -> Ues:
        _, self.stream = self.handlers.open_stream(self.fleet.lease.token)
        return self

    def come_back(self, version: int | None = None) -> Ues:
        """Back to the lease, with another encoder if asked."""
        if version is not None:
            self.checkpoint = self.store.load(self.checkpoint.name, version)
        again = dataclasses.replace(self.wanted, token=self.fleet.lease.token, encoder_id=self.checkpoint.encoder_id)
        self.fleet, _ = self.handlers.attach(again)
        return self.open()

    def submit(
        self,
        slot: int,
        *,
        slots: int = 1,
        ues: int = UES,
        first: int = 0,
        payload: bytes | None = None,
        **timing: Any,
    ) -> Any:
        payload = bytes(self.checkpoint.scheme.layout.chunk_bytes(ues * slots)) if payload is None else payload
        first_ue = self.fleet.lease.first_ue + first
        chunk = Chunk(self.checkpoint.encoder_id, first_ue, ues, slot, slots, payload, len(payload), **timing)
        return self.handlers.submit(self.fleet, self.stream, chunk)

    def send(self, *slots: int) -> list[Ack]:
        return [self.submit(slot).result(30) for slot in slots]


@contextmanager
def one_batch(handlers: Handlers) -> Iterator[None]:
    """What is submitted meanwhile waits, and is decoded together."""
    go_on = threading.Event()
    handlers._serving.call(lambda: go_on.wait(30))
    yield
    go_on.set()
