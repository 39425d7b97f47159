"""When indicators are no longer as usual: windows of whole frames against a reference.

Frames are independent, reports of one frame are not, so that a value is the mean over a frame's reports. The mean of a
window of W values is compared with that of the N values of the reference: of a healthy fleet, z = difference / (s
sqrt(1/W + 1/N)) is about normal, s being the reference's standard deviation. Its limit is such that a healthy window
exceeds it in any indicator with the probability that is asked for (Bonferroni's inequality). Changes that do not matter
(`Indicator.least`) exceed no limit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from gnb_server.monitoring.indicators import INDICATORS, WINDOW, Indicator


@dataclass(frozen=True)
class Finding:
    """What a window came to.

    Attributes:
        value: mean of the window. usual: of the reference. limit: largest difference of a healthy one.
        first_frame, last_frame: numbers of the first and last frame of the window, of those that were watched.
    """

    indicator: Indicator
    value: float
    usual: float
    limit: float
    first_frame: int
    last_frame: int

    @property
    def exceeds(self) -> bool:
        """Whether it is beyond the limit."""
        difference = self.value - self.usual
        return (difference if self.indicator.one_sided else abs(difference)) > self.limit


@dataclass
class _Filling:
    """A window that is not full: sum and number of its values, number of its first frame."""

    total: float = 0.0
    count: int = 0
    first_frame: int = 0


class Windows:
    """The windows of a fleet's frames by one version.

    Attributes:
        frames: that were added.
        newest: of each indicator that the reference has and whose first window is full, by name.

    Args:
        usual: as in `Reference`, [3, J].
        false_alarms: probability that any indicator of a healthy window exceeds its limit.
        window: frames of most indicators in one.
    """

    def __init__(self, usual: NDArray[np.float64], false_alarms: float, window: int = WINDOW) -> None:
        self.frames = 0
        self._sizes = [indicator.window(window) for indicator in INDICATORS]
        self.newest: dict[str, Finding] = {}
        self._usual = usual
        self._known = np.flatnonzero(np.isfinite(usual[:2]).all(axis=0)).tolist()
        self._share = false_alarms / max(1, len(self._known))
        self._filling = [_Filling() for _ in INDICATORS]

    def limit(self, index: int) -> float:
        """Of the difference of indicator number `index`."""
        indicator, (_, spread, count) = INDICATORS[index], self._usual[:, index]
        deviations = norm.isf(self._share / (1 if indicator.one_sided else 2))
        return max(indicator.least, float(deviations * spread * np.sqrt(1 / self._sizes[index] + 1 / count)))

    def add(self, values: NDArray[np.float64]) -> list[Finding]:
        """Add frames, [J, n]; returns what the windows that they fill came to."""
        found = []
        for index in self._known:
            numbers = np.flatnonzero(np.isfinite(values[index]))
            filling, at, window = self._filling[index], 0, self._sizes[index]
            while at < len(numbers):
                taken = numbers[at : at + window - filling.count]
                if not filling.count:
                    filling.first_frame = self.frames + int(taken[0])
                filling.total += float(values[index, taken].sum())
                filling.count += len(taken)
                at += len(taken)
                if filling.count == window:
                    found.append(self._finding(index, filling, self.frames + int(taken[-1])))
                    filling = self._filling[index] = _Filling()
        self.frames += values.shape[1]
        self.newest |= {finding.indicator.name: finding for finding in found}
        return found

    def _finding(self, index: int, full: _Filling, last_frame: int) -> Finding:
        mean, usual = full.total / full.count, float(self._usual[0, index])
        return Finding(INDICATORS[index], mean, usual, self.limit(index), full.first_frame, last_frame)
