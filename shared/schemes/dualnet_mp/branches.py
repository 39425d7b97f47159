"""The networks of a branch, of a choice of core layers: image to codeword at the UE, codeword to image at the gNB.

Images are [N, channel, Q, M], delay by angle.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from shared.quantizers.base import Quantizer
from shared.quantizers.sign import BinaryLevels
from shared.quantizers.sum_of_sigmoids import SumOfSigmoids
from shared.schemes.layouts.blocks import BlockConv2d, FromBlocks, Padding, ToBlocks, block_of
from shared.schemes.linear import Linear

CHANNELS: dict[str, tuple[int, ...]] = {"paper": (16, 8, 4), "released": (16, 8, 4, 2)}
"""Channels of a branch's hidden layers: the paper's, and the released code's."""

WIDTH = 1140
"""Of the hidden layers of a `dnn`, two in an encoder and one behind a decoder's first layer: together they have the
11.6M parameters of the paper (section IV.C)."""

Shape = tuple[int, int, int]
Activation = Callable[[], nn.Module]


def leaky() -> nn.Module:
    """Leaky ReLU, of magnitudes and of the combining network."""
    return nn.LeakyReLU(0.3)


def convolutions(
    channels: tuple[int, ...], kernel: int, circular: bool, activation: Activation, shape: Shape
) -> nn.Sequential:
    """[N, channels[0], Q, M] to [N, channels[-1], Q, M], the activation after each layer."""
    block = block_of(*shape[1:])
    layers: list[nn.Module] = [ToBlocks(block)]
    for inputs, outputs in pairwise(channels):
        padding: Padding = "circular" if circular else "zeros"
        layers += [BlockConv2d(inputs, outputs, (kernel, kernel), block, padding_mode=padding), activation()]
    return nn.Sequential(*layers, FromBlocks(block))


@dataclass(frozen=True)
class Branch:
    """What both ends of a branch have in common.

    Attributes:
        name: of the payload field of its codeword.
        shape: of its image, (1, Q, M).
        entries: of its codeword.
        quantizer: `ssq` or `blq`. bits: K of an `ssq` entry.
        core: `c-cnn`, `cnn` or `dnn`. layers: hidden channels of convolutions, a key of `CHANNELS`.
        activation: after each layer.
    """

    name: str
    shape: Shape
    entries: int
    quantizer: str
    bits: int
    core: str
    layers: str
    activation: Activation

    def make_quantizer(self) -> Quantizer:
        if self.quantizer == "blq":
            return BinaryLevels(self.name, self.entries)
        return SumOfSigmoids(self.name, self.entries, self.bits)

    def make_convolutions(self, inputs: int, kernel: int) -> nn.Sequential:
        """From `inputs` images to one."""
        channels = (inputs, *CHANNELS[self.layers], 1)
        return convolutions(channels, kernel, self.core == "c-cnn", self.activation, self.shape)


class BranchEncoder(nn.Module):
    """Core layers, a fully connected layer, a quantiser."""

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        size = math.prod(branch.shape)
        if branch.core == "dnn":
            hidden = (nn.Linear(size, WIDTH), branch.activation(), nn.Linear(WIDTH, WIDTH), branch.activation())
            self.layers = nn.Sequential(nn.Flatten(), *hidden)
        else:
            self.layers = branch.make_convolutions(1, 7)
        self.fc = nn.Linear(WIDTH if branch.core == "dnn" else size, branch.entries)
        self.quantizer = branch.make_quantizer()

    def codeword(self, image: Tensor) -> Tensor:
        """[N, 1, Q, M] to [N, entries] before quantisation."""
        return self.fc(self.layers(image).flatten(1)).float()


class BranchDecoder(nn.Module):
    """A fully connected layer, then core layers that see other images beside it."""

    def __init__(self, branch: Branch, *, kernel: int, beside: int = 0) -> None:
        super().__init__()
        self.shape, size = branch.shape, math.prod(branch.shape)
        self.quantizer = branch.make_quantizer()
        self.fc = Linear(branch.entries, size)
        if branch.core == "dnn":
            inner = (Linear((1 + beside) * size, WIDTH), branch.activation())
            outer = (Linear(WIDTH, size), branch.activation(), nn.Unflatten(1, branch.shape))
            self.layers = nn.Sequential(nn.Flatten(), *inner, *outer)
        else:
            self.layers = branch.make_convolutions(1 + beside, kernel)

    def image(self, codeword: Tensor, beside: Tensor | None = None) -> Tensor:
        """Dequantised codeword [N, entries] and images [N, beside, Q, M] to [N, 1, Q, M]."""
        own = self.fc(codeword).unflatten(1, self.shape)
        if beside is not None:
            own = torch.cat([own, beside.to(own.dtype)], dim=1)
        return self.layers(own).float()


class Combiner(nn.Module):
    """Residual blocks of four convolutions that refine real and imaginary part (section III.A)."""

    def __init__(self, blocks: int, channels: tuple[int, ...], circular: bool, shape: Shape) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(convolutions((2, *channels, 2), 5, circular, leaky, shape) for _ in range(blocks))

    def forward(self, image: Tensor) -> Tensor:
        """[N, 2, Q, M] to the same."""
        for block in self.blocks:
            image = image + block(image)
        return image
