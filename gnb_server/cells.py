"""Figures of other runs of a store: the cells of several gNBs that keep their results together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from gnb_server.course import Snapshot
from gnb_server.monitor import Monitor
from gnb_server.sessions import Fleet
from gnb_server.store import Store
from shared.errors import NotFound

ALL = "all"
"""Instead of a name: every run of the store."""


def stored_fleets(store: Store) -> Iterator[Fleet]:
    """Fleets of a run with their sums as the store has them, none attached; those that attach at this moment are left
    out.
    """
    facts = store.versions()
    for lease, encoder_id, _ in store.leases():
        fleet = Fleet(lease, encoder_id)
        fleet.facts, fleet.status, fleet.open = facts.get(lease.model, {}), "finished", None
        if encoder_id in {known.encoder_id for known in fleet.facts.values()}:
            store.restore(fleet)
            yield fleet


def named_cells(store: Store, asked: Iterable[str]) -> list[str]:
    """Runs of a store by name, or ALL of them. Raises NotFound."""
    names, known = list(dict.fromkeys(asked)), store.runs()
    if ALL in names:
        return known
    for name in names:
        if name not in known:
            raise NotFound(f"cell: '{name}' is not in the store; wanted {ALL}, or of {', '.join(known) or 'none'}")
    return names


def listed_cells(store: Store) -> list[dict[str, Any]]:
    """All runs of a store, those first whose figures have changed last."""
    changed = store.last_snapshots()
    rows = [{"cell": name, "changed_at": changed.get(name)} for name in store.runs()]
    return sorted(rows, key=lambda row: -(row["changed_at"] or 0))


def stored_snapshots(store: Store, name: str) -> list[Snapshot]:
    """Of a run, by time. Raises NotFound."""
    if name not in (known := store.runs()):
        raise NotFound(f"cell: '{name}' is not in the store; wanted one of {', '.join(known) or 'none'}")
    return store.of(name).snapshots()


def stored_figures(
    fleets: Iterable[Fleet], model: str | None = None, *, by_version: bool = False
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Figures of fleets of any runs, as `Monitor.figures` has them since they attached first: reports that have model,
    encoder and conditions in common are averaged together. Without what the store does not have: delays, and reports a
    second.
    """
    monitor = Monitor()
    for fleet in fleets:
        monitor.fold(fleet)
    return monitor.figures(None, model, by_version=by_version)
