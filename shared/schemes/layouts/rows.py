"""Layers of small images [N, H, C, W]: rows along H, each with its C channels beside each other.

In rows a convolution is a product of whole rows, C W numbers long, with a banded matrix: fastest in bfloat16 or on a
GPU where kernels are small and layers of few operations stand between them. Else layers are torch's own, on images
[N, C, H, W] whose channels are last in memory. `to_layers` brings images to what the layers take.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class RowLayer:
    """Base of modules that hold images in rows, or as torch does.

    Attributes:
        in_rows: which; `choose_layout` sets it.
    """

    in_rows: bool = False

    def to_layers(self, image: Tensor) -> Tensor:
        """[N, H, C, W] to what the layers here take."""
        return image if self.in_rows else image.transpose(1, 2).contiguous(memory_format=torch.channels_last)

    def from_layers(self, image: Tensor) -> Tensor:
        """Inverse of `to_layers`."""
        return image if self.in_rows else image.transpose(1, 2)


class RowConv2d(RowLayer, nn.Conv2d):
    """nn.Conv2d of stride 1 that keeps the image's size: odd kernels, zero padding.

    Attributes:
        upright: it is given the 1 x k kernel that a k x 1 kernel is of a transposed image (`Transposed`).
    """

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], *, bias: bool = False) -> None:
        super().__init__(inputs, outputs, kernel, padding="same", bias=bias)
        self.upright = False

    def forward(self, *images: Tensor) -> Tensor:
        """Images of C_i channels each, taken as if these were concatenated, to one of C'."""
        if not self.in_rows:
            weight = self.weight.transpose(-2, -1) if self.upright else self.weight
            weight = weight.contiguous(memory_format=torch.channels_last)
            together = images[0] if len(images) == 1 else torch.cat(images, dim=1)
            return functional.conv2d(together, weight, self.bias, padding="same")
        count, height, _, width = images[0].shape
        matrix = self._matrix(width, images[0].dtype)
        starts, product = 0, None
        for image in images:
            rows = self._neighbours(image).reshape(count * height, -1)
            part = rows @ matrix[starts : starts + rows.shape[1]]
            product = part if product is None else product + part
            starts += rows.shape[1]
        assert product is not None
        result = product.view(count, height, self.out_channels, width)
        return result if self.bias is None else result + self.bias.to(result.dtype)[:, None]

    def _neighbours(self, image: Tensor) -> Tensor:
        """[N, H, C, W] to [N, H, C taps, W]: each row of a channel with those around it."""
        taps = self.kernel_size[0]
        if taps == 1:
            return image
        edge, height = taps // 2, image.shape[1]
        around = functional.pad(image, (0, 0, 0, 0, edge, edge))
        return torch.stack([around[:, tap : tap + height] for tap in range(taps)], dim=3).flatten(2, 3)

    def _matrix(self, width: int, dtype: torch.dtype) -> Tensor:
        """[C taps W, C' W]."""
        bands = _bands(width, self.kernel_size[1]).to(self.weight)
        matrix = torch.tensordot(self.weight, bands, 1)  # C', C, taps, W in, W out
        return matrix.permute(1, 2, 3, 0, 4).reshape(-1, self.out_channels * width).to(dtype)


class RowBatchNorm(RowLayer, nn.BatchNorm2d):
    """nn.BatchNorm2d as it is by default; statistics in float32."""

    running_mean: Tensor
    running_var: Tensor
    momentum: float

    def forward(self, image: Tensor) -> Tensor:
        if not self.in_rows:
            return super().forward(image)
        values = image.flatten(0, 1).flatten(1).float()  # [N H, C W]: sums and products run along whole rows
        mean, variance = self.running_mean, self.running_var
        if self.training:
            count = image.numel() // self.num_features
            mean = self._by_channel(values.sum(0)) / count
            variance = (self._by_channel(values.square().sum(0)) / count - mean.square()).clamp(min=0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        factor = self.weight * (variance + self.eps).rsqrt()
        offset = self.bias - mean * factor
        result = values * self._to_row(factor, image) + self._to_row(offset, image)
        return result.to(image.dtype).view(image.shape)

    def _by_channel(self, row: Tensor) -> Tensor:
        return row.view(self.num_features, -1).sum(1)

    def _to_row(self, channels: Tensor, image: Tensor) -> Tensor:
        return channels[:, None].expand(-1, image.shape[-1]).reshape(1, -1)


class Transposed(RowLayer, nn.Sequential):
    """Layers on images whose rows are the columns: a 1 x k convolution in it is k x 1, which is faster so in rows."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        for layer in layers:
            if isinstance(layer, RowConv2d):
                layer.upright = True

    def forward(self, image: Tensor) -> Tensor:
        result = image.transpose(1, 3).contiguous() if self.in_rows else image  # else the kernels are transposed
        for layer in self:
            result = layer(result)
        return result.transpose(1, 3).contiguous() if self.in_rows else result


def _bands(width: int, taps: int) -> Tensor:
    """[tap, W in, W out]: 1 where the tap leads from one to the other."""
    place = torch.arange(width)
    tap = place[:, None] - place + taps // 2
    return (torch.arange(taps)[:, None, None] == tap).float()
