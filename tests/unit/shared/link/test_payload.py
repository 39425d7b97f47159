from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from csiemu.training.recipes import DESIGNS
from shared.errors import InvalidInput
from shared.link.payload import Field, PayloadLayout, saturated
from shared.schemes import Scheme

FEEDBACK_BITS = {
    "hyperrnn": 20,
    "hyperrnn-beams": 20,
    "rnn": 20,
    "dldnn": 20,
    "hyperdnn": 20,
    "hyperrnn-projected": 30,
    "dldnn-projected": 30,
    "genie_lmmse": 128,  # 2 pilots, 2 float32 each
    "angle_lmmse": 128,
    "uplink_only": 0,
    "pilot_lmmse": 20,
    "predictive_lmmse": 12,
    "hyperrnn_angles": 20,
    "crnet": 8 + 512 * 8,  # scale and codeword
    "dualnet_mp": 3336,  # scale 8, magnitudes 256 x 8, phases 128 x 8, 256 signs
    "dualnet_mp-outdoor": 3336,
    "dualnet_mp-mdpq-outdoor": 3284,  # scale 8, magnitudes 256 x 8, phases 102 x 6, 103 x 4 and 102 x 2
    "crnet-4bit": 8 + 512 * 4,
    "crnet-16": 8 + 128 * 6,
    "crnet-32": 8 + 64 * 6,
    "crnet-outdoor": 8 + 512 * 8,
    "crnet_nested": 776,  # at most
    "crnet_nested-4": 2056,
    "csinet": 8 + 512 * 8,
    "transform": 776,  # scale 8, coefficients the rest
    "transform-2056": 2056,
    "transform-4104": 4104,
    "transform-outdoor": 4104,
    "gmtc": 4096,  # at most: scale 8, length 12, entropy code the rest
    "gmtc-outdoor": 8192,
    "transform-entropy": 4096,
}


@dataclass(frozen=True)
class Chunk:
    """A layout and reports for it, values as Python integers [report][index] by field."""

    layout: PayloadLayout
    reports: int
    values: dict[str, list[list[int]]]

    @property
    def arrays(self) -> dict[str, NDArray[np.int64]]:
        """As fields, with zeros behind the values that a report sends."""
        found = {field.name: np.zeros((self.reports, field.count), np.int64) for field in self.layout.fields}
        for name, rows in self.values.items():
            for row, values in zip(found[name], rows, strict=True):
                row[: len(values)] = values
        return found

    @property
    def texts(self) -> list[str]:
        """Each report as a string of 0 and 1."""
        return [
            "".join(
                format(value, f"0{field.bits}b")
                for field in self.layout.fields
                for value in self.values[field.name][report]
            )
            for report in range(self.reports)
        ]

    def naive(self) -> bytes:
        """Packed by way of strings of 0 and 1."""
        text = "".join(self.texts)
        text += "0" * (-len(text) % 8)
        return bytes(int(text[start : start + 8], 2) for start in range(0, len(text), 8))


@st.composite
def chunks(draw: st.DrawFn) -> Chunk:
    sizes = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 63)), max_size=4))
    layout = PayloadLayout(tuple(Field(f"f{index}", count, bits) for index, (count, bits) in enumerate(sizes)))
    reports = draw(st.integers(1, 6))
    return Chunk(layout, reports, {field.name: draw(rows(field, reports)) for field in layout.fields})


@st.composite
def chunks_of_mixed_lengths(draw: st.DrawFn) -> Chunk:
    """The last field counted by a value that stands somewhere before it."""
    before = draw(chunks())
    most, bits = draw(st.integers(0, 40)), draw(st.integers(1, 63))
    counts = [draw(st.integers(0, most)) for _ in range(before.reports)]
    sent = [[draw(st.integers(0, 2**bits - 1)) for _ in range(count)] for count in counts]
    counter = Field("n", 1, draw(st.integers(max(1, most.bit_length()), 63)))
    fields = [*before.layout.fields, Field("last", most, bits, counted_by="n")]
    fields.insert(draw(st.integers(0, len(fields) - 1)), counter)
    values = {**before.values, "n": [[count] for count in counts], "last": sent}
    return Chunk(PayloadLayout(tuple(fields)), before.reports, {field.name: values[field.name] for field in fields})


def rows(field: Field, reports: int) -> st.SearchStrategy[list[list[int]]]:
    values = st.integers(0, 2**field.bits - 1)
    row = st.lists(values, min_size=field.count, max_size=field.count)
    return st.lists(row, min_size=reports, max_size=reports)


def assert_same(found: dict[str, NDArray[np.int64]], wanted: dict[str, NDArray[np.int64]]) -> None:
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        assert found[name].dtype == np.int64
        assert np.array_equal(found[name], values), name


@given(chunks())
def test_unpack_reads_what_pack_wrote(chunk: Chunk) -> None:
    assert_same(chunk.layout.unpack(chunk.layout.pack(chunk.arrays, chunk.reports), chunk.reports), chunk.arrays)


@given(chunks())
def test_pack_is_most_significant_bit_first_and_contiguous(chunk: Chunk) -> None:
    payload = chunk.layout.pack(chunk.arrays, chunk.reports)
    assert payload == chunk.naive()
    bits = sum(field.count * field.bits for field in chunk.layout.fields)
    assert chunk.layout.bits == bits
    assert len(payload) == chunk.layout.chunk_bytes(chunk.reports) == (chunk.reports * bits + 7) // 8


@given(chunks())
def test_bits_of_reports_are_those_of_the_payload(chunk: Chunk) -> None:
    bits = chunk.layout.bits_of(chunk.arrays, chunk.reports)
    assert bits.shape == (chunk.reports, chunk.layout.bits)
    payload = chunk.layout.pack(chunk.arrays, chunk.reports)
    assert np.array_equal(chunk.layout.unpack_bits(payload, chunk.reports), bits)
    assert_same(chunk.layout.fields_of(bits), chunk.arrays)


@given(chunks_of_mixed_lengths())
def test_reports_of_lengths_of_their_own(chunk: Chunk) -> None:
    layout, reports = chunk.layout, chunk.reports
    payload = layout.pack(chunk.arrays, reports)
    assert payload == chunk.naive()
    assert_same(layout.unpack(payload, reports), chunk.arrays)
    bits = layout.unpack_bits(payload, reports)
    assert np.array_equal(bits, layout.bits_of(chunk.arrays, reports))
    assert layout.lengths(bits).tolist() == [len(text) for text in chunk.texts]
    for row, text in zip(bits.tolist(), chunk.texts, strict=True):
        assert "".join(map(str, row)) == text + "0" * (layout.bits - len(text))
    assert len(payload) <= layout.chunk_bytes(reports)
    assert layout.pack_bits(bits[None]) == payload


@given(chunks_of_mixed_lengths(), st.binary(max_size=40), st.data())
def test_damaged_reports_of_mixed_lengths_are_read_or_refused(chunk: Chunk, noise: bytes, data: st.DataObject) -> None:
    payload = bytearray(chunk.naive())
    kind = data.draw(st.sampled_from(["flip", "cut", "append", "noise"]))
    if kind == "flip" and payload:
        payload[data.draw(st.integers(0, len(payload) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        payload = payload[: data.draw(st.integers(0, len(payload)))]
    else:
        payload = payload + noise if kind == "append" else bytearray(noise)
    with contextlib.suppress(InvalidInput):
        fields = chunk.layout.unpack(bytes(payload), chunk.reports)
        assert chunk.layout.pack(fields, chunk.reports) == bytes(payload)


COUNTED = PayloadLayout((Field("n", 1, 3), Field("v", 5, 2, counted_by="n")))


def test_a_chunk_of_mixed_lengths_written_out_by_hand() -> None:
    """2 reports: 010 (two values) 01 10, 000 (none), and 6 zeros."""
    fields = {"n": np.array([[2], [0]]), "v": np.array([[1, 2, 0, 0, 0], [0, 0, 0, 0, 0]])}
    assert COUNTED.pack(fields, 2) == bytes([0b01001100, 0b00000000])
    assert COUNTED.describe() == "n:1x3 v:0..5x2"
    assert (COUNTED.least_bits, COUNTED.bits, COUNTED.varies) == (3, 13, True)
    assert not PayloadLayout((Field("n", 1, 3),)).varies


@pytest.mark.parametrize(
    ("payload", "reports", "message"),
    [
        (bytes([0b11000000, 0]), 1, "payload n: 6; wanted at most 5"),
        (bytes([0b10100000]), 1, "payload: 1 bytes end within one of 1 reports"),
        (bytes([0b00000010]), 3, "payload: 1 bytes for 3 reports of 3 to 13 bits; wanted 2 to 5"),
        (bytes([0b00010110, 0b11000000, 0]), 2, "payload: 3 bytes for 2 reports; wanted 2"),
        (bytes([0b00010000, 0b00000001]), 2, "payload: the last 2 bits are padding and must be 0"),
        (bytes(10**6), 2**22, r"payload: 4194304 reports of up to 13 bits; wanted at most 2581110 a chunk"),
    ],
)
def test_chunks_of_mixed_lengths_that_are_refused(payload: bytes, reports: int, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        COUNTED.unpack(payload + bytes(600_000) * (reports > 10), reports)


def test_counts_that_do_not_say_what_is_sent_are_refused() -> None:
    with pytest.raises(InvalidInput, match="payload n: 7; wanted at most 5"):
        COUNTED.pack({"n": np.array([[7]]), "v": np.zeros((1, 5), np.int64)}, 1)
    with pytest.raises(InvalidInput, match="payload v: values behind the first n are not 0"):
        COUNTED.pack({"n": np.array([[1]]), "v": np.ones((1, 5), np.int64)}, 1)


@pytest.mark.parametrize(
    "fields",
    [
        (Field("v", 5, 2, counted_by="n"), Field("n", 1, 3)),
        (Field("n", 1, 2), Field("v", 5, 2, counted_by="n")),
        (Field("n", 2, 3), Field("v", 5, 2, counted_by="n")),
        (Field("m", 1, 3), Field("v", 5, 2, counted_by="n")),
    ],
    ids=["not last", "too few bits", "two counts", "none"],
)
def test_layouts_that_cannot_be_counted_are_refused(fields: tuple[Field, ...]) -> None:
    with pytest.raises(InvalidInput, match="layout v: counted by 'n'; wanted the last field, and one value before it"):
        PayloadLayout(fields)


@given(chunks(), st.data())
def test_padding_that_is_not_zero_is_refused(chunk: Chunk, data: st.DataObject) -> None:
    padding = -chunk.reports * chunk.layout.bits % 8
    assume(padding)
    payload = bytearray(chunk.naive())
    payload[-1] |= 1 << data.draw(st.integers(0, padding - 1))
    with pytest.raises(InvalidInput, match=f"payload: the last {padding} bits are padding and must be 0"):
        chunk.layout.unpack(bytes(payload), chunk.reports)


@given(chunks(), st.integers(1, 3), st.booleans())
def test_wrong_length_is_refused(chunk: Chunk, difference: int, longer: bool) -> None:
    payload = chunk.naive()
    assume(longer or len(payload) >= difference)
    wrong = payload + bytes(difference) if longer else payload[:-difference]
    with pytest.raises(InvalidInput, match=f"payload: {len(wrong)} bytes .* wanted {len(payload)}"):
        chunk.layout.unpack(wrong, chunk.reports)


@given(chunks(), st.data())
def test_values_out_of_range_are_refused(chunk: Chunk, data: st.DataObject) -> None:
    fields = [field for field in chunk.layout.fields if field.count]
    assume(fields)
    field = data.draw(st.sampled_from(fields))
    arrays = chunk.arrays
    values = arrays[field.name].astype(np.uint64) if field.bits == 63 else arrays[field.name]
    row, column = data.draw(st.integers(0, chunk.reports - 1)), data.draw(st.integers(0, field.count - 1))
    if data.draw(st.booleans()):
        values[row, column] = 2**field.bits
    else:
        values = values.astype(np.int64)
        values[row, column] = -1
    with pytest.raises(InvalidInput, match=rf"payload {field.name}: values outside \[0, 2\^{field.bits}\)"):
        chunk.layout.pack({**arrays, field.name: values}, chunk.reports)


def test_a_chunk_written_out_by_hand() -> None:
    """3 reports of 2 x 2 + 1 x 3 bits: 0110 101, 1100 000, 0001 111, and 3 zeros."""
    layout = PayloadLayout((Field("a", 2, 2), Field("b", 1, 3)))
    fields = {"b": np.array([[5], [0], [7]]), "a": np.array([[1, 2], [3, 0], [0, 1]])}
    assert layout.pack(fields, 3) == bytes([0b01101011, 0b10000000, 0b01111000])
    assert layout.describe() == "a:2x2 b:1x3"


@pytest.mark.parametrize(
    "fields",
    [{}, {"a": np.zeros((2, 3))}, {"a": np.zeros((2, 3)), "b": np.zeros((2, 1)), "c": np.zeros((2, 1))}],
    ids=["none", "missing", "extra"],
)
def test_other_fields_than_the_layouts_are_refused(fields: dict[str, NDArray[np.int64]]) -> None:
    layout = PayloadLayout((Field("a", 3, 1), Field("b", 1, 4)))
    with pytest.raises(InvalidInput, match="the layout wants 'a:3x1 b:1x4'"):
        layout.pack(fields, 2)


@pytest.mark.parametrize("shape", [(2, 4), (3, 3), (6,), (2, 3, 1)])
def test_fields_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"payload a: shape .*; wanted \(2, 3\)"):
        PayloadLayout((Field("a", 3, 1),)).pack({"a": np.zeros(shape, np.int64)}, 2)


@pytest.mark.parametrize("layout", [PayloadLayout(()), PayloadLayout((Field("a", 0, 5),))], ids=["empty", "void"])
def test_reports_of_no_bits(layout: PayloadLayout) -> None:
    fields = {field.name: np.zeros((7, 0), np.int64) for field in layout.fields}
    assert (layout.bits, layout.pack(fields, 7)) == (0, b"")
    assert_same(layout.unpack(b"", 7), fields)
    with pytest.raises(InvalidInput, match="payload: 1 bytes for 7 reports of 0 bits; wanted 0"):
        layout.unpack(b"\0", 7)


def test_no_reports_pack_to_nothing() -> None:
    layout = PayloadLayout((Field("a", 3, 2),))
    fields = layout.unpack(b"", 0)
    assert fields["a"].shape == (0, 3)
    assert layout.pack(fields, 0) == b""


@pytest.mark.parametrize("name", DESIGNS)
def test_layout_of_every_design(make_scheme: Callable[..., Scheme], name: str) -> None:
    made = DESIGNS[name]
    world = made.scenario if made.scenario.startswith(("cost2100", "tr38901")) else "multipath-p2:antennas=2"
    scheme = make_scheme(made.scheme, world, perturbed=False, **made.config.to_json())
    layout, reports = scheme.layout, 5
    assert layout.bits == FEEDBACK_BITS[name]
    draw = np.random.default_rng(1)
    values = {
        field.name: draw.integers(0, 1 << field.bits, (reports, field.count), np.int64).tolist()
        for field in layout.fields
    }
    for field in layout.fields:
        if field.counted_by:
            counts = draw.integers(0, field.count, reports, endpoint=True).tolist()
            values[field.counted_by] = [[count] for count in counts]
            values[field.name] = [row[:count] for row, count in zip(values[field.name], counts, strict=True)]
    chunk = Chunk(layout, reports, values)
    payload = layout.pack(chunk.arrays, reports)
    assert payload == chunk.naive()
    assert layout.varies or len(payload) == -(-reports * FEEDBACK_BITS[name] // 8)
    assert_same(layout.unpack(payload, reports), chunk.arrays)


def test_every_design_has_its_bits_listed() -> None:
    assert set(DESIGNS) == set(FEEDBACK_BITS)


def test_scales_at_an_end_of_their_range() -> None:
    layout = PayloadLayout((Field("scale", 1, 4), Field("codeword", 2, 4)))
    fields = {"scale": np.array([[[0], [1]], [[14], [15]]]), "codeword": np.zeros((2, 2, 2), np.int64)}
    assert saturated(layout, fields).tolist() == [[True, False], [False, True]]
    assert not saturated(PayloadLayout((Field("codeword", 2, 4),)), {"codeword": fields["codeword"]})
    assert not saturated(PayloadLayout(()), {})  # a scheme that sends nothing
