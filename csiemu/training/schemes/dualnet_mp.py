"""Training of DualNet-MP: the magnitude branch first, then the phases on it as it is (its paper, section III)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from csiemu.training.schemes.base import trains
from csiemu.training.schemes.dualnet_mp_start import TANH_GAINS, choose_dominant, project_on_components, silence
from csiemu.training.schemes.images import ImageEstimatorTraining
from shared.errors import InvalidInput
from shared.schemes import Scheme
from shared.schemes.base import Downlink
from shared.schemes.dualnet_mp import DualNetMp
from shared.schemes.dualnet_mp.branches import BranchDecoder, BranchEncoder
from shared.schemes.dualnet_mp.dominant import DominantEntries
from shared.schemes.dualnet_mp.magnitudes import MAGNITUDE, PerfectMagnitudes
from shared.schemes.dualnet_mp.scheme import magnitudes


@trains(DualNetMp)
class DualNetTraining(ImageEstimatorTraining):
    """Training of DualNet-MP. Stages: `magnitude`, its branch alone by eq. (5); then `phase`, with the magnitude branch
    as it is; `all` trains everything by the phases' loss.
    """

    stages: ClassVar[tuple[str, ...]] = ("all", MAGNITUDE, "phase")

    scheme: DualNetMp

    def __init__(self, scheme: Scheme, stage: str = "all") -> None:
        super().__init__(scheme, stage)
        if stage == MAGNITUDE and isinstance(self.scheme.encoder.magnitude, PerfectMagnitudes):
            raise InvalidInput("stage: 'magnitude' has nothing to train when magnitudes are sent perfectly")
        self._copy_to_decoder()
        for end in (self.scheme.encoder, self.scheme.decoder):
            for name, module in end.named_children():
                module.requires_grad_(stage == "all" or (name == MAGNITUDE) == (stage == MAGNITUDE))

    def reconstruct(self, observation: Tensor, side: Tensor, slope: float) -> Tensor:
        encoder, decoder = self.scheme.encoder, self.scheme.decoder
        image = encoder.images(observation.flatten(0, 1))
        scale = encoder.scale(image)[..., None]
        if self.stage == "phase":
            found, dominant = side.flatten(0, 1).split([image[0].numel(), encoder.reach], dim=1)
            magnitude, entries = found.view_as(image)[:, None], dominant.long()
        else:
            magnitude, entries = self._magnitudes(magnitudes(image / scale), side.flatten(0, 1))
        if self.stage == MAGNITUDE:  # with the true phases the error is that of the magnitudes
            estimate = torch.polar(magnitude[:, 0] / 2, image.angle())
        else:
            phases = decoder.phase(*encoder.phase.quantised(image, entries))
            estimate = decoder.combined(magnitude, phases)
        return (estimate * scale).unflatten(0, observation.shape[:2])

    @torch.no_grad()
    def precompute(self, observation: Tensor, side: Tensor) -> Tensor:
        """In the stage `phase`: decoded magnitudes and the dominant entries, [N, T, Q M + count]."""
        if self.stage != "phase":
            return side
        encoder, decoder, parts = self.scheme.encoder, self.scheme.decoder.magnitude, []
        images = self._scaled(observation).split(256)
        for image, beside in zip(images, side.flatten(0, 1).split(256), strict=True):
            levels = encoder.levels(magnitudes(image))
            found = decoder(decoder.quantizer.from_levels(levels), beside).flatten(1)
            parts.append(torch.cat([found, encoder.dominant(levels, encoder.reach).float()], dim=1))
        return torch.cat(parts).unflatten(0, observation.shape[:2])

    def loss(self, estimate: Tensor, truth: Tensor) -> Tensor:
        """Squared Frobenius norm of the scaled images' error (eq. 5, 11, 13), or of the phases weighted by the true
        magnitudes (eq. 12); its mean over the batch.
        """
        weight = 1 / truth.abs().amax((-2, -1), keepdim=True)
        if self.scheme.config.phase == "mdpp" and self.stage != MAGNITUDE:
            error = (estimate.angle() - truth.angle()) * truth.abs() * weight
        else:
            error = ((estimate - truth) * weight).abs()
        return error.square().sum((-2, -1)).mean()

    @torch.no_grad()
    def start(self, kind: str, downlink: Downlink) -> None:
        """From `principal` components: both branches as linear maps to these, the combining network as the identity."""
        if kind != "principal":
            super().start(kind, downlink)
            return
        encoder, decoder = self.scheme.encoder, self.scheme.decoder
        image = self._scaled(encoder.observe(downlink))
        magnitude = magnitudes(image)
        if isinstance(encoder.magnitude, BranchEncoder) and isinstance(decoder.magnitude, BranchDecoder):
            project_on_components(encoder.magnitude, decoder.magnitude, magnitude, torch.ones(magnitude[0].numel()))
        if isinstance(encoder.phase, BranchEncoder) and isinstance(decoder.phase, BranchDecoder):
            power = magnitude.flatten(1).square().mean(0)
            project_on_components(encoder.phase, decoder.phase, encoder.phase.seen(image), power, gains=TANH_GAINS)
        silence(decoder.combiner)
        self.calibrate(downlink)

    @torch.no_grad()
    def calibrate(self, downlink: Downlink) -> None:
        """Fit what chooses the dominant entries, unless the phases were trained with it, and give the gNB its copy of
        what both ends hold.
        """
        encoder = self.scheme.encoder
        if self.stage != "phase" and isinstance(encoder.dominant, DominantEntries):
            magnitude = magnitudes(self._scaled(encoder.observe(downlink)))
            levels = torch.cat([encoder.levels(part) for part in magnitude.split(256)])
            choose_dominant(encoder.dominant, levels, magnitude.flatten(1))
        self._copy_to_decoder()

    def compile(self, mode: str) -> None:
        for end in (self.scheme.encoder, self.scheme.decoder):
            for branch in (end.magnitude, end.phase):
                if isinstance(branch, BranchEncoder | BranchDecoder):
                    branch.layers.compile(mode=mode)
        self.scheme.decoder.combiner.compile(mode=mode)

    def _magnitudes(self, magnitude: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Decoded magnitudes, differentiable, and dominant entries."""
        encoder = self.scheme.encoder
        codeword, quantizer = encoder.magnitude.codeword(magnitude), encoder.magnitude.quantizer
        entries = encoder.dominant(quantizer.to_levels(codeword.detach()), encoder.reach)
        return self.scheme.decoder.magnitude(quantizer(codeword), side), entries

    def _scaled(self, observation: Tensor) -> Tensor:
        """Images [N T, Q, M] of observations [N, T, 2 Q M] over their scales, of magnitude up to 0.5."""
        image = self.scheme.encoder.images(observation.flatten(0, 1))
        return image / self.scheme.encoder.scale(image)[..., None]

    def _copy_to_decoder(self) -> None:
        """Quantisers and choice of entries are one for both ends."""
        encoder, decoder = self.scheme.encoder, self.scheme.decoder
        decoder.dominant.load_state_dict(encoder.dominant.state_dict())
        for ours, theirs in ((encoder.magnitude, decoder.magnitude), (encoder.phase, decoder.phase)):
            if isinstance(ours, BranchEncoder) and isinstance(theirs, BranchDecoder):
                theirs.quantizer.load_state_dict(ours.quantizer.state_dict())
