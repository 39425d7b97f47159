"""Training of CRNet, which can also start as the best linear autoencoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from csiemu.training.schemes import crnet_start
from csiemu.training.schemes.base import trains
from csiemu.training.schemes.images import ImageTraining
from shared.errors import InvalidInput
from shared.schemes.base import Downlink
from shared.schemes.crnet import HEADS, CrBlock, CrNet, MultiResolution
from shared.schemes.layouts.rows import RowBatchNorm


@trains(CrNet)
class CrNetTraining(ImageTraining):
    """Training of CRNet."""

    scheme: CrNet

    def pass_through(self, scale: float) -> None:
        for module in self.scheme.encoder.network.features:
            if isinstance(module, MultiResolution):
                crnet_start.pass_fine_path(module)
        for module in self.scheme.decoder.network.refinement:
            if isinstance(module, CrBlock):
                nn.init.zeros_(module.paths.norm.weight)
            elif isinstance(module, nn.Conv2d):
                nn.init.dirac_(module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.weight, scale)

    @torch.no_grad()
    def start(self, kind: str, downlink: Downlink) -> None:
        """From `principal` components, or as the best `linear` autoencoder of the given channels (`crnet_start`).

        Raises:
            InvalidInput: leaky ReLUs of slope 0, behind which no image can be below its middle.
        """
        if kind != "linear":
            super().start(kind, downlink)
            return
        config = self.scheme.config
        if not config.slope:
            raise InvalidInput("start: linear needs leaky ReLUs of a slope above 0; slope is 0")
        images = self.scaled(downlink)
        components = self.principal_components(images)
        images = images[: crnet_start.FITTED]
        stretch = crnet_start.STRETCH if HEADS[config.head] else 1.0  # a head's normalisation shrinks it again
        root = math.sqrt(crnet_start.SIGMOID_GAIN * stretch)  # the same learning rate fits both layers
        self._linear_encoder(images, root * components.mT)
        self._linear_decoder(images, root * components, stretch)

    def _linear_encoder(self, images: Tensor, weight: Tensor) -> None:
        network = self.scheme.encoder.network
        paths = network.features[0]
        assert isinstance(paths, MultiResolution)
        crnet_start.pass_fine_path(paths)
        lifted = [
            crnet_start.transparent_path(path, network.to_layers(images), crnet_start.LARGEST)
            for path in (paths.coarse, paths.fine)
        ]
        crnet_start.transparent(paths.norm, paths.merge(*lifted))
        network.fc.weight.copy_(weight)
        network.fc.bias.copy_(-crnet_start.LARGEST * weight.sum(1))

    def _linear_decoder(self, images: Tensor, weight: Tensor, stretch: float) -> None:
        network, leak = self.scheme.decoder.network, self.scheme.config.slope
        network.fc.weight.copy_(weight)
        nn.init.zeros_(network.fc.bias)
        wanted = network.to_layers(images).clamp(-crnet_start.REACH, crnet_start.REACH) + crnet_start.LARGEST
        steepness = wanted * (1 - wanted)  # of the sigmoid: what an error before it makes behind it
        wanted = wanted.logit()
        slope = torch.where(wanted < 0, leak, 1.0)  # of the last leaky ReLU
        image = network.to_layers(network.fc(self.scheme.encoder.network(images)).unflatten(1, network.shape))
        lift, hinges = 0.0, iter(crnet_start.HINGES)
        for layer in network.refinement:
            if isinstance(layer, nn.Conv2d):
                nn.init.dirac_(layer.weight)
            elif isinstance(layer, RowBatchNorm):
                crnet_start.transparent(layer, image, crnet_start.LIFT - lift, stretch)
                lift, stretch = crnet_start.LIFT, 1.0
            elif isinstance(layer, CrBlock):
                last = layer is network.refinement[-1]
                goal = wanted / slope if last else wanted + crnet_start.LIFT
                weights = steepness * slope if last else steepness
                crnet_start.fit_paths(layer.paths, image, lift, next(hinges), goal - image, weights)
                lift = crnet_start.LIFT
            image = layer(image)
