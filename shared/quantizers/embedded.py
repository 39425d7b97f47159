"""Embedded scalar quantiser: a codeword is sent bit by bit, those that lower the error most first, so that it may end
after any of them (successive refinement; trees of Riskin and Gray, "A greedy tree growing algorithm for the design of
variable rate vector quantizers", 1991, for scalars).

An entry has nested cells: each bit of it says in which part of the cell lies what those before it chose. The last bits
may be left off, of all entries alike or of some.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from shared.link.payload import Field
from shared.quantizers.base import Quantizer

LENGTH = "length"
"""Name of the field that says how many bits of the codeword follow."""

UNMEASURED = 3.0
"""Half the range [standard deviations] of cells before they are measured."""

CHUNK = 512
"""Samples whose errors are measured at once."""


class EmbeddedQuantizer(Quantizer):
    """2^b nested cells for each of n entries, in standard deviations from its mean the same for all entries. What an
    entry is taken for when only some of its bits are there is the centre of what lies in the cell that they choose;
    without any, its mean. All of that is measured by `calibrate`, and kept in buffers.

    Args:
        field: name of the codeword's field.
        entries: n.
        bits: b, most bits of an entry.
        room: most bits of a codeword and its length together, at least 3.
        allocated: bits go out in the order of what each is worth; otherwise entries do, each with all of its bits.

    Attributes:
        length_bits: of the field that says how long the codeword is.
        capacity: most bits of a codeword: as many as there is room for, or all that the entries have.
        mean, deviation: [n].
        order: [capacity] int16, the entry that a bit of the codeword belongs to; an entry's most significant bit first.
        edges: [2^b - 1], between the cells, rising.
        points: [b + 1, 2^b]: row d has what the 2^d cells of d bits stand for.
    """

    mean: Tensor
    deviation: Tensor
    order: Tensor
    edges: Tensor
    points: Tensor

    def __init__(self, field: str, entries: int, bits: int, room: int, *, allocated: bool) -> None:
        super().__init__(field, entries, bits)
        self.allocated = allocated
        most = min(room, entries * bits + (entries * bits).bit_length())
        self.length_bits = (most - most.bit_length()).bit_length()
        self.capacity = min(most - self.length_bits, 2**self.length_bits - 1)
        self.register_buffer("mean", torch.zeros(entries))
        self.register_buffer("deviation", torch.ones(entries))
        self.register_buffer("order", self._in_order(torch.arange(entries, 0, -1.0).expand(bits, -1)))
        uniform = UNMEASURED * (torch.arange(-(2**bits) + 1, 2**bits) / 2**bits)
        self.register_buffer("edges", uniform[1::2].clone())
        self.register_buffer(
            "points", self._table([uniform[2 ** (bits - d) - 1 :: 2 ** (bits - d + 1)] for d in range(bits + 1)])
        )

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
        return torch.bucketize((values - self.mean) / self.deviation, self.edges)

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
        self._measure(((values - self.mean) / self.deviation).flatten().double().sort().values)
        levels = self.to_levels(values)
        errors = torch.stack([self._error(values, levels, depth) for depth in range(self.entry_bits + 1)])
        gains = errors.diff(dim=0).neg() * (torch.ones(self.entries) if weight is None else weight)
        self.order.copy_(self._in_order(gains))

    def _measure(self, ordered: Tensor) -> None:
        """Split cells where that lowers the squared error most of rising values [N], and find their centres."""
        sums, bounds = functional.pad(ordered.cumsum(0), (1, 0)), torch.tensor([0, len(ordered)])
        centres = ordered.new_zeros(1)
        rows = [centres]
        for _ in range(self.entry_bits):
            cuts = [_cut(sums, start, stop) for start, stop in itertools.pairwise(bounds.tolist())]
            bounds = torch.cat([bounds[:1], torch.stack([torch.tensor(cuts), bounds[1:]], dim=1).flatten()])
            counts = bounds.diff()
            centres = torch.where(counts > 0, sums[bounds].diff() / counts.clamp(min=1), centres.repeat_interleave(2))
            rows.append(centres)
        inner = bounds[1:-1]
        self.edges.copy_((ordered[inner - 1] + ordered[inner.clamp(max=len(ordered) - 1)]) / 2)
        self.points.copy_(self._table(rows))

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

    def _table(self, rows: list[Tensor]) -> Tensor:
        """Rows of 2^0, 2^1, ... as they are in `points`."""
        return torch.stack([functional.pad(row.float(), (0, 2**self.entry_bits - len(row))) for row in rows])


def _cut(sums: Tensor, start: int, stop: int) -> int:
    """Where to cut a cell of the rising values whose running sums are [N + 1]: what is left of squared error is least;
    behind the last one of fewer than two.
    """
    if stop - start < 2:
        return stop
    at = torch.arange(start + 1, stop)
    below, above = sums[at] - sums[start], sums[stop] - sums[at]
    return start + 1 + int((below.square() / (at - start) + above.square() / (stop - at)).argmax())
