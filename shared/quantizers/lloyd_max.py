"""Scalar quantisers of least squared error: a table for each entry (Lloyd, "Least squares quantization in PCM", 1982;
Max, "Quantizing for minimum distortion", 1960).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from shared.link.payload import Field
from shared.quantizers.base import Quantizer

ITERATIONS = 500
"""Of Lloyd's method I."""


class LloydMax(Quantizer):
    """A value becomes the nearest level of its entry's table. n entries share B bits: B // n each, the first B mod n of
    them one more. Entries of the same number of bits are a field.

    Tables are buffers, so that they travel with the weights of whoever holds the quantiser.

    Attributes:
        numbers: [n], bits of each entry.
        levels: [n, 2^most bits], ascending; infinite from 2^b on. Before `calibrate` they are those of a uniform law.
        distortion: [n], mean squared error of what the tables were made by.
    """

    levels: Tensor
    distortion: Tensor

    def __init__(self, field: str, entries: int, bits: int) -> None:
        super().__init__(field, entries, bits)
        least, more = divmod(bits, entries)
        self.numbers = [least + 1] * more + [least] * (entries - more)
        self.register_buffer("levels", _table([(torch.arange(2**b) + 0.5) * 2.0 ** (1 - b) - 1 for b in self.numbers]))
        self.register_buffer("distortion", torch.zeros(entries))

    def fields(self) -> tuple[Field, ...]:
        return tuple(Field(f"{self.field}{b}", self.numbers.count(b), b) for b in dict.fromkeys(self.numbers))

    def encode(self, values: Tensor) -> dict[str, Tensor]:
        return self.to_fields(self.to_levels(values))

    def decode(self, fields: Mapping[str, Tensor]) -> Tensor:
        return self.from_levels(self.of_fields(fields))

    def to_fields(self, levels: Tensor) -> dict[str, Tensor]:
        """[..., n] integers to payload fields: name -> [..., count]."""
        parts = levels.split([field.count for field in self.fields()], dim=-1)
        return {field.name: part for field, part in zip(self.fields(), parts, strict=True)}

    def of_fields(self, fields: Mapping[str, Tensor]) -> Tensor:
        """Inverse of `to_fields`."""
        return torch.cat([fields[field.name] for field in self.fields()], dim=-1)

    def to_levels(self, values: Tensor) -> Tensor:
        return self.nearest(self.levels, values)

    def from_levels(self, levels: Tensor) -> Tensor:
        return self.chosen(self.levels, levels)

    @staticmethod
    def nearest(table: Tensor, values: Tensor) -> Tensor:
        """Integers [N, n] of the levels [n, 2^most bits] nearest to values [N, n]."""
        thresholds = (table[:, 1:] + table[:, :-1]) / 2
        return torch.searchsorted(thresholds, values.mT.contiguous()).mT

    @staticmethod
    def chosen(table: Tensor, levels: Tensor) -> Tensor:
        """Levels [N, n] of a table that integers name."""
        return table.gather(1, levels.mT).mT

    @torch.no_grad()
    def calibrate(self, values: Tensor, weight: Tensor | None = None) -> None:
        """Make the tables from values [N, n]."""
        self.levels.copy_(self.table(values))
        self.distortion.copy_((self.from_levels(self.to_levels(values)) - values).square().mean(0))

    def table(self, values: Tensor) -> Tensor:
        """[n, 2^most bits] levels for values [N, n]: they begin as quantiles and become the means of their cells."""
        tables = []
        for ordered, bits in zip(values.double().mT.contiguous().sort().values, self.numbers, strict=True):
            sums = torch.nn.functional.pad(ordered.cumsum(0), (1, 0))
            levels = ordered.quantile((torch.arange(2**bits, dtype=torch.float64) + 0.5) / 2**bits)
            for _ in range(ITERATIONS):
                inner = torch.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2)
                ends = torch.cat([inner.new_zeros(1), inner, inner.new_full((1,), len(ordered))])
                counts = ends.diff()
                levels = torch.where(counts > 0, sums[ends].diff() / counts.clamp(min=1), levels)
            tables.append(levels.float())
        return _table(tables)


def _table(rows: list[Tensor]) -> Tensor:
    """Rows of different lengths, the shorter ones filled up."""
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=torch.inf)
