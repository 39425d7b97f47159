"""From a configuration to the parts of both ends."""

from __future__ import annotations

import math

from torch import nn

from shared.errors import InvalidInput
from shared.schemes.dualnet_mp.branches import CHANNELS, Activation, Branch, BranchEncoder, Combiner, Shape, leaky
from shared.schemes.dualnet_mp.config import DualNetConfig
from shared.schemes.dualnet_mp.dominant import DominantEntries, LargestEntries
from shared.schemes.dualnet_mp.magnitudes import MAGNITUDE, MagnitudeDecoder, PerfectMagnitudes
from shared.schemes.dualnet_mp.phases import (
    PHASE,
    AngleDecoder,
    AngleEncoder,
    CosineDecoder,
    CosineEncoder,
    DominantAngles,
)


class Parts:
    """The parts of both ends, as a configuration wants them for images of a size."""

    def __init__(self, config: DualNetConfig, shape: Shape) -> None:
        self.config, self.shape = config, shape
        self.perfect = config.magnitude_quantizer == "perfect"
        self.uplink = "none" if self.perfect else config.uplink
        self.reach = round(config.sign_ratio * math.prod(shape)) if config.phase == "smape" else 0
        if config.phase == "mdpq":
            self.reach = DominantAngles(shape, config.mdpq_bits).reach
        self.magnitudes = self._branch(MAGNITUDE, config.magnitude_quantizer, config.magnitude_core, leaky)
        self.phases = self._branch(PHASE, config.quantizer, config.core, nn.Tanh)

    def magnitude_encoder(self) -> BranchEncoder | PerfectMagnitudes:
        return PerfectMagnitudes(self.shape) if self.perfect else BranchEncoder(self.magnitudes)

    def magnitude_decoder(self) -> MagnitudeDecoder | PerfectMagnitudes:
        if self.perfect:
            return PerfectMagnitudes(self.shape)
        return MagnitudeDecoder(self.magnitudes, kernel=7, beside=int(self.uplink != "none"))

    def phase_encoder(self) -> CosineEncoder | AngleEncoder | DominantAngles:
        if self.config.phase == "mdpq":
            return DominantAngles(self.shape, self.config.mdpq_bits)
        return CosineEncoder(self.phases, self.reach) if self.config.phase == "smape" else AngleEncoder(self.phases)

    def phase_decoder(self) -> CosineDecoder | AngleDecoder | DominantAngles:
        if self.config.phase == "mdpq":
            return DominantAngles(self.shape, self.config.mdpq_bits)
        if self.config.phase == "smape":
            return CosineDecoder(self.phases, self.reach, kernel=5)
        return AngleDecoder(self.phases, kernel=5)

    def dominant(self) -> DominantEntries | LargestEntries:
        return LargestEntries() if self.perfect else DominantEntries(math.prod(self.shape), self.magnitudes.entries)

    def combiner(self) -> Combiner:
        blocks = 0 if self.config.phase == "mdpp" else self.config.combiner_blocks
        return Combiner(blocks, CHANNELS[self.config.layers], self.config.core != "cnn", self.shape)

    def _branch(self, name: str, quantizer: str, core: str, activation: Activation) -> Branch:
        size, compression = math.prod(self.shape), getattr(self.config, f"{name}_compression")
        if (size / compression) % 1:
            raise InvalidInput(f"{name}_compression: {compression} does not divide {size}, the entries of an image")
        bits = getattr(self.config, f"{name}_bits")
        entries = round(size / compression) * (bits if quantizer == "blq" else 1)
        return Branch(name, self.shape, entries, quantizer, bits, core, self.config.layers, activation)
