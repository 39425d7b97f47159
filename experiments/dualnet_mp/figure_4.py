"""Fig. 4 of the DualNet-MP paper: core layers and quantisers at 1/8, indoors and outdoors, in both branches.

python -m experiments.dualnet_mp.figure_4 [--share 0.01 ...]
"""

from __future__ import annotations

from typing import Any

from experiments.dualnet_mp.arms import SCENARIOS, equal_bits, magnitude, phase
from experiments.dualnet_mp.measures import FIGURES
from experiments.grid import Arm, main


def _arm(world: str, core: str, quantizer: str) -> Arm:
    branch: dict[str, Any] = {"magnitude_core": core, "magnitude_quantizer": quantizer}
    config = {**equal_bits("smape", 8), **branch, "core": core, "quantizer": quantizer}
    of_magnitudes = magnitude((), world, slow=True, **branch)  # all of them, to compare like with like
    return phase((world, core.upper(), quantizer.upper()), world, of_magnitudes, **config)


ARMS = [
    _arm(world, core, quantizer)
    for world in SCENARIOS
    for core in ("c-cnn", "cnn", "dnn")
    for quantizer in ("ssq", "blq")
]

if __name__ == "__main__":
    main("Figure 4: core layers and quantisers", ("scenario", "core", "quantizer"), ARMS, FIGURES)
