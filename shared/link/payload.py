"""Exact bit layouts of reports, and their packing.

A report is a sequence of fields in layout order; a field is `count` unsigned integers of `bits` bits each, most
significant bit first. A chunk of N reports is their bits without any gap, padded with zeros to whole bytes:
ceil(N * bits / 8) bytes. docs/payload.md tells a foreign UE how to make one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidInput

Fields = Mapping[str, NDArray[np.int64]]
"""Field name -> [N, count] integers in [0, 2^bits)."""


SCALE = "scale"
"""Name of the field that holds an image's scale, where a payload has one."""


@dataclass(frozen=True)
class Field:
    """One field of a report: `count` unsigned integers of `bits` (1..63) bits."""

    name: str
    count: int
    bits: int

    def __post_init__(self) -> None:
        if not (1 <= self.bits <= 63 and self.count >= 0):
            raise InvalidInput(f"layout {self.name}: {self.count} values of {self.bits} bits; wanted 1..63 bits")

    @property
    def total_bits(self) -> int:
        return self.count * self.bits


@dataclass(frozen=True)
class PayloadLayout:
    """The fields of a report, in the order in which they are packed."""

    fields: tuple[Field, ...]

    @property
    def bits(self) -> int:
        """Feedback bits of one report."""
        return sum(field.total_bits for field in self.fields)

    def chunk_bytes(self, reports: int) -> int:
        """Bytes that `reports` reports pack to."""
        return -(-reports * self.bits // 8)

    def describe(self) -> str:
        """One line that says everything: `name:count x bits` per field; part of the encoder id."""
        return " ".join(f"{field.name}:{field.count}x{field.bits}" for field in self.fields)

    def pack(self, fields: Fields, reports: int) -> bytes:
        """Pack `reports` reports. Raises as `bits_of`."""
        return pack_bits(self.bits_of(fields, reports))

    def bits_of(self, fields: Fields, reports: int) -> NDArray[np.uint8]:
        """The bits of each report, [reports, bits], zeros and ones.

        Raises:
            InvalidInput: a field is missing, has the wrong shape, or holds a value that does not fit its bits.
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
        return np.concatenate(columns, axis=1)

    def unpack(self, payload: bytes, reports: int) -> dict[str, NDArray[np.int64]]:
        """The fields of `reports` packed reports.

        Raises:
            InvalidInput: wrong length, or padding that is not zero.
        """
        return self.fields_of(self.unpack_bits(payload, reports))

    def unpack_bits(self, payload: bytes, reports: int) -> NDArray[np.uint8]:
        """The bits of each report, [reports, bits], zeros and ones. Raises as `unpack`."""
        if len(payload) != self.chunk_bytes(reports):
            raise InvalidInput(
                f"payload: {len(payload)} bytes for {reports} reports of {self.bits} bits;"
                f" wanted {self.chunk_bytes(reports)}"
            )
        bits = np.unpackbits(np.frombuffer(payload, np.uint8))
        used = reports * self.bits
        if bits[used:].any():
            raise InvalidInput(f"payload: the last {len(bits) - used} bits are padding and must be 0")
        return bits[:used].reshape(reports, self.bits)

    def fields_of(self, bits: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
        """The fields of reports given as bits [N, bits], as `unpack_bits` returns them."""
        fields, start = {}, 0
        for field in self.fields:
            part = bits[:, start : start + field.total_bits]
            fields[field.name] = _from_bits(part.reshape(len(bits), field.count, field.bits))
            start += field.total_bits
        return fields


def pack_bits(reports: NDArray[np.uint8]) -> bytes:
    """The payload of reports [..., bits], zeros and ones, in C order; `PayloadLayout.unpack_bits` reads it back."""
    return np.packbits(reports).tobytes()


def _to_bits(values: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    """[N, count] integers to [N, count * bits] bits, most significant first."""
    shifts = np.arange(bits - 1, -1, -1, dtype=np.int64)
    return (
        (values.astype(np.int64)[..., None] >> shifts & 1).astype(np.uint8).reshape(len(values), values.shape[1] * bits)
    )


def _from_bits(bits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """[N, count, bits] bits to [N, count] integers."""
    weights = np.int64(1) << np.arange(bits.shape[-1] - 1, -1, -1, dtype=np.int64)
    return bits.astype(np.int64) @ weights


def saturated(layout: PayloadLayout, fields: Mapping[str, NDArray[np.int64]]) -> NDArray[np.bool_]:
    """Whether the scale of a report is at an end of its range: [...], of fields [..., count]; [] if none is sent."""
    ends = [(0, 2**field.bits - 1) for field in layout.fields if field.name == SCALE]
    if not ends:
        return np.zeros((), bool)
    found: NDArray[np.bool_] = np.isin(fields[SCALE][..., 0], ends[0])
    return found
