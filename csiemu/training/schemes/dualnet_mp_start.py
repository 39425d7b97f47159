"""Weights with which DualNet-MP's branches begin as linear maps to principal components, and its choice of entries."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from shared.quantizers.binary import BinaryLevels
from shared.schemes.dualnet_mp.branches import BranchDecoder, BranchEncoder, Combiner
from shared.schemes.dualnet_mp.dominant import DominantEntries

SPREAD = 0.25
"""Standard deviation of the entries of a start's codeword: tanh is all but linear there."""

TANH_GAINS = (0.5, 0.35, 3.0)
"""Of a start: what three and four tanh layers leave nearly as it was."""


@torch.no_grad()
def silence(combiner: Combiner) -> None:
    """Make the combining network the identity."""
    for block in combiner.blocks:
        last = [module for module in block.modules() if isinstance(module, nn.Conv2d)][-1]
        nn.init.zeros_(last.weight)


@torch.no_grad()
def choose_dominant(chooser: DominantEntries, levels: Tensor, magnitudes: Tensor) -> None:
    """Set scores by least squares of magnitudes [N, size] on levels [N, codeword], as whole numbers."""
    mean, center = magnitudes.double().mean(0), levels.double().mean(0)
    inputs = levels.double() - center
    gram = inputs.mT @ inputs
    ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    solution = torch.linalg.solve(gram + ridge, inputs.mT @ (magnitudes.double() - mean)).mT
    unit = 127 / solution.abs().amax().clamp(min=1e-30)
    chooser.weight.copy_((solution * unit).round())
    chooser.offset.copy_(((mean - solution @ center) * unit).round())


@torch.no_grad()
def project_on_components(
    encoder: BranchEncoder,
    decoder: BranchDecoder,
    image: Tensor,
    importance: Tensor,
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> None:
    """Core layers pass on their first channel; the fully connected ones project on principal components, by regression
    on what is really quantised. Training from random weights does not find such a projection in any sensible time.

    Args:
        image: [N, 1, Q, M], of many frames.
        importance: [Q M], of an entry's squared error.
        gains: of the encoder's first layer, of what the decoder's layers are given, and of their last layer: they keep
            tanh where it is nearly linear.
    """
    first, given, last = gains
    _pass_first_channel(encoder.layers, math.prod(decoder.shape), first, 1.0)
    _pass_first_channel(decoder.layers, math.prod(decoder.shape), 1.0, last)
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


def _pass_first_channel(layers: nn.Module, size: int, first: float, last: float) -> None:
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
