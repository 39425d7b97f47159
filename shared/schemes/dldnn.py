"""DL-DNN (Sohrabi, Attiah, Yu; HyperRNN paper, section III), and the same DNN with an uplink hypernetwork."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from shared.channels.scenario import Scenario
from shared.schemes import SchemeConfig, State, register
from shared.schemes.base import to_complex
from shared.schemes.linear import Linear
from shared.schemes.pilots import NoUplinkConfig, PilotConfig, UplinkReading
from shared.schemes.sign_feedback import SignDecoder, SignFeedbackScheme

DECODER_WIDTHS = (1024, 512, 512)
"""Hidden ReLU layers of the channel estimation DNN, each with batch normalisation (as the authors' code)."""


class DnnDecoder(SignDecoder):
    """Memoryless decoder; with an uplink reading, a memoryless hypernetwork scales the inputs of all its layers."""

    def __init__(self, scenario: Scenario, config: PilotConfig) -> None:
        super().__init__(config)
        inputs = (config.feedback_bits, *DECODER_WIDTHS)
        outputs = (*DECODER_WIDTHS, 2 * scenario.antennas)
        self.layers = nn.ModuleList(Linear(i, o) for i, o in zip(inputs, outputs, strict=True))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in DECODER_WIDTHS)
        self.scales = inputs
        self.add_hypernetwork(scenario, config, sum(inputs), recurrent=False)

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        return self(self.quantizer.decode(fields), side), {}

    def forward(self, bits: Tensor, side: Tensor) -> Tensor:
        """[..., B] signs and [..., S] to [..., M] complex64."""
        values = bits.flatten(0, -2)
        omega = self.hypernetwork(side.flatten(0, -2)) if self.hypernetwork is not None else None
        scales = omega.split(self.scales, dim=-1) if omega is not None else [torch.ones(())] * len(self.layers)
        for layer, norm, scale in zip(self.layers, self.norms, scales, strict=False):
            values = torch.relu(norm(layer(values * scale)))
        return to_complex(self.layers[-1](values * scales[-1])).unflatten(0, bits.shape[:-1])


@register
class DlDnn(SignFeedbackScheme):
    """The baseline: feedback bits in, channel out, slot by slot."""

    name: ClassVar[str] = "dldnn"
    config_class: ClassVar[type[SchemeConfig]] = NoUplinkConfig
    readings: ClassVar[tuple[UplinkReading, ...]] = ("none",)

    def make_decoder(self) -> DnnDecoder:
        return DnnDecoder(self.scenario, self.config)


@register
class HyperDnn(DlDnn):
    """Ablation: DL-DNN whose decoder the uplink scales, without any memory over slots."""

    name: ClassVar[str] = "hyperdnn"
    config_class: ClassVar[type[SchemeConfig]] = PilotConfig
    readings: ClassVar[tuple[UplinkReading, ...]] = ("array", "projected")
