"""Sizes and choices of DualNet-MP and of its variants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from shared.errors import InvalidInput
from shared.fields import OneOf, Within, check_fields
from shared.quantizers.scale import check_limits
from shared.schemes.base import SchemeConfig


@dataclass(frozen=True)
class DualNetConfig(SchemeConfig):
    """Sizes and choices.

    Attributes:
        magnitude_compression, phase_compression: a codeword's entries are Q M / compression; a binary quantiser has
            as many times more of them as the other has bits.
        magnitude_bits, phase_bits: K, bits of a codeword's entry.
        sign_ratio: R_s, share of the entries whose sign is sent (`smape`).
        phase: method (section IV.A): `smape` sends cosines and signs; `mse0` and `mdpp` send the angle, and minimise
            eq. (11) or (12); `mdpq` quantises the angles of dominant entries one by one.
        mdpq_bits: of the entries in 0-50, 50-70, 70-80, 80-90 and 90-100 % of the distribution of magnitudes (`mdpq`).
        quantizer: of the phase codeword, `ssq` or `blq`.
        magnitude_quantizer: the same, or `perfect`: the reference that is sent each magnitude in 32 bits.
        core, magnitude_core: layers of the phase and of the magnitude branch: `c-cnn`, circular convolutions, `cnn`,
            zero-padded ones, or `dnn`, fully connected.
        layers: hidden channels of convolutions, of the `paper` or as `released`.
        combiner_blocks: residual blocks of the combining network, circular but for a `cnn`. `mdpp` has none: its loss
            sees phases alone.
        uplink: magnitudes that the magnitude decoder gets: `perfect`, `estimated` at the scenario's SNR, or `none`.
        scale_low_db, scale_high_db: range of the image's scale, twice its largest magnitude [dB], in 255 steps.
    """

    magnitude_compression: Annotated[float, Within(1, 1024)] = 4
    phase_compression: Annotated[float, Within(1, 1024)] = 8
    magnitude_bits: Annotated[int, Within(2, 12)] = 8
    phase_bits: Annotated[int, Within(2, 12)] = 8
    sign_ratio: Annotated[float, Within(0, 1)] = 0.25
    phase: Annotated[str, OneOf(("smape", "mse0", "mdpp", "mdpq"))] = "smape"
    mdpq_bits: tuple[int, ...] = (0, 0, 0, 3, 7)
    quantizer: Annotated[str, OneOf(("ssq", "blq"))] = "ssq"
    magnitude_quantizer: Annotated[str, OneOf(("ssq", "blq", "perfect"))] = "ssq"
    core: Annotated[str, OneOf(("c-cnn", "cnn", "dnn"))] = "c-cnn"
    magnitude_core: Annotated[str, OneOf(("c-cnn", "cnn", "dnn"))] = "c-cnn"
    layers: Annotated[str, OneOf(("paper", "released"))] = "paper"
    combiner_blocks: Annotated[int, Within(0, 8)] = 1
    uplink: Annotated[str, OneOf(("perfect", "estimated", "none"))] = "perfect"
    scale_low_db: float = -52.0
    scale_high_db: float = 8.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "mdpq_bits", tuple(self.mdpq_bits))  # JSON knows lists only
        check_fields(self, one_of=True)
        if len(self.mdpq_bits) != 5 or not all(0 <= bits <= 12 for bits in self.mdpq_bits):
            raise InvalidInput(f"mdpq_bits: {self.mdpq_bits} is not five numbers in [0, 12]")
        check_limits(self.scale_low_db, self.scale_high_db)
