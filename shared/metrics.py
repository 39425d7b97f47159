"""NMSE and SGCS of reports, as sums that can be added, stored and summarised anywhere.

Definitions (FIELD.md section 4), with error e = h_hat - h of one report:
`mean_of_ratios` = 10 log10 mean(||e||^2 / ||h||^2), called `nmse_db`;
`ratio_of_sums` = 10 log10(sum ||e||^2 / sum ||h||^2); `mean_of_db` = mean(10 log10(||e||^2 / ||h||^2));
SGCS = |h_hat^H h|^2 / (||h_hat||^2 ||h||^2) (TS 38.214, 5.2.1.4.6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Sums = NDArray[np.float64]
"""[..., len(COLUMNS)] sums over observations."""

COLUMNS = (
    "count",
    "ratio",
    "ratio_sq",
    "db",
    "db_sq",
    "error",
    "power",
    "error_sq",
    "power_sq",
    "error_power",
    "sgcs",
    "sgcs_sq",
)
"""What is summed; also the names of the store's columns."""

_INDEX = {name: index for index, name in enumerate(COLUMNS)}


@dataclass(frozen=True)
class Outcomes:
    """How well N reports were decoded; float64 arrays of one shape.

    Attributes:
        error: squared norm of the error.
        power: squared norm of the true channel.
        ratio: error / power. db: 10 log10 of it.
        sgcs: squared generalised cosine similarity, 0 for an all-zero estimate.
    """

    error: NDArray[np.float64]
    power: NDArray[np.float64]
    ratio: NDArray[np.float64]
    db: NDArray[np.float64]
    sgcs: NDArray[np.float64]

    @classmethod
    def of(cls, error: NDArray[np.float64], power: NDArray[np.float64], sgcs: NDArray[np.float64]) -> Outcomes:
        """Outcomes from what was measured."""
        ratio = error / power
        return cls(error, power, ratio, 10 * np.log10(np.maximum(ratio, 1e-30)), sgcs)

    @classmethod
    def measure(cls, estimate: Tensor, truth: Tensor) -> Outcomes:
        """Compare estimates with true channels, [..., M] complex64 each."""
        error = (estimate - truth).abs().square().sum(-1)
        power = truth.abs().square().sum(-1)
        norm = estimate.abs().square().sum(-1)
        match = (estimate.conj() * truth).sum(-1).abs().square()
        sgcs = torch.where(norm > 0, match / (norm * power).clamp(min=1e-30), 0.0)
        return cls.of(*(value.double().cpu().numpy() for value in (error, power, sgcs)))

    def moments(self) -> Sums:
        """[..., COLUMNS]: what each report adds to the sums."""
        e, p, r, d, s = self.error, self.power, self.ratio, self.db, self.sgcs
        return np.stack([np.ones_like(e), r, r * r, d, d * d, e, p, e * e, p * p, e * p, s, s * s], axis=-1)

    def frame_moments(self) -> Sums:
        """[N, COLUMNS]: what each frame adds, from outcomes [N, T]. Frames are independent, slots of one are not."""
        means = (values.mean(axis=1) for values in (self.error, self.power, self.ratio, self.db, self.sgcs))
        return Outcomes(*means).moments()


def summarise(by_slot: Sums, frames: Sums) -> dict[str, Any]:
    """Averages over all slots and by slot, with standard errors.

    Args:
        by_slot: [T, COLUMNS] sums of all reports, by slot of the frame.
        frames: [COLUMNS] sums of frame means over complete frames: the standard errors over all slots come from
            these, because reports of one frame share their long-term features.

    Returns:
        The fields of `averages` over all slots, `frames`, and `by_slot`: a list of the same with `slot` (1..T).
    """
    slots = [{"slot": t + 1, **averages(sums, sums)} for t, sums in enumerate(by_slot) if sums[0] > 0]
    return {**averages(by_slot.sum(axis=0), frames), "frames": int(frames[0]), "by_slot": slots}


def averages(sums: Sums, spread: Sums) -> dict[str, Any]:
    """Means from `sums`, standard errors from `spread` (sums over independent observations), [COLUMNS] each.

    Returns:
        reports, nmse_db, nmse_se_db, ratio_of_sums_db, ratio_of_sums_se_db, mean_of_db, mean_of_db_se, sgcs, sgcs_se;
        None where there are too few observations. Standard errors of dB values by the delta method.
    """
    count = sums[0]
    if count == 0:
        names = ("nmse", "ratio_of_sums")
        nothing = {key: None for name in names for key in (f"{name}_db", f"{name}_se_db")}
        return {"reports": 0, **nothing, "mean_of_db": None, "mean_of_db_se": None, "sgcs": None, "sgcs_se": None}
    mean = dict(zip(COLUMNS, (sums / count).tolist(), strict=True))
    of_sums = mean["error"] / mean["power"]
    return {
        "reports": int(count),
        "nmse_db": _to_db(mean["ratio"]),
        "nmse_se_db": _db_error(_mean_error(spread, "ratio"), mean["ratio"]),
        "ratio_of_sums_db": _to_db(of_sums),
        "ratio_of_sums_se_db": _db_error(_quotient_error(spread, of_sums), of_sums),
        "mean_of_db": mean["db"],
        "mean_of_db_se": _mean_error(spread, "db"),
        "sgcs": mean["sgcs"],
        "sgcs_se": _mean_error(spread, "sgcs"),
    }


def _to_db(value: float) -> float:
    return 10 * math.log10(max(value, 1e-30))


def _db_error(error: float | None, mean: float) -> float | None:
    return None if error is None else 10 / math.log(10) * error / max(mean, 1e-30)


def _mean_error(spread: Sums, name: str) -> float | None:
    """Standard error of the mean of a column."""
    n, total, squares = (float(spread[_INDEX[column]]) for column in ("count", name, f"{name}_sq"))
    if n < 2:
        return None
    return math.sqrt(max(0.0, squares - total**2 / n) / (n - 1) / n)


def _quotient_error(spread: Sums, quotient: float) -> float | None:
    """Standard error of sum(error) / sum(power)."""
    n = float(spread[0])
    if n < 2:
        return None
    e, p, ee, pp, ep = (float(spread[_INDEX[c]]) for c in ("error", "power", "error_sq", "power_sq", "error_power"))
    residual = ee - 2 * quotient * ep + quotient**2 * pp - (e - quotient * p) ** 2 / n
    return math.sqrt(max(0.0, residual) / (n - 1) / n) / (p / n)
