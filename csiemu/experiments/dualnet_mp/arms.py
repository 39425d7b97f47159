"""What the figures of the DualNet-MP paper train: a magnitude branch first, then a phase branch on it as it is."""

from __future__ import annotations

import re
from typing import Any

from csiemu.experiments.grid import Arm
from csiemu.training.recipes import DESIGNS, Design
from shared.schemes.dualnet_mp import DualNetConfig

SCENARIOS = {"indoor": "cost2100-indoor-5g1-5g3", "outdoor": "tr38901-umi-nlos"}

SCALES = {
    world: {name: getattr(DESIGNS[checkpoint].config, name) for name in ("scale_low_db", "scale_high_db")}
    for world, checkpoint in (("indoor", "dualnet_mp"), ("outdoor", "dualnet_mp-outdoor"))
}
"""Limits of the images' scale, as the shipped checkpoints have them."""

RATES = {"indoor": 3e-4, "outdoor": 1e-4}
"""Of magnitude branches, which explode when it is higher."""

DNN_RATE = 0.1
"""Times as much for fully connected ones."""

EPOCHS = 1000
"""Of each stage (section IV.A)."""


SHORT_RATE = 0.1
"""Times as much for codewords shorter than 1/4."""


def magnitude(labels: tuple[str, ...], world: str, *, epochs: int = EPOCHS, seed: int = 1, **config: Any) -> Arm:
    """A magnitude branch; `config` as for DualNetConfig."""
    design = Design("dualnet_mp", SCENARIOS[world], DualNetConfig(**SCALES[world], **config))
    rate = RATES[world] * (DNN_RATE if config.get("magnitude_core") == "dnn" else 1)
    rate *= SHORT_RATE if config.get("magnitude_compression", 4) > 4 else 1
    name = _name("magnitude", world, config, seed)
    return Arm(name, labels, design, "magnitude", epochs, None, seed=seed, changes={"rate": rate})


def phase(
    labels: tuple[str, ...],
    world: str,
    frozen_from: Arm | None,
    paper_db: float | None = None,
    *,
    epochs: int = EPOCHS,
    seed: int = 1,
    **config: Any,
) -> Arm:
    """A phase branch on a magnitude branch, or on perfect magnitudes."""
    design = Design("dualnet_mp", SCENARIOS[world], DualNetConfig(**SCALES[world], **config))
    name = _name("phase", world, config, seed)
    return Arm(name, labels, design, "phase", epochs, paper_db, frozen_from=frozen_from, seed=seed)


def _name(stage: str, world: str, config: dict[str, Any], seed: int) -> str:
    choices = [str(value) for _, value in sorted(config.items())]
    return re.sub(r"[^a-z0-9]+", "-", "-".join([stage, world, *choices, f"seed-{seed}"]))


def equal_bits(method: str, compression: int) -> dict[str, Any]:
    """Configuration of a phase method at 1.25 or 0.625 bits a phase entry, at 1/8 or 1/16 (section IV.A)."""
    ratio = {8: 0.25, 16: 0.125}[compression]
    bits_an_entry = 8 / compression + ratio
    match method:
        case "smape":
            return {"phase": method, "phase_compression": compression, "sign_ratio": ratio}
        case "mdpp":  # K = 10 at the same number of entries
            return {"phase": method, "phase_compression": compression, "phase_bits": 10}
        case "mse0":  # K = 8 at more entries
            return {"phase": method, "phase_compression": 8 / bits_an_entry, "phase_bits": 8}
        case _:
            allocation = {8: (0, 0, 0, 3, 7), 16: (0, 0, 0, 0, 5)}[compression]
            return {"phase": method, "mdpq_bits": allocation}
