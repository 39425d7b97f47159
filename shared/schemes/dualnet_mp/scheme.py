"""DualNet-MP, whole: two branches, what is sent of each, and the combining network (DualNet-MP paper, section III and
Fig. 2).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from shared.channels.uplink import UplinkView
from shared.channels.wideband import Wideband, require_wideband
from shared.quantizers.scale import Scale
from shared.schemes.base import Decoder, SchemeConfig, State
from shared.schemes.dualnet_mp.branches import BranchEncoder
from shared.schemes.dualnet_mp.config import DualNetConfig
from shared.schemes.dualnet_mp.dominant import DominantEntries, LargestEntries
from shared.schemes.dualnet_mp.magnitudes import MAGNITUDE, MagnitudeDecoder, PerfectMagnitudes
from shared.schemes.dualnet_mp.parts import Parts
from shared.schemes.dualnet_mp.phases import (
    AngleDecoder,
    AngleEncoder,
    CosineDecoder,
    CosineEncoder,
    CosSin,
    DominantAngles,
)
from shared.schemes.image_feedback import ImageEstimator, ImageObserver, xavier
from shared.schemes.registry import register


class DualNetEncoder(ImageObserver):
    """The UE."""

    magnitude: BranchEncoder | PerfectMagnitudes
    phase: CosineEncoder | AngleEncoder | DominantAngles
    dominant: DominantEntries | LargestEntries

    def __init__(self, world: Wideband, config: DualNetConfig, parts: Parts) -> None:
        super().__init__(world, noisy=False)
        self.scale = Scale(config.scale_low_db, config.scale_high_db)
        self.magnitude, self.phase = parts.magnitude_encoder(), parts.phase_encoder()
        self.dominant, self.reach = parts.dominant(), parts.reach

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

    magnitude: MagnitudeDecoder | PerfectMagnitudes
    phase: CosineDecoder | AngleDecoder | DominantAngles
    dominant: DominantEntries | LargestEntries

    def __init__(self, config: DualNetConfig, parts: Parts) -> None:
        super().__init__()
        self.uplink = parts.uplink
        self.scale = Scale(config.scale_low_db, config.scale_high_db)
        self.magnitude, self.phase = parts.magnitude_decoder(), parts.phase_decoder()
        self.dominant, self.reach = parts.dominant(), parts.reach
        self.combiner = parts.combiner()

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
        encoder = DualNetEncoder(self.world, self.config, self.parts)
        xavier(encoder)
        return encoder

    def make_decoder(self) -> DualNetDecoder:
        decoder = DualNetDecoder(self.config, self.parts)
        xavier(decoder)
        return decoder

    @property
    def reads_uplink(self) -> bool:
        return self.parts.uplink != "none"


def magnitudes(image: Tensor) -> Tensor:
    """Images [N, Q, M] of magnitude up to 0.5 to twice their magnitude, [N, 1, Q, M]."""
    return 2 * image.abs()[:, None]
