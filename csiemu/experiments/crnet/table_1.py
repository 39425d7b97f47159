"""Table I of the CRNet paper: CsiNet, CRNet-const and CRNet-cosine, 1/4 to 1/64, indoor and outdoor.

python -m csiemu.experiments.crnet.table_1 [--share 0.01 ...]
"""

from __future__ import annotations

from csiemu.experiments.crnet.arms import FIGURES, SCENARIOS, crnet, csinet
from csiemu.experiments.grid import main

PAPER = {
    4: ((-17.36, -21.17, -26.99), (-8.75, -10.42, -12.71)),
    8: ((-12.70, -13.79, -16.01), (-7.61, -7.67, -8.04)),
    16: ((-8.65, -10.29, -11.35), (-4.51, -5.09, -5.44)),
    32: ((-6.24, -8.58, -8.93), (-2.81, -3.19, -3.51)),
    64: ((-5.84, -6.14, -6.49), (-1.93, -2.13, -2.22)),
}
"""NMSE [dB] by compression; (CsiNet, CRNet-const, CRNet-cosine) indoor, then outdoor."""

ARMS = [
    arm
    for compression, figures in PAPER.items()
    for world, (plain, const, cosine) in zip(SCENARIOS, figures, strict=True)
    for arm in (
        csinet((f"1/{compression}", world, "CsiNet"), world, compression, plain),
        crnet((f"1/{compression}", world, "CRNet-const"), world, const, compression=compression, recipe="const"),
        crnet((f"1/{compression}", world, "CRNet-cosine"), world, cosine, compression=compression),
    )
]

if __name__ == "__main__":
    main("Table I: NMSE of CsiNet and CRNet", ("compression", "scenario", "scheme"), ARMS, FIGURES)
