"""Fig. 4 of the DualNet-MP paper: core layers of both branches, quantisers of the phases, at 1/8, indoors and outdoors.

Magnitudes keep SSQ: from principal components their branch explodes with BLQ at every rate tried, 3e-4 to 9e-6.

python -m csiemu.experiments.dualnet_mp.figure_4 [--share 0.01 ...]
"""

from __future__ import annotations

from typing import Any

from csiemu.experiments.dualnet_mp.arms import SCENARIOS, equal_bits, magnitude, phase
from csiemu.experiments.dualnet_mp.measures import FIGURES
from csiemu.experiments.grid import Arm, main
from shared.schemes.dualnet_mp import DualNetConfig


def _arm(world: str, core: str, quantizer: str) -> Arm:
    branch = _unusual(magnitude_core=core)
    config = {**equal_bits("smape", 8), **branch, **_unusual(core=core, quantizer=quantizer)}
    return phase((world, core.upper(), quantizer.upper()), world, magnitude((), world, **branch), **config)


def _unusual(**config: Any) -> dict[str, Any]:
    """What is not the default: the arm with all defaults is that of Fig. 3."""
    return {name: value for name, value in config.items() if value != getattr(DualNetConfig(), name)}


ARMS = [
    _arm(world, core, quantizer)
    for world in SCENARIOS
    for core in ("c-cnn", "cnn", "dnn")
    for quantizer in ("ssq", "blq")
]

if __name__ == "__main__":
    main("Figure 4: core layers and quantisers", ("scenario", "core", "quantizer"), ARMS, FIGURES)
