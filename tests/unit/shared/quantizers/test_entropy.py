"""Entropy code: what is written comes back, at its ideal length, the same everywhere; damage is one clear error."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.errors import InvalidInput
from shared.quantizers.entropy import TOTAL, EntropyTables, Run, SymbolReader, whole_weights

SIZES = (2, 5, 40, 3, 700)


def tables_of(seed: int = 0) -> EntropyTables:
    draw, tables = np.random.default_rng(seed), EntropyTables(SIZES)
    for row, size in enumerate(SIZES):
        tables.set(row, draw.dirichlet(np.full(size, 0.3)))
    return tables


TABLES = tables_of()


def drawn_runs(seed: int, count: int) -> list[Run]:
    draw, runs = np.random.default_rng(seed), []
    for _ in range(count):
        row = int(draw.integers(len(SIZES)))
        first, last = TABLES.starts[row : row + 2]
        p = TABLES.weights[first:last].numpy() / TOTAL
        runs.append((row, draw.choice(SIZES[row], int(draw.integers(0, 30)), p=p / p.sum()).astype(np.int32)))
    return runs


@given(st.integers(0, 2**32), st.integers(0, 12), st.lists(st.integers(0, 1), max_size=90), st.integers(0, 70))
def test_what_is_written_comes_back(seed: int, count: int, raw: list[int], zeros: int) -> None:
    """With any number of zeros in front."""
    runs, bits = drawn_runs(seed, count), np.array(raw, np.uint8)
    code = np.concatenate([np.zeros(zeros, np.uint8), TABLES.write(runs, bits)])
    reader = SymbolReader(TABLES, code)
    assert all((reader.read(row, len(symbols)) == symbols).all() for row, symbols in runs)
    assert (reader.rest(len(raw)) == bits).all()


def test_length_is_the_ideal_one() -> None:
    """To half a percent, and the bit that marks the end of the raw ones."""
    found = ideal = 0.0
    for seed in range(60):
        runs = drawn_runs(seed, 25)
        raw = np.random.default_rng(seed).integers(0, 2, 40).astype(np.uint8)
        found += len(TABLES.write(runs, raw))
        lengths = TABLES.lengths().numpy()
        ideal += 41 + sum(float(lengths[TABLES.starts[row] + symbols].sum()) for row, symbols in runs)
    assert ideal <= found * 1.001
    assert found <= ideal * 1.005


def written_by_definition(tables: EntropyTables, runs: list[Run], raw: NDArray[np.uint8]) -> str:
    """The same number by whole-number arithmetic alone, a second implementation: a 64-bit state over 32-bit words."""
    state, words = int("1" + "".join(map(str, raw)), 2), []
    while state >> 64:  # the lower words of what is there at first are spilled
        words.append(state & 0xFFFFFFFF)
        state >>= 32
    for row, symbols in reversed(runs):
        weights = tables.weights[tables.starts[row] : tables.starts[row + 1]].tolist()
        for symbol in reversed(symbols.tolist()):
            weight, low = weights[symbol], sum(weights[:symbol])
            if state >> (64 - 24) >= weight:
                words.append(state & 0xFFFFFFFF)
                state >>= 32
            state = state // weight * TOTAL + low + state % weight
    for word in reversed(words):
        state = state << 32 | word
    return f"{state:b}"


@given(st.integers(0, 2**32), st.integers(0, 8), st.lists(st.integers(0, 1), max_size=100))
def test_code_is_that_of_whole_number_arithmetic(seed: int, count: int, raw: list[int]) -> None:
    runs = drawn_runs(seed, count)
    code = TABLES.write(runs, np.array(raw, np.uint8))
    assert "".join(map(str, code)) == written_by_definition(TABLES, runs, np.array(raw, np.uint8))


def test_another_process_writes_the_same_bits() -> None:
    """With another number of threads."""
    script = (
        "import torch; torch.set_num_threads(3); from tests.unit.shared.quantizers.test_entropy import *;"
        "print([''.join(map(str, TABLES.write(drawn_runs(seed, 9), np.ones(5, np.uint8)))) for seed in range(20)])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    here = ["".join(map(str, TABLES.write(drawn_runs(seed, 9), np.ones(5, np.uint8)))) for seed in range(20)]
    assert found.strip() == str(here)


def test_damage_is_one_error_or_other_symbols() -> None:
    draw, refused = np.random.default_rng(0), 0
    for _ in range(2000):
        reader = SymbolReader(TABLES, draw.integers(0, 2, int(draw.integers(60, 400))).astype(np.uint8))
        symbols = reader.read(4, 30)
        assert ((symbols >= 0) & (symbols < SIZES[4])).all()
        try:
            assert len(reader.rest(8)) == 8
        except InvalidInput:
            refused += 1
    assert refused > 1700


@pytest.mark.parametrize("bits", [0, 1, 500])
def test_zeros_are_no_code(bits: int) -> None:
    with pytest.raises(InvalidInput, match=f"payload: {bits} bits of entropy code that are all 0; wanted a one"):
        SymbolReader(TABLES, np.zeros(bits, np.uint8))


def test_more_is_read_than_is_there() -> None:
    reader = SymbolReader(TABLES, np.ones(3, np.uint8))
    assert len(reader.read(4, 10_000)) == 10_000
    with pytest.raises(InvalidInput, match="it is damaged"):
        reader.rest(1)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=3000).filter(lambda values: sum(values) > 0))
def test_whole_weights_are_tables(values: list[float]) -> None:
    weights = whole_weights(np.array(values))
    assert weights.min() >= 1
    assert weights.sum(dtype=np.int64) == TOTAL


def test_tables_that_are_none_are_refused_and_others_are_used_after_a_load() -> None:
    other, tables = tables_of(1), tables_of(2)
    runs = drawn_runs(5, 9)
    raw = np.zeros(0, np.uint8)
    assert (tables.write(runs, raw).tolist(), runs) != (other.write(runs, raw).tolist(), runs)
    tables.load_state_dict(other.state_dict())
    assert tables.write(runs, raw).tolist() == other.write(runs, raw).tolist()
    tables.load_state_dict({"weights": torch.zeros_like(tables.weights)})
    with pytest.raises(InvalidInput, match=r"tables: row 0 has weights from 0 on that sum up to 0; wanted 1 or more"):
        tables.write(runs, raw)
