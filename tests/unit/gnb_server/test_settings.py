"""How many decode workers a gNB has by default."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gnb_server import settings
from gnb_server.settings import MOST_WORKERS, Settings


@pytest.mark.parametrize(
    ("cores", "quota", "workers"),
    [
        (1, None, 0),
        (2, None, 0),
        (3, None, 2),
        (4, "max 100000", 3),
        (8, None, 7),
        (64, None, MOST_WORKERS),
        (64, "400000 100000", 3),
        (64, "250000 100000", 0),
        (64, "50000 100000", 0),
        (4, "1600000 100000", 3),
    ],
)
def test_a_core_is_left_to_the_gnb_itself(
    cores: int, quota: str | None, workers: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of those that the process may use, which may be fewer than the machine has, and of a container's share of them;
    of two, the other one is for the UEs.
    """
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(settings, "CPU_MAX", tmp_path / "cpu.max")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    monkeypatch.delenv("CSIEMU_GNB_WORKERS", raising=False)
    assert Settings().workers == workers
