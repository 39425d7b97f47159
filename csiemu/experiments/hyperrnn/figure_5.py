"""Fig. 5 of the HyperRNN paper: NMSE at t = 8 against the number of paths.

python -m csiemu.experiments.hyperrnn.figure_5 --device cuda --precision bf16 --at-once 6
"""

from __future__ import annotations

from csiemu.experiments.hyperrnn import curves

PATHS = (2, 4, 8, 16)
BITS = 20
LENGTH = 2
"""L_ul = L_dl."""


def _world(paths: int) -> str:
    return f"multipath-p2:paths={paths}"


FIGURE = curves.Figure(
    "figure_5",
    "HyperRNN paper, Fig. 5: M = 64, B = 20, L_ul = L_dl = 2, rho = 0.99, 10 dB",
    "paths P",
    tuple(
        point
        for paths in PATHS
        for made in (
            curves.hyperrnn(_world(paths), BITS, LENGTH, paths),
            curves.dldnn(_world(paths), BITS, paths),
            curves.soft_hyperrnn(_world(paths), BITS, LENGTH, paths),
            curves.references(_world(paths), BITS, LENGTH, paths),
        )
        for point in made
    ),
)


if __name__ == "__main__":
    curves.main(FIGURE)
