"""Training of CsiNet."""

from __future__ import annotations

from torch import nn

from csiemu.training.schemes.base import trains
from csiemu.training.schemes.images import ImageTraining
from shared.schemes.csinet import CsiNet, RefineNet


@trains(CsiNet)
class CsiNetTraining(ImageTraining):
    """Training of CsiNet."""

    def pass_through(self, scale: float) -> None:
        for layers in (self.scheme.encoder.network.features, self.scheme.decoder.network.refinement):
            for module in layers:
                if isinstance(module, RefineNet):
                    nn.init.zeros_(module.norm.weight)
                elif isinstance(module, nn.Conv2d):
                    nn.init.dirac_(module.weight)
