"""DualNet-MP, whole: two branches, what is sent of each, the combining network, and the stages of training
(DualNet-MP paper, section III and Fig. 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.channels.uplink import UplinkView
from shared.channels.wideband import Wideband, require_wideband
from shared.errors import InvalidInput
from shared.link.payload import SCALE, Field, PayloadLayout
from shared.quantizers import float32
from shared.schemes.base import Decoder, Downlink, SchemeConfig, State
from shared.schemes.dualnet_mp.branches import BranchDecoder, BranchEncoder, begin_linear
from shared.schemes.dualnet_mp.config import DualNetConfig
from shared.schemes.dualnet_mp.dominant import DominantEntries, LargestEntries
from shared.schemes.dualnet_mp.magnitudes import MAGNITUDE, MagnitudeDecoder, MagnitudeEncoder, PerfectMagnitudes
from shared.schemes.dualnet_mp.parts import Parts
from shared.schemes.dualnet_mp.phases import (
    AngleDecoder,
    AngleEncoder,
    AngleQuantizer,
    CosineDecoder,
    CosineEncoder,
    CosSin,
)
from shared.schemes.image_feedback import SCALE_BITS, ImageEstimator, ImageObserver, Scale, xavier
from shared.schemes.registry import register

STAGES = ("all", MAGNITUDE, "phase")

TANH_GAINS = (0.5, 0.35, 3.0)
"""Of a linear start: what three and four tanh layers leave nearly as it was."""


class DualNetEncoder(ImageObserver):
    """The UE."""

    magnitude: MagnitudeEncoder | PerfectMagnitudes
    phase: CosineEncoder | AngleEncoder | AngleQuantizer
    dominant: DominantEntries | LargestEntries

    def __init__(self, world: Wideband, config: DualNetConfig, parts: Parts) -> None:
        super().__init__(world, noisy=False)
        self.scale = Scale(config.scale_low_db, config.scale_high_db)
        self.magnitude, self.phase = parts.magnitude_encoder(), parts.phase_encoder()
        self.dominant, self.reach = parts.dominant(), parts.reach

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        image = self.images(observation)
        scale = self.scale.to_level(image)
        levels = self.magnitude.to_levels(magnitudes(image / self.scale.from_level(scale)))
        phases = self.phase.encode(image, self.dominant(levels, self.reach))
        return {SCALE: scale, MAGNITUDE: levels, **phases}


class DualNetDecoder(Decoder):
    """The gNB."""

    magnitude: MagnitudeDecoder | PerfectMagnitudes
    phase: CosineDecoder | AngleDecoder | AngleQuantizer
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
            return torch.zeros(len(uplink.samples), uplink.scenario.slots, 0, device=uplink.samples.ue.device)
        magnitude = uplink.image(noisy=self.uplink == "estimated").abs()
        return (magnitude / magnitude.amax((-2, -1), keepdim=True).clamp(min=1e-30)).flatten(2)

    def initial_state(self, count: int) -> State:
        return {}

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        levels = fields[MAGNITUDE]
        phases = self.phase(*self.phase.received(fields, self.dominant(levels, self.reach)))
        return self.combined(self.magnitude(levels, side), phases) * self.scale.from_level(fields[SCALE]), {}

    def combined(self, magnitude: Tensor, phases: CosSin) -> Tensor:
        """[N, 1, Q, M] each to the scaled image [N, Q, M] complex64 (eq. 10)."""
        image = self.combiner(torch.cat([magnitude * part for part in phases], dim=1)).float()
        return torch.complex(image[:, 0], image[:, 1]) / 2


@register
class DualNetMp(ImageEstimator):
    """DualNet-MP. Each slot's report stands alone.

    Training has two stages (section III): `magnitude`, eq. (5), its branch alone; then `phase`, with the magnitude
    branch as it is; `all` trains everything by the phases' loss.
    """

    name: ClassVar[str] = "dualnet_mp"
    config_class: ClassVar[type[SchemeConfig]] = DualNetConfig

    config: DualNetConfig
    encoder: DualNetEncoder
    decoder: DualNetDecoder

    def check_sizes(self) -> None:
        self.world = require_wideband(self.scenario, self.name)
        self.parts = Parts(self.config, (1, len(self.world.rows()), self.world.antennas))
        self.stage = "all"

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

    @property
    def layout(self) -> PayloadLayout:
        return PayloadLayout((Field(SCALE, 1, SCALE_BITS), *self.parts.fields()))

    def check_fields(self, fields: Mapping[str, NDArray[np.int64]]) -> None:
        if self.parts.perfect:
            float32.check(MAGNITUDE, fields[MAGNITUDE])

    def begin(self, stage: str) -> None:
        if stage not in STAGES:
            raise InvalidInput(f"stage: '{stage}' is not one of {', '.join(STAGES)}")
        if stage == MAGNITUDE and isinstance(self.encoder.magnitude, PerfectMagnitudes):
            raise InvalidInput("stage: 'magnitude' has nothing to train when magnitudes are sent perfectly")
        self.stage = stage
        self._hand_over()
        for end in (self.encoder, self.decoder):
            for name, module in end.named_children():
                module.requires_grad_(stage == "all" or (name == MAGNITUDE) == (stage == MAGNITUDE))

    def compile_networks(self, mode: str) -> None:
        for end in (self.encoder, self.decoder):
            for branch in (end.magnitude, end.phase):
                if isinstance(branch, BranchEncoder | BranchDecoder):
                    branch.layers.compile(mode=mode)
        self.decoder.combiner.compile(mode=mode)

    def reconstruct(self, observation: Tensor, side: Tensor, slope: float) -> Tensor:
        image = self.encoder.images(observation.flatten(0, 1))
        scale = self.encoder.scale.from_level(self.encoder.scale.to_level(image))
        if self.stage == "phase":
            found, dominant = side.flatten(0, 1).split([image[0].numel(), self.encoder.reach], dim=1)
            magnitude, entries = found.view_as(image)[:, None], dominant.long()
        else:
            magnitude, entries = self._magnitudes(magnitudes(image / scale), side.flatten(0, 1))
        if self.stage == MAGNITUDE:  # with the true phases the error is that of the magnitudes
            estimate = torch.polar(magnitude[:, 0] / 2, image.angle())
        else:
            phases = self.decoder.phase(*self.encoder.phase.quantised(image, entries))
            estimate = self.decoder.combined(magnitude, phases)
        return (estimate * scale).unflatten(0, observation.shape[:2])

    @torch.no_grad()
    def settled(self, observation: Tensor, side: Tensor) -> Tensor:
        """In the stage `phase`: decoded magnitudes and the dominant entries, [N, T, Q M + count]."""
        if self.stage != "phase":
            return side
        image = self.encoder.images(observation.flatten(0, 1))
        scale = self.encoder.scale.from_level(self.encoder.scale.to_level(image))
        parts = []
        for part, beside in zip((image / scale).split(256), side.flatten(0, 1).split(256), strict=True):
            levels = self.encoder.magnitude.to_levels(magnitudes(part))
            found = self.decoder.magnitude(levels, beside).flatten(1)
            parts.append(torch.cat([found, self.encoder.dominant(levels, self.encoder.reach).float()], dim=1))
        return torch.cat(parts).unflatten(0, observation.shape[:2])

    def loss(self, estimate: Tensor, truth: Tensor) -> Tensor:
        """Squared Frobenius norm of the scaled images' error (eq. 5, 11, 13), or of the phases weighted by the true
        magnitudes (eq. 12); its mean over the batch.
        """
        weight = 1 / truth.abs().amax((-2, -1), keepdim=True)
        if self.config.phase == "mdpp" and self.stage != MAGNITUDE:
            error = (estimate.angle() - truth.angle()) * truth.abs() * weight
        else:
            error = ((estimate - truth) * weight).abs()
        return error.square().sum((-2, -1)).mean()

    @torch.no_grad()
    def principal_start(self, downlink: Downlink) -> None:
        """Both branches begin as linear maps to principal components, the combining network as the identity."""
        image = self._scaled(downlink)
        magnitude = magnitudes(image)
        if isinstance(self.encoder.magnitude, BranchEncoder) and isinstance(self.decoder.magnitude, BranchDecoder):
            begin_linear(self.encoder.magnitude, self.decoder.magnitude, magnitude, torch.ones(magnitude[0].numel()))
        if isinstance(self.encoder.phase, BranchEncoder) and isinstance(self.decoder.phase, BranchDecoder):
            power = magnitude.flatten(1).square().mean(0)
            begin_linear(
                self.encoder.phase, self.decoder.phase, self.encoder.phase.seen(image), power, gains=TANH_GAINS
            )
        self.decoder.combiner.hand_on()
        self.calibrate(downlink)

    @torch.no_grad()
    def calibrate(self, downlink: Downlink) -> None:
        """Fit what chooses the dominant entries, unless the phases were trained with it, and give the gNB its copy of
        what both ends hold.
        """
        if self.stage != "phase":
            magnitude = magnitudes(self._scaled(downlink))
            levels = torch.cat([self.encoder.magnitude.to_levels(part) for part in magnitude.split(256)])
            self.encoder.dominant.fit(levels, magnitude.flatten(1))
        self._hand_over()

    def _magnitudes(self, magnitude: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Decoded magnitudes, differentiable, and dominant entries."""
        encoder, decoder = self.encoder.magnitude, self.decoder.magnitude
        if isinstance(encoder, MagnitudeEncoder) and isinstance(decoder, MagnitudeDecoder):
            values = encoder.codeword(magnitude)
            levels = encoder.quantizer.to_levels(values.detach())
            found = decoder.magnitude(encoder.quantizer(values), side)
        else:
            levels, found = encoder.to_levels(magnitude), magnitude
        return found, self.encoder.dominant(levels, self.encoder.reach)

    def _scaled(self, downlink: Downlink) -> Tensor:
        """Images [N, Q, M] over their scales, of magnitude up to 0.5."""
        image = self.encoder.images(self.encoder.observe(downlink).flatten(0, 1))
        return image / self.encoder.scale.from_level(self.encoder.scale.to_level(image))

    def _hand_over(self) -> None:
        """Quantisers and choice of entries are one for both ends."""
        encoder, decoder = self.encoder, self.decoder
        decoder.dominant.load_state_dict(encoder.dominant.state_dict())
        pairs = ((encoder.magnitude, decoder.magnitude), (encoder.phase, decoder.phase))
        for ours, theirs in pairs:
            if isinstance(ours, BranchEncoder) and isinstance(theirs, BranchDecoder):
                theirs.quantizer.load_state_dict(ours.quantizer.state_dict())


def magnitudes(image: Tensor) -> Tensor:
    """Images [N, Q, M] of magnitude up to 0.5 to twice their magnitude, [N, 1, Q, M]."""
    return 2 * image.abs()[:, None]
