"""CRNet's training step: samples per second of CPU time on one core, ours beside the structure of the public code.

The peer is written as the paper and its public code describe it: [N, 2, 32, 32] images in [0, 1] and convolutions as
torch has them, a DataLoader, Adam as it is; in bfloat16 by autocast, as ours. Both see the same images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain, repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from csiemu.benchmarks import OnProgress, medians, rate
from csiemu.training.complexity import count
from csiemu.training.recipes import Design
from csiemu.training.run import build
from csiemu.training.trainer import Recipe, Trainer
from shared.machine import machine
from shared.schemes.crnet import CrNetConfig

SCENARIO = "cost2100-indoor-csinet"
SLOPE = 0.3
PRECISIONS = ("fp32", "bf16")


def measure(batch: int, seconds: float, rounds: int, on_progress: OnProgress = lambda done, of: None) -> dict[str, Any]:
    """Medians over `rounds` interleaved rounds of `seconds` of CPU time each, at CRNet 1/4."""
    contenders: dict[tuple[str, str], Callable[[], float]] = {}
    for precision in PRECISIONS:
        recipe = Recipe(batch=batch, precision=precision, compiled=True, frames=10 * batch)
        scheme = build(Design("crnet", SCENARIO, CrNetConfig(compression=4)), seed=1)
        trainer = Trainer(scheme, recipe)
        images = trainer.fixed.truth[:, 0]
        largest = 2 * images.abs().amax((1, 2), keepdim=True)
        numbers = torch.view_as_real(images / largest).permute(0, 3, 2, 1) + 0.5
        peer = _public(numbers.contiguous(), batch, precision)
        contenders["ours", precision] = partial(rate, _ours(trainer), batch, seconds)
        contenders["public structure", precision] = partial(rate, peer, batch, seconds)
    rates, network = medians(contenders, rounds, on_progress), PublicCrNet()
    return {
        "settings": {"scenario": SCENARIO, "batch": batch, "seconds": seconds, "rounds": rounds, "threads": 1},
        "machine": machine(),
        "peer_macs": count(network, lambda: network(torch.zeros(1, 2, 32, 32))).macs,
        "precisions": {
            precision: {
                "ours_per_cpu_s": rates["ours", precision],
                "public_structure_per_cpu_s": rates["public structure", precision],
                "ratio": rates["ours", precision] / rates["public structure", precision],
            }
            for precision in PRECISIONS
        },
    }


def _ours(trainer: Trainer) -> Callable[[], object]:
    return lambda: trainer.run(trainer.step + 1)


def _public(images: Tensor, batch: int, precision: str) -> Callable[[], object]:
    """One step of a usual training loop."""
    model = PublicCrNet().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(TensorDataset(images), batch_size=batch, shuffle=True)
    criterion = nn.MSELoss()
    source = chain.from_iterable(repeat(loader))

    def step() -> None:
        (found,) = next(source)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            estimate = model(found)
        loss = criterion(estimate.float(), found)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # the public loop logs it

    return step


def _conv(inputs: int, outputs: int, size: tuple[int, int]) -> list[nn.Module]:
    padding = (size[0] // 2, size[1] // 2)
    return [nn.Conv2d(inputs, outputs, size, padding=padding, bias=False), nn.BatchNorm2d(outputs)]


def _path(channels: tuple[int, ...], *sizes: tuple[int, int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs, size in zip(channels, channels[1:], sizes, strict=False):
        layers += [*_conv(inputs, outputs, size), nn.LeakyReLU(SLOPE, inplace=True)]
    return nn.Sequential(*layers)


class _Paths(nn.Module):
    def __init__(self, first: nn.Sequential, second: nn.Sequential, width: int, identity: bool) -> None:
        super().__init__()
        self.first, self.second, self.identity = first, second, identity
        self.merge = nn.Sequential(*_conv(2 * width, 2, (1, 1)))
        self.activation = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, image: Tensor) -> Tensor:
        merged = self.merge(torch.cat([self.first(image), self.second(image)], dim=1))
        return self.activation(merged + image if self.identity else merged)


class PublicCrNet(nn.Module):
    """CRNet 1/4 in the layout of torch's convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _Paths(_path((2, 2, 2, 2), (3, 3), (1, 9), (9, 1)), _path((2, 2), (3, 3)), 2, False)
        self.down, self.up = nn.Linear(2048, 512), nn.Linear(512, 2048)
        blocks = [
            _Paths(_path((2, 7, 7, 7), (3, 3), (1, 9), (9, 1)), _path((2, 7, 7), (1, 5), (5, 1)), 7, True)
            for _ in range(2)
        ]
        self.decoder = nn.Sequential(_path((2, 2), (5, 5)), *blocks, nn.Sigmoid())

    def forward(self, image: Tensor) -> Tensor:
        """[N, 2, 32, 32] to the same."""
        codeword = self.down(self.encoder(image).flatten(1))
        return self.decoder(self.up(codeword).view_as(image))
