"""Training of schemes with pilots: they keep their power, and tables are made of what is received."""

from __future__ import annotations

from csiemu.training.schemes import SchemeTraining, trains
from shared.schemes.base import Downlink
from shared.schemes.pilot_lmmse import PilotLmmse
from shared.schemes.pilots import Pilots, PilotScheme


@trains(PilotScheme)
class PilotTraining(SchemeTraining):
    """Training of a scheme with pilots."""

    def after_step(self) -> None:
        for module in self.scheme.modules():
            if isinstance(module, Pilots) and module.parts.requires_grad:
                module.normalise()


@trains(PilotLmmse)
class TableTraining(PilotTraining):
    """Training of a scheme that sends its received pilots by tables: these are made after it."""

    scheme: PilotLmmse

    def calibrate(self, downlink: Downlink) -> None:
        encoder, decoder = self.scheme.encoder, self.scheme.decoder
        encoder.quantizer.calibrate(encoder.observe(downlink).flatten(0, 1))
        decoder.quantizer.load_state_dict(encoder.quantizer.state_dict())
