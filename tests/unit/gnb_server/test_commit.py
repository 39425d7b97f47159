"""Stores that are not waited for any longer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gnb_server.serving.commit import Committer
from shared.errors import StoreUnavailable


class Store:
    """Cannot be written, or does not say that it was."""

    def __init__(self) -> None:
        self.tried = 0

    def commit(self, batch: Any) -> None:
        self.tried += len(list(batch))
        raise StoreUnavailable("store: cannot be written: server closed the connection unexpectedly")


def test_where_nobody_knows_what_is_stored_nothing_else_is_written() -> None:
    """Chunks on their own would put sums in the place of those that a lost commit may have stored."""
    store: Any = Store()
    none: Any = None
    committer = Committer(store, none, None, none, write=True)
    committer.give_up()
    batch: Any = [
        SimpleNamespace(job=SimpleNamespace(fleet=SimpleNamespace(facts={}, number=n)), facts={}, stored=n)
        for n in range(3)
    ]
    failed: list[Any] = []

    def fail(job: Any, error: Exception) -> None:
        failed.append((job.fleet.number, type(error)))

    committer.commit(batch, fail)
    assert failed == [(n, StoreUnavailable) for n in range(3)]
    assert store.tried == 3
