"""Exact bit layouts of reports, and their packing.

A report is a sequence of fields in layout order; a field is `count` unsigned integers of `bits` bits each, most
significant bit first. Of the last field a report may send fewer: a field before it counts them, and reports have
lengths of their own. A chunk of N reports is their bits without any gap, padded with zeros to whole bytes.
docs/payload.md tells a foreign UE how to make one.

In memory all reports of a layout have the same number of bits, zeros behind what is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidInput

Fields = Mapping[str, NDArray[np.int64]]
"""Field name -> [N, count] integers in [0, 2^bits)."""


SCALE = "scale"
"""Name of the field that holds an image's scale, where a payload has one."""

MOST_BITS = 2**25
"""Of a chunk's reports in memory, where they have lengths of their own: as many as a message of 4 MiB holds."""


@dataclass(frozen=True)
class Field:
    """One field of a report: `count` unsigned integers of `bits` (1..63) bits.

    Attributes:
        counted_by: name of the field before it that says how many of them are sent, from the first on; empty: all.
    """

    name: str
    count: int
    bits: int
    counted_by: str = ""

    def __post_init__(self) -> None:
        if not (1 <= self.bits <= 63 and self.count >= 0):
            raise InvalidInput(f"layout {self.name}: {self.count} values of {self.bits} bits; wanted 1..63 bits")

    @property
    def total_bits(self) -> int:
        """Bits of all its values."""
        return self.count * self.bits


@dataclass(frozen=True)
class PayloadLayout:
    """The fields of a report, in the order in which they are packed.

    Raises:
        InvalidInput: a field other than the last is counted by another one, or its count is not one value before it
            that can say as much.
    """

    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        for field in self.fields:
            if field.counted_by and (field is not self.fields[-1] or self._counter is None):
                raise InvalidInput(
                    f"layout {field.name}: counted by '{field.counted_by}'; wanted the last field, and one value before"
                    f" it that can be {field.count}"
                )

    @cached_property
    def _counter(self) -> slice | None:
        """Where in a report the count of the last field's values stands; None where all are sent."""
        start = 0
        for field in self.fields[:-1]:
            if field.name == self.fields[-1].counted_by:
                fits = field.count == 1 and self.fields[-1].count < 1 << field.bits
                return slice(start, start + field.bits) if fits else None
            start += field.total_bits
        return None

    @property
    def varies(self) -> bool:
        """Whether reports have lengths of their own."""
        return self._counter is not None

    @cached_property
    def bits(self) -> int:
        """Feedback bits of one report, the most that it may have."""
        return sum(field.total_bits for field in self.fields)

    @property
    def least_bits(self) -> int:
        """Feedback bits of the shortest report."""
        return self.bits - (self.fields[-1].total_bits if self.varies else 0)

    def lengths(self, reports: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Feedback bits of each report, [...], of [..., bits] zeros and ones."""
        if self._counter is None:
            return np.full(reports.shape[:-1], self.bits)
        return self.least_bits + _from_bits(reports[..., self._counter]) * self.fields[-1].bits

    def chunk_bytes(self, reports: int) -> int:
        """Bytes that `reports` reports pack to, at most."""
        return -(-reports * self.bits // 8)

    def describe(self) -> str:
        """One line that says everything: `name:count x bits` per field, `0..count` where it is counted; part of the
        encoder id.
        """
        return " ".join(
            f"{field.name}:{'0..' if field.counted_by else ''}{field.count}x{field.bits}" for field in self.fields
        )

    def pack(self, fields: Fields, reports: int) -> bytes:
        """Pack `reports` reports. Raises as `bits_of`."""
        return self.pack_bits(self.bits_of(fields, reports))

    def pack_bits(self, reports: NDArray[np.uint8]) -> bytes:
        """The payload of reports [..., bits], zeros and ones, in C order; `unpack_bits` reads it back."""
        if self.varies:
            reports = reports[np.arange(self.bits) < self.lengths(reports)[..., None]]
        return np.packbits(reports).tobytes()

    def bits_of(self, fields: Fields, reports: int) -> NDArray[np.uint8]:
        """The bits of each report, [reports, bits], zeros and ones.

        Raises:
            InvalidInput: a field is missing, has the wrong shape, or holds a value that does not fit its bits, or is
                not 0 behind those that its report sends.
        """
        if set(fields) != {field.name for field in self.fields}:
            raise InvalidInput(f"payload: fields {sorted(fields)}; the layout wants '{self.describe()}'")
        columns = [np.zeros((reports, 0), np.uint8)]
        for field in self.fields:
            values = np.asarray(fields[field.name])
            if values.shape != (reports, field.count):
                raise InvalidInput(f"payload {field.name}: shape {values.shape}; wanted {(reports, field.count)}")
            if values.size and not (values.min() >= 0 and values.max() < 1 << field.bits):
                raise InvalidInput(f"payload {field.name}: values outside [0, 2^{field.bits})")
            columns.append(_to_bits(values, field.bits))
        found = np.concatenate(columns, axis=1)
        self._check_counts(found)
        return found

    def unpack(self, payload: bytes, reports: int) -> dict[str, NDArray[np.int64]]:
        """The fields of `reports` packed reports.

        Raises:
            InvalidInput: wrong length, a count that is beyond the field's, or padding that is not zero.
        """
        return self.fields_of(self.unpack_bits(payload, reports))

    def unpack_bits(self, payload: bytes, reports: int) -> NDArray[np.uint8]:
        """The bits of each report, [reports, bits], zeros and ones. Raises as `unpack`."""
        least, most = -(-reports * self.least_bits // 8), self.chunk_bytes(reports)
        if not least <= len(payload) <= most:
            of = f"{self.least_bits} to {self.bits}" if self.varies else self.bits
            wanted = f"{least} to {most}" if self.varies else most
            raise InvalidInput(f"payload: {len(payload)} bytes for {reports} reports of {of} bits; wanted {wanted}")
        bits = np.unpackbits(np.frombuffer(payload, np.uint8))
        found, used = self._cut(bits, reports) if self.varies else (bits, reports * self.bits)
        if bits[used:].any():
            raise InvalidInput(f"payload: the last {len(bits) - used} bits are padding and must be 0")
        return found.ravel()[: reports * self.bits].reshape(reports, self.bits)

    def _cut(self, bits: NDArray[np.uint8], reports: int) -> tuple[NDArray[np.uint8], int]:
        """Reports of lengths of their own, [reports, bits], zeros behind what was sent, and how many bits that was."""
        if reports * self.bits > MOST_BITS:
            most = MOST_BITS // self.bits
            raise InvalidInput(f"payload: {reports} reports of up to {self.bits} bits; wanted at most {most} a chunk")
        found, start = np.zeros((reports, self.bits), np.uint8), 0

        def copy(report: NDArray[np.uint8], length: int) -> None:
            if start + length > len(bits):
                raise InvalidInput(f"payload: {len(bits) // 8} bytes end within one of {reports} reports")
            report[:length] = bits[start : start + length]

        for report in found:
            copy(report, self.least_bits)
            self._check_counts(report[None])
            length = int(self.lengths(report))
            copy(report, length)
            start += length
        if start <= len(bits) - 8:
            raise InvalidInput(f"payload: {len(bits) // 8} bytes for {reports} reports; wanted {-(-start // 8)}")
        return found, start

    def _check_counts(self, reports: NDArray[np.uint8]) -> None:
        """Raises InvalidInput if reports [N, bits] count more values than the field has, or have others behind them."""
        if self._counter is None or not reports.size:
            return
        counts, last = _from_bits(reports[:, self._counter]), self.fields[-1]
        if counts.max() > last.count:
            raise InvalidInput(f"payload {last.counted_by}: {counts.max()}; wanted at most {last.count}")
        if reports[np.arange(self.bits) >= self.lengths(reports)[:, None]].any():
            raise InvalidInput(f"payload {last.name}: values behind the first {last.counted_by} are not 0")

    def fields_of(self, bits: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
        """The fields of reports given as bits [N, bits], as `unpack_bits` returns them."""
        fields, start = {}, 0
        for field in self.fields:
            part = bits[:, start : start + field.total_bits]
            fields[field.name] = _from_bits(part.reshape(len(bits), field.count, field.bits))
            start += field.total_bits
        return fields


def _to_bits(values: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    """[N, count] integers to [N, count * bits] bits, most significant first."""
    shifts = np.arange(bits - 1, -1, -1, dtype=np.int64)
    return (
        (values.astype(np.int64)[..., None] >> shifts & 1).astype(np.uint8).reshape(len(values), values.shape[1] * bits)
    )


def _from_bits(bits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """[..., bits] bits to [...] integers."""
    weights = np.int64(1) << np.arange(bits.shape[-1] - 1, -1, -1, dtype=np.int64)
    return bits.astype(np.int64) @ weights


def saturated(layout: PayloadLayout, fields: Mapping[str, NDArray[np.int64]]) -> NDArray[np.bool_]:
    """Whether the scale of a report is at an end of its range: [...], of fields [..., count]; [] if none is sent."""
    ends = [(0, 2**field.bits - 1) for field in layout.fields if field.name == SCALE]
    if not ends:
        return np.zeros((), bool)
    found: NDArray[np.bool_] = np.isin(fields[SCALE][..., 0], ends[0])
    return found
