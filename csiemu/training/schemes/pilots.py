"""Training of schemes with pilots: they keep their power."""

from __future__ import annotations

from csiemu.training.schemes import SchemeTraining, trains
from shared.schemes.pilots import Pilots, PilotScheme


@trains(PilotScheme)
class PilotTraining(SchemeTraining):
    """Training of a scheme with pilots."""

    def after_step(self) -> None:
        for module in self.scheme.modules():
            if isinstance(module, Pilots) and module.parts.requires_grad:
                module.normalise()
