"""What feedback bits are worth without a network: pilots by Lloyd-Max tables, angles from the uplink, LMMSE."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from shared.errors import InvalidInput
from shared.quantizers.lloyd_max import LloydMax
from shared.schemes import register
from shared.schemes.lmmse import LmmseDecoder, MultipathScheme
from shared.schemes.pilots import PilotConfig, PilotEncoder, Pilots, UplinkReading

SAMPLES = "samples"
"""Beginning of the names of the payload's fields."""

MOST_BITS = 12
"""Of a received value's table."""


def make_tables(config: PilotConfig) -> LloydMax:
    """Of the received pilots, for either end: B bits for 2 L_dl values."""
    return LloydMax(SAMPLES, 2 * config.downlink_pilots, config.feedback_bits)


class TableEncoder(PilotEncoder):
    """Sends the received pilots, each real value by its table."""

    def __init__(self, pilots: Pilots, config: PilotConfig) -> None:
        super().__init__(pilots)
        self.quantizer = make_tables(config)

    def forward(self, observation: Tensor, slope: float) -> Tensor:
        """The received pilots as they are: tables are made once pilots are trained, and their error is small."""
        return observation

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        return self.quantizer.encode(observation)


@register
class PilotLmmse(MultipathScheme):
    """B bits a report, 2 L_dl to 12 times as many: what a scheme of learned feedback has to be better than."""

    name: ClassVar[str] = "pilot_lmmse"
    readings: ClassVar[tuple[UplinkReading, ...]] = ("array",)

    def check_sizes(self) -> None:
        super().check_sizes()
        bits, values = self.config.feedback_bits, 2 * self.config.downlink_pilots
        if not values <= bits <= MOST_BITS * values:
            raise InvalidInput(
                f"feedback_bits: {bits}; {self.name} takes {values} to {MOST_BITS * values} for {values // 2} pilots"
            )

    encoder: PilotEncoder
    decoder: LmmseDecoder

    def make_encoder(self) -> PilotEncoder:
        return TableEncoder(self._pilots(), self.config)

    def make_decoder(self) -> LmmseDecoder:
        return LmmseDecoder(self.world, self.config, self._pilots(), make_tables(self.config))

    def _pilots(self) -> Pilots:
        """The encoder's, if it is there."""
        if hasattr(self, "encoder"):
            return self.encoder.pilots
        return Pilots(self.scenario.antennas, self.config.downlink_pilots)
