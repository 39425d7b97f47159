"""What CRNet and CsiNet have in common: an autoencoder of angular-delay images, its codeword and scale on the wire.

The networks see an image as angle x (real, imaginary part) x delay numbers in [-0.5, 0.5], its largest magnitude being
0.5: the public data less their offset of 0.5, so that the padding of convolutions means no power. That scale is the
sample's own: it is sent. It is quantised *before* the image is scaled by it, upwards, so that both ends use the same
number and its quantisation costs next to nothing.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from shared.channels.wideband import Wideband, require_wideband
from shared.errors import InvalidInput
from shared.fields import OneOf, Within, check_fields
from shared.metrics import Domain
from shared.quantizers import float32
from shared.quantizers.base import Quantizer
from shared.quantizers.scale import Scale
from shared.quantizers.uniform import UniformQuantizer
from shared.schemes.base import Decoder, Downlink, Encoder, Scheme, SchemeConfig, State
from shared.schemes.layouts.rows import RowBatchNorm, RowConv2d, RowLayer, Transposed
from shared.schemes.linear import Linear


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

    compression: Annotated[int, Within(1, 1024)] = 4
    entry_bits: int = float32.BITS
    allocation: Annotated[str, OneOf(("equal", "greedy"))] = "equal"
    companding: Annotated[float, Within(0, 1000)] = 0.0
    quantised_training: bool = False
    observation: Annotated[str, OneOf(("perfect", "estimated"))] = "perfect"
    scale_low_db: float = -52.0
    scale_high_db: float = 8.0

    def __post_init__(self) -> None:
        check_fields(self)
        Scale(self.scale_low_db, self.scale_high_db)  # checks them
        if self.entry_bits != float32.BITS and not 2 <= self.entry_bits <= 8:
            raise InvalidInput(f"entry_bits: {self.entry_bits} is not 2 to 8, or {float32.BITS} for float32")
        if self.allocation == "greedy" and self.entry_bits == float32.BITS:
            raise InvalidInput("allocation: 'greedy' has no bits to share out when the codeword is float32")
        if self.companding and self.entry_bits == float32.BITS:
            raise InvalidInput(f"companding: {self.companding} has nothing to compress when the codeword is float32")

    def make_quantizer(self, entries: int) -> Quantizer:
        """Of the codeword, for either end."""
        if self.entry_bits == float32.BITS:
            return float32.Float32("codeword", entries)
        allocated = self.allocation == "greedy"
        return UniformQuantizer("codeword", entries, self.entry_bits, allocated=allocated, mu=self.companding)


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

    def __init__(self, world: Wideband, config: ImageConfig, network: FullyConnectedEncoder) -> None:
        super().__init__(world, noisy=config.observation == "estimated")
        self.scale = Scale(config.scale_low_db, config.scale_high_db)
        self.network = network
        self.quantizer = config.make_quantizer(network.fc.out_features)

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        scale, codeword = self.parts(observation)
        return {**scale, **self.quantizer.encode(codeword)}

    def parts(self, observation: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The scale's field, and the codeword [N, entries] float32, of [N, observation]."""
        image = self.images(observation)
        scale = self.scale.encode(image)
        return scale, self.network(to_network(image, self.scale.decode(scale))).float()


class ImageDecoder(Decoder):
    """Codeword to image by `network`, then the scale."""

    def __init__(self, config: ImageConfig, network: FullyConnectedDecoder) -> None:
        super().__init__()
        self.scale = Scale(config.scale_low_db, config.scale_high_db)
        self.network = network
        self.quantizer = config.make_quantizer(network.fc.in_features)

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        return from_network(self.network(self.quantizer.decode(fields)).float(), self.scale.decode(fields)), {}


class ImageEstimator(Scheme):
    """Base of the schemes that estimate angular-delay images."""

    domain: ClassVar[Domain] = "angular-delay"
    decoded_at_once: ClassVar[int | None] = 64  # of more, features leave the caches, and their memory is asked for anew
    sizes: ClassVar[tuple[str, ...]] = ("antennas", "first_rows", "last_rows", "subcarriers")
    default_scenario: ClassVar[str] = "cost2100-indoor-csinet"


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
        return ImageEncoder(self.world, self.config, FullyConnectedEncoder(self.features(), self.shape, self.entries))

    def make_decoder(self) -> ImageDecoder:
        return ImageDecoder(self.config, FullyConnectedDecoder(self.refinement(), self.shape, self.entries))

    @abstractmethod
    def features(self) -> nn.Sequential:
        """Layers of the encoder before its fully connected one, on images of real and imaginary part."""

    @abstractmethod
    def refinement(self) -> nn.Sequential:
        """Layers of the decoder behind its fully connected one, before the sigmoid."""


def to_network(image: Tensor, scale: Tensor) -> Tensor:
    """[N, Q, M] complex of magnitude up to half the scale, [N, 1], to [N, M, 2, Q] in [-0.5, 0.5]."""
    return (torch.view_as_real(image) / scale[..., None, None]).permute(0, 2, 3, 1).contiguous()


def from_network(numbers: Tensor, scale: Tensor) -> Tensor:
    """Inverse of `to_network`."""
    return torch.view_as_complex((numbers * scale[..., None, None]).permute(0, 3, 1, 2).contiguous())


def xavier(network: nn.Module) -> None:
    """Xavier initialisation of convolutions and fully connected layers (CRNet paper, section IV.A)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)


class FullyConnectedEncoder(RowLayer, nn.Module):
    """Convolutional features of an image [N, M, 2, Q], flattened, to the codeword."""

    def __init__(self, features: nn.Sequential, shape: tuple[int, int, int], entries: int) -> None:
        super().__init__()
        self.features = features
        self.fc = nn.Linear(math.prod(shape), entries)
        xavier(self)

    def forward(self, image: Tensor) -> Tensor:
        return self.fc(self.from_layers(self.features(self.to_layers(image))).flatten(1))


class FullyConnectedDecoder(RowLayer, nn.Module):
    """The codeword to an image [N, M, 2, Q], refined by layers; a sigmoid brings it to the right range."""

    def __init__(self, refinement: nn.Sequential, shape: tuple[int, int, int], entries: int) -> None:
        super().__init__()
        self.shape = shape
        self.fc = Linear(entries, math.prod(shape))
        self.refinement = refinement
        xavier(self)

    def forward(self, codeword: Tensor) -> Tensor:
        image = self.from_layers(self.refinement(self.to_layers(self.fc(codeword).unflatten(1, self.shape))))
        return torch.sigmoid(image.float()) - 0.5


def conv_bn(inputs: int, outputs: int, size: tuple[int, int]) -> tuple[RowConv2d, RowBatchNorm]:
    """Convolution that keeps the image's size, then batch normalisation."""
    return RowConv2d(inputs, outputs, size), RowBatchNorm(outputs)


def conv_path(channels: tuple[int, ...], sizes: tuple[tuple[int, int], ...], slope: float) -> list[nn.Module]:
    """Convolutions one after the other, each with batch normalisation and leaky ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs, (height, width) in zip(channels, channels[1:], sizes, strict=False):
        if width == 1 < height:
            layers.append(Transposed(*conv_bn(inputs, outputs, (1, height)), nn.LeakyReLU(slope)))
        else:
            layers += [*conv_bn(inputs, outputs, (height, width)), nn.LeakyReLU(slope)]
    return layers
