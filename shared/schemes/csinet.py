"""CsiNet, which CRNet is compared with (Wen, Shih and Jin, "Deep learning for massive MIMO CSI feedback", IEEE Wireless
Commun. Lett. 7(5), 2018).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from shared.schemes import register
from shared.schemes.image_feedback import ImageScheme, conv_bn, conv_path
from shared.schemes.layouts.rows import RowConv2d

SLOPE = 0.3


class RefineNet(nn.Module):
    """3x3 convolutions 2-8-16-2 with an identity path."""

    def __init__(self) -> None:
        super().__init__()
        conv, self.norm = conv_bn(16, 2, (3, 3))
        self.path = nn.Sequential(*conv_path((2, 8, 16), ((3, 3), (3, 3)), SLOPE), conv)
        self.activation = nn.LeakyReLU(SLOPE)

    def forward(self, image: Tensor) -> Tensor:
        return self.activation(self.norm(self.path(image)) + image)


@register
class CsiNet(ImageScheme):
    """CsiNet."""

    name: ClassVar[str] = "csinet"

    def features(self) -> nn.Sequential:
        return nn.Sequential(*conv_path((2, 2), ((3, 3),), SLOPE))

    def refinement(self) -> nn.Sequential:
        return nn.Sequential(RefineNet(), RefineNet(), RowConv2d(2, 2, (3, 3), bias=True))
