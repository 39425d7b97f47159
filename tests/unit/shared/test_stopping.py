"""Signals: the first asks, the second ends the process, whatever runs."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

HEAD = """
import signal, sys, threading, time
from shared import stopping
def forever():
    state = "ready"
    while True:
        try:
            print(state, flush=True)
            time.sleep(60)
        except KeyboardInterrupt:  # as code that takes its time to end
            state = "asked"
"""
DEAF = HEAD + "with stopping.stopping():\n    forever()\n"
LIMITED = HEAD + "stopping.STOP_S = 0.2\nwith stopping.stopping():\n    forever()\n"
OWN = HEAD + (
    "with stopping.stopping():\n"
    "    signal.signal(signal.SIGINT, lambda *_: print('asked', flush=True))\n"
    "    forever()\n"
)
POLITE = HEAD + (
    "stop = threading.Event()\n"
    "with stopping.stopping(stop.set):\n"
    "    print('ready', flush=True)\n"
    "    stop.wait()\n"
    "print('asked', flush=True)\n"
)
IMPORTING = HEAD + "with stopping.handled_by(signal.SIG_DFL):\n    forever()\n"


def ends(root: Path, code: str, *signals: signal.Signals) -> int:
    """Exit code of a process that gets these, each after it has taken notice of the one before."""
    with subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for number in signals[:-1]:
            process.send_signal(number)
            assert process.stdout.readline() == "asked\n"
        process.send_signal(signals[-1])
        return process.wait(60)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_at_once(root: Path, first: signal.Signals, second: signal.Signals) -> None:
    assert ends(root, DEAF, first, second) == -second


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_asks_and_the_process_ends_in_its_own_way(root: Path, number: signal.Signals) -> None:
    assert ends(root, POLITE, number) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asking_has_a_limit(root: Path, number: signal.Signals) -> None:
    assert ends(root, LIMITED, number) == -signal.SIGTERM


def test_who_handles_sigint_for_a_while_gets_sigterm_too(root: Path) -> None:
    assert ends(root, OWN, signal.SIGTERM, signal.SIGTERM) == -signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_imports_are_not_broken_off_halfway(root: Path, number: signal.Signals) -> None:
    assert ends(root, IMPORTING, number) == -number
