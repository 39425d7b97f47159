"""Numbers of combinations: which K of n things are chosen, as one integer (TS 38.214, 5.2.2.2.3 and 5.2.2.2.5)."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor


def rank(chosen: Tensor, among: int) -> Tensor:
    """The number of a combination: sum_i C(n - 1 - chosen_i, K - i).

    Args:
        chosen: [N, K] int64, ascending, each in [0, n).
        among: n.

    Returns:
        [N] int64 in [0, C(n, K)).
    """
    size = chosen.shape[1]
    binomials, left = _binomials(among, size), torch.arange(size, 0, -1)
    return binomials[among - 1 - chosen, left].sum(-1)


def unrank(number: Tensor, among: int, size: int) -> Tensor:
    """Inverse of `rank`: [N] int64 to [N, K], by the search that the clauses describe."""
    binomials, rest, chosen = _binomials(among, size), number.clone(), []
    for left in range(size, 0, -1):
        column = binomials[:, left].contiguous()
        largest = torch.searchsorted(column, rest, right=True) - 1
        rest = rest - column[largest]
        chosen.append(among - 1 - largest)
    return torch.stack(chosen, dim=-1) if chosen else number.new_zeros(len(number), 0)


@functools.cache
def _binomials(among: int, size: int) -> Tensor:
    """C(x, y) for x in [0, n) and y in [0, K], [n, K + 1] int64."""
    return torch.tensor([[math.comb(x, y) for y in range(size + 1)] for x in range(max(among, 1))])
