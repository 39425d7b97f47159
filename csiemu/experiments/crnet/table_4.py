"""Table IV of the CRNet paper: head convolution of the decoder, 1/4.

python -m csiemu.experiments.crnet.table_4 [--share 0.01 ...]
"""

from __future__ import annotations

from csiemu.experiments.crnet.arms import FIGURES, crnet
from csiemu.experiments.grid import main
from shared.schemes.crnet import HEADS

PAPER = {"indoor": (-25.55, -24.9, -25.9, -26.99, -26.31), "outdoor": (-12.5, -11.3, -11.9, -12.71, -11.84)}

ARMS = [
    crnet((world, head), world, figure, head=head)
    for world, figures in PAPER.items()
    for head, figure in zip(HEADS, figures, strict=True)
]

if __name__ == "__main__":
    main("Table IV: head convolution", ("scenario", "head"), ARMS, FIGURES)
