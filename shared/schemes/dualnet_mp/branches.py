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

from shared.link.payload import Field
from shared.quantizers.binary import BinaryLevels
from shared.quantizers.sum_of_sigmoids import SumOfSigmoids
from shared.schemes.block_layers import BlockConv2d, FromBlocks, Padding, ToBlocks, block_of

CHANNELS: dict[str, tuple[int, ...]] = {"paper": (16, 8, 4), "released": (16, 8, 4, 2)}
"""Channels of a branch's hidden layers: the paper's, and the released code's."""

WIDTH = 1140
"""Of the hidden layers of a `dnn`, two in an encoder and one behind a decoder's first layer: together they have the
11.6M parameters of the paper (section IV.C)."""

SPREAD = 0.25
"""Standard deviation of the entries of a linear start's codeword: tanh is all but linear there."""

Shape = tuple[int, int, int]
Activation = Callable[[], nn.Module]
Quantizer = SumOfSigmoids | BinaryLevels


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
        shape: of its image, (1, Q, M).
        entries: of its codeword.
        quantizer: `ssq` or `blq`. bits: K of an `ssq` entry.
        core: `c-cnn`, `cnn` or `dnn`. layers: hidden channels of convolutions, a key of `CHANNELS`.
        activation: after each layer.
    """

    shape: Shape
    entries: int
    quantizer: str
    bits: int
    core: str
    layers: str
    activation: Activation

    def field(self, name: str) -> Field:
        """Payload field of its codeword."""
        return Field(name, self.entries, 1 if self.quantizer == "blq" else self.bits)

    def make_quantizer(self) -> Quantizer:
        return BinaryLevels() if self.quantizer == "blq" else SumOfSigmoids(self.entries, self.bits)

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
        self.fc = nn.Linear(branch.entries, size)
        if branch.core == "dnn":
            inner = (nn.Linear((1 + beside) * size, WIDTH), branch.activation())
            outer = (nn.Linear(WIDTH, size), branch.activation(), nn.Unflatten(1, branch.shape))
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

    @torch.no_grad()
    def hand_on(self) -> None:
        """Begin as the identity."""
        for block in self.blocks:
            last = [module for module in block.modules() if isinstance(module, nn.Conv2d)][-1]
            nn.init.zeros_(last.weight)


@torch.no_grad()
def begin_linear(
    encoder: BranchEncoder,
    decoder: BranchDecoder,
    image: Tensor,
    importance: Tensor,
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> None:
    """Core layers hand on their first channel; the fully connected ones project on principal components, by regression
    on what is really quantised. Training from random weights does not find such a projection in any sensible time.

    Args:
        image: [N, 1, Q, M], of many frames.
        importance: [Q M], of an entry's squared error.
        gains: of the encoder's first layer, of what the decoder's layers are given, and of their last layer: they keep
            tanh where it is nearly linear.
    """
    first, given, last = gains
    _hand_on(encoder.layers, math.prod(decoder.shape), first, 1.0)
    _hand_on(decoder.layers, math.prod(decoder.shape), 1.0, last)
    wanted = given * image.flatten(1)
    center = wanted.mean(0)
    weighted = (wanted - center) * importance.sqrt()
    values, vectors = torch.linalg.eigh((weighted.mT @ weighted).double() / len(weighted))
    entries, copies = encoder.fc.out_features, 8 if isinstance(encoder.quantizer, BinaryLevels) else 1
    chosen = values.argsort(descending=True)[: entries // copies]
    components = weighted @ vectors[:, chosen].float() / values[chosen].sqrt().float().clamp(min=1e-12)
    # of a binary quantiser each component gets several entries, their thresholds at quantiles of a normal distribution
    quantiles = torch.special.ndtri((torch.arange(copies) + 0.5) / copies)
    thresholds = quantiles if copies > 1 else torch.zeros(1)
    scores = SPREAD * (components[:, :, None] - thresholds.to(components)).flatten(1)
    missing = entries - scores.shape[1]
    scores = torch.cat([scores, scores[:, :missing]], dim=1)
    features = torch.cat([encoder.layers(part).flatten(1) for part in image.split(256)])
    _regress(encoder.fc, features, scores)
    codeword = encoder.quantizer.from_levels(encoder.quantizer.to_levels(encoder.fc(features)))
    _regress(decoder.fc, codeword, wanted)


def _regress(layer: nn.Linear, inputs: Tensor, outputs: Tensor) -> None:
    """Set a layer to the least-squares map of inputs [N, in] to outputs [N, out]."""
    mean, target = inputs.mean(0), outputs.mean(0)
    centered = (inputs - mean).double()
    gram = centered.mT @ centered
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    weight = torch.linalg.solve(gram + ridge, centered.mT @ (outputs - target).double()).mT.float()
    layer.weight.copy_(weight)
    layer.bias.copy_(target - weight @ mean)


def _hand_on(layers: nn.Module, size: int, first: float, last: float) -> None:
    """Make a chain of layers pass on its first channel. The other channels keep their weights, but for the last layer:
    they say nothing yet, and learn.
    """
    chain = [module for module in layers.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer, gain in zip(chain, [first] + [1.0] * (len(chain) - 2) + [last], strict=True):
        weight, bias = layer.weight, layer.bias
        assert bias is not None
        if isinstance(layer, nn.Conv2d):
            (weight if layer is chain[-1] else weight[:1]).zero_()
            weight[0, 0, layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = gain
            bias[:1].zero_()
        else:
            nn.init.eye_(weight)
            weight.mul_(gain)
            bias.zero_()
