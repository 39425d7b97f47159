"""From a configuration to the parts of both ends."""

from __future__ import annotations

import math

from torch import nn

from shared.errors import InvalidInput
from shared.quantizers.binary import BinaryLevels
from shared.quantizers.sum_of_sigmoids import SumOfSigmoids
from shared.schemes.dualnet_mp.branches import CHANNELS, Combiner, Quantizer, Shape, leaky
from shared.schemes.dualnet_mp.config import DualNetConfig
from shared.schemes.dualnet_mp.dominant import DominantEntries, LargestEntries
from shared.schemes.dualnet_mp.magnitudes import MagnitudeDecoder, MagnitudeEncoder, PerfectMagnitudes
from shared.schemes.dualnet_mp.phases import AngleDecoder, AngleEncoder, AngleQuantizer, CosineDecoder, CosineEncoder


class Parts:
    """The parts of both ends, as a configuration wants them for images of a size."""

    def __init__(self, config: DualNetConfig, shape: Shape) -> None:
        self.config, self.shape = config, shape
        self.perfect = config.magnitude_quantizer == "perfect"
        self.uplink = "none" if self.perfect else config.uplink
        self.signs = round(config.sign_ratio * math.prod(shape))
        self.reach = self.signs if config.phase == "smape" else 0
        if config.phase == "mdpq":
            self.reach = AngleQuantizer(shape, config.mdpq_bits).reach
        if not self.perfect:
            self.of_magnitude = (
                self._entries("magnitude_compression", config.magnitude_quantizer, config.magnitude_bits),
                config.magnitude_quantizer,
                config.magnitude_bits,
            )
        self.of_phase = (
            self._entries("phase_compression", config.quantizer, config.phase_bits),
            config.quantizer,
            config.phase_bits,
        )

    def magnitude_encoder(self) -> MagnitudeEncoder | PerfectMagnitudes:
        if self.perfect:
            return PerfectMagnitudes(self.shape)
        entries, quantizer = self.of_magnitude[0], _quantizer(*self.of_magnitude)
        return MagnitudeEncoder(self.shape, entries, quantizer, self.config.magnitude_core, self.config.layers, leaky)

    def magnitude_decoder(self) -> MagnitudeDecoder | PerfectMagnitudes:
        if self.perfect:
            return PerfectMagnitudes(self.shape)
        core, layers, beside = self.config.magnitude_core, self.config.layers, int(self.uplink != "none")
        entries, quantizer = self.of_magnitude[0], _quantizer(*self.of_magnitude)
        return MagnitudeDecoder(self.shape, entries, quantizer, core, layers, leaky, kernel=7, beside=beside)

    def phase_encoder(self) -> CosineEncoder | AngleEncoder | AngleQuantizer:
        config = self.config
        if config.phase == "mdpq":
            return AngleQuantizer(self.shape, config.mdpq_bits)
        arguments = (self.shape, self.of_phase[0], _quantizer(*self.of_phase), config.core, config.layers, nn.Tanh)
        return CosineEncoder(*arguments, signs=self.signs) if config.phase == "smape" else AngleEncoder(*arguments)

    def phase_decoder(self) -> CosineDecoder | AngleDecoder | AngleQuantizer:
        config = self.config
        if config.phase == "mdpq":
            return AngleQuantizer(self.shape, config.mdpq_bits)
        kind = CosineDecoder if config.phase == "smape" else AngleDecoder
        entries, quantizer = self.of_phase[0], _quantizer(*self.of_phase)
        return kind(self.shape, entries, quantizer, config.core, config.layers, nn.Tanh, kernel=5)

    def dominant(self) -> DominantEntries | LargestEntries:
        return LargestEntries() if self.perfect else DominantEntries(math.prod(self.shape), self.of_magnitude[0])

    def combiner(self) -> Combiner:
        blocks = 0 if self.config.phase == "mdpp" else self.config.combiner_blocks
        return Combiner(blocks, CHANNELS[self.config.layers], self.config.core != "cnn", self.shape)

    def _entries(self, field: str, quantizer: str, bits: int) -> int:
        size, compression = math.prod(self.shape), getattr(self.config, field)
        if (size / compression) % 1:
            raise InvalidInput(f"{field}: {compression} does not divide {size}, the entries of an image")
        return round(size / compression) * (bits if quantizer == "blq" else 1)


def _quantizer(entries: int, kind: str, bits: int) -> Quantizer:
    return BinaryLevels() if kind == "blq" else SumOfSigmoids(entries, bits)
