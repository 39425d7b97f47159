"""CRNet: multi-resolution autoencoder of angular-delay images (CRNet paper, section III and Fig. 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor, nn

from shared.errors import InvalidInput
from shared.fields import OneOf
from shared.schemes import SchemeConfig, register
from shared.schemes.image_feedback import ImageConfig, ImageScheme, conv_bn, conv_path

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
    head: Annotated[str, OneOf(tuple(HEADS))] = "5x5"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.slope < 1:
            raise InvalidInput(f"slope: {self.slope} is not in [0, 1)")


class MultiResolution(nn.Module):
    """Two paths beside each other, concatenated and merged by a 1x1 convolution."""

    def __init__(self, coarse: list[nn.Module], fine: list[nn.Module], width: int) -> None:
        super().__init__()
        self.coarse = nn.Sequential(*coarse)
        self.fine = nn.Sequential(*fine)
        self.merge, self.norm = conv_bn(2 * width, 2, (1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(self.merge(self.coarse(image), self.fine(image)))


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
