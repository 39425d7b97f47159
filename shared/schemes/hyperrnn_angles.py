"""HyperRNN that knows where the paths are: a hypernetwork of angles, and an output layer on the array's manifold.

The hypernetwork of the paper has to find the paths' angles in the uplink pilots by itself, the estimator RNN has to
give all antennas. Here both get the angles that the gNB estimates from its uplink: the hypernetwork is given what they
mean for the downlink, and the estimator RNN gives the fading of each path, which steering vectors turn into a channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from shared.channels.multipath import Multipath
from shared.channels.uplink import UplinkView
from shared.errors import InvalidInput
from shared.fields import OneOf, Within
from shared.quantizers.sign import Sign
from shared.schemes import SchemeConfig, State, register
from shared.schemes.angles import estimate_angles, path_powers
from shared.schemes.base import to_complex, to_real
from shared.schemes.hyperrnn import ESTIMATOR_WIDTH, EstimatorRnn
from shared.schemes.lmmse import LmmseDecoder
from shared.schemes.pilot_lmmse import PilotLmmse, make_tables
from shared.schemes.pilots import PilotConfig, PilotEncoder, Pilots
from shared.schemes.sign_feedback import SIGNS, Hypernetwork, SignEncoder

SINE_UNIT = 0.1
"""Of the sines that the hypernetwork is given: they are of the order of its other inputs then."""

LEAST_POWER = 1e-3
"""Added to the power of a path before its logarithm is taken."""

Report = Literal["tables", "signs"]
"""What a UE sends: see `AngleConfig.report`."""


@dataclass(frozen=True)
class AngleConfig(PilotConfig):
    """Sizes and choices of HyperRNN with angles.

    Attributes:
        report: `tables`, the received pilots by Lloyd-Max tables, or `signs`, those of HyperRNN's feedback DNN.
        lmmse: the estimator RNN corrects the LMMSE estimate of the fading; else it is all that there is.
        steering: the hypernetwork is given the paths' steering vectors instead of the sines of their angles.
        hypernetwork_width: hidden neurons of the hypernetwork.
    """

    report: Annotated[Report, OneOf(get_args(Report))] = "tables"
    lmmse: bool = True
    steering: bool = False
    hypernetwork_width: Annotated[int, Within(1, 8192)] = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lmmse and self.report == "signs":
            raise InvalidInput("lmmse: needs report=tables; signs of a DNN are no received pilots")


class AngleDecoder(LmmseDecoder):
    """Estimator RNN of the paths' fading, scaled by a memoryless hypernetwork: angles are of all slots so far already.

    Side information: sines of the angles, ascending, and logarithms of the paths' powers in the uplink, [2 P].
    """

    def __init__(self, scenario: Multipath, config: AngleConfig, pilots: Pilots) -> None:
        tables = config.report == "tables"
        quantizer = make_tables(config) if tables else Sign(SIGNS, config.feedback_bits)
        super().__init__(scenario, config, pilots, quantizer)
        self.lmmse, self.steering = config.lmmse, config.steering
        paths, inputs = scenario.paths, 2 * config.downlink_pilots if tables else config.feedback_bits
        self.estimator = EstimatorRnn(inputs + (2 * paths if self.lmmse else 0), 2 * paths)
        place = 2 * scenario.antennas if config.steering else 1
        features = paths * (place + 2 * config.downlink_pilots + 1)
        scales = sum(self.estimator.scales)
        self.hypernetwork = Hypernetwork(features, scales, recurrent=False, width=config.hypernetwork_width)
        if self.lmmse:  # training begins at the LMMSE estimate
            nn.init.zeros_(self.estimator.output.weight)
            nn.init.zeros_(self.estimator.output.bias)

    def side_information(self, uplink: UplinkView) -> Tensor:
        received = uplink.array_pilots(self.config.uplink_pilots).mean(-1)
        sine = estimate_angles(self.scenario, received).sort(-1).values
        return torch.cat([sine, (path_powers(self.scenario, received, sine) + LEAST_POWER).log()], dim=-1)

    def initial_state(self, count: int) -> State:
        return {**super().initial_state(count), "estimator": torch.zeros(count, ESTIMATOR_WIDTH)}

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        report, sine = self.quantizer.decode(fields), side.chunk(2, dim=-1)[0]
        if not self.lmmse:
            return self._correct(torch.zeros(()), report, side, state)
        after = self.receive(report, state)
        base = self.fading(after, sine)
        return self._correct(base, torch.cat([report, to_real(base)], dim=-1), side, after)

    def predicted(self, side: Tensor, state: State) -> tuple[Tensor, State] | None:
        """The LMMSE estimate of the slot, which the estimator RNN corrects by the pilots that are to be expected."""
        if not self.lmmse:
            return None
        sine, after = side.chunk(2, dim=-1)[0], self.receive(None, state)
        base = self.fading(after, sine)
        pilots = self.expected_pilots(self.channel(base, sine))
        return self._correct(base, torch.cat([pilots, to_real(base)], dim=-1), side, after)

    def _correct(self, base: Tensor, inputs: Tensor, side: Tensor, state: State) -> tuple[Tensor, State]:
        """A slot's estimate and state, of `base`, to which the estimator RNN adds what it makes of its inputs."""
        fading, memory = self.estimator.step(inputs, self.hypernetwork(self._features(side)), state["estimator"])
        sine = side.chunk(2, dim=-1)[0]
        return self.channel(base + to_complex(fading), sine), {**state, "estimator": memory}

    def forward(self, received: Tensor, side: Tensor) -> Tensor:
        """Whole frames, for training: reports [N, T, 2 L_dl or B] and [N, T, 2 P] to [N, T, M] complex64."""
        sine, base = side.chunk(2, dim=-1)[0], torch.zeros((), device=side.device)
        if self.lmmse:
            base = self.frame_amplitudes(received, sine)
            received = torch.cat([received, to_real(base)], dim=-1)
        omegas = self.hypernetwork(self._features(side)).unbind(1)
        memory, fading = received.new_zeros(len(received), ESTIMATOR_WIDTH), []
        for report, omega in zip(received.unbind(1), omegas, strict=True):
            found, memory = self.estimator.step(report, omega, memory)
            fading.append(found)
        return self.channel(base + to_complex(torch.stack(fading, dim=1)), sine)

    def _features(self, side: Tensor) -> Tensor:
        """What the hypernetwork is given: where the paths are, the pilots' response to each, powers."""
        sine, power = side.chunk(2, dim=-1)
        vectors = self.vectors(sine) / self.scenario.gain
        response = self.pilots().mH @ vectors
        place = to_real(vectors.flatten(-2)) if self.steering else sine / SINE_UNIT
        return torch.cat([place, to_real(response.flatten(-2)), power], dim=-1)


@register
class HyperRnnAngles(PilotLmmse):
    """A variant of HyperRNN: hypernetwork and output layer get the paths' angles."""

    name: ClassVar[str] = "hyperrnn_angles"
    config_class: ClassVar[type[SchemeConfig]] = AngleConfig

    config: AngleConfig

    def make_encoder(self) -> PilotEncoder:
        return super().make_encoder() if self.config.report == "tables" else SignEncoder(self.scenario, self.config)

    def make_decoder(self) -> AngleDecoder:
        return AngleDecoder(self.world, self.config, self._pilots())
