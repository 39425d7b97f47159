"""Tables of TS 38.214, clause 5.2.2.2, as far as the codebooks here have them: 32 ports, rank 1."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple


class Ports(NamedTuple):
    """CSI-RS ports: N1 x N2 positions, each with two polarisations; and the beams between the orthogonal ones.

    Port p N1 N2 + n1 N2 + n2 is that of polarisation p at position (n1, n2).

    Attributes:
        n1, n2: N1, N2. o1, o2: oversampling O1, O2.
    """

    n1: int
    n2: int
    o1: int
    o2: int

    @property
    def positions(self) -> int:
        """N1 N2."""
        return self.n1 * self.n2

    @property
    def total(self) -> int:
        """P, of both polarisations."""
        return 2 * self.positions


PORTS = {"16x1": Ports(16, 1, 4, 1), "8x2": Ports(8, 2, 4, 4), "4x4": Ports(4, 4, 4, 4)}
"""Table 5.2.2.2.1-2, the rows of 32 ports."""


class Combination(NamedTuple):
    """A row of Table 5.2.2.2.5-1.

    Attributes:
        beams: L.
        delays: p_v of ranks 1 and 2, the share of the N3 delays that are used.
        coefficients: beta, the share of the 2 L M coefficients that may be other than 0.
    """

    beams: int
    delays: Fraction
    coefficients: Fraction

    def delay_count(self, subbands: int) -> int:
        """M_1 = ceil(p_1 N3 / R), R = 1."""
        return math.ceil(self.delays * subbands)

    def most_coefficients(self, subbands: int) -> int:
        """K_0 = ceil(beta 2 L M_1)."""
        return math.ceil(self.coefficients * 2 * self.beams * self.delay_count(subbands))


_QUARTER, _HALF, _THREE_QUARTERS = Fraction(1, 4), Fraction(1, 2), Fraction(3, 4)

COMBINATIONS = {
    1: Combination(2, _QUARTER, _QUARTER),
    2: Combination(2, _QUARTER, _HALF),
    3: Combination(4, _QUARTER, _QUARTER),
    4: Combination(4, _QUARTER, _HALF),
    5: Combination(4, _QUARTER, _THREE_QUARTERS),
    6: Combination(4, _HALF, _HALF),
    7: Combination(6, _QUARTER, _HALF),
    8: Combination(6, _QUARTER, _THREE_QUARTERS),
}
"""Table 5.2.2.2.5-1 by paramCombination-r16."""

REFERENCE_AMPLITUDES = (
    math.nan,
    128 ** (-1 / 2),
    8192 ** (-1 / 4),
    1 / 8,
    2048 ** (-1 / 4),
    1 / (2 * 8 ** (1 / 2)),
    512 ** (-1 / 4),
    1 / 4,
    128 ** (-1 / 4),
    8 ** (-1 / 2),
    32 ** (-1 / 4),
    1 / 2,
    8 ** (-1 / 4),
    2 ** (-1 / 2),
    2 ** (-1 / 4),
    1.0,
)
"""Table 5.2.2.2.5-2: p^(1) by k^(1); the first is reserved."""

DIFFERENTIAL_AMPLITUDES = (
    1 / (8 * 2 ** (1 / 2)),
    1 / 8,
    1 / (4 * 2 ** (1 / 2)),
    1 / 4,
    1 / (2 * 2 ** (1 / 2)),
    1 / 2,
    1 / 2 ** (1 / 2),
    1.0,
)
"""Table 5.2.2.2.5-3: p^(2) by k^(2)."""

PHASES = 16
"""Phases of a coefficient, 2 pi c / 16."""

COPHASES = 4
"""Phases between the polarisations in Type I, 2 pi n / 4 (5.2.2.2.1)."""
