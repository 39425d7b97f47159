"""The precoding matrix indicator of enhanced Type II: its fields, and what they stand for (TS 38.214, 5.2.2.2.5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.errors import InvalidInput
from shared.link.payload import Field
from shared.schemes.codebooks import combinatorial
from shared.schemes.codebooks.base import index_field, read_index, write_index
from shared.schemes.codebooks.tables import (
    DIFFERENTIAL_AMPLITUDES,
    PHASES,
    REFERENCE_AMPLITUDES,
    Combination,
    Ports,
)


@dataclass(frozen=True)
class Pmi:
    """What the indicators of N reports stand for; coefficients in the order of the bitmap, delay by delay.

    Attributes:
        rotation: [N, 2] int64, q1 and q2.
        beams: [N, L] int64, the numbers n of the orthogonal beams, ascending.
        delays: [N, M] int64, n_3 of each delay, ascending, the first 0.
        filled: [N, M 2L] bool, which coefficients are other than 0.
        strongest: [N] int64, i* in [0, 2L), of the first delay.
        reference: [N] int64, k^(1) of the polarisation that the strongest is not of.
        amplitude, phase: [N, M 2L] int64, k^(2) and c; of the strongest 7 and 0, and 0 where nothing is filled.
    """

    rotation: Tensor
    beams: Tensor
    delays: Tensor
    filled: Tensor
    strongest: Tensor
    reference: Tensor
    amplitude: Tensor
    phase: Tensor


class PmiFields:
    """The fields of a PMI of rank 1, in the order in which they are packed, and the way there and back.

    The standard has K^NZ - 1 amplitudes and phases and lets a report be shorter with fewer coefficients. Here a report
    has its longest form always, K^NZ = K_0, and what is not needed is 0 at the end of i_{2,4} and i_{2,5}.

    Args:
        ports, combination, subbands: N1, N2, O1, O2; L, p_v, beta; N3.
    """

    def __init__(self, ports: Ports, combination: Combination, subbands: int) -> None:
        self.positions, self.size, self.subbands = ports.positions, combination.beams, subbands
        self.delays = combination.delay_count(subbands)
        self.most = combination.most_coefficients(subbands)
        self.rotations = torch.tensor([ports.o1, ports.o2])[: 2 if ports.o2 > 1 else 1]
        self.combinations = {
            "i12": math.comb(self.positions, self.size),
            "i16": math.comb(subbands - 1, self.delays - 1),
        }
        self.fields = (
            Field("i11", len(self.rotations), 2),
            index_field("i12", self.combinations["i12"]),
            index_field("i16", self.combinations["i16"]),
            Field("i17", 2 * self.size * self.delays, 1),
            index_field("i18", self.most),
            Field("i23", 1, 4),
            Field("i24", self.most - 1, 3),
            Field("i25", self.most - 1, 4),
        )
        self._by_name = {field.name: field for field in self.fields}

    def write(self, pmi: Pmi) -> dict[str, Tensor]:
        """Payload fields, name -> [N, count] int64."""
        first = pmi.filled[:, : 2 * self.size].long()
        strongest = first.cumsum(1).gather(1, pmi.strongest[:, None]) - 1
        reported = pmi.filled & ~self._is_strongest(pmi.strongest)
        order = (~reported).long().argsort(dim=1, stable=True)[:, : self.most - 1]
        return {
            "i11": pmi.rotation[:, : len(self.rotations)],
            "i12": write_index(self._by_name["i12"], combinatorial.rank(pmi.beams, self.positions)),
            "i16": write_index(self._by_name["i16"], combinatorial.rank(pmi.delays[:, 1:] - 1, self.subbands - 1)),
            "i17": pmi.filled.long(),
            "i18": write_index(self._by_name["i18"], strongest[:, 0]),
            "i23": pmi.reference[:, None],
            "i24": (pmi.amplitude * reported).gather(1, order),
            "i25": (pmi.phase * reported).gather(1, order),
        }

    def read(self, fields: Mapping[str, Tensor]) -> Pmi:
        """Inverse of `write`, of fields that `check` has found good."""
        filled = fields["i17"] == 1
        first = fields["i17"][:, : 2 * self.size]
        strongest = ((first.cumsum(1) == read_index(fields["i18"])[:, None] + 1) & (first == 1)).long().argmax(1)
        is_strongest = self._is_strongest(strongest)
        reported = filled & ~is_strongest
        place = (reported.long().cumsum(1) - 1).clamp(min=0)
        delays = combinatorial.unrank(read_index(fields["i16"]), self.subbands - 1, self.delays - 1) + 1

        def spread(values: Tensor, of_strongest: int) -> Tensor:
            padded = torch.nn.functional.pad(values, (0, 1))  # where no value is reported at all
            return torch.where(reported, padded.gather(1, place), 0) + is_strongest * of_strongest

        return Pmi(
            torch.nn.functional.pad(fields["i11"], (0, 2 - len(self.rotations))),
            combinatorial.unrank(read_index(fields["i12"]), self.positions, self.size),
            torch.nn.functional.pad(delays, (1, 0)),
            filled,
            strongest,
            fields["i23"][:, 0],
            spread(fields["i24"], len(DIFFERENTIAL_AMPLITUDES) - 1),
            spread(fields["i25"], 0),
        )

    def coefficients(self, pmi: Pmi) -> Tensor:
        """p^(1) p^(2) phi, [N, M, 2L] complex64; 0 where nothing is filled."""
        of_strongest = torch.arange(2 * self.size) // self.size == (pmi.strongest // self.size)[:, None]
        weaker = torch.tensor(REFERENCE_AMPLITUDES)[pmi.reference]
        reference = torch.where(of_strongest, 1.0, weaker[:, None])  # [N, 2L]
        amplitude = torch.tensor(DIFFERENTIAL_AMPLITUDES)[pmi.amplitude] * pmi.filled
        found = torch.polar(amplitude, pmi.phase * (2 * math.pi / PHASES))
        return found.unflatten(1, (self.delays, 2 * self.size)) * reference[:, None]

    def basis(self, pmi: Pmi) -> Tensor:
        """y_t^(f) = exp(j 2 pi t n_3^(f) / N3), [N, N3, M] complex64."""
        turns = (torch.arange(self.subbands)[:, None] * pmi.delays[:, None] % self.subbands) / self.subbands
        return torch.polar(torch.ones_like(turns), 2 * math.pi * turns)

    def check(self, fields: Mapping[str, NDArray[np.int64]]) -> None:
        """Raises InvalidInput for indicators that fit their bits and that no PMI has."""
        for name, choices in self.combinations.items():
            if fields[name].size and (largest := int(fields[name].max())) >= choices:
                raise InvalidInput(f"payload {name}: {largest}; wanted a combination's number, less than {choices}")
        filled = fields["i17"].sum(1)
        if filled.size and not (filled.min() >= 1 and filled.max() <= self.most):
            count = int(filled.max() if filled.max() > self.most else filled.min())
            raise InvalidInput(f"payload i17: {count} coefficients; wanted 1 to {self.most}")
        strongest = fields["i18"].sum(1)
        beyond = strongest >= fields["i17"][:, : 2 * self.size].sum(1)
        if beyond.any():
            raise InvalidInput(
                f"payload i18: {int(strongest[beyond][0])}; wanted less than the number of coefficients of delay 0"
            )
        if (fields["i23"] < 1).any():
            raise InvalidInput("payload i23: 0 is reserved; wanted 1 to 15")
        unused = np.arange(self.most - 1) >= filled[:, None] - 1
        for name in ("i24", "i25"):
            if (fields[name] * unused).any():
                raise InvalidInput(f"payload {name}: a value of no coefficient; wanted 0 behind those of i17")

    def _is_strongest(self, strongest: Tensor) -> Tensor:
        """[N, M 2L] bool."""
        return torch.arange(2 * self.size * self.delays) == strongest[:, None]
