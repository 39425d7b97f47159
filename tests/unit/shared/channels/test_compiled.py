from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch

from shared.channels import compiled


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    compiled._loops.cache_clear()
    yield
    compiled._loops.cache_clear()


def test_a_cpu_has_loops_and_a_gpu_has_none() -> None:
    assert compiled.for_device(torch.device("cpu")) is not None
    assert compiled.for_device(torch.device("cuda")) is None


def test_a_machine_without_numba_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "shared.channels.compiled.loops", raising=False)
    monkeypatch.delattr(compiled, "loops", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    assert compiled.for_device(torch.device("cpu")) is None
