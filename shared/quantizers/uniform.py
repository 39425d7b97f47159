"""Uniform scalar quantiser of codewords: each entry over its own range, with K bits or with a share of all bits, as it
is or compressed by the mu-law first, which gives small values the finer cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from shared.link.payload import Field
from shared.quantizers.base import Quantizer

MOST_BITS = 12
"""Of an entry, where bits are allocated."""

CHUNK = 512
"""Samples whose errors are measured at once."""

ALLOCATED_BY = 2048
"""Samples enough to share bits out by; ranges are set by all that are given."""

WIDTHS = torch.cat([torch.arange(1, 4, 0.5), torch.logspace(2, 5, 10, base=2)])
"""Half ranges tried, in standard deviations: codewords of channels with few strong paths have long tails."""

FINER = torch.linspace(0.82, 1.22, 9)
"""Tried around the best of them, relative to it."""


class UniformQuantizer(Quantizer):
    """2^b levels in the middle of equal cells between `low` and `high`, for each of n entries.

    Ranges and numbers of bits are buffers, so that they travel with the weights of whoever holds the quantiser.

    Attributes:
        mu: of the mu-law (ITU-T G.711's compression, continuous), about the middle of the range; 0 is uniform.
        low, high: [n].
        bits: [n] uint8, b of each entry: K for all, or if `allocated`, after `calibrate`, K on average; entries of the
            same number of bits are a field, those of 0 bits are not sent.
        total: bits of all entries, n K and the `extra` ones, which the first entries get as long as none are allocated.
    """

    low: Tensor
    high: Tensor
    bits: Tensor

    def __init__(
        self, field: str, entries: int, bits: int, *, allocated: bool = False, mu: float = 0.0, extra: int = 0
    ) -> None:
        super().__init__(field, entries, bits)
        self.mu = mu
        self.allocated = allocated
        self.total = entries * bits + extra
        self.register_buffer("low", -torch.ones(entries))
        self.register_buffer("high", torch.ones(entries))
        each = torch.full((entries,), bits, dtype=torch.uint8)
        each[:extra] += 1
        self.register_buffer("bits", each, persistent=allocated)

    def fields(self) -> tuple[Field, ...]:
        return tuple(Field(name, int(of.sum()), int(self.bits[of][0])) for name, of in self._groups())

    def encode(self, values: Tensor) -> dict[str, Tensor]:
        levels = self.to_levels(values)
        return {name: levels[:, of] for name, of in self._groups()}

    def decode(self, fields: Mapping[str, Tensor]) -> Tensor:
        count = len(next(iter(fields.values())))
        levels = torch.zeros(count, self.entries, dtype=torch.int64, device=self.bits.device)
        for name, of in self._groups():
            levels[:, of] = fields[name]
        return self.from_levels(levels)

    def to_levels(self, values: Tensor) -> Tensor:
        """What is out of range goes to the next level."""
        unit = self._compressed((values - self.low) / (self.high - self.low))
        return (unit * self._levels()).floor().clamp(min=0).minimum(self._levels() - 1).long()

    def from_levels(self, levels: Tensor) -> Tensor:
        """The middles of the levels' cells."""
        return self.low + (self.high - self.low) * self._expanded((levels + 0.5) / self._levels())

    def forward(self, values: Tensor, slope: float = 1.0) -> Tensor:
        """Quantised values with a straight-through gradient; none for what is out of range."""
        within = torch.minimum(torch.maximum(values, self.low), self.high)
        return within + (self.from_levels(self.to_levels(values)) - within).detach()

    @torch.no_grad()
    def calibrate(self, values: Tensor, weight: Tensor | None = None) -> None:
        """Set each entry's range to mean +- c standard deviations, with the c in 1 .. 32 of least squared error; before
        that, if they are allocated, share all bits out, each to the entry whose weighted squared error it lowers most.
        """
        if self.allocated:
            self._allocate(values[:ALLOCATED_BY], torch.ones(self.entries) if weight is None else weight)
        self._fit(values, FINER)

    def _allocate(self, values: Tensor, weight: Tensor) -> None:
        errors = [values.var(0)]
        for bits in range(1, MOST_BITS + 1):
            self.bits.fill_(bits)
            errors.append(self._fit(values))
        gains = (torch.stack(errors).diff(dim=0).neg() * weight).cummin(0).values  # [bits, n]
        chosen = gains.flatten().argsort(descending=True, stable=True)[: self.total]
        self.bits.copy_(torch.zeros_like(gains).flatten().index_fill_(0, chosen, 1).view_as(gains).sum(0))

    def _fit(self, values: Tensor, finer: Tensor | None = None) -> Tensor:
        """Set the ranges to the best of `WIDTHS`, or `finer`; the mean squared errors [n] that are left."""
        mean, deviation = values.mean(0), values.std(0).clamp(min=1e-8)

        def best_of(widths: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
            chosen, least = torch.zeros_like(mean), torch.full_like(mean, torch.inf)
            for width in widths:
                self._set_range(mean, width * deviation)
                error = self._error(values)
                chosen, least = torch.where(error < least, width, chosen), torch.minimum(error, least)
            return chosen, least

        width, least = best_of(WIDTHS)
        if finer is not None:
            width, least = best_of(width * finer[:, None])
        self._set_range(mean, width * deviation)
        return least

    def _set_range(self, middle: Tensor, half: Tensor) -> None:
        self.low.copy_(middle - half)
        self.high.copy_(middle + half)

    def _error(self, values: Tensor) -> Tensor:
        """Mean squared error of each entry, [n]."""
        total = torch.zeros_like(self.low)
        for part in values.split(CHUNK):  # what a cache holds
            total += (self.from_levels(self.to_levels(part)) - part).square().sum(0)
        return total / len(values)

    def _compressed(self, unit: Tensor) -> Tensor:
        """mu-law of numbers in [0, 1], whose middle is 0.5; those beyond stay beyond."""
        if not self.mu:
            return unit
        signed = 2 * unit - 1
        return 0.5 + 0.5 * signed.sign() * (self.mu * signed.abs()).log1p() / math.log1p(self.mu)

    def _expanded(self, unit: Tensor) -> Tensor:
        """Inverse of `_compressed`."""
        if not self.mu:
            return unit
        signed = 2 * unit - 1
        return 0.5 + 0.5 * signed.sign() * (signed.abs() * math.log1p(self.mu)).expm1() / self.mu

    def _levels(self) -> Tensor:
        return 2 ** self.bits.float()

    def _groups(self) -> list[tuple[str, Tensor]]:
        """Names of the fields, and which entries are in each, [n] bool."""
        if not self.allocated:
            return [(self.field, self.bits > 0)]
        return [(f"{self.field}{b}", self.bits == b) for b in self.bits.unique().tolist() if b > 0]


class Angle(Quantizer):
    """Angles [rad] to the nearest of 2^bits around the circle, the first of which is 0."""

    def to_levels(self, values: Tensor) -> Tensor:
        return (values / (2 * math.pi) * 2**self.entry_bits).round().long() % 2**self.entry_bits

    def from_levels(self, levels: Tensor) -> Tensor:
        return 2 * math.pi / 2**self.entry_bits * levels
