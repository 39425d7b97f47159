"""Bars: on a terminal only, and gone when all is done."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from rich.console import Console

from csiemu import cli
from csiemu.output import error_text, progress, with_error
from shared.checkpoints import CheckpointStore
from shared.commands import run_command


class Seconds:
    """A clock for benchmarks: an hour has passed whenever it is looked at."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 3600
        return self.now


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(
    ("line", "bar", "counts", "result"),
    [
        ("evaluate rnn --ues=1000 --frames=2", "rnn: frames", "2000/2000", "card, all"),
        ("evaluate rnn --ues=1000 --renew-card", "rnn: frames", "1000/1000", "card, all"),
        (
            "train rnn --scenario=multipath-p2:antennas=16 --steps=1 --version=2 --evaluation-ues=600",
            "rnn: evaluation",
            "600/600",
            "all slots",
        ),
        ("dataset inspect x.mat --antennas=4 --first-rows=4", "x.mat: samples", "1500/1500", "effective_entries"),
        ("bench channels --presets=cost2100-indoor --samples=2 --rounds=2", "channels: meas", "6/6", "cost2100-indoor"),
    ],
)
def test_commands_show_how_far_they_are(
    line: str,
    bar: str,
    counts: str,
    result: str,
    terminal: bool,
    small_store: CheckpointStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With counts, on a terminal; elsewhere the result alone."""
    shown = io.StringIO()
    screen = Console(file=shown, force_terminal=terminal, width=160, markup=False)
    command = next(name for name in cli.COMMANDS if line.startswith(name))
    monkeypatch.setattr(f"{cli.COMMANDS[command][0]}.console", lambda: screen)
    monkeypatch.setattr("csiemu.benchmarks.time.process_time", Seconds())
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_store.root / "rnn", tmp_path / "store" / "rnn")
    scipy.io.savemat("x.mat", {"HT": np.random.default_rng(0).random((1500, 32))})
    stores = [] if command.startswith("dataset") else [f"--checkpoints={tmp_path / 'store'}"]
    arguments = [*line.removeprefix(command).split(), *stores]
    assert run_command(f"csiemu {command}", cli.COMMANDS[command][0], arguments) == 0
    assert (bar in shown.getvalue(), counts in shown.getvalue()) == (terminal, terminal)
    assert result in shown.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar(terminal: bool) -> None:
    shown = io.StringIO()
    with progress(Console(file=shown, force_terminal=terminal, width=100)) as bar:
        task = bar.add_task("again", total=None)
        bar.update(task, completed=3, total=4)
    assert ("3/4" in shown.getvalue()) == terminal
    assert bool(shown.getvalue()) == terminal


def test_figures_with_standard_errors() -> None:
    assert with_error(-7.456, 0.1234) == "-7.46 ± 0.12"
    assert with_error(-7.456, None, 1) == "-7.5 ± -"
    assert with_error(None, None) == "-"


@pytest.mark.parametrize(
    ("error", "digits", "text"),
    [
        (0.123, 2, "0.12"),
        (0.004, 2, "0.004"),
        (0.000032, 4, "0.00003"),
        (1e-8, 4, "0"),
        (0.0, 2, "0"),
        (None, 2, "-"),
        (float("nan"), 2, "-"),
    ],
)
def test_a_standard_error_shows_as_zero_only_if_it_is(error: float | None, digits: int, text: str) -> None:
    assert error_text(error, digits) == text
