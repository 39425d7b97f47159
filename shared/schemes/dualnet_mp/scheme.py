"""DualNet-MP, whole: two branches, what is sent of each, and the combining network (DualNet-MP paper, section III and
Fig. 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from shared.channels.uplink import UplinkView
from shared.channels.wideband import Wideband, require_wideband
from shared.errors import InvalidInput
from shared.fields import OneOf, Within, check_fields
from shared.quantizers.scale import Scale
from shared.schemes import Decoder, SchemeConfig, State, register
from shared.schemes.dualnet_mp.branches import CHANNELS, Activation, Branch, BranchEncoder, Combiner, Shape, leaky
from shared.schemes.dualnet_mp.magnitudes import (
    MAGNITUDE,
    DominantEntries,
    LargestEntries,
    MagnitudeDecoder,
    PerfectMagnitudes,
)
from shared.schemes.dualnet_mp.phases import (
    PHASE,
    AngleDecoder,
    AngleEncoder,
    CosineDecoder,
    CosineEncoder,
    CosSin,
    DominantAngles,
)
from shared.schemes.image_feedback import ImageEstimator, ImageObserver, xavier


@dataclass(frozen=True)
class DualNetConfig(SchemeConfig):
    """Sizes and choices.

    Attributes:
        magnitude_compression, phase_compression: a codeword's entries are Q M / compression; a binary quantiser has
            as many times more of them as the other has bits.
        magnitude_bits, phase_bits: K, bits of a codeword's entry.
        sign_ratio: R_s, share of the entries whose sign is sent (`smape`).
        phase: method (section IV.A): `smape` sends cosines and signs; `mse0` and `mdpp` send the angle, and minimise
            eq. (11) or (12); `mdpq` quantises the angles of dominant entries one by one.
        mdpq_bits: of the entries in 0-50, 50-70, 70-80, 80-90 and 90-100 % of the distribution of magnitudes (`mdpq`).
        quantizer: of the phase codeword, `ssq` or `blq`.
        magnitude_quantizer: the same, or `perfect`: the reference that is sent each magnitude in 32 bits.
        core, magnitude_core: layers of the phase and of the magnitude branch: `c-cnn`, circular convolutions, `cnn`,
            zero-padded ones, or `dnn`, fully connected.
        layers: hidden channels of convolutions, of the `paper` or as `released`.
        combiner_blocks: residual blocks of the combining network, circular but for a `cnn`. `mdpp` has none: its loss
            sees phases alone.
        uplink: magnitudes that the magnitude decoder gets: `perfect`, `estimated` at the scenario's SNR, or `none`.
        scale_low_db, scale_high_db: range of the image's scale, twice its largest magnitude [dB], in 255 steps.
    """

    magnitude_compression: Annotated[float, Within(1, 1024)] = 4
    phase_compression: Annotated[float, Within(1, 1024)] = 8
    magnitude_bits: Annotated[int, Within(2, 12)] = 8
    phase_bits: Annotated[int, Within(2, 12)] = 8
    sign_ratio: Annotated[float, Within(0, 1)] = 0.25
    phase: Annotated[str, OneOf(("smape", "mse0", "mdpp", "mdpq"))] = "smape"
    mdpq_bits: tuple[int, ...] = (0, 0, 0, 3, 7)
    quantizer: Annotated[str, OneOf(("ssq", "blq"))] = "ssq"
    magnitude_quantizer: Annotated[str, OneOf(("ssq", "blq", "perfect"))] = "ssq"
    core: Annotated[str, OneOf(("c-cnn", "cnn", "dnn"))] = "c-cnn"
    magnitude_core: Annotated[str, OneOf(("c-cnn", "cnn", "dnn"))] = "c-cnn"
    layers: Annotated[str, OneOf(("paper", "released"))] = "paper"
    combiner_blocks: Annotated[int, Within(0, 8)] = 1
    uplink: Annotated[str, OneOf(("perfect", "estimated", "none"))] = "perfect"
    scale_low_db: float = -52.0
    scale_high_db: float = 8.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "mdpq_bits", tuple(self.mdpq_bits))  # JSON knows lists only
        check_fields(self)
        if len(self.mdpq_bits) != 5 or not all(0 <= bits <= 12 for bits in self.mdpq_bits):
            raise InvalidInput(f"mdpq_bits: {self.mdpq_bits} is not five numbers in [0, 12]")
        Scale(self.scale_low_db, self.scale_high_db)  # checks them


class Parts:
    """The parts of both ends, as a configuration wants them for images of a size."""

    def __init__(self, config: DualNetConfig, shape: Shape) -> None:
        self.config, self.shape = config, shape
        self.perfect = config.magnitude_quantizer == "perfect"
        self.uplink = "none" if self.perfect else config.uplink
        self.reach = round(config.sign_ratio * math.prod(shape)) if config.phase == "smape" else 0
        if config.phase == "mdpq":
            self.reach = DominantAngles(shape, config.mdpq_bits).reach
        self.magnitudes = self._branch(MAGNITUDE, config.magnitude_quantizer, config.magnitude_core, leaky)
        self.phases = self._branch(PHASE, config.quantizer, config.core, nn.Tanh)

    def magnitude_encoder(self) -> BranchEncoder | PerfectMagnitudes:
        return PerfectMagnitudes(self.shape) if self.perfect else BranchEncoder(self.magnitudes)

    def magnitude_decoder(self) -> MagnitudeDecoder | PerfectMagnitudes:
        if self.perfect:
            return PerfectMagnitudes(self.shape)
        return MagnitudeDecoder(self.magnitudes, kernel=7, beside=int(self.uplink != "none"))

    def phase_encoder(self) -> CosineEncoder | AngleEncoder | DominantAngles:
        if self.config.phase == "mdpq":
            return DominantAngles(self.shape, self.config.mdpq_bits)
        return CosineEncoder(self.phases, self.reach) if self.config.phase == "smape" else AngleEncoder(self.phases)

    def phase_decoder(self) -> CosineDecoder | AngleDecoder | DominantAngles:
        if self.config.phase == "mdpq":
            return DominantAngles(self.shape, self.config.mdpq_bits)
        if self.config.phase == "smape":
            return CosineDecoder(self.phases, self.reach, kernel=5)
        return AngleDecoder(self.phases, kernel=5)

    def dominant(self) -> DominantEntries | LargestEntries:
        return LargestEntries() if self.perfect else DominantEntries(math.prod(self.shape), self.magnitudes.entries)

    def combiner(self) -> Combiner:
        blocks = 0 if self.config.phase == "mdpp" else self.config.combiner_blocks
        return Combiner(blocks, CHANNELS[self.config.layers], self.config.core != "cnn", self.shape)

    def _branch(self, name: str, quantizer: str, core: str, activation: Activation) -> Branch:
        size, compression = math.prod(self.shape), getattr(self.config, f"{name}_compression")
        if (size / compression) % 1:
            raise InvalidInput(f"{name}_compression: {compression} does not divide {size}, the entries of an image")
        bits = getattr(self.config, f"{name}_bits")
        entries = round(size / compression) * (bits if quantizer == "blq" else 1)
        return Branch(name, self.shape, entries, quantizer, bits, core, self.config.layers, activation)


class DualNetEncoder(ImageObserver):
    """The UE."""

    def __init__(self, world: Wideband, config: DualNetConfig, parts: Parts) -> None:
        super().__init__(world, noisy=False)
        self.scale = Scale(config.scale_low_db, config.scale_high_db)
        self.magnitude, self.phase = parts.magnitude_encoder(), parts.phase_encoder()
        self.dominant, self.reach = parts.dominant(), parts.reach
        xavier(self)

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        image = self.images(observation)
        scale = self.scale.encode(image)
        levels = self.levels(magnitudes(image / self.scale.decode(scale)[..., None]))
        return {**scale, MAGNITUDE: levels, **self.phase.encode(image, self.dominant(levels, self.reach))}

    def levels(self, magnitude: Tensor) -> Tensor:
        """Magnitudes in [0, 1], [N, 1, Q, M], to what is sent of them, [N, entries] int64."""
        return self.magnitude.quantizer.to_levels(self.magnitude.codeword(magnitude))


class DualNetDecoder(Decoder):
    """The gNB."""

    def __init__(self, config: DualNetConfig, parts: Parts) -> None:
        super().__init__()
        self.uplink = parts.uplink
        self.scale = Scale(config.scale_low_db, config.scale_high_db)
        self.magnitude, self.phase = parts.magnitude_decoder(), parts.phase_decoder()
        self.dominant, self.reach = parts.dominant(), parts.reach
        self.combiner = parts.combiner()
        xavier(self)

    def side_information(self, uplink: UplinkView) -> Tensor:
        """Uplink magnitudes over their largest, [N, T, Q M]; nothing where the decoder takes none."""
        if self.uplink == "none":
            return super().side_information(uplink)
        magnitude = uplink.image(noisy=self.uplink == "estimated").abs()
        return (magnitude / magnitude.amax((-2, -1), keepdim=True).clamp(min=1e-30)).flatten(2)

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        phases = self.phase(*self.phase.received(fields, self.dominant(fields[MAGNITUDE], self.reach)))
        image = self.combined(self.magnitude(self.magnitude.quantizer.decode(fields), side), phases)
        return image * self.scale.decode(fields)[..., None], {}

    def combined(self, magnitude: Tensor, phases: CosSin) -> Tensor:
        """[N, 1, Q, M] each to the scaled image [N, Q, M] complex64 (eq. 10)."""
        image = self.combiner(torch.cat([magnitude * part for part in phases], dim=1)).float()
        return torch.complex(image[:, 0], image[:, 1]) / 2


@register
class DualNetMp(ImageEstimator):
    """DualNet-MP. Each slot's report stands alone."""

    name: ClassVar[str] = "dualnet_mp"
    config_class: ClassVar[type[SchemeConfig]] = DualNetConfig

    config: DualNetConfig
    encoder: DualNetEncoder
    decoder: DualNetDecoder

    def check_sizes(self) -> None:
        self.world = require_wideband(self.scenario, self.name)
        self.parts = Parts(self.config, (1, len(self.world.rows()), self.world.antennas))

    def make_encoder(self) -> DualNetEncoder:
        return DualNetEncoder(self.world, self.config, self.parts)

    def make_decoder(self) -> DualNetDecoder:
        return DualNetDecoder(self.config, self.parts)

    @property
    def reads_uplink(self) -> bool:
        return self.parts.uplink != "none"


def magnitudes(image: Tensor) -> Tensor:
    """Images [N, Q, M] of magnitude up to 0.5 to twice their magnitude, [N, 1, Q, M]."""
    return 2 * image.abs()[:, None]
