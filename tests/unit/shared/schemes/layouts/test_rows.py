"""Layers of rows against the torch modules that they stand for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from shared.schemes.layouts import choose_layout
from shared.schemes.layouts.rows import RowBatchNorm, RowConv2d, RowLayer, Transposed

KERNELS = [(1, 1), (1, 5), (1, 9), (3, 3), (5, 5), (7, 7)]


@pytest.fixture(params=[True, False], ids=["rows", "channels last"], autouse=True)
def _form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both forms."""
    monkeypatch.setattr(RowLayer, "in_rows", request.param)


def applied(layer: nn.Module, *images: Tensor) -> Tensor:
    """A layer on images [N, C, H, W]."""
    form = RowLayer()
    return form.from_layers(layer(*(form.to_layers(image.transpose(1, 2)) for image in images))).transpose(1, 2)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bias", [True, False])
def test_convolution_is_that_of_torch(kernel: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    ours = RowConv2d(2, 3, kernel, bias=bias)
    theirs = nn.Conv2d(2, 3, kernel, padding="same", bias=bias)
    theirs.load_state_dict(ours.state_dict())
    image, weight = torch.randn(4, 2, 8, 12), torch.randn(4, 3, 8, 12)
    results = applied(ours, image), theirs(image)
    for result in results:
        (result * weight).sum().backward()
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    for mine, wanted in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, wanted.grad, rtol=1e-4, atol=1e-4)


def test_several_images_are_one_with_their_channels_together() -> None:
    torch.manual_seed(0)
    layer, images = RowConv2d(5, 2, (3, 3)), [torch.randn(2, channels, 6, 8) for channels in (2, 3)]
    torch.testing.assert_close(applied(layer, *images), applied(layer, torch.cat(images, dim=1)))


def test_transposed_layers_work_along_the_other_axis() -> None:
    torch.manual_seed(0)
    conv = RowConv2d(2, 3, (1, 9))
    theirs = nn.Conv2d(2, 3, (9, 1), padding="same", bias=False)
    theirs.weight.data.copy_(conv.weight.mT)
    image = torch.randn(2, 2, 12, 8)
    torch.testing.assert_close(applied(Transposed(conv), image), theirs(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("training", "gradients"), [(True, True), (False, True), (False, False)])
def test_batch_normalisation_is_that_of_torch(training: bool, gradients: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = RowBatchNorm(3).train(training), nn.BatchNorm2d(3).train(training)
    for layer in (ours, theirs):
        nn.init.constant_(layer.weight, 0.5)
        nn.init.constant_(layer.bias, -1.0)
    for _ in range(3):
        image = 2 * torch.randn(4, 3, 8, 12) + 1
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(applied(ours, image), theirs(image), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dict(ours.named_buffers())["running_var"], theirs.running_var)
    torch.testing.assert_close(dict(ours.named_buffers())["running_mean"], theirs.running_mean)


class TestChoice:
    """Which form is chosen: none by what is around the layers."""

    @pytest.fixture(autouse=True)
    def _form(self) -> None:
        """As they are built."""

    def test_rows_in_bfloat16_are_near(self) -> None:
        torch.manual_seed(0)
        layer = nn.Sequential(RowConv2d(2, 7, (3, 3)), RowBatchNorm(7))
        image = torch.randn(8, 2, 16, 16)
        exact = applied(layer, image)
        choose_layout(layer, rows=True)
        with torch.autocast("cpu", torch.bfloat16):
            in_rows = layer(image.transpose(1, 2))
        assert in_rows.dtype == torch.bfloat16
        near = in_rows.transpose(1, 2).float()
        assert (near - exact).square().mean() < 1e-4 * exact.square().mean()

    @pytest.mark.parametrize("gradients", [True, False])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_channels_last_in_memory_are_the_default(self, dtype: torch.dtype, gradients: bool) -> None:
        """Through all layers, so that torch's convolutions copy nothing."""
        path = nn.Sequential(
            RowConv2d(2, 7, (3, 3)), RowBatchNorm(7), Transposed(RowConv2d(7, 7, (1, 9)), RowBatchNorm(7))
        )
        with torch.set_grad_enabled(gradients), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            result = path(RowLayer().to_layers(torch.randn(2, 6, 2, 8)))
        assert result.shape == (2, 7, 6, 8)
        assert result.is_contiguous(memory_format=torch.channels_last)
