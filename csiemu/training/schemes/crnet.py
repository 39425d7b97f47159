"""Training of CRNet, which can also start as the best linear autoencoder, its leaky ReLUs and its sigmoid
notwithstanding.

The fully connected layers project on principal components. What stands between them and the images is made
transparent:

- A batch normalisation takes its input's statistics for its own, and undoes them by its factor and offset. It had
  better keep them (`frozen_norms`): a batch of 200 images, most of whose power is in few numbers, has others.
- A leaky ReLU passes on what is above 0. Where an image has to pass one alone, it is lifted so far.
- The paths of the CRBlocks begin with hinges: pairs (v - t, -v - t) of a number v, bent by the first leaky ReLU, and
  combined so that the others leave them alone. Least squares then chooses the weights with which the merging
  convolution adds them to the image: so that what leaves the last leaky ReLU is what the sigmoid makes the image of.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from csiemu.training.schemes import trains
from csiemu.training.schemes.images import ImageTraining
from shared.channels.downlink import DownlinkView
from shared.errors import InvalidInput
from shared.schemes.crnet import HEADS, CrBlock, CrNet, MultiResolution
from shared.schemes.layouts.rows import RowBatchNorm, RowConv2d

LARGEST = 0.5
"""Of the numbers of an image."""

SIGMOID_GAIN = 4.0
"""What is 1 in the image is so much before a sigmoid, in its middle."""

LIFT = SIGMOID_GAIN * LARGEST
"""Of images in the decoder."""

REACH = 0.48
"""Numbers beyond it are aimed at as if they were these: before the sigmoid, LARGEST is infinite."""

STRETCH = 100.0
"""Of the image between fully connected layer and head: with it the weights of the fully connected layers bear the
learning rate of the convolutions'."""

HINGES = ((1.2, 1.7), (0.0, 1.5))
"""t of the fine and of the coarse path of the first and the second CRBlock."""

FITTED = 2048
"""Frames by which normalisations and merges are set."""

PAIRS = 4
"""Channels with hinges: of real and imaginary part, both signs."""


@trains(CrNet)
class CrNetTraining(ImageTraining):
    """Training of CRNet."""

    scheme: CrNet

    def pass_through(self, scale: float) -> None:
        for module in self.scheme.encoder.network.features:
            if isinstance(module, MultiResolution):
                pass_fine_path(module)
        for module in self.scheme.decoder.network.refinement:
            if isinstance(module, CrBlock):
                nn.init.zeros_(module.paths.norm.weight)
            elif isinstance(module, nn.Conv2d):
                nn.init.dirac_(module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.weight, scale)

    @torch.no_grad()
    def start_linear(self, downlink: DownlinkView) -> None:
        """As the best linear autoencoder of the given channels.

        Raises:
            InvalidInput: leaky ReLUs of slope 0, behind which no image can be below its middle.
        """
        config = self.scheme.config
        if not config.slope:
            raise InvalidInput("start: linear needs leaky ReLUs of a slope above 0; slope is 0")
        images = self.scaled(downlink)
        components = self.principal_components(images)
        images = images[:FITTED]
        stretch = STRETCH if HEADS[config.head] else 1.0  # a head's normalisation shrinks it again
        root = math.sqrt(SIGMOID_GAIN * stretch)  # the same learning rate fits both layers
        self._linear_encoder(images, root * components.mT)
        self._linear_decoder(images, root * components, stretch)

    def _linear_encoder(self, images: Tensor, weight: Tensor) -> None:
        network = self.scheme.encoder.network
        paths = network.features[0]
        assert isinstance(paths, MultiResolution)
        pass_fine_path(paths)
        lifted = [transparent_path(path, network.to_layers(images), LARGEST) for path in (paths.coarse, paths.fine)]
        transparent(paths.norm, paths.merge(*lifted))
        network.fc.weight.copy_(weight)
        network.fc.bias.copy_(-LARGEST * weight.sum(1))

    def _linear_decoder(self, images: Tensor, weight: Tensor, stretch: float) -> None:
        network, leak = self.scheme.decoder.network, self.scheme.config.slope
        network.fc.weight.copy_(weight)
        nn.init.zeros_(network.fc.bias)
        wanted = network.to_layers(images).clamp(-REACH, REACH) + LARGEST
        steepness = wanted * (1 - wanted)  # of the sigmoid: what an error before it makes behind it
        wanted = wanted.logit()
        slope = torch.where(wanted < 0, leak, 1.0)  # of the last leaky ReLU
        image = network.to_layers(network.fc(self.scheme.encoder.network(images)).unflatten(1, network.shape))
        lift, hinges = 0.0, iter(HINGES)
        for layer in network.refinement:
            if isinstance(layer, nn.Conv2d):
                nn.init.dirac_(layer.weight)
            elif isinstance(layer, RowBatchNorm):
                transparent(layer, image, LIFT - lift, stretch)
                lift, stretch = LIFT, 1.0
            elif isinstance(layer, CrBlock):
                last = layer is network.refinement[-1]
                goal = wanted / slope if last else wanted + LIFT
                weights = steepness * slope if last else steepness
                fit_paths(layer.paths, image, lift, next(hinges), goal - image, weights)
                lift = LIFT
            image = layer(image)


def pass_fine_path(paths: MultiResolution) -> None:
    """Make the fine path's first two channels the image, and the merge choose them."""
    for module in paths.fine:
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight)
    nn.init.zeros_(paths.merge.weight)
    nn.init.dirac_(paths.merge.weight[:, paths.merge.in_channels // 2 :])


def fit_paths(
    paths: MultiResolution, image: Tensor, lift: float, hinges: tuple[float, float], goal: Tensor, weight: Tensor
) -> None:
    """Give the paths hinges in the lifted image, at (fine, coarse), and let the merge bring them near `goal`."""
    fine, coarse = (
        hinged_path(path, image, lift, at) for path, at in zip((paths.fine, paths.coarse), hinges, strict=True)
    )
    fit_merge(paths.merge, paths.norm, [coarse, fine], goal, weight)


@torch.no_grad()
def transparent(norm: RowBatchNorm, image: Tensor, lift: float = 0.0, shrink: float = 1.0) -> Tensor:
    """Make a normalisation keep the statistics of `image` and give image / shrink + lift."""
    variance, mean = torch.var_mean(image, (0, 2, 3), correction=0)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt() / shrink)
    norm.bias.copy_(mean / shrink + lift)
    return norm(image)


def transparent_path(path: nn.Module, image: Tensor, lift: float) -> Tensor:
    """Make all normalisations of a path transparent, each lifting by `lift`; its output."""
    for layer in _layers(path):
        image = transparent(layer, image, lift) if isinstance(layer, RowBatchNorm) else layer(image)
    return image


@torch.no_grad()
def hinged_path(path: nn.Module, image: Tensor, lift: float, at: float) -> Tensor:
    """Make the first `PAIRS` channels of a path of a CRBlock bend a lifted image at +-`at`; the path's output.

    At 0 they are the parts above and below 0, which a further leaky ReLU leaves as they are; elsewhere the differences
    f(v - t) - f(-v - t), and their negatives, from which two leaky ReLUs' outputs can be put together again.
    """
    slope = next(layer.negative_slope for layer in _layers(path) if isinstance(layer, nn.LeakyReLU))
    both, signs = torch.eye(2), torch.tensor([[1.0], [-1.0]])
    mixes = [torch.kron(both, signs)]
    if at == 0:
        mixes += [torch.kron(both, torch.tensor([[1, slope], [slope, 1]])) / (1 - slope**2), torch.eye(PAIRS)]
    else:
        odd = torch.kron(both, signs @ signs.mT)
        mixes += [odd, odd / (1 + slope)]
    remaining = iter(mixes)
    first = True
    for layer in _layers(path):
        if isinstance(layer, RowConv2d):
            mix = next(remaining)
            centre = [size // 2 for size in layer.kernel_size]
            layer.weight[:PAIRS] = 0
            layer.weight[:PAIRS, : mix.shape[1], centre[0], centre[1]] = mix
        if isinstance(layer, RowBatchNorm):
            transparent(layer, image)
            if first:
                layer.bias[:PAIRS] -= lift * mixes[0].sum(1) + at
            first = False
        image = layer(image)
    return image


@torch.no_grad()
def fit_merge(merge: RowConv2d, norm: RowBatchNorm, paths: list[Tensor], goal: Tensor, weight: Tensor) -> None:
    """Make a 1x1 convolution and its normalisation give `goal` of the paths' first `PAIRS` channels, by weighted least
    squares over all pixels of [N, 2, H, W].
    """
    known = torch.cat([*(path[:, :PAIRS] for path in paths), torch.ones_like(goal[:, :1])], dim=1)
    features = known.transpose(0, 1).flatten(1).double()  # channel, pixel
    nn.init.zeros_(merge.weight)
    constant = torch.zeros(goal.shape[1])
    for channel, (wanted, importance) in enumerate(zip(goal.unbind(1), weight.unbind(1), strict=True)):
        weighted = features * importance.flatten()
        found = torch.linalg.lstsq(
            weighted @ weighted.mT, weighted @ (wanted * importance).flatten().double()
        ).solution.float()
        start = 0
        for path, weights in zip(paths, found[:-1].split(PAIRS), strict=True):
            merge.weight[channel, start : start + PAIRS, 0, 0] = weights
            start += path.shape[1]
        constant[channel] = found[-1]
    transparent(norm, merge(*paths))
    norm.bias.add_(constant)


def _layers(path: nn.Module) -> list[nn.Module]:
    return [layer for layer in path.modules() if isinstance(layer, RowConv2d | RowBatchNorm | nn.LeakyReLU)]
