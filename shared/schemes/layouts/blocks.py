"""Layers of images in blocks of b x b pixels, whose pixels are channels: [N, b b C, H/b, W/b], channels last in memory.

With the pixels of a block as channels there are 16 times as many products in one matrix, of which few are with zero:
fastest on a CPU for kernels of 5 x 5 and more, in bfloat16 above all. Images with a side of odd length are left as they
are, b = 1. Else the layers are torch's own, on images [N, C, H, W].
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Padding = Literal["zeros", "circular"]


class BlockLayer:
    """Base of modules that hold images in blocks, or as torch does.

    Attributes:
        in_blocks: which; `choose_layout` sets it.
    """

    in_blocks: bool = True


class ToBlocks(BlockLayer, nn.Module):
    """[N, C, H, W] to [N, C b b, H/b, W/b]."""

    def __init__(self, block: int) -> None:
        super().__init__()
        self.block = block

    def forward(self, image: Tensor) -> Tensor:
        if not self.in_blocks:
            return image
        return functional.pixel_unshuffle(image, self.block).contiguous(memory_format=torch.channels_last)


class FromBlocks(ToBlocks):
    """Inverse of `ToBlocks`."""

    def forward(self, image: Tensor) -> Tensor:
        return functional.pixel_shuffle(image, self.block) if self.in_blocks else image


class BlockConv2d(BlockLayer, nn.Conv2d):
    """nn.Conv2d of stride 1 that keeps the image's size, on images in blocks: odd kernels, `zeros` or `circular`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        block: int,
        *,
        bias: bool = True,
        padding_mode: Padding = "zeros",
    ) -> None:
        super().__init__(inputs, outputs, kernel, padding="same", bias=bias, padding_mode=padding_mode)
        self.block = block
        self._ready: Tensor | None = None
        self.register_load_state_dict_post_hook(BlockConv2d._forget)  # type: ignore[no-untyped-call]  # torch's lack

    def forward(self, image: Tensor) -> Tensor:
        """[N, C b b, H/b, W/b] to [N, C' b b, H/b, W/b]; of pixels, [N, C, H, W] to [N, C', H, W]."""
        if not self.in_blocks:
            return super().forward(image)
        weight = self._kernel(image.dtype)
        edges = (weight.shape[2] // 2, weight.shape[3] // 2)
        bias = None if self.bias is None else self.bias.repeat_interleave(self.block**2)
        if self.padding_mode == "circular":
            around: Tensor = _Around.apply(image, edges)  # type: ignore[no-untyped-call]  # torch's lack
            return functional.conv2d(around, weight, bias)
        return functional.conv2d(image, weight, bias, padding=edges)

    def train(self, mode: bool = True) -> BlockConv2d:
        """As nn.Module.train; the kernel of earlier weights is forgotten."""
        self._forget()
        return super().train(mode)

    def _forget(self, *_: object) -> None:
        self._ready = None

    def _kernel(self, dtype: torch.dtype) -> Tensor:
        """[C' b b, C b b, taps, taps] of blocks; in evaluation it is built once."""
        keeping, ready = not (self.training or torch.is_grad_enabled()), self._ready
        if keeping and ready is not None and ready.device == self.weight.device and ready.dtype == dtype:
            return ready
        high, wide = (_taps_of_blocks(taps, self.block).to(self.weight) for taps in self.kernel_size)
        kernel = torch.einsum("octu,tiap,ujbq->oijcpqab", self.weight, high, wide)
        kernel = kernel.flatten(3, 5).flatten(0, 2).to(dtype).contiguous(memory_format=torch.channels_last)
        if keeping:
            self._ready = kernel
        return kernel


def _taps_of_blocks(taps: int, size: int) -> Tensor:
    """[tap, pixel out, tap of blocks, pixel in]: 1 where the tap leads from one pixel to the other."""
    reach = -(-(taps // 2) // size)
    place, pixel = torch.arange(-reach, reach + 1), torch.arange(size)
    tap = place[:, None] * size + pixel - pixel[:, None, None] + taps // 2
    return (torch.arange(taps)[:, None, None, None] == tap).float()


class _Around(torch.autograd.Function):
    """Images [..., H, W] with more rows and columns on each side, those of the opposite side. torch's own circular
    padding spends as long on copies, of the gradient above all, as the convolution itself.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, edges: tuple[int, int]) -> Tensor:
        ctx.edges = edges
        for axis, edge in zip((-2, -1), edges, strict=True):
            if edge:
                ends = image.narrow(axis, 0, edge), image.narrow(axis, image.shape[axis] - edge, edge)
                image = torch.cat([ends[1], image, ends[0]], dim=axis)
        return image

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        for axis, edge in zip((-2, -1), ctx.edges, strict=True):
            if edge:
                size = gradient.shape[axis] - 2 * edge
                before, inner, after = gradient.split([edge, size, edge], dim=axis)
                gradient = inner.clone()
                gradient.narrow(axis, size - edge, edge).add_(before)
                gradient.narrow(axis, 0, edge).add_(after)
        return gradient, None


def block_of(height: int, width: int) -> int:
    """Side of the blocks of images of a size."""
    return 1 if height % 2 or width % 2 else 2
