"""Table III of the CRNet paper: slope of the leaky ReLUs, 1/4.

python -m csiemu.experiments.crnet.table_3 [--share 0.01 ...]
"""

from __future__ import annotations

from csiemu.experiments.crnet.arms import crnet
from csiemu.experiments.grid import main

SLOPES = (0.01, 0.05, 0.1, 0.3, 0.5)
PAPER = {"indoor": (-14.79, -23.06, -23.45, -26.99, -25.39), "outdoor": (-8.99, -10.74, -10.63, -12.71, -12.54)}

ARMS = [
    crnet((world, f"{slope:g}"), world, figure, slope=slope)
    for world, figures in PAPER.items()
    for slope, figure in zip(SLOPES, figures, strict=True)
]

if __name__ == "__main__":
    main("Table III: negative slope of the leaky ReLUs", ("scenario", "slope"), ARMS)
