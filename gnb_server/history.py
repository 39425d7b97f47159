"""What a report of a run needs beside its sums: which gNBs there were, which checkpoints decoded, and what the totals
were from time to time. All of it is in the store, so that it is there when the gNB has ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gnb_server.monitor import Monitor
from gnb_server.repository import ModelVersion, Repository
from gnb_server.store import Store
from shared.errors import CsiError
from shared.machine import machine

APART_S = 1.0
"""Between two snapshots at first; it doubles each time that there are too many."""

KEPT = 360
"""Snapshots of a run at most: each has some kB."""

OF_CARD = ("scheme", "scenario", "payload", "feedback_bits")
"""What is taken from a card, beside hashes and reference figures."""

OF_EVALUATION = ("settings", "reports", "nmse_db", "nmse_se_db", "sgcs", "sgcs_se")
"""A card's reference figures that are taken."""


class History:
    """Keeps snapshots of the monitor's totals, over the whole run and never more than KEPT: it thins out those that
    there are, so that the time between two of them grows with the run. While nothing comes in none is added.

    Args:
        clock: seconds since 1970.
    """

    def __init__(
        self, store: Store, monitor: Monitor, repository: Repository, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._monitor = monitor
        self._repository = repository
        self._clock = clock
        self._apart_s = APART_S
        self._times: list[float] = []
        self._kept: list[dict[str, Any]] | None = None
        self._looked_at = 0.0
        self._checkpoints: set[tuple[str, int, str]] = set()

    def begin(self, settings: dict[str, Any]) -> None:
        """Note that this process begins, on this machine, with these settings. Raises StoreUnavailable."""
        self._store.keep_process(self._clock(), {"machine": machine(), "settings": settings})
        self._times = [at for at, _ in self._store.snapshots()]

    def tick(self) -> None:
        """Note what is new, if the last snapshot is old enough. Raises StoreUnavailable."""
        if not 0 <= self._clock() - self._looked_at < self._apart_s:  # a clock may be set back
            self.note()

    def note(self) -> None:
        """Note what is new. Raises StoreUnavailable."""
        found, now = self._monitor.snapshot(), self._clock()
        if found != self._kept:
            for model in self._serving():
                self._note_checkpoint(model)
            if self._kept is not None and self._looked_at > self._times[-1]:  # until then nothing had come in
                self._keep(self._looked_at, self._kept)
            self._keep(now, found)
        self._looked_at = now

    def _keep(self, at: float, content: list[dict[str, Any]]) -> None:
        self._store.keep_snapshot(at, content)
        self._times.append(at)
        self._kept = content
        while len(self._times) > KEPT:
            self._apart_s *= 2
            self._thin_out()

    def _thin_out(self) -> None:
        """Forget snapshots that are less than `_apart_s` later than the one kept before; the last one stays."""
        kept = self._times[:1]
        for at in self._times[1:-1]:
            if at - kept[-1] >= self._apart_s:
                kept.append(at)
        kept += self._times[-1:]
        self._store.forget_snapshots(set(self._times) - set(kept))
        self._times = kept

    def _serving(self) -> list[ModelVersion]:
        """Loaded versions."""
        repository = self._repository
        found = ((name, version) for name in repository.names() for version in repository.loaded(name))
        models = []
        for name, version in found:
            with suppress(CsiError):  # unloaded meanwhile
                models.append(repository.version(name, version))
        return models

    def _note_checkpoint(self, model: ModelVersion) -> None:
        key = (model.name, model.version, model.sha256)
        if key not in self._checkpoints:
            self._store.keep_checkpoint(*key, self._described(model))
            self._checkpoints.add(key)

    def _described(self, model: ModelVersion) -> dict[str, Any]:
        """What its card says, None where it is silent; if that on the disk is another one by now, what is in memory."""
        known = dict.fromkeys([*OF_CARD, "encoder_sha256"]) | {
            "encoder_id": model.encoder_id,
            "evaluation": dict.fromkeys(OF_EVALUATION),
        }
        try:
            card = self._repository.store.card(model.name, model.version)
        except CsiError:
            return known
        if card["sha256"].get("decoder") != model.sha256:
            return known
        evaluation = card.get("evaluation", {})
        return (
            known
            | {name: card[name] for name in OF_CARD}
            | {"encoder_sha256": card["sha256"].get("encoder")}
            | {"evaluation": {name: evaluation.get(name) for name in OF_EVALUATION}}
        )
