"""Figures of other cells that keep their results in the same store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from gnb_server.app import service
from gnb_server.handlers import Handlers
from gnb_server.settings import Settings
from shared.checkpoints import CheckpointStore
from shared.errors import InvalidInput, NotFound
from tests.unit.gnb_server.sending import UES, Ues


@pytest.fixture
def cells(settings: Settings, small_store: CheckpointStore) -> Iterator[tuple[Handlers, Handlers]]:
    """Two gNBs on one store: a with 2 reports a UE by hyperrnn, b with 3 by hyperrnn and 1 by rnn, of other UEs."""
    with ExitStack() as stack:
        a, b = (stack.enter_context(service(settings.model_copy(update={"run": run}))) for run in ("a", "b"))
        Ues(a, small_store).open().send(*range(2))
        Ues(b, small_store, ue_base=100).open().send(*range(3))
        Ues(b, small_store, "rnn").open().send(0)
        for handlers in (a, b):
            handlers._serving.run(lambda: None)
        yield a, b


def reports(handlers: Handlers, *names: str, model: str | None = None) -> dict[str, int]:
    answer = handlers.nmse(model, cells=names)
    assert answer["overall"]["reports"] == sum(row["reports"] for row in answer["schemes"])
    return {row["scheme"]: row["reports"] for row in answer["schemes"]}


def test_a_gnb_answers_for_the_cells_of_its_store(cells: tuple[Handlers, Handlers]) -> None:
    of_a, of_b = {"hyperrnn": 2 * UES}, {"hyperrnn": 3 * UES, "rnn": UES}
    for handlers in cells:
        assert reports(handlers, "a") == of_a
        assert reports(handlers, "b") == of_b
        assert reports(handlers, "b", model="rnn") == {"rnn": UES}
        assert reports(handlers, "all") == reports(handlers, "b", "a", "b") == {"hyperrnn": 5 * UES, "rnn": UES}


def test_figures_are_averaged_over_cells(cells: tuple[Handlers, Handlers]) -> None:
    """As one gNB would have it: by sums, not by means."""
    a, b = cells
    one, other, both = (a.nmse("hyperrnn", cells=names)["schemes"][0] for names in (["a"], ["b"], ["a", "b"]))
    ratios = [row["reports"] * 10 ** (row["nmse_db"] / 10) for row in (one, other, both)]
    assert ratios[2] == pytest.approx(ratios[0] + ratios[1])
    assert both["ues"] == 2 * UES
    assert other["nmse_db"] == pytest.approx(b.nmse("hyperrnn")["schemes"][0]["nmse_db"])


def test_who_answers_and_whose_figures_they_are(cells: tuple[Handlers, Handlers]) -> None:
    a, _ = cells
    assert (a.nmse()["cell"], a.nmse()["cells"]) == ("a", ["a"])
    answer = a.nmse(cells=("all",))
    assert (answer["cell"], answer["cells"]) == ("a", ["a", "b"])


def test_how_another_cell_went(cells: tuple[Handlers, Handlers]) -> None:
    a, b = cells
    b._store.keep_snapshot(1000.0, [])
    b._store.keep_snapshot(1001.0, b._monitor.snapshot())
    answer = a.history(60.0, cell="b")
    assert (answer["cell"], answer["times"]) == ("b", [1001.0])
    assert {row["scheme"]: row["reports"] for row in answer["series"]} == {"hyperrnn": [3 * UES], "rnn": [UES]}
    assert a.history(60.0)["cell"] == "a"
    for name in ("c", "all"):
        with pytest.raises(NotFound, match=f"cell: '{name}' is not in the store; wanted one of a, b"):
            a.history(60.0, cell=name)


def test_cells_are_listed_by_when_they_changed(cells: tuple[Handlers, Handlers]) -> None:
    a, b = cells
    assert b.cells() == {"cell": "b", "cells": [{"cell": name, "changed_at": None} for name in ("a", "b")]}
    a._store.keep_snapshot(1000.0, [])
    for at in (1001.0, 999.0):
        b._store.keep_snapshot(at, [])
    assert a.cells()["cells"] == [{"cell": "b", "changed_at": 1001.0}, {"cell": "a", "changed_at": 1000.0}]


def test_what_is_not_stored_is_refused(cells: tuple[Handlers, Handlers]) -> None:
    a, _ = cells
    with pytest.raises(NotFound, match="cell: 'c' is not in the store; wanted all, or of a, b"):
        a.nmse(cells=("a", "c"))
    with pytest.raises(InvalidInput, match=r"window: 5.0, and cell"):
        a.nmse(window_s=5.0, cells=("b",))
    with pytest.raises(InvalidInput, match="ue: 0, and cell"):
        a.nmse(ue=0, cells=("b",))
