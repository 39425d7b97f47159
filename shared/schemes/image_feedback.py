"""What CRNet and CsiNet have in common: an autoencoder of angular-delay images, its codeword and scale on the wire.

The networks see an image as angle x (real, imaginary part) x delay numbers in [-0.5, 0.5], its largest magnitude being
0.5: the public data less their offset of 0.5, so that the padding of convolutions means no power. That scale is the
sample's own: it is sent. It is quantised *before* the image is scaled by it, upwards, so that both ends use the same
number and its quantisation costs next to nothing.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.channels.uplink import UplinkView
from shared.channels.wideband import Wideband, require_wideband
from shared.errors import InvalidInput
from shared.link.payload import SCALE, Field, PayloadLayout
from shared.metrics import Domain, energy
from shared.quantizers import float32
from shared.quantizers.uniform import CODEWORD, UniformQuantizer
from shared.schemes.base import Decoder, Downlink, Encoder, Scheme, SchemeConfig, State
from shared.schemes.image_layers import RowBatchNorm, RowConv2d, Turned, from_layers, to_layers

SCALE_BITS = 8

ALLOCATION_FRAMES = 2048
"""Enough to share bits out by; ranges are set by all that are given."""

MOST_COMPANDING = 1000


@dataclass(frozen=True)
class ImageConfig(SchemeConfig):
    """Sizes and choices of an autoencoder with a quantised codeword.

    Attributes:
        compression: codeword entries are 2 Q M / compression.
        entry_bits: K, bits of a codeword entry, 2 to 8; 32 sends float32 (reference).
        allocation: `equal`, K bits for every entry, or `greedy`, K on average, more where they help more.
        companding: mu of the mu-law by which entries are compressed before they are quantised; 0 leaves them.
        quantised_training: the quantiser is in the training path too (straight-through).
        observation: `perfect`, the UE knows its channel, or `estimated` at the scenario's SNR.
        scale_low_db, scale_high_db: range of the image's scale, twice its largest magnitude [dB], in 255 steps.
    """

    compression: int = 4
    entry_bits: int = float32.BITS
    allocation: str = "equal"
    companding: float = 0.0
    quantised_training: bool = False
    observation: str = "perfect"
    scale_low_db: float = -52.0
    scale_high_db: float = 8.0

    def __post_init__(self) -> None:
        if not 1 <= self.compression <= 1024:
            raise InvalidInput(f"compression: {self.compression} is not in [1, 1024]")
        if self.entry_bits != float32.BITS and not 2 <= self.entry_bits <= 8:
            raise InvalidInput(f"entry_bits: {self.entry_bits} is not 2 to 8, or {float32.BITS} for float32")
        if self.allocation not in ("equal", "greedy"):
            raise InvalidInput(f"allocation: '{self.allocation}' is not equal or greedy")
        if self.allocation == "greedy" and self.entry_bits == float32.BITS:
            raise InvalidInput("allocation: 'greedy' has no bits to share out when the codeword is float32")
        if not 0 <= self.companding <= MOST_COMPANDING:
            raise InvalidInput(f"companding: {self.companding} is not in [0, {MOST_COMPANDING}]")
        if self.companding and self.entry_bits == float32.BITS:
            raise InvalidInput(f"companding: {self.companding} has nothing to compress when the codeword is float32")
        if self.observation not in ("perfect", "estimated"):
            raise InvalidInput(f"observation: '{self.observation}' is not perfect or estimated")
        Scale.check(self.scale_low_db, self.scale_high_db)


class Scale:
    """The image's scale as 8 bits: level l stands for low + l (high - low) / 255 dB."""

    def __init__(self, low_db: float, high_db: float) -> None:
        self.low = low_db
        self.step = (high_db - low_db) / (2**SCALE_BITS - 1)

    @staticmethod
    def check(low_db: float, high_db: float) -> None:
        """Raises InvalidInput for limits that are none."""
        if not -200 <= low_db < high_db <= 200:
            raise InvalidInput(f"scale_low_db, scale_high_db: {low_db}, {high_db}; wanted -200 <= low < high <= 200")

    def to_level(self, image: Tensor) -> Tensor:
        """[N, Q, M] complex images to [N, 1] int64, the least level that keeps the largest magnitude below 0.5."""
        largest = 2 * _largest(image).flatten(1).clamp(min=1e-30)
        level = ((20 * largest.log10() - self.low) / self.step).ceil()
        return level.clamp(0, 2**SCALE_BITS - 1).long()

    def from_level(self, level: Tensor) -> Tensor:
        """[N, 1] int64 to the scale, [N, 1, 1] float32."""
        return (10 ** ((self.low + level * self.step) / 20))[..., None]


class ImageObserver(Encoder):
    """A UE that observes images of `shape` (Q, M), `noisy` or perfect."""

    def __init__(self, world: Wideband, *, noisy: bool) -> None:
        super().__init__()
        self.shape = (len(world.rows()), world.antennas)
        self.noisy = noisy

    def observe(self, downlink: Downlink) -> Tensor:
        """[N, T, 2 Q M]: real parts of the image [delay, angle], then imaginary parts."""
        image = downlink.image(noisy=self.noisy)
        return torch.cat([image.real.flatten(2), image.imag.flatten(2)], dim=-1)

    def images(self, observation: Tensor) -> Tensor:
        """[N, 2 Q M] to [N, Q, M] complex64."""
        real, imaginary = observation.unflatten(1, (2, *self.shape)).unbind(1)
        return torch.complex(real, imaginary)


class ImageEncoder(ImageObserver):
    """Scales the image, encodes it by `network` and quantises the codeword."""

    def __init__(self, world: Wideband, config: ImageConfig, network: FullyConnectedEncoder, entries: int) -> None:
        super().__init__(world, noisy=config.observation == "estimated")
        self.scale = Scale(config.scale_low_db, config.scale_high_db)
        self.network = network
        self.quantizer = _quantizer(config, entries)

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        image = self.images(observation)
        level = self.scale.to_level(image)
        codeword = self.network(to_network(image, self.scale.from_level(level))).float()
        if self.quantizer is None:
            return {SCALE: level, CODEWORD: float32.to_levels(codeword)}
        return {SCALE: level, **self.quantizer.to_fields(self.quantizer.to_levels(codeword))}


class ImageDecoder(Decoder):
    """Codeword to image by `network`, then the scale."""

    def __init__(self, config: ImageConfig, network: FullyConnectedDecoder, entries: int) -> None:
        super().__init__()
        self.scale = Scale(config.scale_low_db, config.scale_high_db)
        self.network = network
        self.quantizer = _quantizer(config, entries)

    def side_information(self, uplink: UplinkView) -> Tensor:
        """Nothing: [N, T, 0]."""
        return torch.zeros(len(uplink.samples), uplink.scenario.slots, 0, device=uplink.samples.ue.device)

    def initial_state(self, count: int) -> State:
        return {}

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        if self.quantizer is None:
            codeword = float32.from_levels(fields[CODEWORD])
        else:
            codeword = self.quantizer.from_levels(self.quantizer.from_fields(fields))
        return from_network(self.network(codeword).float(), self.scale.from_level(fields[SCALE])), {}


def _quantizer(config: ImageConfig, entries: int) -> UniformQuantizer | None:
    if config.entry_bits == float32.BITS:
        return None
    allocated = config.allocation == "greedy"
    return UniformQuantizer(entries, config.entry_bits, allocated=allocated, mu=config.companding)


class ImageEstimator(Scheme):
    """Base of the schemes that estimate angular-delay images."""

    domain: ClassVar[Domain] = "angular-delay"
    sizes: ClassVar[tuple[str, ...]] = ("antennas", "first_rows", "last_rows", "subcarriers")
    default_scenario: ClassVar[str] = "cost2100-indoor-csinet"

    def loss(self, estimate: Tensor, truth: Tensor) -> Tensor:
        """Mean squared error of the scaled images' numbers (CRNet paper, section IV.A)."""
        largest = 2 * _largest(truth)[..., 0, 0]
        return (energy(estimate - truth, axes=2) / largest.square()).mean() / (2 * truth[0, 0].numel())

    def progress(self, estimate: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of ratios."""
        error, power = energy(estimate - truth, axes=2), energy(truth, axes=2)
        return (error / power).mean(), torch.ones_like(error[0, 0])


class ImageScheme(ImageEstimator):
    """Base of the autoencoders of images. Each slot's report stands alone.

    Subclasses give the layers around the fully connected ones: `features` and `refinement`.

    Attributes:
        shape: of what the networks see of an image, (M, 2, Q). entries: of the codeword.
    """

    config_class: ClassVar[type[SchemeConfig]] = ImageConfig

    config: ImageConfig
    encoder: ImageEncoder
    decoder: ImageDecoder

    def check_sizes(self) -> None:
        self.world = require_wideband(self.scenario, self.name)
        self.shape = (self.world.antennas, 2, len(self.world.rows()))
        numbers, compression = math.prod(self.shape), self.config.compression
        if numbers % compression:
            raise InvalidInput(f"compression: {compression} does not divide {numbers}, the numbers of an image")
        self.entries = numbers // compression

    def make_encoder(self) -> ImageEncoder:
        network = FullyConnectedEncoder(self.features(), self.shape, self.entries)
        xavier(network)
        return ImageEncoder(self.world, self.config, network, self.entries)

    def make_decoder(self) -> ImageDecoder:
        network = FullyConnectedDecoder(self.refinement(), self.shape, self.entries)
        xavier(network)
        return ImageDecoder(self.config, network, self.entries)

    @abstractmethod
    def features(self) -> nn.Sequential:
        """Layers of the encoder before its fully connected one, on images of real and imaginary part."""

    @abstractmethod
    def refinement(self) -> nn.Sequential:
        """Layers of the decoder behind its fully connected one, before the sigmoid."""

    def compile_networks(self, mode: str) -> None:
        self.encoder.network.compile(mode=mode)
        self.decoder.network.compile(mode=mode)

    @property
    def layout(self) -> PayloadLayout:
        quantizer = (self.encoder if hasattr(self, "encoder") else self.decoder).quantizer
        codeword = (Field(CODEWORD, self.entries, float32.BITS),) if quantizer is None else quantizer.fields()
        return PayloadLayout((Field(SCALE, 1, SCALE_BITS), *codeword))

    def reconstruct(self, observation: Tensor, side: Tensor, slope: float) -> Tensor:
        image = self.encoder.images(observation.flatten(0, 1))
        scale = self.encoder.scale.from_level(self.encoder.scale.to_level(image))
        codeword = self.encoder.network(to_network(image, scale))
        if self.config.quantised_training and self.encoder.quantizer is not None:
            codeword = self.encoder.quantizer(codeword.float())
        estimate = from_network(self.decoder.network(codeword).float(), scale)
        return estimate.unflatten(0, observation.shape[:2])

    def check_fields(self, fields: Mapping[str, NDArray[np.int64]]) -> None:
        if self.decoder.quantizer is None:
            float32.check(CODEWORD, fields[CODEWORD])

    @abstractmethod
    def pass_through(self, scale: float) -> None:
        """Make the convolutions hand on what they are given, as far as leaky ReLUs let them, and residual paths silent.

        Args:
            scale: standard deviation that a batch normalisation of the whole image is to leave.
        """

    @torch.no_grad()
    def principal_start(self, downlink: Downlink) -> None:
        """Convolutions pass, and the fully connected layers project on the principal components of the given channels:
        the best linear autoencoder, were it not for the leaky ReLUs. Training from random weights spends most of its
        time on the way to such a projection.
        """
        images = self.scaled(downlink)
        components = self.principal_components(images)
        scale = 4 * float(images.std())  # a sigmoid's slope is 1/4 in the middle
        self.pass_through(scale)
        root = math.sqrt(scale)  # half of the scale in each layer keeps both in reach of the same learning rate
        self.encoder.network.fc.weight.copy_(root * components.mT)
        self.decoder.network.fc.weight.copy_(root * components)
        for layer in (self.encoder.network.fc, self.decoder.network.fc):
            nn.init.zeros_(layer.bias)

    def principal_components(self, images: Tensor) -> Tensor:
        """As many orthonormal directions as there are codeword entries, in which images [N, M, 2, Q] have most power,
        [M 2 Q, entries].
        """
        numbers = images.flatten(1)
        values, vectors = torch.linalg.eigh(numbers.mT @ numbers)
        return vectors[:, values.argsort(descending=True)[: self.entries]]

    @torch.no_grad()
    def calibrate(self, downlink: Downlink) -> None:
        """Set the quantiser's ranges, and share its bits out, by the codewords of the given channels."""
        if self.encoder.quantizer is None or self.decoder.quantizer is None:
            return
        codewords = torch.cat([self.encoder.network(part).float() for part in self.scaled(downlink).split(256)])
        if self.config.allocation == "greedy":
            self.encoder.quantizer.allocate(
                codewords[:ALLOCATION_FRAMES], self.decoder.network.fc.weight.square().sum(0)
            )
        self.encoder.quantizer.calibrate(codewords)
        self.decoder.quantizer.load_state_dict(self.encoder.quantizer.state_dict())

    def scaled(self, downlink: Downlink) -> Tensor:
        """What the encoder's network gets, [N T, M, 2, Q]."""
        image = self.encoder.images(self.encoder.observe(downlink).flatten(0, 1))
        return to_network(image, self.encoder.scale.from_level(self.encoder.scale.to_level(image)))


def to_network(image: Tensor, scale: Tensor) -> Tensor:
    """[N, Q, M] complex of magnitude up to half the scale, [N, 1, 1], to [N, M, 2, Q] in [-0.5, 0.5]."""
    return (torch.view_as_real(image) / scale[..., None]).permute(0, 2, 3, 1).contiguous()


def from_network(numbers: Tensor, scale: Tensor) -> Tensor:
    """Inverse of `to_network`."""
    return torch.view_as_complex((numbers * scale[..., None]).permute(0, 3, 1, 2).contiguous())


def _largest(image: Tensor) -> Tensor:
    """Largest magnitude of each image [..., Q, M], [..., 1, 1]."""
    return (image.real.square() + image.imag.square()).amax((-2, -1), keepdim=True).sqrt()


def xavier(network: nn.Module) -> None:
    """Xavier initialisation of convolutions and fully connected layers (CRNet paper, section IV.A)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)


class FullyConnectedEncoder(nn.Module):
    """Convolutional features of an image [N, M, 2, Q], flattened, to the codeword."""

    def __init__(self, features: nn.Sequential, shape: tuple[int, int, int], entries: int) -> None:
        super().__init__()
        self.features = features
        self.fc = nn.Linear(math.prod(shape), entries)

    def forward(self, image: Tensor) -> Tensor:
        return self.fc(from_layers(self.features(to_layers(image))).flatten(1))


class FullyConnectedDecoder(nn.Module):
    """The codeword to an image [N, M, 2, Q], refined by layers; a sigmoid brings it to the right range."""

    def __init__(self, refinement: nn.Sequential, shape: tuple[int, int, int], entries: int) -> None:
        super().__init__()
        self.shape = shape
        self.fc = nn.Linear(entries, math.prod(shape))
        self.refinement = refinement

    def forward(self, codeword: Tensor) -> Tensor:
        image = from_layers(self.refinement(to_layers(self.fc(codeword).unflatten(1, self.shape))))
        return torch.sigmoid(image.float()) - 0.5


def conv_bn(inputs: int, outputs: int, size: tuple[int, int]) -> tuple[RowConv2d, RowBatchNorm]:
    """Convolution that keeps the image's size, then batch normalisation."""
    return RowConv2d(inputs, outputs, size), RowBatchNorm(outputs)


def conv_path(channels: tuple[int, ...], sizes: tuple[tuple[int, int], ...], slope: float) -> list[nn.Module]:
    """Convolutions one after the other, each with batch normalisation and leaky ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs, (height, width) in zip(channels, channels[1:], sizes, strict=False):
        if width == 1 < height:
            layers.append(Turned(*conv_bn(inputs, outputs, (1, height)), nn.LeakyReLU(slope)))
        else:
            layers += [*conv_bn(inputs, outputs, (height, width)), nn.LeakyReLU(slope)]
    return layers
