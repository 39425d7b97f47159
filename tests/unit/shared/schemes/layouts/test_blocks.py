"""Layers of images in blocks against the torch modules that they stand for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from shared.schemes.layouts import choose_layout
from shared.schemes.layouts.blocks import BlockConv2d, FromBlocks, Padding, ToBlocks, block_of


@pytest.mark.parametrize("size", [(8, 12), (9, 8), (5, 7)])
def test_blocks_are_the_image_in_another_order(size: tuple[int, int]) -> None:
    image, block = torch.randn(2, 3, *size), block_of(*size)
    blocks = ToBlocks(block)(image)
    assert blocks.shape == (2, 3 * block**2, size[0] // block, size[1] // block)
    assert torch.equal(FromBlocks(block)(blocks), image)


@pytest.mark.parametrize("in_blocks", [True, False], ids=["blocks", "pixels"])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 5), (7, 7), (1, 9), (9, 1)])
@pytest.mark.parametrize("size", [(8, 12), (9, 8), (10, 9)])
def test_convolution_is_that_of_torch(
    kernel: tuple[int, int], mode: Padding, size: tuple[int, int], in_blocks: bool
) -> None:
    torch.manual_seed(0)
    block = block_of(*size)
    ours = BlockConv2d(3, 4, kernel, block, padding_mode=mode)
    layers = nn.Sequential(ToBlocks(block), ours, FromBlocks(block))
    choose_layout(layers, blocks=in_blocks)
    theirs = nn.Conv2d(3, 4, kernel, padding="same", padding_mode=mode)
    theirs.load_state_dict(ours.state_dict())
    image, weight = torch.randn(5, 3, *size), torch.randn(5, 4, *size)
    images = [image.clone().requires_grad_() for _ in range(2)]
    results = [layers(images[0]), theirs(images[1])]
    for result in results:
        (result * weight).sum().backward()
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(images[0].grad, images[1].grad, rtol=1e-4, atol=1e-5)
    for mine, wanted in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, wanted.grad, rtol=1e-4, atol=1e-3)


def test_kernel_follows_the_weights() -> None:
    """It is kept in evaluation, but not when weights are loaded or trained."""
    torch.manual_seed(0)
    layer, other = (BlockConv2d(1, 1, (3, 3), 2, bias=False).eval() for _ in range(2))
    image = torch.randn(2, 4, 3, 4)
    with torch.no_grad():
        assert not torch.equal(layer(image), other(image))
        layer.load_state_dict(other.state_dict())
        assert torch.equal(layer(image), other(image))
        nn.init.zeros_(layer.train().weight)
        assert not layer.eval()(image).any()
