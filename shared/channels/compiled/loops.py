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


@numba.njit(inline="always", **_OPTIONS)
def _dirichlet(sine: Any, cosine: Any, small_sine: Any, small_cosine: Any, size: Any) -> Any:
    """sin(a) / sin(a / size), from sines and cosines of both; next to 0/0 the quotient of the derivatives."""
    near = abs(small_sine) < 1e-9
    return (size * cosine if near else sine) / (small_cosine if near else small_sine)


@numba.njit("void(f4[::1], i8, i8, f4[:,:,::1], i8, f4[:,:,:,::1])", **_OPTIONS)
def tones(position: Floats, size: int, stride: int, waves: Floats, first: int, out: Floats) -> None:
    """Waves [L, S, 2] of the paths from the first on, each turned to every `stride`-th of `size` subcarriers, to `out`,
    [l, S, 2, F]. The phase of a wave is that in the middle of the band.
    """
    for path in range(min(len(out), len(position) - first)):
        turn = -2 * np.pi / size * np.float64(position[first + path])
        c, d = np.cos(turn * (1 - size) / 2), np.sin(turn * (1 - size) / 2)
        for slot in range(out.shape[1]):
            x, y = waves[first + path, slot, 0], waves[first + path, slot, 1]
            out[path, slot, 0, 0], out[path, slot, 1, 0] = x * c - y * d, x * d + y * c
        c, d, done = np.cos(turn * stride), np.sin(turn * stride), 1
        while done < out.shape[3]:  # each time as many more are known
            real, imag = np.float32(c), np.float32(d)
            for slot in range(out.shape[1]):
                for k in range(min(done, out.shape[3] - done)):
                    x, y = out[path, slot, 0, k], out[path, slot, 1, k]
                    out[path, slot, 0, done + k] = x * real - y * imag
                    out[path, slot, 1, done + k] = x * imag + y * real
            c, d, done = c * c - d * d, 2 * c * d, 2 * done


@numba.njit("void(i4[::1], f4[:,::1], f4[:,:,::1], f4[:,:,:,::1], i8, f4[:,:,:,:,::1])", **_OPTIONS)
def spread(cell: Ints, kernel: Floats, waves: Floats, poles: Floats, first: int, out: Floats) -> None:
    """Waves [L, S, 2] times poles [l, K, 1, M] of the paths of frames, K each, from the first path on, added to grids
    `out`, [l, G, S, M, 2], at W cells from `cell` on, with weights `kernel` [L, W]; the grid is periodic.
    """
    frames, size, slots, antennas, _ = out.shape
    row, grid = np.empty(2 * antennas, np.float32), out.reshape(frames, size, slots, 2 * antennas)
    for n in range(frames):
        for k in range(poles.shape[1]):
            path = first + n * poles.shape[1] + k
            if path >= len(cell):
                return
            for slot in range(slots):
                x, y = waves[path, slot, 0], waves[path, slot, 1]
                if x == 0 and y == 0:
                    continue
                for m in range(antennas):
                    row[2 * m], row[2 * m + 1] = x * poles[n, k, 0, m], y * poles[n, k, 0, m]
                for i in range(kernel.shape[1]):
                    weight, to = kernel[path, i], grid[n, (cell[path] + i) % size, slot]
                    for m in range(2 * antennas):
                        to[m] += weight * row[m]


@numba.njit(
    "void(f4[:,::1], i8, f4[:,::1], i8, f4[:,:,:,::1], f4[:,::1])", **_OPTIONS, fastmath={"reassoc", "contract"}
)
def energies(position: Floats, size: int, place: Floats, elements: int, waves: Floats, out: Floats) -> None:
    """Squared norms over subcarriers and antennas of N frames, from all pairs of their paths, to `out`, [N, S].

    With N_f subcarriers a pair x bins apart adds sin(pi x) / sin(pi x / N_f); antennas do as well.

    Args:
        position, place: [N, L] of the paths in bins of `size` and of `elements`.
        waves: [N, L, S, 2], phases in the middle of band and array.
    """
    paths, slots = position.shape[1], waves.shape[2]
    s, c, s_small, c_small = np.empty(paths), np.empty(paths), np.empty(paths), np.empty(paths)
    t, d, t_small, d_small = np.empty(paths), np.empty(paths), np.empty(paths), np.empty(paths)
    held, pairs = np.empty((slots, 2, paths)), np.empty(paths)
    for n in range(len(position)):
        count = 0
        for path in range(paths):
            if not (waves[n, path] != 0).any():
                continue
            x, y = np.pi * np.float64(position[n, path]), np.pi * np.float64(place[n, path])
            s[count], c[count], s_small[count], c_small[count] = (
                np.sin(x),
                np.cos(x),
                np.sin(x / size),
                np.cos(x / size),
            )
            t[count], d[count] = np.sin(y), np.cos(y)
            t_small[count], d_small[count] = np.sin(y / elements), np.cos(y / elements)
            for slot in range(slots):
                for part in range(2):
                    held[slot, part, count] = waves[n, path, slot, part]
            count += 1
        out[n] = 0
        for one in range(count):
            s1, c1, s1_small, c1_small = s[one], c[one], s_small[one], c_small[one]
            t1, d1, t1_small, d1_small = t[one], d[one], t_small[one], d_small[one]
            for k in range(one):
                pairs[k] = _dirichlet(
                    s1 * c[k] - c1 * s[k],
                    c1 * c[k] + s1 * s[k],
                    s1_small * c_small[k] - c1_small * s_small[k],
                    c1_small * c_small[k] + s1_small * s_small[k],
                    size,
                ) * _dirichlet(
                    t1 * d[k] - d1 * t[k],
                    d1 * d[k] + t1 * t[k],
                    t1_small * d_small[k] - d1_small * t_small[k],
                    d1_small * d_small[k] + t1_small * t_small[k],
                    elements,
                )
            for slot in range(slots):
                x, y = held[slot, 0, one], held[slot, 1, one]
                total = size * elements * (x * x + y * y) / 2
                for k in range(one):
                    total += (x * held[slot, 0, k] + y * held[slot, 1, k]) * pairs[k]
                out[n, slot] += 2 * total
