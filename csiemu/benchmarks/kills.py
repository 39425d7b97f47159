"""Something is killed at a random moment, round after round: a decode worker, the gNB, the store's server or a UE
process. Each time all UEs are to be served again without any help, and in the end every report is to be counted once.

A process is started again after its death, as whatever supervises it would; PostgreSQL after a while. In every third
round or so a second thing is killed before the first has recovered.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from csiemu.benchmarks import OnProgress
from csiemu.benchmarks.postgres import Postgres, programs
from csiemu.benchmarks.restarts import Restarts, Tally
from csiemu.verify import recoded
from shared.checkpoints import CheckpointStore
from shared.errors import NotReady
from shared.machine import machine

FLEETS, WORKERS = 2, 2
"""UE processes, and decode workers of the gNB."""

UES, ROUNDS = 256, 50
"""By default."""

RECORD_EVERY = 10
"""Every how many frames reports are recorded, to be checked."""

WITHIN_S, AWAY_S = 1.0, 3.0
"""Something is killed so long after all are served (or something else was killed), at most; and so long PostgreSQL
stays away, at most."""

FIRST, START_S = 4, 4.0
"""Before the first round so many are killed, so long after each other at most: UEs start and attach meanwhile."""

PATIENCE_S = 120.0
"""How long it may take until all UEs are served again."""


def measure(
    root: Path, name: str, ues: int, rounds: int, seed: int, on_progress: OnProgress = lambda done, of: None
) -> dict[str, Any]:
    """Kill, wait, and check.

    Args:
        root: folder of checkpoints. name: of the one that is used.
        ues: in all. rounds: of one kill or two. seed: of the world, of the victims and of the moments.

    Returns:
        Settings; the store's kind; how often each victim was killed, and the longest time until all UEs were served
        again after it, as the last one of its round [s]; reports counted, lost, counted twice and misdecoded.

    Raises:
        NotReady: UEs were not served again. CsiError: a process ended by itself.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = None
        if binaries := programs():
            own = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            postgres = stack.enter_context(Postgres(binaries, own))
        url = f"sqlite:///{folder / 'gnb.sqlite'}" if postgres is None else postgres.url
        options = {"workers": WORKERS, "record": folder / "recorded", "record_every": RECORD_EVERY}
        run = Restarts(folder, root, name, ues, FLEETS, seed, store=url, **options)
        stack.callback(run.close)
        killed, longest = _rounds(run, postgres, ues, rounds, random.Random(seed), on_progress)
        codes = run.end_ues()
        run.close()
        tally = Tally.of(url)
        wrong, checked = recoded(CheckpointStore(root), sorted((folder / "recorded").glob("*.npz")))
    return {
        "settings": {"checkpoint": name, "ues": ues, "rounds": rounds, "seed": seed, **machine()},
        "store": "SQLite" if postgres is None else "PostgreSQL",
        "kills": {victim: {"times": killed[victim], "longest_s": longest.get(victim)} for victim in sorted(killed)},
        **dataclasses.asdict(tally),
        "misdecoded": wrong,
        "checked": checked,
        "ues_ended_with": codes,
    }


def _rounds(
    run: Restarts, postgres: Postgres | None, ues: int, rounds: int, chance: random.Random, on_progress: OnProgress
) -> tuple[Counter[str], dict[str, float]]:
    """How often each victim was killed, and the longest time until all UEs were served again [s]."""
    victims: dict[str, Callable[[], None]] = {
        "decode worker": lambda: os.kill(chance.choice(run.gnb.workers()), signal.SIGKILL),
        "gNB": run.kill_gnb,
        "UE process": lambda: chance.choice(run.fleets).kill(),
    }
    if postgres is not None:
        victims["PostgreSQL"] = lambda: _kill(postgres, chance)
    killed: Counter[str] = Counter()
    longest: dict[str, float] = {}
    for victim in chance.choices(sorted(victims), k=FIRST):
        time.sleep(chance.uniform(0, START_S))
        victims[victim]()
        killed[victim] += 1
    _served(run, ues, "the beginning")
    for number in range(rounds):
        chosen = chance.choices(sorted(victims), k=chance.choice((1, 1, 2)))
        for victim in chosen:
            time.sleep(chance.uniform(0, WITHIN_S))
            begun = time.monotonic()
            victims[victim]()
            killed[victim] += 1
        what = " and then ".join(chosen)
        _served(run, ues, f"round {number + 1}: {what} killed")
        longest[chosen[-1]] = max(longest.get(chosen[-1], 0.0), time.monotonic() - begun)
        on_progress(number + 1, rounds)
    return killed, longest


def _kill(postgres: Postgres, chance: random.Random) -> None:
    postgres.stop(chance.choice((signal.SIGKILL, signal.SIGQUIT)))
    time.sleep(chance.uniform(0, AWAY_S))
    postgres.start()


def _served(run: Restarts, ues: int, since: str) -> None:
    """Wait until each UE has got further than what its process had on the way when it was killed. Raises NotReady."""
    deadline, before = time.monotonic() + PATIENCE_S, None
    while True:
        run.check_alive()
        with contextlib.suppress(NotReady):
            reached = run.reached()
            before = reached if before is None else before
            if all(reached.get(ue, 0) > before.get(ue, 0) + run.most_on_the_way for ue in range(ues)):
                return
        if time.monotonic() > deadline:
            raise NotReady(f"gnb: some UEs are not served again {PATIENCE_S:g} s after {since}")
        time.sleep(0.1)
