"""DualNet-MP's training step, its second stage, with the device's own circular convolutions and with block layers."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch

from csiemu.benchmarks import OnProgress, medians
from csiemu.training.recipes import RECIPES, design
from csiemu.training.run import build
from csiemu.training.trainer import Trainer
from shared.errors import InvalidInput
from shared.machine import machine
from shared.schemes.layouts import choose_layout

DESIGN = "dualnet_mp"

WARM_UP = 3
"""Steps before those that are timed, after a change of layout."""


def measure(device: str, batch: int, steps: int, rounds: int, on_progress: OnProgress) -> dict[str, Any]:
    """Milliseconds a step, medians of interleaved rounds, by layout.

    Args:
        device: `cpu`, or `cuda`. batch: images a step. steps: of a round.

    Raises:
        InvalidInput: the device is not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidInput("device: cuda is not there; wanted cpu")
    recipe = dataclasses.replace(RECIPES["phase"], batch=batch, frames=3 * batch, start="random")
    trainer = Trainer(build(design(DESIGN), recipe.seed), recipe, device=device)

    def step_ms(blocks: bool) -> float:
        choose_layout(trainer.scheme, rows=True, blocks=blocks)
        trainer.run(trainer.step + WARM_UP)
        _wait(device)
        begun = time.perf_counter()
        trainer.run(trainer.step + steps)
        _wait(device)
        return 1e3 * (time.perf_counter() - begun) / steps

    found = medians({"own": lambda: step_ms(False), "blocks": lambda: step_ms(True)}, rounds, on_progress)
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    settings = {"design": DESIGN, "batch": batch, "device": name, "precision": recipe.precision, **machine()}
    return {"settings": settings, "step_ms": {layout: float(value) for layout, value in found.items()}}


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
