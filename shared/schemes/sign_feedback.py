"""What HyperRNN and DL-DNN have in common (HyperRNN paper).

At the UE learned downlink pilots, a DNN and B sign bits (section III.2); at the gNB what leads from uplink pilots to
the scaling factors of a decoder's weights (section IV.3 and eq. 6).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from shared.channels.scenario import Scenario
from shared.channels.uplink import UplinkView
from shared.quantizers.base import Quantizer
from shared.quantizers.sign import Sign
from shared.schemes.base import Decoder, to_real
from shared.schemes.linear import Linear
from shared.schemes.pilots import PilotConfig, PilotEncoder, Pilots, PilotScheme

SIGNS = "signs"
"""Name of the payload's field."""

QUANTISER_WIDTHS = (1024, 512, 256)
"""Hidden ReLU layers of the feedback DNN (section V)."""

HYPER_WIDTH = 1024
"""Hidden neurons of the hypernetwork, l^H (section V)."""


class SignEncoder(PilotEncoder):
    """Pilots X_dl and the feedback DNN 2 L_dl - 1024 - 512 - 256 - B."""

    def __init__(self, scenario: Scenario, config: PilotConfig) -> None:
        super().__init__(Pilots(scenario.antennas, config.downlink_pilots))
        sizes = pairwise((2 * config.downlink_pilots, *QUANTISER_WIDTHS))
        hidden = [layer for size in sizes for layer in (nn.Linear(*size), nn.ReLU())]
        self.dnn = nn.Sequential(*hidden, nn.Linear(QUANTISER_WIDTHS[-1], config.feedback_bits))
        self.quantizer = Sign(SIGNS, config.feedback_bits)

    def forward(self, observation: Tensor, slope: float) -> Tensor:
        """[..., 2 L_dl] to [..., B] signs with a straight-through gradient."""
        return self.quantizer(self.dnn(observation), slope)

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        return self.quantizer.encode(self.dnn(observation))


class SignDecoder(Decoder):
    """Base of decoders of B signs whose weights a hypernetwork scales, if they read the uplink.

    Attributes:
        hypernetwork: None without an uplink reading.
    """

    quantizer: Quantizer
    hypernetwork: Hypernetwork | None

    def __init__(self, config: PilotConfig) -> None:
        super().__init__()
        self.quantizer = Sign(SIGNS, config.feedback_bits)

    def add_hypernetwork(self, scenario: Scenario, config: PilotConfig, scales: int, *, recurrent: bool) -> None:
        """For so many scaling factors; initial weights are drawn after those of the networks that are scaled."""
        self.uplink = UplinkInput(scenario, config)
        self.hypernetwork = Hypernetwork(self.uplink.size, scales, recurrent=recurrent) if self.uplink.size else None

    def side_information(self, uplink: UplinkView) -> Tensor:
        return self.uplink(uplink) if self.hypernetwork is not None else super().side_information(uplink)


class SignFeedbackScheme(PilotScheme):
    """Base of the schemes whose report is B signs."""

    encoder: SignEncoder

    def make_encoder(self) -> SignEncoder:
        return SignEncoder(self.scenario, self.config)


class UplinkInput(nn.Module):
    """The hypernetwork's input, from either reading of the uplink observation.

    `projected`: y = h^H X_ul + n with learned X_ul, 2 L_ul values. `array`: every antenna receives L_ul unit pilots,
    2 M L_ul values; with `beam_power` followed by the magnitudes in M orthogonal beams, of this slot and of the mean
    power over the frame's slots so far (2 M values). `none`: nothing.
    """

    def __init__(self, scenario: Scenario, config: PilotConfig) -> None:
        super().__init__()
        self.config = config
        projected = config.uplink_reading == "projected"
        self.pilots = Pilots(scenario.antennas, config.uplink_pilots) if projected else None
        receivers = {"projected": 1, "array": scenario.antennas}.get(config.uplink_reading, 0)
        self.size = 2 * config.uplink_pilots * receivers + (2 * scenario.antennas if config.beam_power else 0)

    def forward(self, uplink: UplinkView) -> Tensor:
        """[N, T, size], row t from slots 0..t."""
        if self.pilots is not None:
            return to_real(uplink.projected_pilots(self.pilots()))
        received = uplink.array_pilots(self.config.uplink_pilots)
        values = to_real(received.flatten(-2))
        if not self.config.beam_power:
            return values
        beams = torch.fft.fft(received.mean(-1), norm="ortho").abs().square()
        elapsed = torch.arange(1, beams.shape[1] + 1, device=beams.device)[:, None]
        return torch.cat([values, beams.sqrt(), (beams.cumsum(1) / elapsed).sqrt()], dim=-1)


class Hypernetwork(nn.Module):
    """Recurrent (eq. 6) or memoryless map from uplink input to scaling factors, all 1 at the start of training."""

    def __init__(self, inputs: int, outputs: int, *, recurrent: bool, width: int = HYPER_WIDTH) -> None:
        super().__init__()
        self.input = Linear(inputs, width)  # W_A, b_A
        self.recurrence = Linear(width, width, bias=False) if recurrent else None  # W_C
        self.output = Linear(width, outputs)  # W_B, b_B
        nn.init.normal_(self.output.weight, std=0.02 * width**-0.5)
        nn.init.ones_(self.output.bias)
        if self.recurrence is not None:
            identity_like(self.recurrence)

    def forward(self, side: Tensor) -> Tensor:
        """[N, T, inputs] to [N, T, outputs], from the start of a frame."""
        driven = self.input(side)
        if self.recurrence is None:
            return self.output(torch.relu(driven))
        state, states = driven.new_zeros(len(driven), HYPER_WIDTH), []
        for slot in driven.unbind(1):
            state = torch.relu(slot + self.recurrence(state))
            states.append(state)
        return self.output(torch.stack(states, dim=1))

    def step(self, side: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One slot of a recurrent one: [N, inputs] and s_{t-1} to scaling factors [N, outputs] and s_t."""
        assert self.recurrence is not None
        state = torch.relu(self.input(side) + self.recurrence(state))
        return self.output(state), state


def identity_like(layer: nn.Linear, scale: float = 0.5) -> None:
    """Start a ReLU recurrence as a leaky memory: the state decays by `scale` a slot and mixes a little."""
    size = layer.weight.shape[0]
    with torch.no_grad():
        layer.weight.copy_(scale * torch.eye(size) + torch.randn(size, size) * 0.1 * size**-0.5)
