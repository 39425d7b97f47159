"""Who sees what: UE positions, and the visibility regions (VR) and clusters that a UE sees.

Two ways to the same statistics. `own_cells`: every frame has a cell of its own, of which only the VRs around the UE are
drawn. `shared_cell`: one cell is drawn as a whole, and UEs are dropped into it.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.channels.cost2100.parameters import Environment
from shared.channels.streams import Purpose, Samples, Split

LOCAL = 2
"""Clusters 0 and 1 are the local ones, at the BS and at the UE; the far ones follow."""

_CLUSTER_BLOCKS = 3
"""Blocks of six numbers that a cluster owns in the stream Purpose.CLUSTER."""

_DROPS = 64
"""Positions tried for a UE of a shared cell until it sees a cluster."""

_NEGLIGIBLE = 1e-9
"""Probability of the number of visible VRs that tables leave out."""

_PHASES = (Purpose.UPLINK_PHASE, Purpose.DOWNLINK_PHASE)
"""Streams that stay a UE's own in a shared cell: UEs are many wavelengths apart."""

Part = tuple[slice, slice]
"""Some of N frames, and some of their C clusters."""


@dataclass(frozen=True)
class Numbers:
    """Where the clusters' own random numbers come from.

    Attributes:
        samples: the N frames.
        of_cell: whom the clusters belong to: the frames, or N times the cell.
        number: [1 or N, C] int64, of each cluster.
    """

    samples: Samples
    of_cell: Samples
    number: Tensor

    def draw(self, purpose: Purpose, blocks: int) -> Tensor:
        """Six uniforms for each of a cluster's blocks, [6, blocks, N, C]."""
        block = torch.arange(blocks, device=self.number.device)[:, None, None]
        whose = self.samples if purpose in _PHASES else self.of_cell
        drawn = whose.six_uniforms(purpose, self.number * blocks + block)
        if whose is not self.samples:  # the cluster about the UE is its own
            drawn[..., 1:2] = self.samples.six_uniforms(purpose, block + blocks)
        return drawn

    def __getitem__(self, part: Part) -> Numbers:
        samples = self.samples.take(part[0])
        of_cell = samples if self.of_cell is self.samples else self.of_cell.take(part[0])
        number = self.number[:, part[1]]
        return Numbers(samples, of_cell, number if len(number) == 1 else number[part[0]])


@dataclass(frozen=True)
class Place:
    """Where UEs are dropped: uniform over nearest <= |x|, |y| <= farthest [m]."""

    nearest: float
    farthest: float


@dataclass(frozen=True)
class Scene:
    """N UEs and the C clusters that each may see.

    Attributes:
        x, y: [N, 1] m, the UE. heading: [N, 1] radians, where it moves.
        border: [N, C] m, how far the UE is outside the inner part of the VR, |UE - VR| - (r_c - l_c).
        there: [N, C] bool; false for padding.
        reference_x, reference_y: [N, C] m, centre of the cluster's reference VR.
        numbers: the clusters' own uniforms, six of [3, N, C]: block 0 is for the large-scale draws, of block 1 the last
            two are for the VR, and all of block 2 but its first, for its cluster's VRs.
        source: of further numbers.
    """

    x: Tensor
    y: Tensor
    heading: Tensor
    border: Tensor
    there: Tensor
    reference_x: Tensor
    reference_y: Tensor
    numbers: tuple[Tensor, ...]
    source: Numbers

    def __getitem__(self, part: Part) -> Scene:
        x, y, heading = (values[part[0]] for values in (self.x, self.y, self.heading))
        border, there = self.border[part], self.there[part]
        numbers = tuple(values[:, *part] for values in self.numbers)
        of_reference = self.reference_x[part], self.reference_y[part]
        return Scene(x, y, heading, border, there, *of_reference, numbers, self.source[part])


def visible_count(environment: Environment, samples: Samples) -> tuple[Tensor, Tensor]:
    """Numbers of VRs in each frame's own cell and of those that the UE sees, [N] int64 each; it sees one at least."""
    table, cells, seen = _visibility(environment)
    drawn = samples.uniform(Purpose.PLACE, 4)[:, 3].double()
    index = torch.searchsorted(table.to(drawn.device), drawn)
    return cells.to(drawn.device)[index], seen.to(drawn.device)[index]


def own_cells(environment: Environment, place: Place, samples: Samples) -> Scene:
    """UEs with a cell each: the VRs around the UE are uniform in the disc of radius r_c about it."""
    position = samples.uniform(Purpose.PLACE, 4)
    x, y, heading = (values[:, None] for values in _drop(place, position))
    cell_vrs, seen = visible_count(environment, samples)
    count = LOCAL + int(seen.max())

    source = Numbers(samples, samples, torch.arange(count, device=x.device)[None])
    numbers = source.draw(Purpose.CLUSTER, _CLUSTER_BLOCKS).unbind()
    radius = environment.vr_radius * numbers[4][1].sqrt()
    angle = 2 * math.pi * numbers[5][1]
    border = radius - (environment.vr_radius - environment.vr_transition)
    there = torch.arange(count, device=x.device) < LOCAL + seen[:, None]
    reference_x, reference_y = x + radius * angle.cos(), y + radius * angle.sin()
    if environment.shared_vrs:
        size = torch.searchsorted(_size_table(environment).to(x.device), numbers[1][2].double()) + 1
        head = _joined(size, numbers[2][2], there, cell_vrs)
        border, there = merge(border, there, head)
        elsewhere = numbers[3][2] * size > 1  # the reference is another, unseen VR of the cluster
        radius, angle = environment.cell_radius * numbers[4][2].sqrt(), 2 * math.pi * numbers[5][2]
        reference_x = torch.where(elsewhere, radius * angle.cos(), reference_x)
        reference_y = torch.where(elsewhere, radius * angle.sin(), reference_y)
    return Scene(x, y, heading, *_locals(environment, border, there), reference_x, reference_y, numbers, source)


def shared_cell(environment: Environment, place: Place, samples: Samples, cell: int) -> Scene:
    """UEs in one cell, which its number names; a UE that sees nothing is dropped again."""
    vrs = _cell(environment, cell, samples.ue.device)
    x, y, heading = (values[:, None] for values in _drop(place, samples.uniform(Purpose.PLACE, 4)))
    border = _border(environment, vrs, x, y)
    for attempt in range(1, _DROPS):
        blind = ~(border < environment.vr_transition).any(1)
        if not blind.any():
            break
        index = torch.tensor([attempt], device=x.device)
        again = _drop(place, samples.take(blind).uniforms(Purpose.PLACE, index, 4)[:, 0])
        x[blind], y[blind], heading[blind] = (values[:, None] for values in again)
        border[blind] = _border(environment, vrs, x[blind], y[blind])
    row, vr = (border < environment.vr_transition).nonzero(as_tuple=True)
    seen = torch.bincount(row, minlength=len(samples))
    column = torch.arange(len(row), device=x.device) - (seen.cumsum(0) - seen)[row]
    shape = (len(samples), int(seen.max()))
    visible = torch.zeros(shape, dtype=torch.int64, device=x.device)
    visible[row, column] = vr
    there = torch.arange(shape[1], device=x.device) < seen[:, None]
    number = vrs.cluster[visible]
    head = ((number[:, :, None] == number[:, None]) & there[:, None]).int().argmax(2)  # first VR of the same cluster
    border, there = merge(border.gather(1, visible), there, head)
    pad = torch.nn.functional.pad
    border, there = pad(border, (LOCAL, 0)), pad(there, (LOCAL, 0), value=True)
    reference_x, reference_y = (pad(vrs.reference[number, axis], (LOCAL, 0)) for axis in (0, 1))
    number = pad(number + LOCAL, (LOCAL, 0))
    nobody = torch.zeros_like(samples.ue)
    source = Numbers(samples, Samples(cell, Split.CELL, nobody, nobody), number)
    numbers = source.draw(Purpose.CLUSTER, _CLUSTER_BLOCKS).unbind()
    return Scene(x, y, heading, *_locals(environment, border, there), reference_x, reference_y, numbers, source)


def merge(border: Tensor, there: Tensor, head: Tensor) -> tuple[Tensor, Tensor]:
    """Of VRs of one cluster the strongest counts, once.

    Args:
        border, there: as in `Scene`, [N, V].
        head: [N, V] int64, column of the first VR of the same cluster; its own for most.

    Returns:
        border and there: the head has the least border, the others are gone.
    """
    own = torch.arange(border.shape[1], device=border.device)
    least = border.scatter_reduce(1, head, torch.where(there, border, math.inf), "amin")
    return least, there & (head == own)


def _locals(environment: Environment, border: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Border and presence with the local clusters in: they are always seen, whole."""
    border, there = border.clone(), there.clone()
    border[:, :LOCAL] = -math.inf
    there[:, 0], there[:, 1] = environment.bs_local, True
    return border, there


def _drop(place: Place, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x, y, heading, [N] each, from uniforms [N, 3 or more]."""
    signed = numbers[:, :2] * 2 - 1
    x, y = (signed.sign() * (place.nearest + signed.abs() * (place.farthest - place.nearest))).unbind(1)
    return x, y, numbers[:, 2] * (2 * math.pi)


def _joined(size: Tensor, uniform: Tensor, there: Tensor, cell_vrs: Tensor) -> Tensor:
    """For each visible VR [N, C] the column of the VR whose cluster it shares, mostly its own.

    VR j belongs to the cluster of VR i < j, which has s_i VRs, with probability (s_i - 1) / (n_VR - 1).
    """
    own = torch.arange(size.shape[1], device=size.device).expand_as(size)
    far = there & (own >= LOCAL)
    chance = torch.where(far, (size - 1) / (cell_vrs[:, None] - 1), 0.0)
    partner = torch.searchsorted(chance.double().cumsum(1), uniform.double(), right=True)
    head = torch.where((partner < own) & far, partner, own)
    return head.gather(1, head)  # of who joined one that joined another


@functools.cache
def _visibility(environment: Environment) -> tuple[Tensor, Tensor, Tensor]:
    """Cumulative joint probability of (cell's VRs, VRs seen >= 1), and the two numbers of each entry."""
    if environment.far_random:
        none, one, *more = _poisson(environment.far_clusters).tolist()
        chances = dict(enumerate([none + one, *more], start=1))
    else:
        chances = {int(environment.far_clusters): 1.0}
    entries = []
    for n, chance in chances.items():
        vrs = environment.vr_count(n)
        seen_chances = _binomial(vrs, environment.seen).tolist()
        entries += [(chance * p, vrs, seen) for seen, p in enumerate(seen_chances) if seen]
    probability, cells, seen = (torch.tensor(column) for column in zip(*entries, strict=True))
    table = probability.double().cumsum(0)
    return table / table[-1], cells, seen


@functools.cache
def _size_table(environment: Environment) -> Tensor:
    """Cumulative probability that a VR's cluster has 1, 2, ... VRs: 1 + Poisson, size-biased, because larger clusters
    own more VRs.
    """
    others = _poisson(environment.shared_vrs)
    weight = others * torch.arange(1, len(others) + 1)
    return weight.cumsum(0) / weight.sum()


def _poisson(mean: float) -> Tensor:
    """[K] float64, probabilities of 0, 1, ... up to where the rest is negligible."""
    number = torch.arange(int(mean + 10 * math.sqrt(mean) + 20), dtype=torch.float64)
    chance = (number * math.log(mean) - mean - torch.lgamma(number + 1)).exp() if mean else (number == 0).double()
    return chance[: int((chance.cumsum(0) < 1 - _NEGLIGIBLE).sum()) + 1]


def _binomial(trials: int, success: float) -> Tensor:
    """[K] float64, the same of the number of successes."""
    number = torch.arange(trials + 1, dtype=torch.float64)
    ways = math.lgamma(trials + 1) - torch.lgamma(number + 1) - torch.lgamma(trials - number + 1)
    chance = (ways + number * math.log(success) + (trials - number) * math.log1p(-success)).exp()
    return chance[: int((chance.cumsum(0) < 1 - _NEGLIGIBLE).sum()) + 1]


@dataclass(frozen=True)
class _Cell:
    """A whole cell.

    Attributes:
        position: [n_VR, 2] m, VR centres. cluster: [n_VR] int64, far cluster of each.
        reference: [K, 2] m, centre of each cluster's reference VR.
    """

    position: Tensor
    cluster: Tensor
    reference: Tensor


@functools.lru_cache(maxsize=8)
def _cell(environment: Environment, number: int, device: torch.device) -> _Cell:
    """The cell of that number: VRs in the disc of radius R about the origin, grouped into clusters."""
    zero = torch.zeros(1, dtype=torch.int64)
    samples = Samples(number, Split.CELL, zero, zero)
    n_c = int(environment.far_clusters)
    if environment.far_random:
        n_c = max(1, int(_quantile(_poisson(environment.far_clusters), samples.uniform(Purpose.PLACE, 1))))
    count = environment.vr_count(n_c)
    numbers = samples.uniforms(Purpose.PLACE, torch.arange(1, count + 1), 3)[0]
    radius, angle = environment.cell_radius * numbers[:, 0].sqrt(), 2 * math.pi * numbers[:, 1]
    position = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    # VR positions are independent, so any k of them are k random ones, and any is a random member of its cluster
    sizes = 1 + _quantile(_poisson(environment.shared_vrs), numbers[:, 2])
    cluster = torch.repeat_interleave(torch.arange(count), sizes)[:count]
    first = (sizes.cumsum(0) - sizes)[: int(cluster[-1]) + 1]
    return _Cell(position.to(device), cluster.to(device), position[first].to(device))


def _quantile(chances: Tensor, uniform: Tensor) -> Tensor:
    """Whole numbers of the given probabilities, int64 of the shape of `uniform`."""
    return torch.searchsorted(chances.cumsum(0)[:-1].contiguous(), uniform.double())


def _border(environment: Environment, cell: _Cell, x: Tensor, y: Tensor) -> Tensor:
    """[N, n_VR] m, as `Scene.border`."""
    inner = environment.vr_radius - environment.vr_transition
    return torch.hypot(cell.position[:, 0] - x, cell.position[:, 1] - y) - inner
