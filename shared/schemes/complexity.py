"""What a decoder or encoder costs: multiply-accumulates, and FLOPs as the CRNet paper counts them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared.schemes.base import Scheme
from shared.schemes.image_feedback import ImageScheme


@dataclass(frozen=True)
class Complexity:
    """Of one report.

    Attributes:
        macs: multiply-accumulates of convolutions and fully connected layers.
        paper_flops: the CRNet paper's count: MACs of convolutions, (2 in - 1) out of fully connected layers, 4 for each
            element that is batch-normalised, 1 for each that a leaky ReLU takes.
    """

    macs: int
    paper_flops: int

    def __add__(self, other: Complexity) -> Complexity:
        return Complexity(self.macs + other.macs, self.paper_flops + other.paper_flops)


def complexity(scheme: Scheme) -> dict[str, Complexity]:
    """Of `encoder` and `decoder`, as far as they are networks of such layers; empty for other schemes."""
    if not isinstance(scheme, ImageScheme):
        return {}
    rows, antennas = scheme.encoder.shape
    image, codeword = torch.zeros(1, antennas, 2, rows), torch.zeros(1, scheme.entries)
    return {"encoder": count(scheme.encoder.network, image), "decoder": count(scheme.decoder.network, codeword)}


@torch.no_grad()
def count(network: nn.Module, example: Tensor) -> Complexity:
    """Of a network, by one pass of an example."""
    found: list[Complexity] = []

    def note(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(_layer(module, output.numel()))

    layers = [module for module in network.modules() if not list(module.children())]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        network(example)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(found, Complexity(0, 0))


def _layer(module: nn.Module, elements: int) -> Complexity:
    """Of one layer whose output has `elements` elements."""
    if isinstance(module, nn.Conv2d):
        macs = elements * module.weight[0].numel()
        return Complexity(macs, macs)
    if isinstance(module, nn.Linear):
        return Complexity(module.in_features * module.out_features, (2 * module.in_features - 1) * module.out_features)
    if isinstance(module, nn.BatchNorm2d):
        return Complexity(0, 4 * elements)
    if isinstance(module, nn.LeakyReLU):
        return Complexity(0, elements)
    return Complexity(0, 0)
