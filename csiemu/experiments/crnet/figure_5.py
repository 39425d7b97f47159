"""Fig. 5 of the CRNet paper: learning curves of CsiNet, CRNet-const and CRNet-cosine, indoor 1/4.

python -m csiemu.experiments.crnet.figure_5 [--share 0.01 ...]
"""

from __future__ import annotations

from csiemu.experiments.crnet import table_1
from csiemu.experiments.grid import main

ARMS = [arm for arm in table_1.ARMS if arm.labels[:2] == ("1/4", "indoor")]

if __name__ == "__main__":
    main("Figure 5: learning curves", ("compression", "scenario", "scheme"), ARMS)
