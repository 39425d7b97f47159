"""What the tables of the CRNet paper train: CsiNet, CRNet-const and CRNet-cosine, float codewords."""

from __future__ import annotations

from csiemu.experiments.grid import Arm, Figures
from csiemu.training.recipes import Design
from shared.schemes.crnet import CrNetConfig
from shared.schemes.image_feedback import ImageConfig

SCENARIOS = {"indoor": "cost2100-indoor-csinet", "outdoor": "cost2100-outdoor-csinet"}

EPOCHS = {"const": 1000, "cosine": 2500}
"""Of the two training schemes (section IV.A)."""

FIGURES: Figures = {
    "FLOPs, the paper's count (millions)": lambda checkpoint: (
        f"{sum(part['paper_flops'] for part in checkpoint.card['complexity'].values()) / 1e6:.2f}"
    )
}


def csinet(labels: tuple[str, ...], world: str, compression: int, paper_db: float | None) -> Arm:
    """CsiNet, trained at a constant rate."""
    design = Design("csinet", SCENARIOS[world], ImageConfig(compression=compression))
    return Arm(f"csinet-{world}-{compression}", labels, design, "const", EPOCHS["const"], paper_db)


def crnet(
    labels: tuple[str, ...],
    world: str,
    paper_db: float | None,
    *,
    compression: int = 4,
    recipe: str = "cosine",
    epochs: int | None = None,
    slope: float = 0.3,
    head: str = "5x5",
) -> Arm:
    """CRNet; `epochs` as the recipe's where they are not given."""
    design = Design("crnet", SCENARIOS[world], CrNetConfig(compression=compression, slope=slope, head=head))
    epochs = epochs or EPOCHS[recipe]
    slope_name = f"{slope:g}".replace(".", "")
    name = f"crnet-{world}-{compression}-{recipe}-{epochs}-slope-{slope_name}-head-{head}"
    return Arm(name, labels, design, recipe, epochs, paper_db)
