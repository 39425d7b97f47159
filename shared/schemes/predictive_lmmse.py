"""`pilot_lmmse` whose tables are of what is new in a slot: the received pilots change little from one to the next.

Both ends predict a slot's pilots from what was sent before in the frame, and begin anew in the next one. The gNB needs
all reports of a frame in their order. It gets them so: one that is lost is sent again, and of a frame of which one is
dropped for being late, the rest is dropped too. What can differ from what was sent is a report that was received
wrongly; what it spoils dies out (`PredictiveConfig.memory`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from shared.channels.multipath import Multipath
from shared.fields import Within
from shared.quantizers.predictive import Predictive
from shared.schemes import SchemeConfig, State, register
from shared.schemes.lmmse import LmmseDecoder
from shared.schemes.pilot_lmmse import SAMPLES, PilotLmmse
from shared.schemes.pilots import PilotConfig, PilotEncoder, Pilots


@dataclass(frozen=True)
class PredictiveConfig(PilotConfig):
    """Sizes of a scheme that predicts the received pilots.

    Attributes:
        memory: share of a prediction that is kept from slot to slot. A report that is received wrongly makes those
            after it in its frame wrong, by this factor less in each; the next frame begins anew.
    """

    feedback_bits: Annotated[int, Within(0, 65536)] = 12
    memory: Annotated[float, Within(0, 1)] = 0.8


class PredictiveEncoder(PilotEncoder):
    """Sends what is new in the received pilots, each real value by the table of its slot."""

    quantizer: Predictive

    def __init__(self, pilots: Pilots, quantizer: Predictive) -> None:
        super().__init__(pilots)
        self.quantizer = quantizer

    def forward(self, observation: Tensor, slope: float) -> Tensor:
        """The received pilots as they are, as those of `pilot_lmmse` are in training."""
        return observation

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        """Reports of the first slot."""
        return self.quantizer.encode(observation)

    def encode_frames(self, observation: Tensor) -> dict[str, Tensor]:
        return self.quantizer.encode_frames(observation)


class PredictiveDecoder(LmmseDecoder):
    """LMMSE of what the UE's differences and their predictions say. State: the prediction too, [N, 2 L_dl]."""

    quantizer: Predictive

    def __init__(self, scenario: Multipath, config: PilotConfig, pilots: Pilots, quantizer: Predictive) -> None:
        super().__init__(scenario, config, pilots, quantizer)

    def initial_state(self, count: int) -> State:
        return {**super().initial_state(count), "prediction": torch.zeros(count, 2 * self.config.downlink_pilots)}

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        slot = state["slots"][:, 0].long()
        newest, prediction = self.quantizer.decode_slot(fields, slot, state["prediction"])
        after = self.receive(newest, state)
        return self.channel(self.fading(after, side), side), {**after, "prediction": prediction}

    def predicted(self, side: Tensor, state: State) -> tuple[Tensor, State]:
        """As if the pilots that are to be expected had been sent: what was new in them is missing in the predictions
        after it, `memory` times less in each.
        """
        after = self.receive(None, state)
        estimate = self.channel(self.fading(after, side), side)
        difference = self.expected_pilots(estimate) - state["prediction"]
        gain = self.quantizer.gains[state["slots"][:, 0].long()]
        return estimate, {**after, "prediction": self.quantizer.following(difference, state["prediction"], gain)}

    def quantisation_noise(self, slots: Tensor) -> Tensor:
        age = torch.arange(self.scenario.slots, device=slots.device)
        slot = (slots.long() - 1 - age).clamp(min=0)  # [N, T]; what is not there yet does not count
        return self.quantizer.distortion.unflatten(1, (2, -1)).sum(1)[slot]


@register
class PredictiveLmmse(PilotLmmse):
    """As many bits a report as `pilot_lmmse` takes, and what it reaches with fewer of them."""

    name: ClassVar[str] = "predictive_lmmse"
    config_class: ClassVar[type[SchemeConfig]] = PredictiveConfig

    config: PredictiveConfig

    def make_encoder(self) -> PredictiveEncoder:
        return PredictiveEncoder(self._pilots(), self._make_tables())

    def make_decoder(self) -> PredictiveDecoder:
        return PredictiveDecoder(self.world, self.config, self._pilots(), self._make_tables())

    def _make_tables(self) -> Predictive:
        config = self.config
        entries = 2 * config.downlink_pilots
        return Predictive(SAMPLES, entries, config.feedback_bits, self.scenario.slots, config.memory)
