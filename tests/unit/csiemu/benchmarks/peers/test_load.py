"""Servers that are asked for, before any of them is started."""

from __future__ import annotations

import pytest

from csiemu.benchmarks.peers import load
from shared.errors import InvalidInput


def test_an_unknown_server() -> None:
    with pytest.raises(InvalidInput, match="peers: 'triton' is none of ray-serve, litserve"):
        load.check(["litserve", "triton"])


def test_a_server_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"litserve is not installed; pip install .*\[peers\]"):
        load.check(["litserve"])
