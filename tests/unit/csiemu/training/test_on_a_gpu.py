"""Training on a (simulated) GPU is that of the CPU."""

from __future__ import annotations

import pytest
import torch

from csiemu.training.trainer import Recipe, Trainer
from shared.channels.scenario import Scenario
from shared.schemes import scheme_class
from shared.schemes.layouts.blocks import BlockConv2d, BlockLayer
from shared.schemes.layouts.rows import RowLayer
from tests.unit.simulated_gpu import Gpu

IMAGES = "cost2100-indoor-csinet:antennas=8,first_rows=8"
PAIRS = "cost2100-indoor-5g1-5g3:antennas=8,first_rows=4,last_rows=4"
PILOTS = "multipath-p2:antennas=16"


@pytest.mark.parametrize("frames", [0, 12])
@pytest.mark.parametrize(
    ("name", "world", "config"),
    [
        ("hyperrnn", PILOTS, {}),
        ("rnn", PILOTS, {"uplink_reading": "none"}),
        ("hyperdnn", PILOTS, {}),
        ("dldnn", PILOTS, {"uplink_reading": "none"}),
        ("pilot_lmmse", PILOTS, {}),
        ("hyperrnn_angles", PILOTS, {}),
        ("hyperrnn_angles", PILOTS, {"report": "signs", "lmmse": False, "steering": True}),
        ("crnet", IMAGES, {}),
        ("crnet", IMAGES, {"quantised_training": True}),
        ("crnet_nested", IMAGES, {}),
        ("csinet", IMAGES, {}),
        ("dualnet_mp", PAIRS, {}),
        ("dualnet_mp", PAIRS, {"phase": "mdpq", "uplink": "estimated"}),
    ],
)
def test_steps(gpu: Gpu, name: str, world: str, config: dict[str, object], frames: int) -> None:
    kind, scenario = scheme_class(name), Scenario.parse(world)

    def losses(device: str) -> list[float]:
        torch.manual_seed(0)
        recipe = Recipe(steps=3, batch=4, warmup=0, rate=1e-4, frames=frames)
        trainer = Trainer(kind(scenario, kind.config_class(**config)), recipe, device=device)
        trainer.run(report_every=1)
        return [report["loss"] for report in trainer.history]

    wanted = losses("cpu")
    with gpu:
        ours = losses(gpu.device.type)
    assert ours == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(
    ("device", "precision", "rows", "blocks"),
    [("cpu", "fp32", False, True), ("cpu", "bf16", True, True), ("gpu", "fp32", True, False)],
)
def test_layouts_are_chosen_by_device_and_precision(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, device: str, precision: str, rows: bool, blocks: bool
) -> None:
    """Off the CPU, DualNet-MP's circular convolutions are the device's own: no kernel of blocks is ever built."""
    built: list[BlockConv2d] = []
    kernel = BlockConv2d._kernel
    monkeypatch.setattr(BlockConv2d, "_kernel", lambda layer, dtype: built.append(layer) or kernel(layer, dtype))
    recipe = Recipe(steps=1, batch=4, warmup=0, precision=precision)
    for name, world in (("dualnet_mp", PAIRS), ("crnet", IMAGES)):
        kind, scenario = scheme_class(name), Scenario.parse(world)
        with gpu:
            where = gpu.device.type if device == "gpu" else "cpu"
            trainer = Trainer(kind(scenario, kind.config_class()), recipe, device=where)
            trainer.run()
        modules = list(trainer.scheme.modules())
        assert {module.in_rows for module in modules if isinstance(module, RowLayer)} <= {rows}
        assert {module.in_blocks for module in modules if isinstance(module, BlockLayer)} <= {blocks}
    assert bool(built) == blocks
