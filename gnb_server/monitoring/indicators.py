"""The indicators: numbers of a decoded report that a real gNB can have.

Their inputs are payload fields, estimates, the gNB's own uplink, and the target CSI that UEs may send. What the numbers
are usually is in `gnb_server.monitoring.references`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.channels.scenario import Scenario
from shared.channels.streams import Samples
from shared.channels.transforms import to_angles
from shared.channels.uplink import UplinkView
from shared.link.decoding import Fields
from shared.link.payload import Field, PayloadLayout, saturated
from shared.metrics import Domain


@dataclass(frozen=True)
class Indicator:
    """One of them.

    Attributes:
        unit: of its values.
        text: what it is.
        finding: what a window came to, for people; {} stands for its value as `written`.
        least: change that does not matter, in its unit: it never raises an alarm.
        one_sided: only larger values than usual are bad.
        sparse: only some frames have it: windows have fewer of them.
    """

    name: str
    unit: str
    text: str
    finding: str
    written: Callable[[float], str]
    least: float
    one_sided: bool = False
    sparse: bool = False

    def said(self, value: float, usual: float) -> str:
        """A window's mean, and what is usual, for people."""
        return f"{self.finding.format(self.written(value))} (usually {self.written(usual)})"

    def window(self, frames: int) -> int:
        """Frames with this indicator that are judged together where so many are of most indicators."""
        return max(2, frames // SPARSER) if self.sparse else frames


WINDOW, SPARSER = 200, 4
"""Frames that are judged together unless it is set otherwise; of sparse indicators so many times fewer."""


def _decibels(value: float) -> str:
    return f"{value:.2f} dB"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


INDICATORS = (
    Indicator("norm", "dB", "squared norm of the estimate", "the squared norm of the estimates is {}", _decibels, 0.05),
    Indicator(
        "spread",
        "dB",
        "number of angles (and delays) that the estimate's power is spread over",
        "the power of the estimates is spread over {} angles and delays",
        lambda value: f"{10 ** (value / 10):.2f}",
        0.05,
    ),
    Indicator(
        "novelty",
        "dB",
        "distance of the estimate's shape from the usual principal directions",
        "the distance of the estimates' shape from the usual principal directions is {}",
        _decibels,
        0.05,
    ),
    Indicator(
        "codes",
        "bit",
        "how rare the payload's codes are, each in its place",
        "the rarity of the payload's codes is {}",
        lambda value: f"{value:.3f} bit a code",
        0.005,
    ),
    Indicator("bits", "bit", "length of the report", "a report has {}", lambda value: f"{value:.1f} bits", 0.5),
    Indicator(
        "saturated",
        "share",
        "reports whose scale is at an end of its range",
        "{} of the reports have a scale at an end of its range",
        _percent,
        0.05,
        one_sided=True,
    ),
    Indicator(
        "erased",
        "share",
        "reports that were lost or could not be read",
        "{} of the reports were lost or could not be read",
        _percent,
        0.05,
        one_sided=True,
    ),
    Indicator(
        "uplink",
        "cosine",
        "agreement of estimate and uplink in power by angle",
        "estimates and uplink agree in power by angle with a cosine of {}",
        lambda value: f"{value:.3f}",
        0.005,
        sparse=True,
    ),
    Indicator(
        "target",
        "dB",
        "NMSE of the estimate by the UE's target CSI",
        "the NMSE of the estimates by the UEs' target CSI is {}",
        _decibels,
        0.1,
        one_sided=True,
        sparse=True,
    ),
)
"""In the order of all arrays [J, ...] of their values. `uplink` and `target` are of some frames only."""

NAMES = tuple(indicator.name for indicator in INDICATORS)

UPLINK_EVERY = 8
"""Of so many frames of a UE one is compared with the uplink, which the emulator has to draw for it."""

COMPONENTS = 32
"""Principal directions that `novelty` looks along."""

CELL_BITS = 5
"""Leading bits of a code that its rarity goes by: with more, most cells would be empty in a reference."""

LEAST_POWER = 1e-3
"""Of a direction, relative to white ones: what lies in those that are hardly ever used does not count endlessly."""

SMALLEST = 1e-20


@dataclass(frozen=True)
class Directions:
    """Principal directions of estimates of norm 1, without a mean: their phase is free.

    Attributes:
        axes: [D, K] complex64. power: [K], mean power along each. rest: mean power along each of the others.
    """

    axes: Tensor
    power: Tensor
    rest: float

    @classmethod
    def of(cls, estimates: Tensor) -> Directions:
        """Of estimates [R, ...]."""
        flat = estimates.flatten(1)
        unit = flat / _power(flat).clamp(min=SMALLEST).sqrt()[:, None]
        _, values, axes = torch.linalg.svd(unit, full_matrices=False)
        power, least = values.square() / len(unit), LEAST_POWER / unit.shape[1]
        kept = min(COMPONENTS, len(power) - 1)
        rest = float(power[kept:].sum()) / (unit.shape[1] - kept)
        return cls(axes[:kept].mH.contiguous(), power[:kept].clamp(min=least), max(rest, least))

    def distance(self, estimates: Tensor) -> Tensor:
        """Squared Mahalanobis distance of estimates [R, ...] from 0, per dimension: 1 on average, [R]."""
        flat = estimates.flatten(1)
        total, along = _power(flat).clamp(min=SMALLEST), _squared(flat @ self.axes)
        rest = (total - along.sum(1)).clamp(min=0)
        return ((along / self.power).sum(1) + rest / self.rest) / total / flat.shape[1]


@dataclass(frozen=True)
class Codes:
    """How rare codes are: bits of each value of each place of a field, name -> [count, cells] float32. Values of an
    entropy code, which have no place, are left out.
    """

    rarity: dict[str, NDArray[np.float32]]

    @classmethod
    def of(cls, layout: PayloadLayout, fields: Fields) -> Codes:
        """Of fields, name -> [R, count]."""
        found = {}
        for field in layout.fields:
            if field.counted_by or not field.count:
                continue
            cells, size = _cells(field, fields), 1 << min(field.bits, CELL_BITS)
            counts = np.zeros((field.count, size))
            np.add.at(counts, (np.arange(field.count), cells), 1)
            found[field.name] = -np.log2((counts + 0.5) / (len(cells) + 0.5 * size)).astype(np.float32)
        return cls(found)

    def of_reports(self, layout: PayloadLayout, fields: Fields) -> NDArray[np.float64]:
        """Bits a code of reports, [R]; NaN without codes."""
        total, count = np.zeros(len(next(iter(fields.values())))) if fields else np.zeros(1), 0
        for field in layout.fields:
            if field.name in self.rarity:
                total = total + self.rarity[field.name][np.arange(field.count), _cells(field, fields)].sum(axis=1)
                count += field.count
        return total / count if count else np.full(len(total), np.nan)


@dataclass(frozen=True)
class Decoded:
    """R decoded reports.

    Attributes:
        estimates: [R, ...] complex64. fields: name -> [R, count]. lengths: [R], feedback bits.
        erased: [R] bool; nothing of these is looked at.
        uplink: [R], agreement with the uplink (`uplink_agreement`), NaN where it is not measured.
        target: [R], ||e||^2 / ||h||^2 by target CSI, NaN where there is none.
    """

    estimates: NDArray[np.complex64]
    fields: Fields
    lengths: NDArray[np.int64]
    erased: NDArray[np.bool_]
    uplink: NDArray[np.float64]
    target: NDArray[np.float64]


@torch.inference_mode()
def measure(
    directions: Directions, codes: Codes, layout: PayloadLayout, domain: Domain, decoded: Decoded
) -> NDArray[np.float64]:
    """All indicators of R reports, [J, R]; NaN where a report does not have one."""
    estimates = torch.from_numpy(decoded.estimates)
    by_angle = estimates if domain == "angular-delay" else to_angles(estimates)
    power = _squared(by_angle).flatten(1)
    spread = power.sum(1).square() / power.square().sum(1).clamp(min=SMALLEST**2)
    reports, there = len(estimates), ~decoded.erased
    found = {
        "norm": _db(_power(estimates.flatten(1)).numpy()),
        "spread": _db(spread.numpy()),
        "novelty": _db(directions.distance(estimates).numpy()),
        "codes": codes.of_reports(layout, decoded.fields),
        "bits": decoded.lengths,
        "saturated": saturated(layout, decoded.fields),
        "uplink": decoded.uplink,
        "target": _db(decoded.target),
    }
    values = np.full((len(NAMES), reports), np.nan)
    for name, each in found.items():
        values[NAMES.index(name), there] = np.broadcast_to(each, reports)[there]
    values[NAMES.index("erased")] = decoded.erased
    return values


@torch.inference_mode()
def uplink_agreement(domain: Domain, scenario: Scenario, samples: Samples, estimates: Tensor) -> NDArray[np.float64]:
    """Cosine similarity of power by angle, over the array's DFT, of the estimates [N, ...] of the last slot of N frames
    and of the uplink that the gNB measures in it at the scenario's SNR, [N]. Carriers differ, angles do not.
    """
    view = UplinkView(scenario, samples)
    if domain == "angular-delay":
        uplink, mine = view.image(noisy=True)[:, -1], estimates
    else:
        uplink = to_angles(view.array_pilots(1)[:, -1, :, 0])[:, None]
        mine = to_angles(estimates if domain == "precoder" else estimates[:, None])
    theirs, ours = (_over_delays(image) for image in (uplink, mine))
    norms = torch.linalg.vector_norm(theirs, dim=-1) * torch.linalg.vector_norm(ours, dim=-1)
    return ((theirs * ours).sum(-1) / norms.clamp(min=SMALLEST**2)).double().numpy()


def _over_delays(image: Tensor) -> Tensor:
    """[..., Q, M] to power by angle [..., M]."""
    return _squared(image).sum(-2)


def _cells(field: Field, fields: Fields) -> NDArray[np.int64]:
    """[R, count], in [0, 2^CELL_BITS)."""
    return fields[field.name] >> max(0, field.bits - CELL_BITS)


def _squared(values: Tensor) -> Tensor:
    """Squared magnitudes; several times faster than `abs` and `vector_norm` are."""
    return values.real.square() + values.imag.square()


def _power(flat: Tensor) -> Tensor:
    """[R, D] to [R]."""
    return _squared(flat).sum(1)


def _db(values: NDArray[np.float64] | NDArray[np.float32]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = 10 * np.log10(np.maximum(values, SMALLEST), dtype=np.float64)
    return found
