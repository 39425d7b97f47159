"""Servers of others are measured, and end with the measurement."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from e2e_tools import wait_for

from csiemu import processes
from csiemu.benchmarks.peers import load
from shared.channels.streams import Samples, Split
from shared.checkpoints import CheckpointStore
from shared.errors import NotReady
from shared.link.encoding import encode_frames

UES = 8


def measure(store: CheckpointStore, peer: str, at_once: int, root: Path | None = None) -> tuple[float, float]:
    checkpoint = store.load("hyperrnn")
    samples = Samples(0, Split.EMULATE, torch.arange(UES), torch.zeros(UES, dtype=torch.int64))
    sent = encode_frames(checkpoint.scheme, checkpoint.scenario, samples).swapaxes(0, 1)
    return load.measure(root or store.root, checkpoint, sent, peer, at_once, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("peer", load.PEERS)
def test_nothing_is_left_of_a_server(peer: str, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(load.PEERS[peer])
    family: set[int] = set()

    def watched(pid: int) -> float:
        family.update(processes.family(pid))
        return processes.cpu_seconds(pid)

    monkeypatch.setattr(load, "cpu_seconds", watched)
    assert min(measure(small_store, peer, at_once=3)) > 0
    assert len(family) > 1

    def left(pid: int) -> bool:
        line = Path(f"/proc/{pid}/cmdline")  # a process that has ended has none
        return line.exists() and bool(line.read_bytes())

    wait_for(lambda: not any(map(left, family)))


def test_a_server_that_does_not_start(small_store: CheckpointStore, tmp_path: Path) -> None:
    pytest.importorskip("litserve")
    with pytest.raises(NotReady, match=r"^litserve: it does not start; its log ends:"):
        measure(small_store, "litserve", 1, root=tmp_path)
