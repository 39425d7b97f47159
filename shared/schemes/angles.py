"""Path angles from the uplink's antennas, by maximum likelihood: what a gNB knows of the downlink without feedback."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.channels import compiled, multipath
from shared.channels.multipath import Multipath
from shared.channels.scenario import SPEED_OF_LIGHT

GRID = 256
"""Angles tried over the scenario's sector in the search on a grid."""

SWEEPS = 4
"""Of the search on the grid over all paths in the first slot; later slots go on from the one before, with one."""

NEWTON_STEPS = 5
"""Of the refinement."""

RIDGE = 1e-6
"""Added to the squared norms of steering vectors: it keeps equal angles harmless."""

_AT_ONCE = 32
"""Frames at once on a CPU: their products with the grid stay in its second-level cache."""


def estimate_angles(scenario: Multipath, received: Tensor) -> Tensor:
    """Path angles by maximum likelihood from the array's snapshots so far.

    Alternating projection on a grid (Ziskind and Wax, "Maximum likelihood localization of multiple sources by
    alternating projection", 1988: each path in turn over the whole sector, the others projected out), then Gauss-Newton
    steps of all paths (variable projection: Golub and Pereyra, 1973).

    Args:
        received: [N, T, M] complex64.

    Returns:
        [N, T, P] float32 sines of the angles; row t uses snapshots 0..t.
    """
    # near its peak the likelihood is flat: in single precision another batch would find another point
    snapshots = received.to(torch.complex128)
    edge = math.sin(math.radians(scenario.angle_deg))
    grid = torch.linspace(-edge, edge, GRID, dtype=torch.float64, device=received.device)
    cell = 2 * edge / (GRID - 1)
    if compiled.for_device(received.device) is not None:
        sine = _by_loops(scenario, snapshots, grid, cell)
    else:
        columns = snapshots.transpose(1, 2)
        sine = _refine(scenario, columns, grid[_search(scenario, columns, grid)], cell)
    return sine.clamp(-edge, edge).float()


def path_powers(scenario: Multipath, received: Tensor, sine: Tensor) -> Tensor:
    """Mean power of each path in the uplink over the slots so far, amplitudes by least squares.

    Args:
        received: [N, T, M] complex64.
        sine: [N, T, P] of the paths' angles, as `estimate_angles` gives them.

    Returns:
        [N, T, P] float32; row t uses snapshots 0..t.
    """
    slots = received.shape[1]
    vectors = multipath.steering(scenario, scenario.uplink_ghz, sine)  # [N, T, M, P]
    gram = vectors.mH @ vectors + torch.eye(scenario.paths, device=sine.device)  # the ridge keeps equal angles harmless
    matched = (vectors.mH.flatten(1, 2) @ received.mT).unflatten(1, (slots, -1))  # [N, T, P, snapshot]
    power = torch.linalg.solve(gram, matched).abs().square()
    seen = torch.ones(slots, slots, device=sine.device).tril()
    return (power * seen[:, None]).sum(-1) / seen.sum(-1, keepdim=True)


def _by_loops(scenario: Multipath, snapshots: Tensor, grid: Tensor, cell: float) -> Tensor:
    """`_refine` after `_search`, of snapshots [N, T, M] complex128: float64 sines [N, T, P]."""
    from shared.schemes import angle_loops  # where numba is

    vectors = multipath.steering(scenario, scenario.uplink_ghz, grid)  # [M, G]
    conjugates, products, per_sine = vectors.conj(), (vectors.mH @ vectors).numpy(), _phase_per_sine(scenario)
    phases = (torch.arange(scenario.antennas, dtype=torch.float32) * per_sine).double().numpy()  # as `steering`
    damping = scenario.noise_power / (cell * per_sine) ** 2
    sines = torch.empty(*snapshots.shape[:2], scenario.paths, dtype=torch.float64)
    for some, sine in zip(snapshots.split(_AT_ONCE), sines.split(_AT_ONCE), strict=True):
        matched = (some.flatten(0, 1) @ conjugates).unflatten(0, some.shape[:2])
        chosen = torch.empty_like(sine, dtype=torch.int64)
        angle_loops.search(*_parts(matched), products, SWEEPS, RIDGE, chosen.numpy())
        sine[:] = grid[chosen]
        angle_loops.refine(*_parts(some), phases, per_sine, cell, RIDGE, damping, NEWTON_STEPS, sine.numpy())
    return sines


def _parts(values: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Real and imaginary parts."""
    return values.real.contiguous().numpy(), values.imag.contiguous().numpy()


def _phase_per_sine(scenario: Multipath) -> float:
    """By which a path's phase grows from element to element [radians]."""
    return 2 * math.pi * scenario.spacing_m * scenario.uplink_ghz * 1e9 / SPEED_OF_LIGHT


def _search(scenario: Multipath, snapshots: Tensor, grid: Tensor) -> Tensor:
    """Alternating projection on the grid [G], of snapshots [N, M, T]: [N, T, P] indices of it."""
    vectors = multipath.steering(scenario, scenario.uplink_ghz, grid)  # [M, G]
    matched, products = vectors.mH @ snapshots, vectors.mH @ vectors  # [N, G, T], [G, G]
    chosen = torch.zeros(len(snapshots), 0, dtype=torch.int64, device=grid.device)
    slots = []
    for t in range(snapshots.shape[2]):
        for path in [*range(scenario.paths)] * (SWEEPS if t == 0 else 1):
            others = torch.cat([chosen[:, :path], chosen[:, path + 1 :]], dim=1)
            best = _explained(matched[..., : t + 1], products, others).argmax(1, keepdim=True)
            chosen = torch.cat([chosen[:, :path], best, chosen[:, path + 1 :]], dim=1)
        slots.append(chosen)
    return torch.stack(slots, dim=1)


def _explained(matched: Tensor, products: Tensor, others: Tensor) -> Tensor:
    """Power [N, G] that a path at each grid point explains once the paths at points `others` [N, K] are projected out.

    Args:
        matched: [N, G, S], products of the grid's steering vectors with the snapshots.
        products: [G, G], of each with each other.
    """
    norms = products.diagonal().real
    if others.shape[1]:
        towards = products[others]  # [N, K, G]
        gram = towards.gather(2, others[:, None].expand(-1, others.shape[1], -1))
        weights = torch.linalg.solve(gram + RIDGE * torch.eye(gram.shape[-1], device=gram.device), towards)
        rows = others[..., None].expand(-1, -1, matched.shape[-1])
        matched = matched - weights.mH @ matched.gather(1, rows)
        norms = (norms - (towards.conj() * weights).sum(1).real).clamp(min=1e-3)
    return matched.abs().square().sum(-1) / norms


def _refine(scenario: Multipath, snapshots: Tensor, sine: Tensor, cell: float) -> Tensor:
    """Gauss-Newton steps from sines [N, T, P] towards the nearest maximum, none longer than a `cell` of the grid.
    Snapshots are [N, M, T].
    """
    slots, antennas, paths = sine.shape[1], scenario.antennas, scenario.paths
    element = torch.arange(antennas, dtype=torch.float64, device=sine.device)[:, None] - (antennas - 1) / 2
    per_sine = _phase_per_sine(scenario)
    seen = torch.ones(slots, slots, dtype=torch.bool, device=sine.device).tril()[:, None]  # [T, 1, S]
    ridge = RIDGE * torch.eye(paths, device=sine.device)
    for _ in range(NEWTON_STEPS):
        vectors = multipath.steering(scenario, scenario.uplink_ghz, sine)  # [N, T, M, P]
        slopes = element * vectors  # derivatives by the phase, over j
        both = torch.cat([vectors, slopes], dim=-1)
        products = both.mH @ both  # [N, T, 2P, 2P]
        matched = (both.mH.flatten(1, 2) @ snapshots).unflatten(1, (slots, 2 * paths)) * seen  # [N, T, 2P, S]
        across = products[..., :paths, paths:]
        solved = torch.linalg.solve(
            products[..., :paths, :paths] + ridge, torch.cat([matched[..., :paths, :], across], dim=-1)
        )
        amplitudes, along = solved[..., :slots], solved[..., slots:]
        # of the slopes what is orthogonal to all vectors: with the residual, and with each other
        left = matched[..., paths:, :] - across.mH @ amplitudes
        gram = products[..., paths:, paths:] - across.mH @ along
        gradient = (left * amplitudes.conj()).sum(-1).imag
        curvature = (gram * (amplitudes.conj() @ amplitudes.mT)).real
        damping = scenario.noise_power / (cell * per_sine) ** 2 * torch.eye(paths, device=sine.device)
        step = torch.linalg.solve(curvature + damping, gradient[..., None])[..., 0] / per_sine
        sine = sine + step.clamp(-cell, cell)
    return sine
