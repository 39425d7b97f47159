"""Two versions of a model compared by the NMSE of whole frames: the unit whose outcomes are independent.

In a *shadow* both versions decode the same reports, so the frames are paired. In a *canary* each UE has one of them:
the frames of each condition (scenario, delay, air) are averaged apart and weighted alike in both arms, so that easy
channels in one arm do not pass for a better decoder. The weight of a condition with m and n frames in the arms is
m n / (m + n) (Cochran, 1954): one that an arm has hardly seen counts hardly, whatever the other has seen of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DB = 10 / math.log(10)
"""Decibels of a relative difference of 1, to the first order."""


@dataclass(frozen=True)
class Difference:
    """What the comparison has come to; NMSE are means of ratios over whole frames, of precoders of 1 - SGCS.

    Attributes:
        frames_new, frames_old: that were compared: of conditions of which both versions decoded two frames or more.
        nmse_db_new, nmse_db_old: of the same conditions [dB]; None without frames.
        difference_db: new minus old [dB], below 0 where the new version is better.
        standard_error_db: of the difference; None without frames.
    """

    frames_new: int
    frames_old: int
    nmse_db_new: float | None = None
    nmse_db_old: float | None = None
    difference_db: float | None = None
    standard_error_db: float | None = None


@dataclass
class Comparison:
    """Sums over frames.

    Attributes:
        paired: whether both versions decoded the same frames.
        arms: conditions -> [2, 3] count, sum and sum of squares of the frames' mean ratio; row 0 is the new version.
        products: sum over paired frames of the product of both ratios.
    """

    paired: bool
    arms: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    products: float = 0.0

    def add(self, conditions: str, *, new: bool, ratios: NDArray[np.float64]) -> None:
        """Frames [n] that one of the versions decoded."""
        row = [len(ratios), ratios.sum(), np.square(ratios).sum()]
        self.arms.setdefault(conditions, np.zeros((2, 3)))[0 if new else 1] += row

    def add_pairs(self, new: NDArray[np.float64], old: NDArray[np.float64]) -> None:
        """Frames [n] that both versions decoded, whatever their conditions."""
        self.add("", new=True, ratios=new)
        self.add("", new=False, ratios=old)
        self.products += float(new @ old)

    def difference(self) -> Difference:
        """The difference so far."""
        found = [arms.copy() for arms in list(self.arms.values())]  # frames may be added meanwhile
        both = [arms for arms in found if (arms[:, 0] >= 2).all()]
        if not both:
            return Difference(0, 0)
        sums = np.stack(both)  # [conditions, arm, column]
        counts = sums[..., 0]
        frames_new, frames_old = counts.sum(axis=0).astype(int).tolist()
        means = sums[..., 1] / counts
        variances = np.maximum(sums[..., 2] / counts - means**2, 0) / (counts - 1)  # of the means
        weights = counts.prod(axis=1) / counts.sum(axis=1)
        weights /= weights.sum()
        new, old = np.maximum(weights @ means, 1e-30).tolist()
        if self.paired:  # variance of new / E[new] - old / E[old], over all frames alike
            count, pooled = counts[:, 0].sum(), sums.sum(axis=0)[:, 2]
            spread = pooled[0] / new**2 + pooled[1] / old**2 - 2 * self.products / (new * old)
            relative = max(float(spread), 0.0) / count / (count - 1)
        else:
            relative = float((weights**2 @ variances / np.square([new, old])).sum())
        return Difference(
            frames_new,
            frames_old,
            10 * math.log10(new),
            10 * math.log10(old),
            10 * math.log10(new / old),
            _DB * math.sqrt(relative),
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        arms = {conditions: sums.tolist() for conditions, sums in self.arms.items()}
        return {"paired": self.paired, "arms": arms, "products": self.products}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Comparison:
        """From `to_json`."""
        arms = {conditions: np.array(sums, float) for conditions, sums in content["arms"].items()}
        return cls(bool(content["paired"]), arms, float(content["products"]))
