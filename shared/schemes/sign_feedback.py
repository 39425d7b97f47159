"""The UE of HyperRNN and DL-DNN: learned downlink pilots, a DNN, B sign bits (HyperRNN paper, section III.2)."""

from __future__ import annotations

from torch import Tensor, nn

from shared.channels.scenario import Scenario
from shared.quantizers.sign import Sign
from shared.schemes.pilots import PilotConfig, PilotEncoder, Pilots, PilotScheme

SIGNS = "signs"
"""Name of the payload's field."""

QUANTISER_WIDTHS = (1024, 512, 256)
"""Hidden ReLU layers of the feedback DNN (section V)."""


class SignEncoder(PilotEncoder):
    """Pilots X_dl and the feedback DNN 2 L_dl - 1024 - 512 - 256 - B."""

    def __init__(self, scenario: Scenario, config: PilotConfig) -> None:
        super().__init__(Pilots(scenario.antennas, config.downlink_pilots))
        self.dnn = relu_dnn(2 * config.downlink_pilots, QUANTISER_WIDTHS, config.feedback_bits)
        self.quantizer = Sign(SIGNS, config.feedback_bits)

    def forward(self, observation: Tensor, slope: float) -> Tensor:
        """[..., 2 L_dl] to [..., B] signs with a straight-through gradient."""
        return self.quantizer(self.dnn(observation), slope)

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        return self.quantizer.encode(self.dnn(observation))


class SignFeedbackScheme(PilotScheme):
    """Base of the schemes whose report is B signs."""

    encoder: SignEncoder

    def make_encoder(self) -> SignEncoder:
        return SignEncoder(self.scenario, self.config)


def relu_dnn(inputs: int, widths: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Fully connected ReLU layers and a linear last one."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))
