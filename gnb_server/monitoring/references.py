"""What the indicators of a version are when all is well: its reference.

It is measured from frames of the scenario that the version was trained for, encoded, decoded, over an undisturbed link:
what a vendor would hand over with the model. So a fleet that is wrong from its first report on is noticed, which
statistics learned from that fleet itself could not do. Who makes these frames is on the other side of the wall; here
they are payloads and estimates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gnb_server.monitoring.indicators import Codes, Decoded, Directions, measure
from shared.link.payload import PayloadLayout
from shared.metrics import Domain

FITTED, JUDGED = 512, 1024
"""Frames that directions and codes are fitted to, and others whose indicators are what is usual: of the same frames
both would look better than those to come."""

MOST_FITTED = 2048
"""Reports that directions are fitted to."""


@dataclass(frozen=True)
class Calibration:
    """Whole frames of reports, decoded, `slots` reports each, in their order: a reference takes FITTED of FITTED +
    JUDGED to fit to.
    """

    decoded: Decoded
    slots: int


@dataclass(frozen=True)
class Reference:
    """Of a version; `usual` has the mean, the standard deviation and the number of values of each indicator, [3, J]."""

    layout: PayloadLayout
    domain: Domain
    directions: Directions
    codes: Codes
    usual: NDArray[np.float64]

    @classmethod
    def of(cls, layout: PayloadLayout, domain: Domain, calibration: Calibration) -> Reference:
        """Fit one."""
        decoded, slots = calibration.decoded, calibration.slots
        frames = len(decoded.lengths) // slots
        fitted = frames * FITTED // (FITTED + JUDGED) * slots
        fields = {name: values[:fitted] for name, values in decoded.fields.items()}
        apart = -(-fitted // MOST_FITTED)
        directions = Directions.of(torch.from_numpy(decoded.estimates[:fitted:apart]))
        codes = Codes.of(layout, fields)
        judged = frame_means(measure(directions, codes, layout, domain, _from(decoded, fitted)), slots)
        there = np.isfinite(judged).sum(axis=1)
        with np.errstate(invalid="ignore"):
            means = np.nansum(judged, axis=1) / there
            spread = np.sqrt(np.nansum((judged - means[:, None]) ** 2, axis=1) / (there - 1))
        return cls(layout, domain, directions, codes, np.stack([means, spread, there]))

    def measure(self, decoded: Decoded) -> NDArray[np.float64]:
        """Indicators of R reports, [J, R]."""
        return measure(self.directions, self.codes, self.layout, self.domain, decoded)


def frame_means(values: NDArray[np.float64], slots: int) -> NDArray[np.float64]:
    """Indicators of reports [J, N * slots], frame by frame, to their means over what each frame has, [J, N]."""
    by_frame = values.reshape(len(values), -1, slots)
    there = np.isfinite(by_frame)
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = np.where(there, by_frame, 0).sum(axis=2) / there.sum(axis=2)
    return found


def _from(decoded: Decoded, first: int) -> Decoded:
    """The reports from one on."""
    return Decoded(
        decoded.estimates[first:],
        {name: values[first:] for name, values in decoded.fields.items()},
        decoded.lengths[first:],
        decoded.erased[first:],
        decoded.uplink[first:],
        decoded.target[first:],
    )
