"""Training of transform coders: a covariance, its eigenvectors, and the bits of their coefficients."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Spectrum:
    """What is measured of scaled images of Q rows and M antennas.

    Attributes:
        variances: [Q M] float64, eigenvalues of their covariance, descending.
        vectors: [Q M, Q M] complex128, its eigenvectors, columns in the same order.
        images: [N, Q, M] complex64, some of them.
    """

    variances: Tensor
    vectors: Tensor
    images: Tensor


@trains(Transform)
class TransformTraining(ImageEstimatorTraining):
    """Training of a transform coder: all of it is measured."""

    measured_frames: ClassVar[int] = 80 * CHUNK

    scheme: Transform

    def calibrate(self, downlink: DownlinkView) -> None:
        """Set the vectors to the strongest eigenvectors of the scaled images' covariance, share the bits out, set the
        quantisers' ranges, and give the gNB its copy.
        """
        self.fit(self.spectrum(downlink))

    @torch.no_grad()
    def spectrum(self, downlink: DownlinkView) -> Spectrum:
        """Of the given channels; it depends on the configuration by the range of the scale alone."""
        covariance, kept = torch.zeros(()), []
        for number, part in enumerate(downlink.parts(CHUNK)):
            images = self._scaled(part)
            covariance = covariance + (images.flatten(1).mT @ images.flatten(1).conj()).to(torch.complex128)
            if number < QUANTISED_CHUNKS:
                kept.append(images)
        variances, vectors = torch.linalg.eigh(covariance)
        frames = len(downlink.samples) * downlink.scenario.slots
        return Spectrum(variances.flip(0).clamp(min=0) / frames, vectors.flip(1), torch.cat(kept))

    @torch.no_grad()
    def fit(self, spectrum: Spectrum) -> None:
        """`calibrate` by what was measured before."""
        encoder, decoder = self.scheme.encoder, self.scheme.decoder
        strongest = spectrum.vectors[:, : self.scheme.config.components]
        encoder.basis.vectors.copy_(torch.stack([strongest.real, strongest.imag]))
        encoder.quantizer.calibrate(torch.cat([encoder.basis(part) for part in spectrum.images.split(CHUNK)]))
        for ours, theirs in ((encoder.basis, decoder.basis), (encoder.quantizer, decoder.quantizer)):
            theirs.load_state_dict(ours.state_dict())

    def _scaled(self, downlink: DownlinkView) -> Tensor:
        """Images [N T, Q, M] over their scales, as the UE sees them."""
        encoder = self.scheme.encoder
        return encoder.scaled(encoder.images(encoder.observe(downlink).flatten(0, 1)))
