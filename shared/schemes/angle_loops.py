"""Loops of `angles`, compiled by numba, over NumPy arrays: a frame's numbers stay in the processor's first cache. Their
first import compiles them, later ones find that on disk.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Longs = NDArray[np.int64]
Doubles = NDArray[np.float64]
Complexes = NDArray[np.complex128]

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract"}}


@numba.njit(**_OPTIONS)
def _solve(matrix: Any, right: Any) -> None:
    """Solve a positive definite system [K, K], which is used up: `right`, [K, R], becomes the solution."""
    size = len(matrix)
    for i in range(size):
        over = 1 / matrix[i, i].real
        for j in range(i + 1, size):
            factor = matrix[j, i] * over
            for k in range(i, size):
                matrix[j, k] -= factor * matrix[i, k]
            for k in range(right.shape[1]):
                right[j, k] -= factor * right[i, k]
    for i in range(size - 1, -1, -1):
        over = 1 / matrix[i, i].real
        for k in range(right.shape[1]):
            for j in range(i + 1, size):
                right[i, k] -= matrix[i, j] * right[j, k]
            right[i, k] *= over


@numba.njit("void(f8[:,:,::1], f8[:,:,::1], c16[:,::1], i8, f8, i8[:,:,::1])", **_OPTIONS)
def search(real: Doubles, imag: Doubles, products: Complexes, sweeps: int, ridge: float, out: Longs) -> None:
    """As `angles._search`: products of snapshots and grid, real and imaginary parts [N, T, G], to indices [N, T, P]."""
    frames, slots, points = real.shape
    paths = out.shape[2]
    chosen = np.zeros(paths, np.int64)
    others = np.zeros(paths, np.int64)
    weights_real, weights_imag = np.empty((paths, points)), np.empty((paths, points))
    rest_real, rest_imag, power, norms = np.empty(points), np.empty(points), np.empty(points), np.empty(points)
    for n in range(frames):
        for t in range(slots):
            for turn in range(paths * (sweeps if t == 0 else 1)):
                path = turn % paths
                found = min(turn, paths) if t == 0 else paths  # paths that have a place already
                count = 0
                for k in range(found):
                    if k != path:
                        others[count] = chosen[k]
                        count += 1
                gram, towards = np.empty((count, count), np.complex128), np.empty((count, points), np.complex128)
                for k in range(count):
                    towards[k] = products[others[k]]
                    for j in range(count):
                        gram[k, j] = products[others[k], others[j]]
                    gram[k, k] += ridge
                _solve(gram, towards)
                for g in range(points):
                    power[g], norms[g] = 0, products[g, g].real
                for k in range(count):
                    for g in range(points):
                        weight, product = towards[k, g], products[others[k], g]
                        weights_real[k, g], weights_imag[k, g] = weight.real, weight.imag
                        norms[g] -= product.real * weight.real + product.imag * weight.imag
                for s in range(t + 1):
                    for g in range(points):
                        rest_real[g], rest_imag[g] = real[n, s, g], imag[n, s, g]
                    for k in range(count):
                        x, y = real[n, s, others[k]], imag[n, s, others[k]]
                        for g in range(points):
                            rest_real[g] -= weights_real[k, g] * x + weights_imag[k, g] * y
                            rest_imag[g] -= weights_real[k, g] * y - weights_imag[k, g] * x
                    for g in range(points):
                        power[g] += rest_real[g] * rest_real[g] + rest_imag[g] * rest_imag[g]
                best, most = 0, -1.0
                for g in range(points):
                    explained = power[g] / (max(norms[g], 1e-3) if count else norms[g])
                    if explained > most:
                        best, most = g, explained
                chosen[path] = best
            out[n, t] = chosen


@numba.njit("void(f8[:,:,::1], f8[:,:,::1], f8[::1], f8, f8, f8, f8, i8, f8[:,:,::1])", **_OPTIONS)
def refine(
    real: Doubles,
    imag: Doubles,
    phases: Doubles,
    per_sine: float,
    cell: float,
    ridge: float,
    damping: float,
    steps: int,
    sine: Doubles,
) -> None:
    """As `angles._refine`, of snapshots, real and imaginary parts [N, T, M], and sines [N, T, P], which change.

    Args:
        phases: [M], of the antennas, by sine [radians]: multiples of `per_sine` up to rounding in single precision.
    """
    frames, slots, antennas = real.shape
    paths = sine.shape[2]
    element = np.arange(antennas) - (antennas - 1) / 2
    rounding = phases - np.arange(antennas) * per_sine
    x, y = np.empty((paths, antennas)), np.empty((paths, antennas))  # steering vectors, real and imaginary parts
    vectors, slopes = np.empty((paths, paths), np.complex128), np.empty((paths, paths), np.complex128)
    across, curvature, gradient = np.empty_like(vectors), np.empty((paths, paths)), np.empty((paths, 1))
    matched, left = np.empty((paths, slots), np.complex128), np.empty((paths, slots), np.complex128)
    for n in range(frames):
        for t in range(slots):
            count = t + 1
            for _ in range(steps):
                for p in range(paths):
                    x[p, 0], y[p, 0], done = 1, 0, 1
                    while done < antennas:  # each time as many more are known
                        c, d = np.cos(per_sine * sine[n, t, p] * done), np.sin(per_sine * sine[n, t, p] * done)
                        for m in range(min(done, antennas - done)):
                            x[p, done + m] = x[p, m] * c - y[p, m] * d
                            y[p, done + m] = x[p, m] * d + y[p, m] * c
                        done *= 2
                    for m in range(antennas):
                        d = rounding[m] * sine[n, t, p]  # so small that this is its sine
                        c = 1 - d * d / 2
                        x[p, m], y[p, m] = x[p, m] * c - y[p, m] * d, x[p, m] * d + y[p, m] * c
                for p in range(paths):
                    for q in range(p + 1):
                        a = b = c = d = e = f = 0.0
                        for m in range(antennas):
                            u, v = x[p, m] * x[q, m] + y[p, m] * y[q, m], x[p, m] * y[q, m] - y[p, m] * x[q, m]
                            a, b, c, d = a + u, b + v, c + u * element[m], d + v * element[m]
                            e, f = e + u * element[m] * element[m], f + v * element[m] * element[m]
                        vectors[p, q], vectors[q, p] = complex(a, b), complex(a, -b)
                        across[p, q], across[q, p] = complex(c, d), complex(c, -d)
                        slopes[p, q], slopes[q, p] = complex(e, f), complex(e, -f)
                    vectors[p, p] += ridge
                    for s in range(count):
                        a = b = c = d = 0.0
                        for m in range(antennas):
                            u = x[p, m] * real[n, s, m] + y[p, m] * imag[n, s, m]
                            v = x[p, m] * imag[n, s, m] - y[p, m] * real[n, s, m]
                            a, b, c, d = a + u, b + v, c + u * element[m], d + v * element[m]
                        matched[p, s], left[p, s] = complex(a, b), complex(c, d)
                solved = np.concatenate((matched[:, :count], across), 1)
                _solve(vectors, solved)
                for p in range(paths):
                    for k in range(paths):  # of the slopes what is orthogonal to all vectors
                        for s in range(count):
                            left[p, s] -= across[p, k] * solved[k, s]
                        for q in range(paths):
                            slopes[p, q] -= across[p, k] * solved[k, count + q]
                for p in range(paths):
                    gradient[p, 0] = 0
                    for s in range(count):
                        gradient[p, 0] += (left[p, s] * solved[p, s].conjugate()).imag
                    for q in range(paths):
                        power = 0j
                        for s in range(count):
                            power += solved[p, s].conjugate() * solved[q, s]
                        curvature[p, q] = (slopes[p, q] * power).real
                    curvature[p, p] += damping
                _solve(curvature, gradient)
                for p in range(paths):
                    sine[n, t, p] += min(max(gradient[p, 0] / per_sine, -cell), cell)
