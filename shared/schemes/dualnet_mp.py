"""DualNet-MP: magnitudes and phases in two branches, the gNB's uplink magnitudes beside the first (DualNet-MP paper,
section III and Fig. 2).

Which signs of sin(phase) are sent must be the same at both ends, bit for bit. It follows from what both hold exactly,
the magnitude codeword's integers, through a linear map of integers: no uplink, no rounding, ties by index.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from shared.channels.scenario import Scenario
from shared.channels.uplink import UplinkView
from shared.channels.wideband import Wideband, require_wideband
from shared.errors import InvalidInput
from shared.payload import SCALE, Field, PayloadLayout
from shared.quantizers.sum_of_sigmoids import SumOfSigmoids
from shared.schemes.base import Decoder, Downlink, SchemeConfig, State
from shared.schemes.image_feedback import SCALE_BITS, ImageEstimator, ImageObserver, Scale, xavier
from shared.schemes.image_layers import Padding, RowConv2d

CHANNELS: dict[str, tuple[int, ...]] = {"paper": (16, 8, 4), "released": (16, 8, 4, 2)}
"""Channels of a branch's hidden layers: the paper's, and the released code's."""

CORES: dict[str, Padding] = {"c-cnn": "circular", "cnn": "zeros"}
"""Padding of the convolutions by core layer."""

STAGES = ("all", "magnitude", "phase")

_STEEPEST = 1e-6
"""Least 1 - cos^2 whose root is taken: its slope is infinite at 0."""


@dataclass(frozen=True)
class DualNetConfig(SchemeConfig):
    """Sizes and choices.

    Attributes:
        magnitude_compression, phase_compression: entries of a codeword are Q M / compression.
        entry_bits: K, bits of a codeword entry.
        sign_ratio: R_s, share of the entries whose sign is sent.
        layers: hidden channels of a branch, of the `paper` or as `released`.
        core: `c-cnn`, circular convolutions, or `cnn`, zero-padded ones.
        combiner_blocks: residual blocks of the combining network.
        uplink: magnitudes that the magnitude decoder gets: `perfect`, or `none` (ablation).
        scale_low_db, scale_high_db: range of the image's scale, twice its largest magnitude [dB], in 255 steps.
    """

    magnitude_compression: int = 4
    phase_compression: int = 8
    entry_bits: int = 8
    sign_ratio: float = 0.25
    layers: str = "paper"
    core: str = "c-cnn"
    combiner_blocks: int = 2
    uplink: str = "perfect"
    scale_low_db: float = -52.0
    scale_high_db: float = 8.0

    def __post_init__(self) -> None:
        for name in ("magnitude_compression", "phase_compression"):
            if not 1 <= getattr(self, name) <= 1024:
                raise InvalidInput(f"{name}: {getattr(self, name)} is not in [1, 1024]")
        if not 2 <= self.entry_bits <= 8:
            raise InvalidInput(f"entry_bits: {self.entry_bits} is not in [2, 8]")
        if not 0 <= self.sign_ratio <= 1:
            raise InvalidInput(f"sign_ratio: {self.sign_ratio} is not in [0, 1]")
        if not 0 <= self.combiner_blocks <= 8:
            raise InvalidInput(f"combiner_blocks: {self.combiner_blocks} is not in [0, 8]")
        choices: dict[str, tuple[str, ...]] = {
            "layers": tuple(CHANNELS),
            "core": tuple(CORES),
            "uplink": ("perfect", "none"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InvalidInput(f"{name}: '{getattr(self, name)}' is not one of {', '.join(allowed)}")


class DominantEntries(nn.Module):
    """Which entries are taken for the dominant ones, from the integers of the magnitude codeword alone.

    A score of each entry is a linear map of the codeword with int8 weights, fitted to the magnitudes; the highest are
    chosen, of equal ones those of lower index. Sums of such integers are exact in float64 in any order, so that UE,
    gNB, batches and machines agree.

    Attributes:
        weight: [entries of the image, entries of the codeword] int8.
        offset: [entries of the image] int64.
    """

    weight: Tensor
    offset: Tensor

    def __init__(self, size: int, codeword: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.register_buffer("weight", torch.zeros(size, codeword, dtype=torch.int8))
        self.register_buffer("offset", torch.zeros(size, dtype=torch.int64))

    def forward(self, levels: Tensor) -> Tensor:
        """[N, codeword] int64 to [N, count] int64, indices of entries in ascending order."""
        scores = levels.double() @ self.weight.double().mT + self.offset
        places = torch.arange(scores.shape[1], device=scores.device)
        order = scores.long() * scores.shape[1] - places  # no two are equal
        return order.topk(self.count, dim=1).indices.sort(dim=1).values

    @torch.no_grad()
    def fit(self, levels: Tensor, magnitudes: Tensor) -> None:
        """Least squares of magnitudes [N, size] on levels [N, codeword], as whole numbers."""
        mean, center = magnitudes.double().mean(0), levels.double().mean(0)
        inputs = levels.double() - center
        gram = inputs.mT @ inputs
        ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        solution = torch.linalg.solve(gram + ridge, inputs.mT @ (magnitudes.double() - mean)).mT
        unit = 127 / solution.abs().amax().clamp(min=1e-30)
        self.weight.copy_((solution * unit).round())
        self.offset.copy_(((mean - solution @ center) * unit).round())


class Combiner(nn.Module):
    """Residual blocks of four convolutions that refine real and imaginary part (section III.A)."""

    def __init__(self, blocks: int, channels: tuple[int, ...], padding: Padding) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_convolutions((2, *channels, 2), 5, padding, _leaky) for _ in range(blocks))

    def forward(self, image: Tensor) -> Tensor:
        """[N, M, 2, Q] to the same."""
        for block in self.blocks:
            image = image + block(image)
        return image


class DualNetEncoder(ImageObserver):
    """The UE: scaled magnitudes and cosines of phases, each by its network and quantiser, and signs of sines."""

    def __init__(self, world: Wideband, config: DualNetConfig, entries: tuple[int, int], signs: int) -> None:
        super().__init__(world, noisy=False)
        self.scale = Scale(config.scale_low_db, config.scale_high_db)
        padding, hidden, size = CORES[config.core], CHANNELS[config.layers], math.prod(self.shape)
        self.magnitude = _convolutions((1, *hidden, 1), 7, padding, _leaky)
        self.magnitude_fc = nn.Linear(size, entries[0])
        self.magnitude_quantizer = SumOfSigmoids(entries[0], config.entry_bits)
        self.phase = _convolutions((1, *hidden, 1), 7, padding, nn.Tanh)
        self.phase_fc = nn.Linear(size, entries[1])
        self.phase_quantizer = SumOfSigmoids(entries[1], config.entry_bits)
        self.dominant = DominantEntries(size, entries[0], signs)

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        image = self.images(observation)
        scale = self.scale.to_level(image)
        magnitude, cosine = polar(image / self.scale.from_level(scale))
        levels = self.magnitude_quantizer.to_levels(self.magnitude_codeword(magnitude))
        entries = self.dominant(levels)
        signs = image.imag.mT.flatten(1).gather(1, entries) >= 0
        return {
            SCALE: scale,
            "magnitude": levels,
            "phase": self.phase_quantizer.to_levels(self.phase_codeword(cosine)),
            "sign": signs.long(),
        }

    def magnitude_codeword(self, magnitude: Tensor) -> Tensor:
        """[N, M, 1, Q] to [N, entries] before quantisation."""
        return self.magnitude_fc(self.magnitude(magnitude).flatten(1)).float()

    def phase_codeword(self, cosine: Tensor) -> Tensor:
        """[N, M, 1, Q] to [N, entries] before quantisation."""
        return self.phase_fc(self.phase(cosine).flatten(1)).float()


class DualNetDecoder(Decoder):
    """The gNB: magnitudes from their codeword and the uplink's magnitudes, phases from cosines and signs, combined."""

    def __init__(self, world: Wideband, config: DualNetConfig, entries: tuple[int, int], signs: int) -> None:
        super().__init__()
        rows = len(world.rows())
        self.world, self.uplink = world, config.uplink
        self.shape = (world.antennas, 1, rows)
        self.scale = Scale(config.scale_low_db, config.scale_high_db)
        padding, hidden, size = CORES[config.core], CHANNELS[config.layers], rows * world.antennas
        self.magnitude_quantizer = SumOfSigmoids(entries[0], config.entry_bits)
        self.magnitude_fc = nn.Linear(entries[0], size)
        inputs = 2 if config.uplink != "none" else 1
        self.magnitude = _convolutions((inputs, *hidden, 1), 7, padding, _leaky)
        self.phase_quantizer = SumOfSigmoids(entries[1], config.entry_bits)
        self.phase_fc = nn.Linear(entries[1], size)
        self.phase = _convolutions((1, *hidden, 1), 5, padding, nn.Tanh)
        self.combiner = Combiner(config.combiner_blocks, hidden, padding)
        self.dominant = DominantEntries(size, entries[0], signs)

    def side_information(self, uplink: UplinkView) -> Tensor:
        """Uplink magnitudes over their largest, [N, T, M Q]; nothing for the ablation."""
        if self.uplink == "none":
            return torch.zeros(len(uplink.samples), uplink.scenario.slots, 0, device=uplink.samples.ue.device)
        magnitude = uplink.image().abs()
        return (magnitude / magnitude.amax((-2, -1), keepdim=True).clamp(min=1e-30)).mT.flatten(2)

    def initial_state(self, count: int) -> State:
        return {}

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        magnitude = self.magnitudes(self.magnitude_quantizer.from_levels(fields["magnitude"]), side)
        cosine = self.cosines(self.phase_quantizer.from_levels(fields["phase"]))
        entries = self.dominant(fields["magnitude"])
        sign = torch.zeros(len(side), math.prod(self.shape), device=side.device)
        sign.scatter_(1, entries, 2.0 * fields["sign"] - 1)
        estimate = self.combined(magnitude, cosine, sign.unflatten(1, self.shape))
        return estimate * self.scale.from_level(fields[SCALE]), {}

    def magnitudes(self, codeword: Tensor, side: Tensor) -> Tensor:
        """Dequantised codeword [N, entries] and [N, M Q] to magnitudes [N, M, 1, Q]."""
        own = self.magnitude_fc(codeword).unflatten(1, self.shape)
        images = [own, side.unflatten(1, self.shape).to(own.dtype)] if side.shape[1] else [own]
        return self.magnitude(torch.cat(images, dim=2)).float()

    def cosines(self, codeword: Tensor) -> Tensor:
        """Dequantised codeword [N, entries] to [N, M, 1, Q] in [-1, 1]."""
        return self.phase(self.phase_fc(codeword).unflatten(1, self.shape)).float()

    def combined(self, magnitude: Tensor, cosine: Tensor, sign: Tensor) -> Tensor:
        """[N, M, 1, Q] each, signs -1, 0 (not sent) or 1, to the scaled image [N, Q, M] complex64 (eq. 14b and 10)."""
        sine = sign * (1 - cosine.square()).clamp(min=_STEEPEST).sqrt()
        image = self.combiner(torch.cat([magnitude * cosine, magnitude * sine], dim=2)).float()
        return torch.complex(image[:, :, 0], image[:, :, 1]).mT / 2


class DualNetMp(ImageEstimator):
    """DualNet-MP. Each slot's report stands alone.

    Training has two stages (section III): `magnitude`, eq. (5), its branch alone; then `phase`, with the magnitude
    branch as it is, eq. (13); `all` trains everything by eq. (13).
    """

    name: ClassVar[str] = "dualnet_mp"
    config_class: ClassVar[type[SchemeConfig]] = DualNetConfig

    config: DualNetConfig
    encoder: DualNetEncoder
    decoder: DualNetDecoder

    def __init__(self, scenario: Scenario, config: DualNetConfig) -> None:
        super().__init__(scenario, config)
        world = require_wideband(scenario, self.name)
        size = len(world.rows()) * world.antennas
        for field in ("magnitude_compression", "phase_compression"):
            if size % getattr(config, field):
                raise InvalidInput(f"{field}: {getattr(config, field)} does not divide {size}, the entries of an image")
        entries = (size // config.magnitude_compression, size // config.phase_compression)
        self.signs = round(config.sign_ratio * size)
        self.encoder = DualNetEncoder(world, config, entries, self.signs)
        self.decoder = DualNetDecoder(world, config, entries, self.signs)
        xavier(self)
        self.stage = "all"

    @property
    def reads_uplink(self) -> bool:
        return self.config.uplink != "none"

    @property
    def layout(self) -> PayloadLayout:
        magnitude, phase = self.encoder.magnitude_fc.out_features, self.encoder.phase_fc.out_features
        fields = (
            Field(SCALE, 1, SCALE_BITS),
            Field("magnitude", magnitude, self.config.entry_bits),
            Field("phase", phase, self.config.entry_bits),
            Field("sign", self.signs, 1),
        )
        return PayloadLayout(fields)

    def begin(self, stage: str) -> None:
        if stage not in STAGES:
            raise InvalidInput(f"stage: '{stage}' is not one of {', '.join(STAGES)}")
        self.stage = stage
        self._hand_over()
        of_magnitude = ("magnitude", "magnitude_fc", "magnitude_quantizer")
        for end in (self.encoder, self.decoder):
            for name, module in end.named_children():
                module.requires_grad_(stage == "all" or (name in of_magnitude) == (stage == "magnitude"))

    def compile_networks(self) -> None:
        for end in (self.encoder, self.decoder):
            end.magnitude.compile()
            end.phase.compile()
        self.decoder.combiner.compile()

    def reconstruct(self, observation: Tensor, side: Tensor, slope: float) -> Tensor:
        encoder, decoder = self.encoder, self.decoder
        image = encoder.images(observation.flatten(0, 1))
        scale = encoder.scale.from_level(encoder.scale.to_level(image))
        magnitude, cosine = polar(image / scale)
        entries = encoder.magnitude_codeword(magnitude)
        found = decoder.magnitudes(encoder.magnitude_quantizer(entries), side.flatten(0, 1))
        if self.stage == "magnitude":  # with the true phases the error is that of the magnitudes
            estimate = torch.polar(found[:, :, 0].mT / 2, image.angle())
        else:
            codeword = encoder.phase_quantizer(encoder.phase_codeword(cosine))
            chosen = encoder.dominant(encoder.magnitude_quantizer.to_levels(entries.detach()))
            sent = torch.zeros_like(found.flatten(1)).scatter_(1, chosen, 1.0).view_as(found)
            sign = torch.where(image.imag.mT[:, :, None] >= 0, sent, -sent)
            estimate = decoder.combined(found, decoder.cosines(codeword), sign)
        return (estimate * scale).unflatten(0, observation.shape[:2])

    @torch.no_grad()
    def calibrate(self, downlink: Downlink) -> None:
        """Fit what chooses the dominant entries, and give the gNB its copy of what both ends hold."""
        image = self.encoder.images(self.encoder.observe(downlink).flatten(0, 1))
        magnitude, _ = polar(image / self.encoder.scale.from_level(self.encoder.scale.to_level(image)))
        codewords = torch.cat([self.encoder.magnitude_codeword(part) for part in magnitude.split(256)])
        levels = self.encoder.magnitude_quantizer.to_levels(codewords)
        self.encoder.dominant.fit(levels, magnitude.flatten(1))
        self._hand_over()

    def _hand_over(self) -> None:
        """Quantisers and choice of entries are one for both ends."""
        for name in ("magnitude_quantizer", "phase_quantizer", "dominant"):
            getattr(self.decoder, name).load_state_dict(getattr(self.encoder, name).state_dict())


def polar(image: Tensor) -> tuple[Tensor, Tensor]:
    """Images [N, Q, M] of magnitude up to 0.5 to twice their magnitude and the cosine of their phase, [N, M, 1, Q]."""
    magnitude = image.abs()
    cosine = image.real / magnitude.clamp(min=1e-30)
    return 2 * magnitude.mT[:, :, None], cosine.mT[:, :, None]


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.3)


def _convolutions(
    channels: tuple[int, ...], kernel: int, padding: Padding, activation: Callable[[], nn.Module]
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers += [RowConv2d(inputs, outputs, (kernel, kernel), bias=True, padding_mode=padding), activation()]
    return nn.Sequential(*layers)
