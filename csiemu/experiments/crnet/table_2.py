"""Table II of the CRNet paper: training epochs, indoor 1/4.

python -m csiemu.experiments.crnet.table_2 [--share 0.01 ...]
"""

from __future__ import annotations

from csiemu.experiments.crnet.arms import crnet
from csiemu.experiments.grid import main

EPOCHS = (100, 500, 1000, 2500, 5000)
PAPER = {"const": (-18.94, -17.55, -21.17, -22.94, -21.89), "cosine": (-21.33, -23.76, -25.17, -26.99, -27.31)}

ARMS = [
    crnet((f"CRNet-{recipe}",), "indoor", figure, recipe=recipe, epochs=epochs)
    for recipe, figures in PAPER.items()
    for epochs, figure in zip(EPOCHS, figures, strict=True)
]

if __name__ == "__main__":
    main("Table II: impact of training epochs", ("scheme",), ARMS)
