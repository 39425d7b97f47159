"""Fig. 4 of the HyperRNN paper: NMSE at t = 8 against the feedback bits, by the uplink pilots.

python -m csiemu.experiments.hyperrnn.figure_4 --device cuda --precision bf16 --at-once 6
"""

from __future__ import annotations

from csiemu.experiments.hyperrnn import curves

SCENARIO = "multipath-p8"
BITS = (5, 10, 15, 20, 25, 30)
LENGTHS = (1, 2, 4, 8)
"""L_ul."""

FIGURE = curves.Figure(
    "figure_4",
    "HyperRNN paper, Fig. 4: M = 64, P = 8, L_dl = 2, rho = 0, 10 dB",
    "feedback bits B",
    tuple(
        point
        for bits in BITS
        for made in (
            *(curves.hyperrnn(SCENARIO, bits, length, bits) for length in LENGTHS),
            curves.dldnn(SCENARIO, bits, bits),
            curves.soft_hyperrnn(SCENARIO, bits, LENGTHS[-1], bits),
            curves.references(SCENARIO, bits, LENGTHS[-1], bits),
        )
        for point in made
    ),
)


if __name__ == "__main__":
    curves.main(FIGURE)
