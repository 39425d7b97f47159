"""Bars: on a terminal only, and gone when all is done."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from csiemu.evaluate import Settings, run
from csiemu.output import progress
from shared.checkpoints import CheckpointStore


@pytest.mark.parametrize("terminal", [True, False])
def test_an_evaluation_shows_how_far_it_is(
    terminal: bool, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    screen = Console(file=shown, force_terminal=terminal, width=160, markup=False)
    monkeypatch.setattr("csiemu.evaluate.console", lambda: screen)
    run(Settings(name="rnn", checkpoints=small_store.root, ues=1000, frames=2))
    assert ("rnn: frames" in shown.getvalue()) == terminal
    assert ("2000/2000" in shown.getvalue()) == terminal
    assert "card, all" in shown.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar(terminal: bool) -> None:
    shown = io.StringIO()
    with progress(Console(file=shown, force_terminal=terminal, width=100)) as bar:
        task = bar.add_task("again", total=None)
        bar.update(task, completed=3, total=4)
    assert ("3/4" in shown.getvalue()) == terminal
    assert bool(shown.getvalue()) == terminal
