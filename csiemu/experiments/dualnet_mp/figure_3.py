"""Fig. 3 of the DualNet-MP paper: phase methods at 1/8 and 1/16, indoors and outdoors, each at its own equal bits.

python -m csiemu.experiments.dualnet_mp.figure_3 [--share 0.01 ...]
"""

from __future__ import annotations

from csiemu.experiments.dualnet_mp.arms import SCENARIOS, equal_bits, magnitude, phase
from csiemu.experiments.dualnet_mp.measures import FIGURES
from csiemu.experiments.grid import main

PUBLISHED = {(8, "indoor"): -19.80, (8, "outdoor"): -17.51, (16, "indoor"): -17.47, (16, "outdoor"): -12.05}
"""Of the authors' code, in its own average of the error (`measures.authors_decibels`)."""

METHODS = [
    phase((f"1/{compression}", world, method.upper()), world, magnitude((), world), **equal_bits(method, compression))
    for world in SCENARIOS
    for compression in (8, 16)
    for method in ("smape", "mdpq", "mdpp", "mse0")
]

RELEASED = [
    phase(
        (f"1/{compression}", world, "as released"),
        world,
        None,
        figure,
        magnitude_quantizer="perfect",
        layers="released",
        phase_compression=compression / 2,
        sign_ratio=1.0,
    )
    for (compression, world), figure in PUBLISHED.items()
]
"""The released code's configuration: perfect magnitudes, all signs and twice the phase codes, 3.0 and 2.0 bits a phase
entry instead of the paper's 1.25 and 0.625."""

ARMS = METHODS + RELEASED

if __name__ == "__main__":
    main("Figure 3: phase methods", ("phase compression", "scenario", "method"), ARMS, FIGURES)
