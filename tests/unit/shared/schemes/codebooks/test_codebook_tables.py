"""Tables of TS 38.214 transcribed a second time, and the sizes of payloads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared.schemes import Scheme
from shared.schemes.codebooks import combinatorial, tables

MakeScheme = Callable[..., Scheme]

WORLD = "cost2100-indoor-csinet"

COMBINATIONS = """
1 2 1/4 1/4
2 2 1/4 1/2
3 4 1/4 1/4
4 4 1/4 1/2
5 4 1/4 3/4
6 4 1/2 1/2
7 6 1/4 1/2
8 6 1/4 3/4
"""
"""Table 5.2.2.2.5-1: paramCombination-r16, L, p_v for v = 1 and 2, beta."""

SIZES = """
1 2 4 62
2 2 8 91
3 4 8 111
4 4 16 168
5 4 24 225
6 4 28 279
7 6 24 243
8 6 36 328
"""
"""Rank 1, 32 ports with N2 > 1, 13 subbands: paramCombination-r16, L, K0, bits of the PMI (reference/FIELD.md, 5)."""


def test_parameter_combinations() -> None:
    rows = [line.split() for line in COMBINATIONS.split("\n") if line]
    found = [[str(n), str(row.beams), str(row.delays), str(row.coefficients)] for n, row in tables.COMBINATIONS.items()]
    assert found == rows


def test_ports() -> None:
    """Table 5.2.2.2.1-2: (N1, N2) and (O1, O2) of 32 CSI-RS ports."""
    found = {(ports.n1, ports.n2): (ports.o1, ports.o2) for ports in tables.PORTS.values()}
    assert found == {(4, 4): (4, 4), (8, 2): (4, 4), (16, 1): (4, 1)}
    assert all(name == f"{ports.n1}x{ports.n2}" and ports.total == 32 for name, ports in tables.PORTS.items())


def test_amplitudes() -> None:
    """Tables 5.2.2.2.5-2 and 5.2.2.2.5-3 in steps of 1.5 and 3 dB."""
    reference, differential = tables.REFERENCE_AMPLITUDES, tables.DIFFERENTIAL_AMPLITUDES
    assert math.isnan(reference[0])
    assert reference[1:] == pytest.approx([2 ** (-(15 - k) / 4) for k in range(1, 16)], rel=1e-12)
    assert differential == pytest.approx([2 ** (-(7 - k) / 2) for k in range(8)], rel=1e-12)
    assert (tables.PHASES, tables.COPHASES) == (16, 4)


@pytest.mark.parametrize(("ports", "fewer"), [("8x2", 0), ("4x4", 0), ("16x1", 2)])
@pytest.mark.parametrize("row", [line for line in SIZES.split("\n") if line])
def test_bits_of_enhanced_type_ii(make_scheme: MakeScheme, row: str, ports: str, fewer: int) -> None:
    """With N2 = 1 there is no rotation q2: O2 = 1 takes 2 bits less."""
    combination, size, most, bits = map(int, row.split())
    scheme = make_scheme("etype2", WORLD, ports=ports, combination=combination)
    counts = {field.name: field.count for field in scheme.layout.fields}
    assert scheme.layout.bits == bits - fewer
    assert counts["i24"] == counts["i25"] == most - 1
    assert counts["i17"] == 2 * size * math.ceil(13 / (2 if combination == 6 else 4))


@pytest.mark.parametrize(("ports", "beam_bits"), [("8x2", 8), ("4x4", 8), ("16x1", 6)])
def test_bits_of_type_i(make_scheme: MakeScheme, ports: str, beam_bits: int) -> None:
    """log2(N1 O1 N2 O2) for the beam, 2 for each of 13 subbands."""
    assert make_scheme("type1", WORLD, ports=ports).layout.bits == beam_bits + 26


@pytest.mark.parametrize("subbands", [3, 4, 5, 18, 19])
def test_other_numbers_of_subbands(make_scheme: MakeScheme, subbands: int) -> None:
    layout = make_scheme("etype2", f"{WORLD}:subbands={subbands}", combination=1).layout
    delays = math.ceil(subbands / 4)
    most = delays
    choices = math.comb(subbands - 1, delays - 1)
    expected = 2 + 7 + math.ceil(math.log2(choices)) + 4 * delays + math.ceil(math.log2(most)) + 4 + 7 * (most - 1)
    assert layout.bits == expected


@pytest.mark.parametrize(("among", "size"), [(16, 2), (12, 3), (8, 8), (5, 1), (4, 0), (2, 0)])
def test_every_combination_has_a_number(among: int, size: int) -> None:
    """In the order of the standard the combination of the smallest things has the highest number."""
    every = torch.tensor(list(itertools.combinations(range(among), size)), dtype=torch.int64)
    numbers = combinatorial.rank(every, among)
    assert numbers.tolist() == list(range(math.comb(among, size)))[::-1]
    assert torch.equal(combinatorial.unrank(numbers, among, size), every)


@given(st.sets(st.integers(0, 15), min_size=1, max_size=6))
def test_the_number_is_the_sum_of_the_clause(chosen: set[int]) -> None:
    """i_{1,2} = sum_i C(N1 N2 - 1 - n^(i), L - i)."""
    ordered = sorted(chosen)
    expected = sum(math.comb(15 - n, len(ordered) - i) for i, n in enumerate(ordered))
    assert combinatorial.rank(torch.tensor([ordered]), 16).item() == expected
