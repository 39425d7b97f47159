"""CsiNet, which CRNet is compared with (Wen, Shih and Jin, "Deep learning for massive MIMO CSI feedback", IEEE Wireless
Commun. Lett. 7(5), 2018).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from shared.schemes.image_feedback import (
    FullyConnectedDecoder,
    FullyConnectedEncoder,
    ImageScheme,
    conv_bn,
    conv_path,
    xavier,
)

SLOPE = 0.3


class RefineNet(nn.Module):
    """3x3 convolutions 2-8-16-2 with an identity path."""

    def __init__(self) -> None:
        super().__init__()
        self.path = nn.Sequential(*conv_path((2, 8, 16), ((3, 3), (3, 3)), SLOPE), conv_bn(16, 2, (3, 3)))
        self.activation = nn.LeakyReLU(SLOPE)

    def forward(self, image: Tensor) -> Tensor:
        return self.activation(self.path(image) + image)


class CsiNet(ImageScheme):
    """CsiNet."""

    name: ClassVar[str] = "csinet"

    def networks(self, shape: tuple[int, int, int], entries: int) -> tuple[nn.Module, nn.Module]:
        features = nn.Sequential(*conv_path((2, 2), ((3, 3),), SLOPE))
        refinement = nn.Sequential(RefineNet(), RefineNet(), nn.Conv2d(2, 2, 3, padding=1), nn.Sigmoid())
        encoder = FullyConnectedEncoder(features, shape, entries)
        return xavier(encoder), xavier(FullyConnectedDecoder(refinement, shape, entries))
