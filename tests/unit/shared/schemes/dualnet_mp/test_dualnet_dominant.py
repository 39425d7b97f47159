"""Which entries are dominant: the same at both ends, whatever the batch, the precision or the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from csiemu.training.schemes.dualnet_mp import choose_dominant
from shared.quantizers.float32 import Float32
from shared.schemes.dualnet_mp.magnitudes import DominantEntries, LargestEntries

FITTED = """
import torch
from shared.schemes.dualnet_mp.magnitudes import DominantEntries
draw = torch.Generator().manual_seed(0)
levels = torch.randint(0, 256, (500, 16), generator=draw)
chooser = DominantEntries(64, 16)
chooser.weight.copy_(torch.randint(-127, 128, (64, 16), generator=draw))
chooser.offset.copy_(torch.randint(-9999, 9999, (64,), generator=draw))
chosen = chooser(levels, 16)
"""


def test_they_are_found_from_the_codeword_alone() -> None:
    """Nearly all that matter."""
    draw = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 256, (500, 16), generator=draw)
    magnitudes = (levels.float() - 128) @ torch.rand(16, 64, generator=draw).pow(4)
    chooser = DominantEntries(64, 16)
    choose_dominant(chooser, levels, magnitudes)
    assert chooser.weight.dtype == torch.int8
    assert chooser.weight.abs().max() == 127
    best = magnitudes.topk(16, dim=1).indices
    shared = (chooser(levels, 16)[:, :, None] == best[:, None]).any(-1).float().mean()
    assert shared > 0.9


@pytest.mark.parametrize("batch", [1, 7, 128])
def test_they_are_the_same_in_any_batch(batch: int) -> None:
    names: dict[str, torch.Tensor] = {}
    exec(FITTED, {}, names)  # the code that the other process runs
    chooser, levels, chosen = names["chooser"], names["levels"], names["chosen"]
    assert torch.equal(torch.cat([chooser(part, 16) for part in levels.split(batch)]), chosen)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(chooser(levels, 16), chosen)


def test_they_are_the_same_in_another_process(root: Path) -> None:
    """With another number of threads, and another order of sums."""
    names: dict[str, torch.Tensor] = {}
    exec(FITTED, {}, names)
    script = f"{FITTED}\nprint(int((chosen * torch.arange(1, 17)).sum()), chosen[0].tolist())"
    environment = {"OMP_NUM_THREADS": "2", "PYTHONPATH": str(root), "PATH": ""}
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment, cwd=root
    )
    chosen = names["chosen"]
    assert found.stdout.strip() == f"{int((chosen * torch.arange(1, 17)).sum())} {chosen[0].tolist()}"


def test_scores_decide_and_ties_go_to_the_lower_index() -> None:
    chooser = DominantEntries(6, 2)
    assert chooser(torch.zeros(1, 2, dtype=torch.int64), 3).tolist() == [[0, 1, 2]]
    chooser.weight[4, 1] = 1
    chooser.offset[2] = 3
    assert chooser(torch.tensor([[0, 9]]), 3).tolist() == [[4, 2, 0]]


def test_perfect_magnitudes_are_their_own_scores() -> None:
    magnitudes = torch.rand(20, 50, generator=torch.Generator().manual_seed(0))
    chosen = LargestEntries()(Float32("magnitude", 50).to_levels(magnitudes), 10)
    assert torch.equal(chosen, magnitudes.topk(10, dim=1).indices)
