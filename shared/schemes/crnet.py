"""CRNet: multi-resolution autoencoder of angular-delay images (CRNet paper, section III and Fig. 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from shared.errors import InvalidInput
from shared.schemes import crnet_start
from shared.schemes.base import Downlink, SchemeConfig
from shared.schemes.image_feedback import (
    ImageConfig,
    ImageScheme,
    conv_bn,
    conv_path,
)
from shared.schemes.image_layers import RowBatchNorm, to_layers
from shared.schemes.registry import register

HEADS: dict[str, tuple[tuple[int, int], ...]] = {
    "blank": (),
    "3x3": ((3, 3),),
    "dual3x3": ((3, 3), (3, 3)),
    "5x5": ((5, 5),),
    "7x7": ((7, 7),),
}
"""Head convolutions of the decoder (Table IV)."""


@dataclass(frozen=True)
class CrNetConfig(ImageConfig):
    """Attributes:
    slope: of the leaky ReLUs for negative values (beta; Table III).
    head: of the decoder (Table IV).
    """

    slope: float = 0.3
    head: str = "5x5"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.slope < 1:
            raise InvalidInput(f"slope: {self.slope} is not in [0, 1)")
        if self.head not in HEADS:
            raise InvalidInput(f"head: '{self.head}' is not {', '.join(HEADS)}")


class MultiResolution(nn.Module):
    """Two paths beside each other, concatenated and merged by a 1x1 convolution."""

    def __init__(self, coarse: list[nn.Module], fine: list[nn.Module], width: int) -> None:
        super().__init__()
        self.coarse = nn.Sequential(*coarse)
        self.fine = nn.Sequential(*fine)
        self.merge, self.norm = conv_bn(2 * width, 2, (1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(self.merge(self.coarse(image), self.fine(image)))

    def hand_on_the_fine_path(self) -> None:
        """Make the fine path's first two channels the image, and the merge choose them."""
        for module in self.fine:
            if isinstance(module, nn.Conv2d):
                nn.init.dirac_(module.weight)
        nn.init.zeros_(self.merge.weight)
        nn.init.dirac_(self.merge.weight[:, self.merge.in_channels // 2 :])

    def fit(self, image: Tensor, lift: float, hinges: tuple[float, float], goal: Tensor, weight: Tensor) -> None:
        """Give the paths hinges in the lifted image, at (fine, coarse), and let the merge bring them near `goal`."""
        fine, coarse = (
            crnet_start.hinged_path(p, image, lift, at) for p, at in zip((self.fine, self.coarse), hinges, strict=True)
        )
        crnet_start.fit_merge(self.merge, self.norm, [coarse, fine], goal, weight)


class CrBlock(nn.Module):
    """CRBlock: 3x3, 1x9, 9x1 beside 1x5, 5x1, with an identity path."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        coarse = conv_path((2, 7, 7, 7), ((3, 3), (1, 9), (9, 1)), slope)
        self.paths = MultiResolution(coarse, conv_path((2, 7, 7), ((1, 5), (5, 1)), slope), 7)
        self.activation = nn.LeakyReLU(slope)

    def forward(self, image: Tensor) -> Tensor:
        return self.activation(self.paths(image) + image)


@register
class CrNet(ImageScheme):
    """CRNet."""

    name: ClassVar[str] = "crnet"
    config_class: ClassVar[type[SchemeConfig]] = CrNetConfig

    config: CrNetConfig

    def features(self) -> nn.Sequential:
        slope = self.config.slope
        coarse = conv_path((2, 2, 2, 2), ((3, 3), (1, 9), (9, 1)), slope)
        return nn.Sequential(MultiResolution(coarse, conv_path((2, 2), ((3, 3),), slope), 2), nn.LeakyReLU(slope))

    def refinement(self) -> nn.Sequential:
        slope, head = self.config.slope, HEADS[self.config.head]
        return nn.Sequential(*conv_path((2,) * (len(head) + 1), head, slope), CrBlock(slope), CrBlock(slope))

    def pass_through(self, scale: float) -> None:
        for module in self.encoder.network.features:
            if isinstance(module, MultiResolution):
                module.hand_on_the_fine_path()
        for module in self.decoder.network.refinement:
            if isinstance(module, CrBlock):
                nn.init.zeros_(module.paths.norm.weight)
            elif isinstance(module, nn.Conv2d):
                nn.init.dirac_(module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.weight, scale)

    @torch.no_grad()
    def linear_start(self, downlink: Downlink) -> None:
        """Begin as the best linear autoencoder of the given channels (`crnet_start`).

        Raises:
            InvalidInput: leaky ReLUs of slope 0, behind which no image can be below its middle.
        """
        if not self.config.slope:
            raise InvalidInput("start: linear needs leaky ReLUs of a slope above 0; slope is 0")
        images = self.scaled(downlink)
        components = self.principal_components(images)
        images = images[: crnet_start.FITTED]
        stretch = crnet_start.STRETCH if HEADS[self.config.head] else 1.0  # a head's normalisation shrinks it again
        root = math.sqrt(crnet_start.SIGMOID_GAIN * stretch)  # the same learning rate fits both layers
        self._linear_encoder(images, root * components.mT)
        self._linear_decoder(images, root * components, stretch)

    def _linear_encoder(self, images: Tensor, weight: Tensor) -> None:
        network = self.encoder.network
        paths = network.features[0]
        assert isinstance(paths, MultiResolution)
        paths.hand_on_the_fine_path()
        lifted = [
            crnet_start.transparent_path(path, to_layers(images), crnet_start.LARGEST)
            for path in (paths.coarse, paths.fine)
        ]
        crnet_start.transparent(paths.norm, paths.merge(*lifted))
        network.fc.weight.copy_(weight)
        network.fc.bias.copy_(-crnet_start.LARGEST * weight.sum(1))

    def _linear_decoder(self, images: Tensor, weight: Tensor, stretch: float) -> None:
        network = self.decoder.network
        network.fc.weight.copy_(weight)
        nn.init.zeros_(network.fc.bias)
        wanted = to_layers(images).clamp(-crnet_start.REACH, crnet_start.REACH) + crnet_start.LARGEST
        steepness = wanted * (1 - wanted)  # of the sigmoid: what an error before it makes behind it
        wanted = wanted.logit()
        slope = torch.where(wanted < 0, self.config.slope, 1.0)  # of the last leaky ReLU
        image = to_layers(network.fc(self.encoder.network(images)).unflatten(1, network.shape))
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
                layer.paths.fit(image, lift, next(hinges), goal - image, steepness * slope if last else steepness)
                lift = crnet_start.LIFT
            image = layer(image)
