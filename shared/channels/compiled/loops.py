"""Loops over NumPy arrays that write to `out`. Their first import compiles them, later ones find that on disk."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Words = NDArray[np.uint32]
Floats = NDArray[np.float32]

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_WORD, _21, _42 = np.uint64(32), np.uint64(21), np.uint64(42)
_MASK_21 = np.uint64(2**21 - 1)
_HALF, _STEP = np.float32(0.5), np.float32(2.0**-21)


@numba.njit(inline="always", **_OPTIONS)
def _philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """As `streams.philox4x32`, on words of 32 bits."""
    for _ in range(10):
        p0, p1 = np.uint64(c0) * _MULTIPLIERS[0], np.uint64(c2) * _MULTIPLIERS[1]
        c0, c2 = np.uint32(p1 >> _WORD) ^ c1 ^ k0, np.uint32(p0 >> _WORD) ^ c3 ^ k1
        c1, c3 = np.uint32(p1), np.uint32(p0)
        k0, k1 = np.uint32(k0 + _WEYL[0]), np.uint32(k1 + _WEYL[1])
    return c0, c1, c2, c3


@numba.njit(inline="always", **_OPTIONS)
def _uniform(bits: Any) -> Any:
    """The lowest 21 bits to the middle of their step in (0, 1)."""
    return (np.float32(np.int32(bits & _MASK_21)) + _HALF) * _STEP


@numba.njit("void(i8[:,::1], i8[::1], i8[::1], i8, u4[::1], i8[:,:,::1])", **_OPTIONS)
def words(index: Longs, ue: Longs, frame: Longs, stream: int, seed: Words, out: Longs) -> None:
    """Blocks `index` [1 or N, S] of each frame's stream to `out`, [N, S, 4]."""
    for n in range(out.shape[0]):
        c1, c2, c3 = np.uint32(ue[n]), np.uint32(frame[n]), np.uint32(stream)
        blocks = index[n if len(index) > 1 else 0]
        for s in range(out.shape[1]):
            out[n, s, 0], out[n, s, 1], out[n, s, 2], out[n, s, 3] = _philox(
                np.uint32(blocks[s]), c1, c2, c3, seed[0], seed[1]
            )


@numba.njit("void(i8[:,:,::1], i8[::1], i8[::1], i8, u4[::1], f4[:,:,::1])", **_OPTIONS)
def six_uniforms(index: Longs, ue: Longs, frame: Longs, stream: int, seed: Words, out: Floats) -> None:
    """Of blocks `index` [B, 1 or N, C] of each frame's stream six uniforms each to `out`, [6, B, N * C]."""
    frames, clusters, c3 = len(ue), index.shape[2], np.uint32(stream)
    counter = np.empty((3, frames, clusters), np.uint32)  # in one long loop numbers are made several at once
    for n in range(frames):
        counter[1, n], counter[2, n] = ue[n], frame[n]
    flat = counter.reshape(3, -1)
    for b in range(len(index)):
        counter[0] = index[b]
        for j in range(out.shape[2]):
            w0, w1, w2, w3 = _philox(flat[0, j], flat[1, j], flat[2, j], c3, seed[0], seed[1])
            first, second = np.uint64(w0) << _WORD | np.uint64(w1), np.uint64(w2) << _WORD | np.uint64(w3)
            out[0, b, j], out[3, b, j] = _uniform(first), _uniform(second)
            out[1, b, j], out[4, b, j] = _uniform(first >> _21), _uniform(second >> _21)
            out[2, b, j], out[5, b, j] = _uniform(first >> _42), _uniform(second >> _42)


@numba.njit("void(f4[::1], i8, f4, i4[::1], f4[::1], f4[::1])", **_OPTIONS)
def whole_bins(position: Floats, size: int, least: float, nearest: Ints, turn: Floats, step: Floats) -> None:
    """As `synthesis.whole_bins`, of [L] positions, to `nearest`, `turn` and `step`."""
    bins, half_turn, slope = np.float32(size), np.float32(np.pi), np.float32(np.pi / size)
    for path in range(len(position)):
        whole = np.rint(position[path])
        offset = position[path] - whole
        if abs(offset) < least:
            offset = least
        period = np.floor(whole / bins)
        nearest[path] = np.int32(whole - bins * period)
        sign = np.float32(1 - 2 * (np.int32(whole + period) & np.int32(1)))
        turn[path], step[path] = sign * half_turn * offset, offset * slope


@numba.njit("void(i4[::1], f4[::1], f4[::1], f4[:,::1], f4[:,::1], f4[:,::1], i8, f4[:,:,::1])", **_OPTIONS)
def poles(
    nearest: Ints,
    step_sine: Floats,
    step_cosine: Floats,
    sine: Floats,
    cosine: Floats,
    weights: Floats,
    first: int,
    out: Floats,
) -> None:
    """Weights [L, R] / (sine step_cosine - cosine step_sine) of the paths from the first on, to `out`, [l, R, K], with
    the rows of `sine` and `cosine`, [size, K], of each one's nearest bin.
    """
    pole = np.empty(out.shape[2], np.float32)
    for path in range(min(len(out), len(nearest) - first)):
        place, s, c = nearest[first + path], step_sine[first + path], step_cosine[first + path]
        for k in range(out.shape[2]):
            pole[k] = np.float32(1) / (sine[place, k] * c - cosine[place, k] * s)
        for row in range(out.shape[1]):
            weight = weights[first + path, row]
            for k in range(out.shape[2]):
                out[path, row, k] = weight * pole[k]
