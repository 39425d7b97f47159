"""Loops of `trellis`, compiled by numba: over the parts of a report's coefficients, each of which depends on those
before it. Their first import compiles them, later ones find that on disk. What a decoder reads is found by whole
numbers alone, so that it is the same on every machine.

The coder is one of asymmetric numeral systems (ANS; Duda, arXiv 1311.2540). A code is a number that starts at 1: a
symbol of weight w of 2^PRECISION takes x to (x div w) 2^PRECISION + start + (x mod w), a bit takes it to 2 x + bit;
what is added last is read first. What is as good as random (signs) is added first, as a code that starts with a symbol
would waste up to PRECISION bits on it.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from shared.quantizers.trellis import (
    BITS_OF_A_STEP,
    BITS_OF_AN_INDEX,
    CLASS_PARTS,
    CLASSES,
    COARSEST,
    ESCAPE,
    LARGEST,
    LONGEST,
    LONGEST_PART,
    PARTS,
    START,
    THRESHOLDS,
)

Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Shorts = NDArray[np.int16]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
_16, _32, _1 = np.uint64(16), np.uint64(32), np.uint64(1)
_WORD, _LEAST, _HALF = np.uint64(0xFFFF), np.uint64(1 << 32), np.uint64(1 << 47)


@numba.njit(inline="always", **_OPTIONS)
def _class(deviation: Any, step: Any) -> Any:
    """Class of a coefficient, below 0 if it is not sent; the class in the middle of which deviation and step are."""
    return min(
        (np.int64(deviation) + step - COARSEST + 2 * PARTS + PARTS // (2 * CLASS_PARTS)) // (PARTS // CLASS_PARTS),
        CLASSES - 1,
    )


@numba.njit(inline="always", **_OPTIONS)
def _shift(kind: Any) -> Any:
    """Low bits of an index that are sent as they are: tables are for deviations of up to 4 indices."""
    return max(0, kind // CLASS_PARTS - 4)


@numba.njit(inline="always", **_OPTIONS)
def _context(seen: Any, usual: Any) -> Any:
    found = 0
    for threshold in THRESHOLDS:
        if 20 * seen > threshold * usual:
            found += 1
    return found


@numba.njit(inline="always", **_OPTIONS)
def _magnitude(index: Any, odd: Any) -> Any:
    """In steps: 0, 2, 4, .. of the even quantiser, 0, 1, 3, .. of the odd one."""
    return 2 * index - odd if index > 0 else 0


@numba.njit(inline="always", **_OPTIONS)
def _excess_bits(rest: Any) -> Any:
    """Bits of a number of 1 or more in unary and binary (Elias gamma code), less one."""
    found = 0
    while rest > 1:
        rest >>= 1
        found += 1
    return found


@numba.njit(**_OPTIONS)
def _path(
    values: Any, size: Any, deviations: Any, step: Any, lengths: Any, expected: Any, inwards: Any, trellis: Any,
    price: Any, levels: Any, indices: Any, before: Any,
) -> Any:  # fmt: skip
    """Levels of one report, [2 K], by the path through the trellis of least error + price * bits.

    Returns:
        Ideal length [bits], and squared error [steps^2] of all that may be sent.
    """
    states, last = len(trellis), inwards.shape[1] - 1
    cost, bits, errors = np.full(states, np.inf), np.zeros(states), np.zeros(states)
    seen, usual = np.full(states, START), np.full(states, START)
    new_cost, new_bits, new_errors = np.empty(states), np.empty(states), np.empty(states)
    new_seen, new_usual = np.empty(states, np.int64), np.empty(states, np.int64)
    index, symbol, found = np.zeros((2, 3), np.int64), np.zeros((2, 3), np.int64), np.zeros(2, np.int64)
    magnitude, error, base = np.zeros((2, 3), np.int64), np.zeros((2, 3)), np.zeros((2, 3))
    cost[0], unsent = 0, 0.0
    for k in range(len(values)):
        value, kind = min(abs(values[k]) / size, LARGEST), _class(deviations[k >> 1], step)
        levels[k] = 0
        if kind < 0:
            unsent += value * value
            continue
        shift = _shift(kind)
        for odd in range(2):  # what each quantiser has nearby, and 0
            below, n = np.int64((value + odd) / 2), 0
            for candidate in (below + 1, below, 0):
                sent = _magnitude(candidate, odd)
                if (n > 0 and candidate == index[odd, n - 1]) or (candidate > below and sent > value + 1.6):
                    continue
                if candidate == 0 and below > 2:
                    continue
                rest = candidate >> shift
                index[odd, n], magnitude[odd, n], symbol[odd, n] = candidate, sent, min(rest, ESCAPE)
                off = value - (sent - inwards[kind, min(sent, last)])
                error[odd, n] = off * off
                base[odd, n] = shift + (candidate > 0)
                if rest >= ESCAPE:
                    base[odd, n] += 2 * _excess_bits(rest - ESCAPE + 1) + 1
                n += 1
            found[odd] = n
        for state in range(states):
            new_cost[state] = np.inf
        for state in range(states):
            if cost[state] == np.inf:
                continue
            odd = state & 1
            table = lengths[odd, kind, _context(seen[state], usual[state])]
            for n in range(found[odd]):
                length = base[odd, n] + table[symbol[odd, n]]
                total, after = cost[state] + error[odd, n] + price * length, trellis[state, index[odd, n] & 1]
                if total < new_cost[after]:
                    new_cost[after] = total
                    new_bits[after], new_errors[after] = bits[state] + length, errors[state] + error[odd, n]
                    indices[k, after], before[k, after] = index[odd, n], state
                    new_seen[after] = seen[state] - (seen[state] >> 2) + (magnitude[odd, n] << 8)
                    new_usual[after] = usual[state] - (usual[state] >> 2) + expected[kind]
        cost, new_cost = new_cost, cost
        bits, new_bits = new_bits, bits
        errors, new_errors = new_errors, errors
        seen, new_seen = new_seen, seen
        usual, new_usual = new_usual, usual
    best = np.argmin(cost)
    at = best
    for k in range(len(values) - 1, -1, -1):
        if _class(deviations[k >> 1], step) >= 0:
            sent_index, at = indices[k, at], before[k, at]
            levels[k] = _magnitude(sent_index, at & 1)
            if values[k] < 0:
                levels[k] = -levels[k]
    return bits[best], errors[best] + unsent


@numba.njit(**_OPTIONS)
def _guess(values: Any, room: Any, finest: Any) -> Any:
    """About the finest step of a code of `room` bits."""
    places = COARSEST - PARTS * np.log2(np.maximum(np.abs(values), np.float32(1e-9)))  # of the step that is as large
    low, high = 0, finest
    while low < high:
        middle, bits = (low + high + 1) // 2, 0.0
        for place in places:
            if place < middle:
                bits += BITS_OF_A_STEP + (middle - place) / PARTS
        low, high = (middle, high) if bits <= room else (low, middle - 1)
    return low


@numba.njit(
    "void(f4[:,:,::1], i8[:,::1], f4[:,::1], f4[::1], i8[::1], i8[::1], i2[:,::1], f4[::1], f4[:,:,:,::1], i4[::1],"
    " f4[:,::1], i8[:,::1], f8, i8[::1], i8[::1], i4[:,::1], f8[:,::1])",
    **_OPTIONS,
)
def choose(
    values: Floats, labels: Longs, heads: Floats, step_heads: Floats, room: Longs, finest: Longs,
    deviations: Shorts, sizes: Floats, lengths: Floats, expected: Ints, inwards: Floats, trellis: Longs, price: float,
    chosen: Longs, steps: Longs, levels: Ints, figures: Doubles,
) -> None:  # fmt: skip
    """Of each report the kind that costs least of those tried, at the finest step that its rate allows.

    Args:
        values: [N, T, 2 K], parts of coefficients in the kinds `labels` [N, T].
        heads, step_heads: [N, T] and [S], bits that labels and steps take.
        room, finest: [N], most bits of a code, and the finest step. deviations: [J, K] of the kinds. sizes: of steps.
        lengths, expected, inwards, trellis, price: as `trellis.TrellisCode` has them.
        chosen, steps, levels, figures: receive which was tried [N], its step [N] and levels [N, 2 K], and its ideal
            length [bits] and squared error, [N, 2].
    """
    reports, tried, parts = values.shape
    indices, before = np.empty((parts, len(trellis)), np.int32), np.empty((parts, len(trellis)), np.int32)
    trial = np.empty(parts, np.int32)
    for n in range(reports):
        steps[n], least = -1, np.inf
        for t in range(tried):
            # `low` is taken to fit, `high` not to; after the first kind only its step and the next finer one are tried
            low, high = max(-1, steps[n] - 1), (finest[n] if t == 0 else min(finest[n], steps[n] + 1)) + 1
            step = _guess(values[n, t], room[n], finest[n]) if t == 0 else steps[n]
            while high - low > 1:
                bits, error = _path(
                    values[n, t], sizes[step], deviations[labels[n, t]], step, lengths, expected, inwards, trellis,
                    price, trial, indices, before,
                )  # fmt: skip
                bits += heads[n, t] + step_heads[step]
                slope = float(1 + np.count_nonzero(trial)) * BITS_OF_AN_INDEX
                if bits > room[n] and step > 0:
                    high = step
                    if t > 0:
                        break
                else:
                    low = step
                    square = sizes[step] * sizes[step]
                    if t == 0 or (error + price * bits) * square < least:
                        least = (error + price * bits) * square
                        chosen[n], steps[n], levels[n] = t, step, trial
                        figures[n, 0], figures[n, 1] = bits, error * square
                step = max(low + 1, min(high - 1, step + int((room[n] - bits) / slope)))


@numba.njit(**_OPTIONS)
def _push(state: Any, words: Any, count: Any, starts: Any, symbol: Any) -> Any:
    """Add a symbol by the starts of its table [symbols + 1]: the state and the number of words after it."""
    start, weight = np.uint64(starts[symbol]), np.uint64(starts[symbol + 1] - starts[symbol])
    if state >= weight << _32:
        words[count] = state & _WORD
        state, count = state >> _16, count + 1
    return (state // weight << _16) + start + state % weight, count


@numba.njit(**_OPTIONS)
def _push_bit(state: Any, words: Any, count: Any, bit: Any) -> Any:
    if state >= _HALF:
        words[count] = state & _WORD
        state, count = state >> _16, count + 1
    return state << _1 | np.uint64(bit), count


@numba.njit(**_OPTIONS)
def _refilled(state: Any, words: Any, count: Any) -> Any:
    if state < _LEAST and count > 0:
        return state << _16 | np.uint64(words[count - 1]), count - 1
    return state, count


@numba.njit(**_OPTIONS)
def _pop(state: Any, words: Any, count: Any, starts: Any) -> Any:
    """The symbol that was added last, and what is left."""
    place, symbol = state & _WORD, np.searchsorted(starts, np.int32(state & _WORD), side="right") - 1
    weight = np.uint64(starts[symbol + 1] - starts[symbol])
    state, count = _refilled(weight * (state >> _16) + place - np.uint64(starts[symbol]), words, count)
    return symbol, state, count


@numba.njit(**_OPTIONS)
def _pop_bits(state: Any, words: Any, count: Any, bits: Any) -> Any:
    """A number of so many bits, the most significant of which was added last, and what is left."""
    number = np.int64(0)
    for _ in range(bits):
        number = number << 1 | np.int64(state & _1)
        state, count = _refilled(state >> _1, words, count)
    return number, state, count


@numba.njit(**_OPTIONS)
def _push_bits(state: Any, words: Any, count: Any, number: Any, bits: Any) -> Any:
    for place in range(bits):
        state, count = _push_bit(state, words, count, number >> place & 1)
    return state, count


@numba.njit("void(i4[::1], i2[::1], i8, i4[::1], i8[:,::1], i8[:,::1])", **_OPTIONS)
def rows(levels: Ints, deviations: Shorts, step: int, expected: Ints, trellis: Longs, out: Longs) -> None:
    """Of a report's levels [2 K] what each is coded by, to `out` [2 K, 4]: quantiser (even or odd, -1 where nothing is
    sent), class, context, index.
    """
    state, seen, usual = 0, START, START
    for k in range(len(levels)):
        kind, magnitude = _class(deviations[k >> 1], step), abs(levels[k])
        out[k] = -1
        if kind >= 0:
            odd = state & 1
            index = (magnitude + odd) >> 1
            out[k, 0], out[k, 1], out[k, 2], out[k, 3] = odd, kind, _context(seen, usual), index
            state = trellis[state, index & 1]
            seen += (magnitude << 8) - (seen >> 2)
            usual += expected[kind] - (usual >> 2)


@numba.njit("i8(i8, i8, i4[::1], i8[:,::1], i4[:,:,:,::1], i4[::1], i4[::1], u1[::1])", **_OPTIONS)
def write(
    label: int, step: int, levels: Ints, found: Longs, starts: Ints, label_starts: Ints, step_starts: Ints, out: Bytes
) -> int:
    """The code of a report to `out`, the most significant bit first, without the one that it begins with.

    Args:
        levels: [2 K]. found: of them by `rows`. starts: where symbols begin in the tables [2, CLASSES, CONTEXTS,
            SYMBOLS + 1], as are label_starts [J + 1] and step_starts [S + 1].

    Returns:
        Bits of the code.
    """
    words = np.empty(LONGEST_PART // 16 * len(levels) + 4, np.uint16)
    state, count = _1, 0
    for k in range(len(levels) - 1, -1, -1):
        if levels[k] != 0:
            state, count = _push_bit(state, words, count, levels[k] < 0)
    for k in range(len(levels) - 1, -1, -1):
        if found[k, 0] < 0:
            continue
        odd, kind, context, index = found[k]
        shift = _shift(kind)
        symbol = index >> shift
        state, count = _push_bits(state, words, count, index, shift)
        if symbol >= ESCAPE:
            excess = symbol - ESCAPE + 1
            more = _excess_bits(excess)
            state, count = _push_bits(state, words, count, excess, more)
            state, count = _push_bit(state, words, count, 0)
            for _ in range(more):
                state, count = _push_bit(state, words, count, 1)
            symbol = ESCAPE
        state, count = _push(state, words, count, starts[odd, kind, context], symbol)
    state, count = _push(state, words, count, step_starts, step)
    state, count = _push(state, words, count, label_starts, label)
    length = _excess_bits(np.int64(state))
    for place in range(length):
        out[place] = state >> np.uint64(length - 1 - place) & _1
    for word in range(count):
        for place in range(16):
            out[length + 16 * word + place] = words[count - 1 - word] >> (15 - place) & 1
    return length + 16 * count


@numba.njit("i8(u1[::1], i2[:,::1], i4[:,:,:,::1], i4[::1], i4[::1], i4[::1], i8[:,::1], i8[::1], i4[::1])", **_OPTIONS)
def read(
    code: Bytes, deviations: Shorts, starts: Ints, label_starts: Ints, step_starts: Ints, expected: Ints,
    trellis: Longs, heads: Longs, levels: Ints,
) -> int:  # fmt: skip
    """What `write` wrote: label and step to `heads`, levels [2 K] to `levels`; of damaged code anything.

    Returns:
        Bits that are left over, below 0 where they are too few; 0 of a code that is not damaged.
    """
    count = max(0, (len(code) - 32) // 16)
    first = len(code) - 16 * count
    state, words = _1, np.zeros(count, np.uint16)
    for place in range(first):
        state = state << _1 | np.uint64(code[place])
    for word in range(count):
        for place in range(16):
            words[count - 1 - word] = words[count - 1 - word] << 1 | code[first + 16 * word + place]
    heads[0], state, count = _pop(state, words, count, label_starts)
    heads[1], state, count = _pop(state, words, count, step_starts)
    path, seen, usual, of_kind = 0, np.int64(START), np.int64(START), deviations[heads[0]]
    for k in range(len(levels)):
        levels[k] = 0
        kind = _class(of_kind[k >> 1], heads[1])
        if kind < 0:
            continue
        odd = path & 1
        index, state, count = _pop(state, words, count, starts[odd, kind, _context(seen, usual)])
        if index == ESCAPE:
            more, bit = 0, 1
            while more < LONGEST:
                bit, state, count = _pop_bits(state, words, count, 1)
                if bit == 0:
                    break
                more += 1
            excess, state, count = _pop_bits(state, words, count, more)
            index = ESCAPE - 1 + (1 << more | excess)
        low, state, count = _pop_bits(state, words, count, _shift(kind))
        index = index << _shift(kind) | low
        levels[k] = _magnitude(index, odd)
        path = trellis[path, index & 1]
        seen += (np.int64(levels[k]) << 8) - (seen >> 2)
        usual += expected[kind] - (usual >> 2)
    for k in range(len(levels)):
        if levels[k] != 0:
            negative, state, count = _pop_bits(state, words, count, 1)
            levels[k] = -levels[k] if negative else levels[k]
    return 16 * count + _excess_bits(np.int64(state)) if state > 0 else -1
