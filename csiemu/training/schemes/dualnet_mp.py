"""Training of DualNet-MP: the magnitude branch first, then the phases on it as it is (its paper, section III).

Its branches can start as linear maps to principal components, and its choice of entries is fitted here.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from csiemu.training.schemes import trains
from csiemu.training.schemes.images import ImageEstimatorTraining
from shared.channels.downlink import DownlinkView
from shared.errors import InvalidInput
from shared.quantizers.sign import BinaryLevels
from shared.schemes import Scheme
from shared.schemes.dualnet_mp import DualNetMp
from shared.schemes.dualnet_mp.branches import BranchDecoder, BranchEncoder, Combiner
from shared.schemes.dualnet_mp.magnitudes import MAGNITUDE, DominantEntries, PerfectMagnitudes
from shared.schemes.dualnet_mp.scheme import magnitudes

SPREAD = 0.25
"""Standard deviation of the entries of a start's codeword: tanh is all but linear there."""

TANH_GAINS = (0.5, 0.35, 3.0)
"""Of a start: what three and four tanh layers leave nearly as it was."""


@trains(DualNetMp)
class DualNetTraining(ImageEstimatorTraining):
    """Training of DualNet-MP. Stages: `magnitude`, its branch alone by eq. (5); then `phase`, with the magnitude branch
    as it is; `all` trains everything by the phases' loss.
    """

    stages: ClassVar[tuple[str, ...]] = ("all", MAGNITUDE, "phase")

    scheme: DualNetMp

    def __init__(self, scheme: Scheme, stage: str = "all") -> None:
        super().__init__(scheme, stage)
        if stage == MAGNITUDE and isinstance(self.scheme.encoder.magnitude, PerfectMagnitudes):
            raise InvalidInput("stage: 'magnitude' has nothing to train when magnitudes are sent perfectly")
        self._copy_to_decoder()
        for end in (self.scheme.encoder, self.scheme.decoder):
            for name, module in end.named_children():
                module.requires_grad_(stage == "all" or (name == MAGNITUDE) == (stage == MAGNITUDE))

    def reconstruct(self, observation: Tensor, side: Tensor, slope: float | Tensor) -> Tensor:
        encoder, decoder = self.scheme.encoder, self.scheme.decoder
        image = encoder.images(observation.flatten(0, 1))
        scale = encoder.scale(image)[..., None]
        if self.stage == "phase":
            found, dominant = side.flatten(0, 1).split([image[0].numel(), encoder.reach], dim=1)
            magnitude, entries = found.view_as(image)[:, None], dominant.long()
        else:
            magnitude, entries = self._magnitudes(magnitudes(image / scale), side.flatten(0, 1))
        if self.stage == MAGNITUDE:  # with the true phases the error is that of the magnitudes
            estimate = torch.polar(magnitude[:, 0] / 2, image.angle())
        else:
            phases = decoder.phase(*encoder.phase.quantised(image, entries))
            estimate = decoder.combined(magnitude, phases)
        return (estimate * scale).unflatten(0, observation.shape[:2])

    @torch.no_grad()
    def precompute(self, observation: Tensor, side: Tensor) -> Tensor:
        """In the stage `phase`: decoded magnitudes and the dominant entries, [N, T, Q M + count]."""
        if self.stage != "phase":
            return side
        encoder, decoder, parts = self.scheme.encoder, self.scheme.decoder.magnitude, []
        images = self._scaled(observation).split(256)
        for image, beside in zip(images, side.flatten(0, 1).split(256), strict=True):
            levels = encoder.levels(magnitudes(image))
            found = decoder(decoder.quantizer.from_levels(levels), beside).flatten(1)
            parts.append(torch.cat([found, encoder.dominant(levels, encoder.reach).float()], dim=1))
        return torch.cat(parts).unflatten(0, observation.shape[:2])

    def loss(self, estimate: Tensor, truth: Tensor) -> Tensor:
        """Squared Frobenius norm of the scaled images' error (eq. 5, 11, 13), or of the phases weighted by the true
        magnitudes (eq. 12); its mean over the batch.
        """
        weight = 1 / truth.abs().amax((-2, -1), keepdim=True)
        if self.scheme.config.phase == "mdpp" and self.stage != MAGNITUDE:
            error = (estimate.angle() - truth.angle()) * truth.abs() * weight
        else:
            error = ((estimate - truth) * weight).abs()
        return error.square().sum((-2, -1)).mean()

    @torch.no_grad()
    def start_principal(self, downlink: DownlinkView) -> None:
        """Both branches as linear maps to these, the combining network as the identity."""
        encoder, decoder = self.scheme.encoder, self.scheme.decoder
        image = self._scaled(encoder.observe(downlink))
        magnitude = magnitudes(image)
        if isinstance(encoder.magnitude, BranchEncoder) and isinstance(decoder.magnitude, BranchDecoder):
            project_on_components(encoder.magnitude, decoder.magnitude, magnitude, torch.ones(magnitude[0].numel()))
        if isinstance(encoder.phase, BranchEncoder) and isinstance(decoder.phase, BranchDecoder):
            power = magnitude.flatten(1).square().mean(0)
            project_on_components(encoder.phase, decoder.phase, encoder.phase.seen(image), power, gains=TANH_GAINS)
        silence(decoder.combiner)
        self.calibrate(downlink)

    @torch.no_grad()
    def calibrate(self, downlink: DownlinkView) -> None:
        """Fit what chooses the dominant entries, unless the phases were trained with it, and give the gNB its copy of
        what both ends hold.
        """
        encoder = self.scheme.encoder
        if self.stage != "phase" and isinstance(encoder.dominant, DominantEntries):
            magnitude = magnitudes(self._scaled(encoder.observe(downlink)))
            levels = torch.cat([encoder.levels(part) for part in magnitude.split(256)])
            choose_dominant(encoder.dominant, levels, magnitude.flatten(1))
        self._copy_to_decoder()

    def compile(self, mode: str) -> None:
        for end in (self.scheme.encoder, self.scheme.decoder):
            for branch in (end.magnitude, end.phase):
                if isinstance(branch, BranchEncoder | BranchDecoder):
                    branch.layers.compile(mode=mode)
        self.scheme.decoder.combiner.compile(mode=mode)

    def _magnitudes(self, magnitude: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Decoded magnitudes, differentiable, and dominant entries."""
        encoder = self.scheme.encoder
        codeword, quantizer = encoder.magnitude.codeword(magnitude), encoder.magnitude.quantizer
        entries = encoder.dominant(quantizer.to_levels(codeword.detach()), encoder.reach)
        return self.scheme.decoder.magnitude(quantizer(codeword), side), entries

    def _scaled(self, observation: Tensor) -> Tensor:
        """Images [N T, Q, M] of observations [N, T, 2 Q M] over their scales, of magnitude up to 0.5."""
        image = self.scheme.encoder.images(observation.flatten(0, 1))
        return image / self.scheme.encoder.scale(image)[..., None]

    def _copy_to_decoder(self) -> None:
        """Quantisers and choice of entries are one for both ends."""
        encoder, decoder = self.scheme.encoder, self.scheme.decoder
        decoder.dominant.load_state_dict(encoder.dominant.state_dict())
        for ours, theirs in ((encoder.magnitude, decoder.magnitude), (encoder.phase, decoder.phase)):
            if isinstance(ours, BranchEncoder) and isinstance(theirs, BranchDecoder):
                theirs.quantizer.load_state_dict(ours.quantizer.state_dict())


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
    solution = _ridge_regression(levels.double() - center, magnitudes.double() - mean, 1e-3)
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
    weight = _ridge_regression((inputs - mean).double(), (outputs - target).double(), 1e-6).float()
    layer.weight.copy_(weight)
    layer.bias.copy_(target - weight @ mean)


def _ridge_regression(inputs: Tensor, outputs: Tensor, share: float) -> Tensor:
    """[out, in], the least-squares map of inputs [N, in] to outputs [N, out], float64 and of mean 0; the ridge is a
    share of the inputs' mean power.
    """
    gram = inputs.mT @ inputs
    ridge = share * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + ridge, inputs.mT @ outputs).mT


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
