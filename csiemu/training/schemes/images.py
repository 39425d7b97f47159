"""Training of schemes that estimate images, of CRNet's and CsiNet's autoencoders, and CsiNet's start."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from csiemu.training.schemes import SchemeTraining, trains
from shared.channels.downlink import DownlinkView
from shared.errors import InvalidInput
from shared.metrics import energy
from shared.quantizers.scale import largest_magnitude
from shared.schemes.csinet import CsiNet, RefineNet
from shared.schemes.image_feedback import ImageEstimator, ImageScheme, from_network, to_network


@trains(ImageEstimator)
class ImageEstimatorTraining(SchemeTraining):
    """Training of a scheme that estimates images."""

    def loss(self, estimate: Tensor, truth: Tensor) -> Tensor:
        """Mean squared error of the scaled images' numbers (CRNet paper, section IV.A)."""
        largest = 2 * largest_magnitude(truth)[..., 0, 0]
        return (energy(estimate - truth, axes=2) / largest.square()).mean() / (2 * truth[0, 0].numel())

    def progress(self, estimate: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of ratios."""
        error, power = energy(estimate - truth, axes=2), energy(truth, axes=2)
        return (error / power).mean(), torch.ones_like(error[0, 0])


@trains(ImageScheme)
class ImageTraining(ImageEstimatorTraining):
    """Training of an autoencoder of images, which can start from principal components."""

    one_graph: ClassVar[bool] = True

    scheme: ImageScheme

    def reconstruct(self, observation: Tensor, side: Tensor, slope: float | Tensor) -> Tensor:
        encoder = self.scheme.encoder
        image = encoder.images(observation.flatten(0, 1))
        scale = encoder.scale(image)
        codeword = self.sent(encoder.network(to_network(image, scale)), slope)
        estimate = from_network(self.scheme.decoder.network(codeword).float(), scale)
        return estimate.unflatten(0, observation.shape[:2])

    def sent(self, codeword: Tensor, slope: float | Tensor) -> Tensor:
        """What the decoder gets in training of codewords [N, entries]."""
        if self.scheme.config.quantised_training:
            return self.scheme.encoder.quantizer(codeword.float(), slope)
        return codeword

    @torch.no_grad()
    def start_principal(self, downlink: DownlinkView) -> None:
        """Convolutions pass, and the fully connected layers project on those of the given
        channels: the best linear autoencoder, were it not for the leaky ReLUs. Training from random weights spends most
        of its time on the way to such a projection.
        """
        images = self.scaled(downlink)
        components = self.principal_components(images)
        scale = 4 * float(images.std())  # a sigmoid's slope is 1/4 in the middle
        self.pass_through(scale)
        root = math.sqrt(scale)  # half of the scale in each layer keeps both in reach of the same learning rate
        encoder, decoder = self.scheme.encoder.network.fc, self.scheme.decoder.network.fc
        encoder.weight.copy_(root * components.mT)
        decoder.weight.copy_(root * components)
        for layer in (encoder, decoder):
            nn.init.zeros_(layer.bias)

    def pass_through(self, scale: float) -> None:
        """Make the convolutions pass on what they are given, as far as leaky ReLUs let them, and residual paths silent.
        By default it is not known how, and there is no such start.

        Args:
            scale: standard deviation that a batch normalisation of the whole image is to leave.
        """
        raise InvalidInput(f"start: '{self.scheme.name}' has no principal start; start is random")

    def scaled(self, downlink: DownlinkView) -> Tensor:
        """What the encoder's network gets, [N T, M, 2, Q]."""
        image = self.scheme.encoder.images(self.scheme.encoder.observe(downlink).flatten(0, 1))
        return to_network(image, self.scheme.encoder.scale(image))

    def principal_components(self, images: Tensor) -> Tensor:
        """As many orthonormal directions as there are codeword entries, in which images [N, M, 2, Q] have most power,
        [M 2 Q, entries].
        """
        numbers = images.flatten(1)
        values, vectors = torch.linalg.eigh(numbers.mT @ numbers)
        return vectors[:, values.argsort(descending=True)[: self.scheme.entries]]

    @torch.no_grad()
    def calibrate(self, downlink: DownlinkView) -> None:
        """Set the codeword's quantiser by the codewords of the given channels, and give the gNB its copy."""
        encoder, decoder = self.scheme.encoder, self.scheme.decoder
        if next(encoder.quantizer.buffers(), None) is None:
            return  # nothing of it is measured
        codewords = self.codewords(self.scaled(downlink))
        encoder.quantizer.calibrate(codewords, decoder.network.fc.weight.square().sum(0))
        decoder.quantizer.load_state_dict(encoder.quantizer.state_dict())

    def codewords(self, images: Tensor) -> Tensor:
        """Of images [N, M, 2, Q], [N, entries] float32, before they are quantised."""
        return torch.cat([self.scheme.encoder.network(part).float() for part in images.split(256)])

    def compile(self, mode: str) -> None:
        self.scheme.encoder.network.compile(mode=mode)
        self.scheme.decoder.network.compile(mode=mode)


@trains(CsiNet)
class CsiNetTraining(ImageTraining):
    """Training of CsiNet."""

    def pass_through(self, scale: float) -> None:
        for layers in (self.scheme.encoder.network.features, self.scheme.decoder.network.refinement):
            for module in layers:
                if isinstance(module, RefineNet):
                    nn.init.zeros_(module.norm.weight)
                elif isinstance(module, nn.Conv2d):
                    nn.init.dirac_(module.weight)
