"""HyperRNN (Liu and Simeone): estimator RNN whose weights a hypernetwork scales from uplink pilots; and its RNN alone.

Both recurrent states, of estimator and hypernetwork, live at the gNB and start from zero in every frame.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from shared.channels.scenario import Scenario
from shared.schemes import SchemeConfig, State, register
from shared.schemes.base import to_complex
from shared.schemes.linear import Linear
from shared.schemes.pilots import NoUplinkConfig, PilotConfig, UplinkReading
from shared.schemes.sign_feedback import HYPER_WIDTH, SignDecoder, SignFeedbackScheme, identity_like

ESTIMATOR_WIDTH = 256
"""Hidden neurons of the estimator RNN, l^E (section V)."""


class EstimatorRnn(nn.Module):
    """Eqs. (4) and (5), with the columns of its three matrices scaled by omega = [omega_A, omega_B, omega_C]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.input = Linear(inputs, ESTIMATOR_WIDTH)  # W_A, b_A
        self.recurrence = Linear(ESTIMATOR_WIDTH, ESTIMATOR_WIDTH, bias=False)  # W_C
        self.output = Linear(ESTIMATOR_WIDTH, outputs)  # W_B, b_B
        self.scales = (inputs, ESTIMATOR_WIDTH, ESTIMATOR_WIDTH)
        identity_like(self.recurrence)

    def step(self, report: Tensor, omega: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """[N, inputs], [N, inputs + 2 l^E] scales (None: all 1) and s_{t-1} to [N, outputs] and s_t."""
        scale_a, scale_b, scale_c = [torch.ones(())] * 3 if omega is None else omega.split(self.scales, dim=-1)
        state = torch.relu(self.input(report * scale_a) + self.recurrence(state * scale_c))
        return self.output(state * scale_b), state


class HyperRnnDecoder(SignDecoder):
    """Estimator RNN with hypernetwork; without an uplink reading, the estimator RNN alone."""

    def __init__(self, scenario: Scenario, config: PilotConfig) -> None:
        super().__init__(config)
        self.estimator = EstimatorRnn(config.feedback_bits, 2 * scenario.antennas)
        self.add_hypernetwork(scenario, config, sum(self.estimator.scales), recurrent=True)

    def initial_state(self, count: int) -> State:
        state = {"estimator": torch.zeros(count, ESTIMATOR_WIDTH)}
        if self.hypernetwork is not None:
            state["hypernetwork"] = torch.zeros(count, HYPER_WIDTH)
        return state

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        return self._advance(self.quantizer.decode(fields), side, state)

    def erased(self, side: Tensor, state: State) -> tuple[Tensor, State]:
        """With signs that say nothing: zeros, between 1 and -1."""
        return self._advance(side.new_zeros(len(side), self.quantizer.entries), side, state)

    def _advance(self, signs: Tensor, side: Tensor, state: State) -> tuple[Tensor, State]:
        omega, after = None, {}
        if self.hypernetwork is not None:
            omega, after["hypernetwork"] = self.hypernetwork.step(side, state["hypernetwork"])
        estimate, after["estimator"] = self.estimator.step(signs, omega, state["estimator"])
        return to_complex(estimate), after

    def forward(self, bits: Tensor, side: Tensor) -> Tensor:
        """Whole frames, for training: [N, T, B] signs and [N, T, S] to [N, T, M] complex64."""
        omegas = self.hypernetwork(side).unbind(1) if self.hypernetwork is not None else [None] * bits.shape[1]
        state, estimates = bits.new_zeros(len(bits), ESTIMATOR_WIDTH), []
        for slot, omega in zip(bits.unbind(1), omegas, strict=True):
            estimate, state = self.estimator.step(slot, omega, state)
            estimates.append(estimate)
        return to_complex(torch.stack(estimates, dim=1))


@register
class HyperRnn(SignFeedbackScheme):
    """The paper's scheme."""

    name: ClassVar[str] = "hyperrnn"
    readings: ClassVar[tuple[UplinkReading, ...]] = ("array", "projected")

    def make_decoder(self) -> HyperRnnDecoder:
        return HyperRnnDecoder(self.scenario, self.config)


@register
class Rnn(HyperRnn):
    """Ablation: the same RNN without uplink."""

    name: ClassVar[str] = "rnn"
    config_class: ClassVar[type[SchemeConfig]] = NoUplinkConfig
    readings: ClassVar[tuple[UplinkReading, ...]] = ("none",)
