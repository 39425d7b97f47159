"""Training of transform coders: a covariance, its eigenvectors, and the bits of their coefficients."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from csiemu.training.schemes import trains
from csiemu.training.schemes.images import ImageEstimatorTraining
from shared.channels.downlink import DownlinkView
from shared.schemes.transform import Transform

CHUNK = 1024
"""Frames whose images are held at once."""

QUANTISED_CHUNKS = 16
"""The first so many set the quantisers' ranges."""


@trains(Transform)
class TransformTraining(ImageEstimatorTraining):
    """Training of a transform coder: all of it is measured."""

    measured_frames: ClassVar[int] = 80 * CHUNK

    scheme: Transform

    @torch.no_grad()
    def calibrate(self, downlink: DownlinkView) -> None:
        """Set the vectors to the strongest eigenvectors of the scaled images' covariance, share the bits out, set the
        quantisers' ranges, and give the gNB its copy.
        """
        encoder, decoder = self.scheme.encoder, self.scheme.decoder
        covariance, kept = torch.zeros(()), []
        for number, part in enumerate(downlink.parts(CHUNK)):
            images = self._scaled(part)
            covariance = covariance + (images.flatten(1).mT @ images.flatten(1).conj()).to(torch.complex128)
            if number < QUANTISED_CHUNKS:
                kept.append(images)
        _, vectors = torch.linalg.eigh(covariance)
        strongest = vectors.flip(1)[:, : self.scheme.config.components]
        encoder.basis.vectors.copy_(torch.stack([strongest.real, strongest.imag]))
        encoder.quantizer.calibrate(torch.cat([encoder.basis(images) for images in kept]))
        for ours, theirs in ((encoder.basis, decoder.basis), (encoder.quantizer, decoder.quantizer)):
            theirs.load_state_dict(ours.state_dict())

    def _scaled(self, downlink: DownlinkView) -> Tensor:
        """Images [N T, Q, M] over their scales, as the UE sees them."""
        encoder = self.scheme.encoder
        return encoder.scaled(encoder.images(encoder.observe(downlink).flatten(0, 1)))
