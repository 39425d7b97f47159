"""Training of schemes with pilots: they keep their power, and tables are made of what is received."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from csiemu.training.schemes import SchemeTraining, trains
from shared.schemes import Scheme
from shared.schemes.base import Downlink
from shared.schemes.pilot_lmmse import PilotLmmse
from shared.schemes.pilots import Pilots, PilotScheme
from shared.schemes.predictive_lmmse import PredictiveLmmse


@trains(PilotScheme)
class PilotTraining(SchemeTraining):
    """Training of a scheme with pilots."""

    one_graph: ClassVar[bool] = True

    def compile(self, mode: str) -> None:
        """Nothing: networks of fully connected layers are matrix products, with little to fuse about them."""

    def after_step(self) -> None:
        for module in self.scheme.modules():
            if isinstance(module, Pilots) and module.parts.requires_grad:
                module.normalise()


@trains(PilotLmmse)
class TableTraining(PilotTraining):
    """Training of a scheme that sends its received pilots by tables: these are made after it."""

    scheme: PilotLmmse

    def __init__(self, scheme: Scheme, stage: str = "all") -> None:
        super().__init__(scheme, stage)
        self._copy_to_decoder()  # those of an encoder that stays as it is

    def calibrate(self, downlink: Downlink) -> None:
        encoder = self.scheme.encoder
        encoder.quantizer.calibrate(self.measured(encoder.observe(downlink)))
        self._copy_to_decoder()

    def measured(self, observation: Tensor) -> Tensor:
        """What the tables are made by, of observations [N, T, 2 L_dl]."""
        return observation.flatten(0, 1)

    def _copy_to_decoder(self) -> None:
        """Tables are one for both ends."""
        self.scheme.decoder.quantizer.load_state_dict(self.scheme.encoder.quantizer.state_dict())


@trains(PredictiveLmmse)
class PredictiveTableTraining(TableTraining):
    """The same of one that predicts: its tables are made slot by slot."""

    def measured(self, observation: Tensor) -> Tensor:
        return observation
