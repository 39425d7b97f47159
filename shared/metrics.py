"""NMSE and SGCS of reports, as sums that can be added, stored and summarised anywhere.

Definitions (FIELD.md section 4), with error e = h_hat - h of one report:
`mean_of_ratios` = 10 log10 mean(||e||^2 / ||h||^2), called `nmse_db`;
`ratio_of_sums` = 10 log10(sum ||e||^2 / sum ||h||^2); `mean_of_db` = mean(10 log10(||e||^2 / ||h||^2));
rho = |h_hat^H h| / (||h_hat|| ||h||) and SGCS = rho^2 (TS 38.214, 5.2.1.4.6), means over subcarriers.

Images are compared in the truncated angular-delay domain. `nmse_sf_db` is the same mean of ratios in the full
spatial-frequency domain, where what was cut off is missed whole: by Parseval its error is ||e||^2 + ||H||^2 - ||h||^2.
`truncation_floor_db` is what it would be if e were 0. Narrowband channels have nothing cut off: both domains are one.

Precoders are directions: a codebook reports no scale, and a gNB that had none could not form e. So they have SGCS and
rho, means over subbands, and no NMSE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.errors import InvalidInput

Domain = Literal["spatial", "angular-delay", "precoder"]
"""What an estimate is: the array's channel on one subcarrier, an image of the kept delay rows, or a precoder for each
subband.
"""

DOMAIN_NAMES: dict[Domain, str] = {
    "spatial": "spatial, one subcarrier",
    "angular-delay": "angular-delay, truncated to the kept delay rows",
    "precoder": "precoder per subband: a direction without scale, SGCS over subbands and no NMSE",
}
"""How the domain is called beside every NMSE."""

Sums = NDArray[np.float64]
"""[..., len(COLUMNS)] sums over observations."""

SQUARED = ("ratio", "db", "error", "power", "sgcs", "rho", "ratio_sf", "floor")
"""What is summed as it is and squared."""

COLUMNS = ("count", *SQUARED, *(f"{name}_sq" for name in SQUARED), "error_power")
"""What is summed; also the names of the store's columns."""

MEASURED = ("error", "power", "total", "sgcs", "rho")
"""What is measured of a report; all columns follow from it."""

ENTRIES_AT_ONCE = 2**18
"""Numbers of estimates that are compared at once: what is computed of them stays in the processor's caches."""

OF_ERRORS = (
    "nmse_db",
    "nmse_se_db",
    "ratio_of_sums_db",
    "ratio_of_sums_se_db",
    "mean_of_db",
    "mean_of_db_se",
    "nmse_sf_db",
    "nmse_sf_se_db",
    "truncation_floor_db",
)
"""Averages that precoders, which have no scale, do not have."""

_INDEX = {name: index for index, name in enumerate(COLUMNS)}


def energy(values: Tensor, axes: int = 1) -> Tensor:
    """Sum of |x|^2 of complex numbers over the last `axes`, without the roots that `abs` would take."""
    return torch.view_as_real(values).flatten(-axes - 1).square().sum(-1)


@dataclass(frozen=True)
class Truth:
    """True channels, and what is needed to compare with them.

    Attributes:
        channel: [..., M] complex64, images [..., Q, M], or precoders of S subbands [..., S, M].
        total: [...] squared norm of the channel with what was cut off; 0 for precoders, which have no scale.
        subcarriers: [..., F, M] complex64, the whole channel at some subcarriers; the domain of M does not matter.
        synthesis: [F, Q] complex64, from an image's rows to these subcarriers; None for channels [..., M].
        scaled: whether estimates have a scale, without which there is no error.

    Raises:
        InvalidInput: shapes that do not belong together.
    """

    channel: Tensor
    total: Tensor
    subcarriers: Tensor
    synthesis: Tensor | None = None
    scaled: bool = True

    def __post_init__(self) -> None:
        leading = self.channel.shape[: -1 if self.synthesis is None else -2]
        if self.total.shape != leading or self.subcarriers.shape[:-2] != leading:
            shapes = ", ".join(str(tuple(part.shape)) for part in self._parts)
            raise InvalidInput(f"truth: channel, total and subcarriers have shapes {shapes}; their first axes differ")

    @classmethod
    def narrowband(cls, channel: Tensor) -> Truth:
        """Of channels on one subcarrier, [..., M]."""
        return cls(channel, energy(channel), channel[..., None, :])

    @classmethod
    def precoders(cls, precoders: Tensor) -> Truth:
        """Of precoders of S subbands, [..., S, M], each compared with that of its own subband."""
        total = torch.zeros(precoders.shape[:-2], device=precoders.device)
        same = torch.eye(precoders.shape[-2], dtype=precoders.dtype, device=precoders.device)
        return cls(precoders, total, precoders, same, scaled=False)

    def room_for(self, count: int) -> Truth:
        """Zeros for `count` of the first axis."""
        channel, total, subcarriers = (torch.zeros(count, *part.shape[1:], dtype=part.dtype) for part in self._parts)
        return Truth(channel, total, subcarriers, self.synthesis, self.scaled)

    def put(self, rows: Tensor, other: Truth) -> None:
        """Replace rows ([K] int64) of the first axis."""
        for mine, theirs in zip(self._parts, other._parts, strict=True):
            mine[rows] = theirs

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.channel, self.total, self.subcarriers

    def __getitem__(self, index: Any) -> Truth:
        """Some of the channels."""
        channel, total, subcarriers = (part[index] for part in self._parts)
        return Truth(channel, total, subcarriers, self.synthesis, self.scaled)

    def swapped(self) -> Truth:
        """The first two axes exchanged: [N, T, ...] as [T, N, ...], without a copy."""
        channel, total, subcarriers = (part.transpose(0, 1) for part in self._parts)
        return Truth(channel, total, subcarriers, self.synthesis, self.scaled)


def _measured(estimate: Tensor, truth: Truth) -> NDArray[np.float64]:
    """[MEASURED, N] of N estimates."""
    axes = truth.channel.dim() - truth.total.dim()
    error, power = energy(estimate - truth.channel, axes), energy(truth.channel, axes)
    if not truth.scaled:
        error, power = torch.zeros_like(error), torch.zeros_like(power)
    ours = estimate[..., None, :] if truth.synthesis is None else truth.synthesis @ estimate
    norms = energy(ours) * energy(truth.subcarriers)
    match = (ours.conj() * truth.subcarriers).sum(-1).abs().square()
    squared = torch.where(norms > 0, match / norms.clamp(min=1e-30), 0.0)
    measured = (error, power, truth.total, squared.mean(-1), squared.sqrt().mean(-1))
    return np.stack([value.double().cpu().numpy() for value in measured])


@dataclass(frozen=True)
class Outcomes:
    """How well N reports were decoded; float64 arrays of one shape.

    Attributes:
        error: squared norm of the error.
        power: squared norm of the true channel. total: with what was cut off. All three are 0 for precoders.
        sgcs, rho: squared cosine similarity, and cosine similarity, mean over subcarriers, for precoders over subbands;
            0 for an all-zero estimate.
        ratio: error / power; of precoders 1 - SGCS, which orders them alike and is no NMSE. db: 10 log10 of it.
        ratio_sf: the ratio in the full spatial-frequency domain. floor: that of a perfect estimate.
    """

    error: NDArray[np.float64]
    power: NDArray[np.float64]
    total: NDArray[np.float64]
    sgcs: NDArray[np.float64]
    rho: NDArray[np.float64]
    ratio: NDArray[np.float64]
    db: NDArray[np.float64]
    ratio_sf: NDArray[np.float64]
    floor: NDArray[np.float64]

    @classmethod
    def of(cls, measured: NDArray[np.float64]) -> Outcomes:
        """Outcomes from what was measured: [MEASURED, ...]."""
        error, power, total, sgcs, rho = measured
        scaled = power > 0
        ratio = np.where(scaled, error / np.where(scaled, power, 1), 1 - sgcs)
        cut, whole = np.maximum(total - power, 0), np.where(scaled, total, 1)
        decibels = 10 * np.log10(np.maximum(ratio, 1e-30))
        ratio_sf = np.where(scaled, (error + cut) / whole, ratio)
        return cls(error, power, total, sgcs, rho, ratio, decibels, ratio_sf, cut / whole)

    @property
    def nmse(self) -> NDArray[np.float64]:
        """The ratio where it is an NMSE, NaN for precoders."""
        return np.where(self.power > 0, self.ratio, np.nan)

    @property
    def measured(self) -> NDArray[np.float64]:
        """[MEASURED, ...]."""
        return np.stack([getattr(self, name) for name in MEASURED])

    @classmethod
    def measure(cls, estimate: Tensor, truth: Truth) -> Outcomes:
        """Compare estimates, of the shape of `truth.channel`, with true channels. Raises InvalidInput for others."""
        if estimate.shape != truth.channel.shape:
            asked, found = tuple(truth.channel.shape), tuple(estimate.shape)
            raise InvalidInput(f"estimates: shape {found}; the true channels have {asked}")
        leading = truth.total.shape
        reports = [part.reshape(-1, *part.shape[len(leading) :]) for part in (estimate, *truth._parts)]
        at_once = max(1, ENTRIES_AT_ONCE // math.prod(estimate.shape[len(leading) :]))
        pieces = [
            _measured(some, Truth(channel, total, subcarriers, truth.synthesis, truth.scaled))
            for some, channel, total, subcarriers in zip(*(part.split(at_once) for part in reports), strict=True)
        ]
        return cls.of(np.concatenate(pieces, axis=1).reshape(-1, *leading))

    def moments(self) -> Sums:
        """[..., COLUMNS]: what each report adds to the sums."""
        values = [getattr(self, name) for name in SQUARED]
        squares = [value * value for value in values]
        return np.stack([np.ones_like(self.error), *values, *squares, self.error * self.power], axis=-1)

    def frame_moments(self) -> Sums:
        """[N, COLUMNS]: what each frame adds, from outcomes [N, T]. Frames are independent, slots of one are not."""
        return Outcomes(*(getattr(self, field.name).mean(axis=1) for field in fields(self))).moments()


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
        reports, nmse_db, nmse_se_db, ratio_of_sums_db, ratio_of_sums_se_db, mean_of_db, mean_of_db_se, sgcs, sgcs_se,
        rho, rho_se, nmse_sf_db, nmse_sf_se_db, truncation_floor_db (None where nothing was cut off); None where there
        are too few observations, and every NMSE of precoders. Standard errors of dB values by the delta method.
    """
    count = sums[0]
    if count == 0:
        return {**dict.fromkeys(averages(np.ones_like(sums), spread)), "reports": 0}
    mean = dict(zip(COLUMNS, (sums / count).tolist(), strict=True))
    similarities = {
        "sgcs": mean["sgcs"],
        "sgcs_se": _mean_error(spread, "sgcs"),
        "rho": mean["rho"],
        "rho_se": _mean_error(spread, "rho"),
    }
    errors = _of_errors(mean, spread) if mean["power"] else dict.fromkeys(OF_ERRORS)
    return {"reports": int(count), **errors, **similarities}


def _of_errors(mean: dict[str, float], spread: Sums) -> dict[str, float | None]:
    """The part of `averages` that needs a scale, OF_ERRORS."""
    of_sums = mean["error"] / mean["power"]
    return {
        "nmse_db": _to_db(mean["ratio"]),
        "nmse_se_db": _db_error(_mean_error(spread, "ratio"), mean["ratio"]),
        "ratio_of_sums_db": _to_db(of_sums),
        "ratio_of_sums_se_db": _db_error(_quotient_error(spread, of_sums), of_sums),
        "mean_of_db": mean["db"],
        "mean_of_db_se": _mean_error(spread, "db"),
        "nmse_sf_db": _to_db(mean["ratio_sf"]),
        "nmse_sf_se_db": _db_error(_mean_error(spread, "ratio_sf"), mean["ratio_sf"]),
        "truncation_floor_db": _to_db(mean["floor"]) if mean["floor"] > 0 else None,
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
