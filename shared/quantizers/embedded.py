"""Embedded scalar quantiser (successive refinement; Taubman and Marcellin, "JPEG2000", section 3.2): a codeword is sent
bit by bit, those that lower the error most first, so that it may end after any of them.

An entry has nested cells: each bit of it halves the one that those before it chose. The last bits may be left off, of
all entries alike or of some.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from shared.link.payload import Field
from shared.quantizers.base import Quantizer

LENGTH = "length"
"""Name of the field that says how many bits of the codeword follow."""

HALF_RANGE = 7.0
"""In standard deviations: what is further from the mean goes to the outermost cell."""

CHUNK = 512
"""Samples whose errors are measured at once."""


class EmbeddedQuantizer(Quantizer):
    """2^b cells of equal width behind a mu-law for each of n entries, about its mean. What an entry is taken for when
    only some of its bits are there is the centre of what lies in the cell that they choose, in standard deviations the
    same for all entries; without any, its mean. All of that is measured by `calibrate`, and kept in buffers.

    Args:
        field: name of the codeword's field.
        entries: n.
        bits: b, most bits of an entry.
        room: most bits of a codeword and its length together, at least 3.
        mu: of the mu-law (ITU-T G.711's compression, continuous), above 0.
        allocated: bits go out in the order of what each is worth; otherwise entries do, each with all of its bits.

    Attributes:
        length_bits: of the field that says how long the codeword is.
        capacity: most bits of a codeword: as many as there is room for, or all that the entries have.
        mean, deviation: [n].
        order: [capacity] int16, the entry that a bit of the codeword belongs to; an entry's most significant bit first.
        points: [b + 1, 2^b]: row d has what the 2^d cells of d bits stand for.
    """

    mean: Tensor
    deviation: Tensor
    order: Tensor
    points: Tensor

    def __init__(self, field: str, entries: int, bits: int, room: int, *, mu: float, allocated: bool) -> None:
        super().__init__(field, entries, bits)
        self.mu, self.allocated = mu, allocated
        most = min(room, entries * bits + (entries * bits).bit_length())
        self.length_bits = (most - most.bit_length()).bit_length()
        self.capacity = min(most - self.length_bits, 2**self.length_bits - 1)
        self.register_buffer("mean", torch.zeros(entries))
        self.register_buffer("deviation", torch.ones(entries))
        self.register_buffer("order", self._in_order(torch.arange(entries, 0, -1.0).expand(bits, -1)))
        self.register_buffer("points", torch.stack([self._middles(depth) for depth in range(bits + 1)]))

    def fields(self) -> tuple[Field, ...]:
        length = Field(LENGTH, 1, self.length_bits)
        return length, Field(self.field, self.capacity, 1, counted_by=LENGTH)

    def encode(self, values: Tensor) -> dict[str, Tensor]:
        return self.encode_within(values, torch.full((len(values),), self.capacity, device=values.device))

    def encode_within(self, values: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """As `encode`, the first `lengths` [N] bits of each codeword."""
        order = self.order.long()
        bits = self.to_levels(values)[:, order] >> (self.entry_bits - 1 - self._places()) & 1
        return {LENGTH: lengths[:, None], self.field: bits * self._sent(lengths)}

    def decode(self, fields: Mapping[str, Tensor]) -> Tensor:
        order, bits = self.order.long(), fields[self.field]
        levels = torch.zeros(len(bits), self.entries, dtype=torch.int64, device=bits.device)
        levels.index_add_(1, order, bits << (self.entry_bits - 1 - self._places()))
        return self._values(levels, self.depths(fields[LENGTH][:, 0]))

    def lengths(self, room: Tensor) -> Tensor:
        """Most bits of codewords that may have so many with their lengths, [N] int64 each."""
        return (room - self.length_bits).clamp(max=self.capacity)

    def to_levels(self, values: Tensor) -> Tensor:
        signed = (values - self.mean) / (HALF_RANGE * self.deviation)
        unit = 0.5 + 0.5 * signed.sign() * (self.mu * signed.abs()).log1p() / math.log1p(self.mu)
        return (unit * 2**self.entry_bits).floor().clamp(0, 2**self.entry_bits - 1).long()

    def from_levels(self, levels: Tensor) -> Tensor:
        return self._values(levels, torch.full_like(levels, self.entry_bits))

    def forward(self, values: Tensor, slope: float = 1.0) -> Tensor:
        """Of whole codewords."""
        return self.within(values, torch.full((len(values),), self.capacity, device=values.device))

    def within(self, values: Tensor, lengths: Tensor) -> Tensor:
        """What values [N, n] are taken for if the first `lengths` [N] bits of the codeword are sent; straight-through
        gradient of the entries that have any.
        """
        depths = self.depths(lengths)
        taken = self._values(self.to_levels(values), depths)
        return torch.where(depths > 0, values + (taken - values).detach(), taken)

    def depths(self, lengths: Tensor) -> Tensor:
        """Bits of each entry, [N, n] int64, among the first `lengths` [N] of the codeword."""
        depths = torch.zeros(len(lengths), self.entries, dtype=torch.int64, device=lengths.device)
        return depths.index_add_(1, self.order.long(), self._sent(lengths))

    @torch.no_grad()
    def calibrate(self, values: Tensor, weight: Tensor | None = None) -> None:
        """Measure means, deviations, centres and the order of bits, or entries: by how much they lower the squared
        error, weighted by `weight`.
        """
        self.mean.copy_(values.mean(0))
        self.deviation.copy_(values.std(0).clamp(min=1e-8))
        scaled = (values - self.mean) / self.deviation
        levels = self.to_levels(values)
        for depth in range(1, self.entry_bits + 1):
            cells = (levels >> (self.entry_bits - depth)).flatten()
            counts, sums = (torch.bincount(cells, w, 2**depth) for w in (None, scaled.flatten().double()))
            middles = self._middles(depth)[: 2**depth].to(sums)
            self.points[depth, : 2**depth] = torch.where(counts > 0, sums / counts.clamp(min=1), middles)
        errors = torch.stack([self._error(values, levels, depth) for depth in range(self.entry_bits + 1)])
        gains = errors.diff(dim=0).neg() * (torch.ones(self.entries) if weight is None else weight)
        self.order.copy_(self._in_order(gains))

    def _error(self, values: Tensor, levels: Tensor, depth: int) -> Tensor:
        """Mean squared error of each entry, [n], at so many bits."""
        total = torch.zeros_like(self.mean)
        for part, cells in zip(values.split(CHUNK), levels.split(CHUNK), strict=True):  # what a cache holds
            total += (self._values(cells, torch.full_like(cells, depth)) - part).square().sum(0)
        return total / len(values)

    def _in_order(self, gains: Tensor) -> Tensor:
        """Entries [capacity] int16 in the order of their bits, from what each bit is worth, [b, n]."""
        if not self.allocated:
            by_entry = gains.sum(0).argsort(descending=True, stable=True)
            return by_entry.repeat_interleave(self.entry_bits)[: self.capacity].short()
        worth = gains.cummin(0).values  # no bit before those that it refines
        return (worth.flatten().argsort(descending=True, stable=True) % self.entries)[: self.capacity].short()

    def _values(self, levels: Tensor, depths: Tensor) -> Tensor:
        """Of levels [N, n], of which `depths` [N, n] bits are known."""
        row = depths << self.entry_bits
        return self.mean + self.deviation * self.points.flatten()[row + (levels >> (self.entry_bits - depths))]

    def _places(self) -> Tensor:
        """Which bit of its entry each bit of the codeword is, [capacity], 0 the most significant."""
        grouped, by_entry = self.order.sort(stable=True)
        first = torch.searchsorted(grouped, grouped)
        return torch.empty_like(first).scatter_(0, by_entry, torch.arange(self.capacity, device=first.device) - first)

    def _sent(self, lengths: Tensor) -> Tensor:
        """[N, capacity] int64, 1 where a bit is sent."""
        return (torch.arange(self.capacity, device=lengths.device) < lengths[:, None]).long()

    def _middles(self, depth: int) -> Tensor:
        """Of 2^depth cells, in standard deviations, [2^b], zeros behind them."""
        middles = torch.zeros(2**self.entry_bits)
        signed = 2 * (torch.arange(2**depth) + 0.5) / 2**depth - 1
        middles[: 2**depth] = HALF_RANGE * signed.sign() * ((signed.abs() * math.log1p(self.mu)).expm1() / self.mu)
        return middles
