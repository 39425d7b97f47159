"""HyperRNN as its authors' code trains it: the feedback DNN ends in tanh, and no sign is ever taken.

Its report is B real numbers and not B bits. Sent as float32 they are 32 B bits, which is what its card says.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from shared.quantizers.float32 import Float32
from shared.schemes import register
from shared.schemes.hyperrnn import HyperRnn, HyperRnnDecoder
from shared.schemes.sign_feedback import SignEncoder

FIELD = "soft"
"""Name of the payload's field."""


class SoftEncoder(SignEncoder):
    """The feedback DNN and tanh."""

    def forward(self, observation: Tensor, slope: float) -> Tensor:
        """[..., 2 L_dl] to [..., B] in (-1, 1)."""
        return torch.tanh(self.dnn(observation))

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        return self.quantizer.encode(torch.tanh(self.dnn(observation)))


@register
class SoftHyperRnn(HyperRnn):
    """HyperRNN with B real numbers in place of its B bits."""

    name: ClassVar[str] = "hyperrnn_soft"

    def make_encoder(self) -> SoftEncoder:
        encoder = SoftEncoder(self.scenario, self.config)
        encoder.quantizer = Float32(FIELD, self.config.feedback_bits)
        return encoder

    def make_decoder(self) -> HyperRnnDecoder:
        decoder = super().make_decoder()
        decoder.quantizer = Float32(FIELD, self.config.feedback_bits)
        return decoder
