"""What a decoder or encoder costs: multiply-accumulates, and FLOPs as the CRNet paper counts them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared.schemes import Scheme
from shared.schemes.gmtc import Gmtc
from shared.schemes.image_feedback import ImageEstimator, ImageObserver
from shared.schemes.transform import Basis


@dataclass(frozen=True)
class Complexity:
    """Of one report.

    Attributes:
        macs: real multiply-accumulates of convolutions, fully connected layers and transforms.
        paper_flops: the CRNet paper's count: MACs of convolutions (and of transforms), (2 in - 1) out of fully
            connected layers, 4 for each element that is batch-normalised, 1 for each that a leaky ReLU takes.
    """

    macs: int
    paper_flops: int

    def __add__(self, other: Complexity) -> Complexity:
        return Complexity(self.macs + other.macs, self.paper_flops + other.paper_flops)


def complexity(scheme: Scheme) -> dict[str, Complexity]:
    """Of `encoder` and `decoder`, as far as they are networks of such layers; empty for other schemes."""
    encoder, decoder = scheme.encoder, scheme.decoder
    if not isinstance(scheme, ImageEstimator) or not isinstance(encoder, ImageObserver):
        return {}
    entries = math.prod(encoder.shape)
    fields = encoder.encode(torch.ones(1, 2 * entries))
    side = torch.zeros(1, entries if scheme.reads_uplink else 0)
    found = {
        "encoder": count(encoder, lambda: encoder.encode(torch.ones(1, 2 * entries))),
        "decoder": count(decoder, lambda: decoder.step(fields, side, decoder.initial_state(1))),
    }
    if isinstance(scheme, Gmtc):  # all images' directions, the kinds that are tried, and the UE's search for them
        config, (rows, columns) = scheme.config, encoder.shape
        directions, one = 4 * rows * columns * (rows + columns), 4 * config.subspace**2
        search = 4 * config.mixtures * config.subspace * config.ranked
        ends = {"encoder": directions + config.tried * one + search, "decoder": directions + one}
        found = {end: Complexity(macs, macs) for end, macs in ends.items()}
    return found


_COUNTED = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LeakyReLU, Basis)


@torch.no_grad()
def count(network: nn.Module, run: Callable[[], object]) -> Complexity:
    """Of the layers of a network that `run` passes an example through."""
    found: list[Complexity] = []

    def note(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(_layer(module, output.numel()))

    layers = [module for module in network.modules() if isinstance(module, _COUNTED)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        run()
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
    if isinstance(module, Basis):  # complex: four real ones each
        macs = 2 * module.vectors.numel()
        return Complexity(macs, macs)
    if isinstance(module, nn.BatchNorm2d):
        return Complexity(0, 4 * elements)
    return Complexity(0, elements)
