"""Trellis-coded quantisation: what is written is read, at its ideal length, the same everywhere; no path costs less;
damage is one clear error or something else that was sent.
"""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from csiemu.training.schemes.gmtc import start_tables
from shared.errors import InvalidInput
from shared.quantizers.trellis import (
    CLASSES,
    COARSEST,
    ESCAPE,
    MAGNITUDES,
    PARTS,
    PRECISION,
    STEPS,
    Choice,
    TrellisCode,
    step_size,
    ungerboeck_trellis,
    whole_weights,
)

KINDS, COUNT = 3, 60


def made(count: int = COUNT) -> TrellisCode:
    """Deviations that fall from 8 to 1/8, from another place on for each kind."""
    code = TrellisCode(KINDS, count)
    falling = torch.linspace(3 * PARTS, -3 * PARTS, count).round()
    code.deviations.copy_(torch.stack([falling.roll(20 * kind) for kind in range(KINDS)]))
    start_tables(code)
    return code


CODE = made()


def drawn(seed: int, reports: int, code: TrellisCode = CODE) -> tuple[Tensor, Tensor]:
    """Coefficients [reports, 1, count, 2] of kinds [reports, 1]: Laplacian ones."""
    draw = np.random.default_rng(seed)
    labels = torch.from_numpy(draw.integers(0, KINDS, (reports, 1)))
    deviations = 2 ** (code.deviations[labels].double() / PARTS)
    values = draw.laplace(size=(*deviations.shape, 2)) / 2**0.5
    return (torch.from_numpy(values) * deviations[..., None]).float(), labels


def chosen(coefficients: Tensor, labels: Tensor, step: int, room: int = 1 << 20, code: TrellisCode = CODE) -> Choice:
    room_of, finest = (torch.full((len(labels),), limit) for limit in (room, step))
    return code.choose(coefficients, labels, room_of, finest)


@given(st.integers(0, 2**32), st.integers(0, STEPS - 1))
@settings(max_examples=60)
def test_what_is_written_is_read(seed: int, step: int) -> None:
    coefficients, labels = drawn(seed, 4)
    choice = chosen(coefficients, labels, step)
    for label, levels in zip(labels[:, 0].tolist(), choice.levels, strict=True):
        found = CODE.read(CODE.write(label, step, levels))
        assert found[:2] == (label, step)
        assert (found[2] == levels.numpy()).all()


def test_magnitudes_far_beyond_their_class_are_read_too() -> None:
    coefficients, labels = drawn(1, 3)
    choice = chosen(1000 * coefficients, labels, 150)
    assert int(choice.levels.abs().max()) == 1 << 16
    for label, levels in zip(labels[:, 0].tolist(), choice.levels, strict=True):
        assert (CODE.read(CODE.write(label, 150, levels))[2] == levels.numpy()).all()


@pytest.mark.parametrize("step", [100, 120, 150])
def test_length_is_the_ideal_one(step: int) -> None:
    """To a bit, where there are signs enough."""
    coefficients, labels = drawn(step, 50)
    choice = chosen(coefficients, labels, step)
    for label, levels, bits in zip(labels[:, 0].tolist(), choice.levels, choice.bits.tolist(), strict=True):
        if int((levels != 0).sum()) >= 32:
            assert len(CODE.write(label, step, levels)) == pytest.approx(bits, abs=1)
    assert (choice.levels != 0).sum((1, 2)).max() >= 32


def written_by_definition(code: TrellisCode, label: int, step: int, levels: Tensor) -> str:
    """The same by whole-number arithmetic alone, a second implementation: one number of any size instead of words."""
    trellis, flat = ungerboeck_trellis(), levels.flatten().tolist()
    symbols: list[tuple[list[int], int] | int] = []
    for name, value in (("kinds", label), ("steps", step)):
        symbols.append((getattr(code, name).tolist(), value))
    state, seen, usual = 0, 512, 512
    for k, level in enumerate(flat):
        place = int(code.deviations[label, k // 2]) + step - COARSEST + 2 * PARTS + 2
        if place < 0:
            continue
        kind, odd = min(place // 4, CLASSES - 1), state & 1
        context = sum(20 * seen > limit * usual for limit in (4, 10, 16, 22, 32, 50))
        index, shift = (abs(level) + odd) // 2, max(0, kind // 4 - 4)
        symbols.append((code.weights[odd, kind, context].tolist(), min(index >> shift, ESCAPE)))
        if (excess := (index >> shift) - ESCAPE + 1) > 0:
            digits = f"{excess:b}"[1:]
            symbols += [1] * len(digits) + [0] + [int(digit) for digit in digits]
        symbols += [index >> place & 1 for place in range(shift - 1, -1, -1)]
        state = int(trellis[state, index & 1])
        seen += 256 * abs(level) - seen // 4
        usual += int(code.expected[kind]) - usual // 4
    symbols += [int(level < 0) for level in flat if level]
    whole, words = 1, []
    for symbol in reversed(symbols):
        weights, value = ([1 << PRECISION - 1] * 2, symbol) if isinstance(symbol, int) else symbol
        weight = weights[value]
        if whole >> 32 >= weight:
            words.append(whole & 0xFFFF)
            whole >>= 16
        if isinstance(symbol, int):
            whole = 2 * whole + value
        else:
            whole = (whole // weight << PRECISION) + sum(weights[:value]) + whole % weight
    for word in reversed(words):
        whole = whole << 16 | word
    return f"{whole:b}"[1:]


@pytest.mark.parametrize("step", [90, 125, 150, 191])
def test_code_is_that_of_whole_number_arithmetic(step: int) -> None:
    coefficients, labels = drawn(step, 6)
    choice = chosen(3 * coefficients, labels, step)
    for label, levels in zip(labels[:, 0].tolist(), choice.levels, strict=True):
        found = "".join(map(str, CODE.write(label, step, levels)))
        assert found == written_by_definition(CODE, label, step, levels)


def test_another_process_writes_the_same_bits() -> None:
    """With another number of threads."""
    script = (
        "import torch; torch.set_num_threads(3); from tests.unit.shared.quantizers.test_trellis import *;"
        "print(codes_of_some())"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert found.strip() == str(codes_of_some())


def codes_of_some() -> list[str]:
    coefficients, labels = drawn(7, 10)
    reports = zip(labels[:, 0].tolist(), chosen(coefficients, labels, 130).levels, strict=True)
    return ["".join(map(str, CODE.write(label, 130, levels))) for label, levels in reports]


def test_no_path_costs_less() -> None:
    """All levels of up to 3 steps of two coefficients tried out; paths that end alike are told apart by their contexts,
    so that one that was dropped may be better in the end, by little.
    """
    code = made(2)
    code.deviations.copy_(torch.tensor([[PARTS, 0]] * KINDS))
    coefficients, labels = drawn(3, 20, code)
    step, worst = COARSEST, 0.0
    choice = chosen(coefficients, labels, step, code=code)
    for report, label in enumerate(labels[:, 0].tolist()):
        best = np.inf
        for magnitudes in itertools.product(range(6), repeat=4):
            levels = torch.tensor(magnitudes).reshape(2, 2).int()
            if (cost := cost_of(code, label, step, levels, coefficients[report, 0])) is not None:
                best = min(best, cost)
        found = cost_of(code, label, step, choice.levels[report].abs(), coefficients[report, 0])
        assert found is not None
        assert found == pytest.approx(float(choice.errors[report] + code.price * choice.bits[report]), rel=1e-4)
        worst = max(worst, found - best)
    assert worst < 0.2


def cost_of(code: TrellisCode, label: int, step: int, levels: Tensor, coefficients: Tensor) -> float | None:
    """Error and price of magnitudes [K, 2]; None if no path has them."""
    rows = code.rows(label, step, levels)
    magnitudes, lengths = levels.flatten().numpy(), code.lengths("weights").numpy()
    bits = code.lengths("kinds")[label] + code.lengths("steps")[step]
    for magnitude, (odd, kind, context, index) in zip(magnitudes, rows, strict=True):
        if magnitude != (0 if odd < 0 else max(0, 2 * index - odd)):
            return None
        if odd < 0:
            continue
        bits += lengths[odd, kind, context, index] + (magnitude > 0)
    values = code.values(torch.tensor([label]), torch.tensor([step]), levels[None])[0]
    return float((values - coefficients.abs()).square().sum() + code.price * bits)


def test_less_is_sent_of_a_kind_that_costs_more() -> None:
    """Of the kinds that are tried the one whose deviations fit."""
    coefficients, labels = drawn(5, 40)
    tried = torch.arange(KINDS).expand(40, -1)
    choice = chosen(coefficients.expand(-1, KINDS, -1, -1), tried, 120)
    assert (choice.tried == labels[:, 0]).float().mean() > 0.9


def test_the_finest_step_that_fits() -> None:
    coefficients, labels = drawn(6, 40)
    room = 300
    choice = chosen(coefficients, labels, STEPS - 1, room)
    assert (choice.bits <= room).all()
    assert len(set(choice.steps.tolist())) > 5
    finer = CODE.choose(coefficients, labels, torch.full((40,), 1 << 20), choice.steps + 1)
    assert (finer.bits > room).all()


@pytest.mark.parametrize("step", [105, 120, 140])
def test_a_trellis_is_nearer_than_one_quantiser_at_the_same_bits(step: int) -> None:
    """At the same bits, by the slope of 6 dB a bit and part."""
    coefficients, labels = drawn(9, 60)
    one = made()
    one.trellis = np.zeros((1, 2), np.int64)
    figures = []
    for code, at in ((CODE, step), (one, step), (one, step + 8)):
        found = chosen(coefficients, labels, at, code=code)
        figures.append((float(found.bits.mean()), 10 * np.log10(float(found.errors.mean()))))
    (bits, error), *others = figures
    (first, above), (last, below) = sorted(others)
    assert error < np.interp(bits, (first, last), (above, below)) - 0.2


def test_damage_is_one_error_or_other_levels() -> None:
    draw, refused = np.random.default_rng(0), 0
    for _ in range(2000):
        try:
            label, step, levels = CODE.read(draw.integers(0, 2, int(draw.integers(0, 600))).astype(np.uint8))
        except InvalidInput:
            refused += 1
        else:
            assert 0 <= label < KINDS
            assert 0 <= step < STEPS
            assert np.isfinite(levels).all()
    assert refused > 1500
    with pytest.raises(InvalidInput, match=r"payload: entropy code of 3 bits leaves .*; wanted 0: it is damaged"):
        CODE.read(np.ones(3, np.uint8))


def test_what_is_expected_is_a_twelfth_of_a_step_s_square_of_all_that_is_sent_and_the_power_of_the_rest() -> None:
    code = made(2)
    code.deviations.copy_(torch.tensor([[0, -10 * PARTS]] * KINDS))
    code.errors.fill_(1 / 12)
    step = COARSEST + PARTS
    found = code.expected_errors(torch.tensor([1]), torch.tensor([step]), torch.ones(1, 2, 2, dtype=torch.int32))
    assert float(found) == pytest.approx(2 / 12 / 4 + 2 * 2**-20)


def test_values_are_levels_less_what_they_are_too_large() -> None:
    code = made(2)
    code.inwards[:, 1:] = 0.25
    levels = torch.tensor([[[0, 1], [-3, 20]]]).int()
    found = code.values(torch.tensor([0]), torch.tensor([COARSEST + PARTS]), levels)
    assert found.tolist() == [[[0, 0.375], [-1.375, 9.875]]]
    assert code.inwards.shape[1] == MAGNITUDES


def test_weights_are_whole_numbers_near_to_what_is_wanted() -> None:
    wanted = torch.tensor([[0.5, 0.25, 0.25, 0], [1e-9, 1, 1, 1e9]])
    found = whole_weights(wanted)
    assert found.sum(1).tolist() == [1 << PRECISION] * 2
    assert found.min() == 1
    torch.testing.assert_close(found[0, :3] / 2**PRECISION, wanted[0, :3], atol=1e-4, rtol=0)


def test_weights_that_are_no_table_are_refused() -> None:
    state = {name: value.clone() for name, value in CODE.state_dict().items()}
    state["kinds"][0] += 1
    with pytest.raises(InvalidInput, match=r"kinds: from 21845 on, that sum up to 65537 to 65537; wanted 1 or more"):
        made().load_state_dict(state)


def test_steps_halve_in_sixteen() -> None:
    assert step_size(torch.tensor([0, COARSEST, COARSEST + PARTS])).tolist() == [128, 1, 0.5]
