"""Loops over NumPy arrays that write to `out`. Their first import compiles them, later ones find that on disk."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

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
def words(
    index: NDArray[np.int64],
    ue: NDArray[np.int64],
    frame: NDArray[np.int64],
    stream: int,
    seed: NDArray[np.uint32],
    out: NDArray[np.int64],
) -> None:
    """Blocks `index` [1 or N, S] of each frame's stream to `out`, [N, S, 4]."""
    for n in range(out.shape[0]):
        c1, c2, c3 = np.uint32(ue[n]), np.uint32(frame[n]), np.uint32(stream)
        blocks = index[n if len(index) > 1 else 0]
        for s in range(out.shape[1]):
            out[n, s, 0], out[n, s, 1], out[n, s, 2], out[n, s, 3] = _philox(
                np.uint32(blocks[s]), c1, c2, c3, seed[0], seed[1]
            )


@numba.njit("void(i8[:,:,::1], i8[::1], i8[::1], i8, u4[::1], f4[:,:,:,::1])", **_OPTIONS)
def sextets(
    index: NDArray[np.int64],
    ue: NDArray[np.int64],
    frame: NDArray[np.int64],
    stream: int,
    seed: NDArray[np.uint32],
    out: NDArray[np.float32],
) -> None:
    """Of blocks `index` [1 or N, C, B] of each frame's stream six uniforms each to `out`, [N, C, 6, B]."""
    count, clusters, _, each = out.shape
    numbers = np.empty((6, clusters * each), np.float32)  # of a frame: in one long loop they are made several at once
    for n in range(count):
        c1, c2, c3 = np.uint32(ue[n]), np.uint32(frame[n]), np.uint32(stream)
        blocks = index[n if len(index) > 1 else 0].reshape(-1)
        for b in range(len(blocks)):
            w0, w1, w2, w3 = _philox(np.uint32(blocks[b]), c1, c2, c3, seed[0], seed[1])
            first, second = np.uint64(w0) << _WORD | np.uint64(w1), np.uint64(w2) << _WORD | np.uint64(w3)
            numbers[0, b], numbers[3, b] = _uniform(first), _uniform(second)
            numbers[1, b], numbers[4, b] = _uniform(first >> _21), _uniform(second >> _21)
            numbers[2, b], numbers[5, b] = _uniform(first >> _42), _uniform(second >> _42)
        for c in range(clusters):
            for number in range(6):
                for b in range(each):
                    out[n, c, number, b] = numbers[number, c * each + b]


@numba.njit("void(i8[::1], f4[::1], f4[:,::1], f4[:,::1], f4[:,::1], i8, f4[:,:,::1])", **_OPTIONS)
def poles(
    nearest: NDArray[np.int64],
    tangent: NDArray[np.float32],
    sine: NDArray[np.float32],
    cosine: NDArray[np.float32],
    weights: NDArray[np.float32],
    first: int,
    out: NDArray[np.float32],
) -> None:
    """Weights [L, R] / (sine - tangent cosine) of the paths from the first on, to `out`, [l, R, K], with the rows of
    `sine` and `cosine`, [size, K], of each one's nearest bin.
    """
    for path in range(min(len(out), len(nearest) - first)):
        place, slope = nearest[first + path], tangent[first + path]
        for row in range(out.shape[1]):
            weight = weights[first + path, row]
            for k in range(out.shape[2]):
                out[path, row, k] = weight / (sine[place, k] - slope * cosine[place, k])
