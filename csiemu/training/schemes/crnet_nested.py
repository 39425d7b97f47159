"""Training of the nested CRNet.

The codeword of a trained CRNet is turned first: its entries become the principal components of what codewords do to
the image, by which they are ordered. What the decoder's convolutions make of an entry counts, so its effect is measured
at the image. Encoder and decoder together stay the same function; only cells and order know of the turn.

Then every batch has reports of all the rates, each cut where its rate ends.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from csiemu.training.schemes import trains
from csiemu.training.schemes.crnet import CrNetTraining
from shared.channels.downlink import DownlinkView
from shared.metrics import energy
from shared.quantizers import scale
from shared.schemes import Scheme
from shared.schemes.crnet_nested import CrNetNested

DECODER = "decoder"

MEASURED = 128
"""Frames by which the effect of entries is measured."""

PART = 16
"""Of them, so many at once."""

NUDGE = 0.3
"""By so many standard deviations entries are moved to measure their effect: about what quantisers do to them."""

LEAST_VARIANCE = 1e-6
"""Of the strongest direction's: directions of less are taken to have as much."""


@trains(CrNetNested)
class NestedTraining(CrNetTraining):
    """Training of the nested CRNet. The frames of a batch have the rates in turn: which frame gets which is chance.
    Stage `decoder`: the encoder stays as it is, and with it the meaning of its bits.
    """

    stages: ClassVar[tuple[str, ...]] = ("all", DECODER)
    one_graph: ClassVar[bool] = False  # rates are copied to the device

    scheme: CrNetNested

    def __init__(self, scheme: Scheme, stage: str = "all") -> None:
        super().__init__(scheme, stage)
        self.scheme.encoder.requires_grad_(stage != DECODER)

    def sent(self, codeword: Tensor, slope: float | Tensor) -> Tensor:
        rates, quantizer = self.scheme.config.rates, self.scheme.encoder.quantizer
        bits = torch.tensor(rates)[torch.arange(len(codeword)) % len(rates)].to(codeword.device)
        return quantizer.within(codeword.float(), quantizer.lengths(bits - scale.BITS))

    def loss(self, estimate: Tensor, truth: Tensor) -> Tensor:
        """Mean over the rates of the NMSE's logarithm: a decibel is worth the same at all of them."""
        ratios = (energy(estimate - truth, axes=2) / energy(truth, axes=2)).flatten()
        rates = min(len(self.scheme.config.rates), len(ratios))
        return torch.stack([ratios[turn::rates].mean().log() for turn in range(rates)]).mean()

    def start_principal(self, downlink: DownlinkView) -> None:
        super().start_principal(downlink)
        self.calibrate(downlink)

    def start_linear(self, downlink: DownlinkView) -> None:
        super().start_linear(downlink)
        self.scheme.eval()  # with the statistics that training keeps
        self.calibrate(downlink)
        self.scheme.train()

    @torch.no_grad()
    def calibrate(self, downlink: DownlinkView) -> None:
        """Turn the codeword, and set its quantiser, by the codewords of the given channels."""
        images = self.scaled(downlink)
        importance = self.turn(images)
        encoder, decoder = self.scheme.encoder, self.scheme.decoder
        encoder.quantizer.calibrate(self.codewords(images), importance)
        decoder.quantizer.load_state_dict(encoder.quantizer.state_dict())

    @torch.no_grad()
    def turn(self, images: Tensor) -> Tensor:
        """Make the entries uncorrelated, of variance 1 and, to the first order, of effects on the image that are
        orthogonal, by the fully connected layers; the entry of the greatest effect becomes the first.

        Args:
            images: [N, M, 2, Q], of the training split.

        Returns:
            What a unit of squared error in an entry adds to the NMSE, [entries].
        """
        codewords = self.codewords(images)
        mean = codewords.mean(0)
        values, vectors = torch.linalg.eigh(codewords.double().T.cov())
        deviations = values.clamp(min=LEAST_VARIANCE * float(values[-1])).sqrt()
        effects = self.effects(images[:MEASURED], codewords[:MEASURED], codewords.std(0)).double()
        root = vectors * deviations @ vectors.mT
        importance, directions = torch.linalg.eigh(root @ effects @ root)
        directions = directions.flip(1)
        into = (directions.mT @ (vectors / deviations) @ vectors.mT).float()
        back = (root @ directions).float()
        encoder, decoder = self.scheme.encoder.network.fc, self.scheme.decoder.network.fc
        encoder.bias.copy_(into @ (encoder.bias - mean))
        encoder.weight.copy_(into @ encoder.weight)
        decoder.bias.add_(decoder.weight @ mean)
        decoder.weight.copy_(decoder.weight @ back)
        return importance.flip(0).float()

    def effects(self, images: Tensor, codewords: Tensor, deviations: Tensor) -> Tensor:
        """Mean of J^T J over the image's power, J the derivative of the decoder's image by the codeword, by finite
        differences, [entries, entries].
        """
        total = torch.zeros(len(deviations), len(deviations))
        steps = torch.diag(NUDGE * deviations.clamp(min=1e-8))
        for image, codeword in zip(images.split(PART), codewords.split(PART), strict=True):
            nudged = torch.stack([self.scheme.decoder.network(codeword + step) for step in steps], dim=-1)
            change = (nudged - self.scheme.decoder.network(codeword)[..., None]).flatten(1, 3) / steps.diag()
            change = change / image.flatten(1).norm(dim=1)[:, None, None]
            total += change.flatten(0, 1).mT @ change.flatten(0, 1)
        return total / len(images)
