"""Follows the decoded reports of all fleets: indicators, windows, alarms; and has references made.

Of each version a reference is made once, in a thread of its own that gives way to the others, when a fleet has sent as
many frames by it as a window has: short runs never need one. Until it is there, frames are not judged.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnb_server.monitoring.alarms import Alarm, Alarms
from gnb_server.monitoring.indicators import NAMES, UPLINK_EVERY, WINDOW, Decoded, uplink_agreement
from gnb_server.monitoring.references import Calibration, Reference
from gnb_server.monitoring.windows import Windows
from gnb_server.repository import ModelVersion
from gnb_server.serving.backend import Estimates, Part
from gnb_server.sessions import Fleet, Lease
from shared.channels.streams import Samples, Split
from shared.errors import CsiError
from shared.link.air import erased
from shared.link.rate import OWN
from shared.link.target import TargetCoder

Calibrate = Callable[[str, int], Calibration]
"""Decoded frames of the scenario that a version (name, number) was trained for. Raises CsiError."""

TARGET = NAMES.index("target")

NICENESS = 5
"""Of the thread that makes references: it gives way to serving, and is not starved where all cores are busy."""

OWN_RATE = "its reports have a rate of their own, of which there is no reference"


@dataclass(frozen=True)
class Frames:
    """Frames that part of a chunk ends.

    Attributes:
        version: that decoded them.
        columns: [n], which of the part's UEs they are of.
        values: [J, n], means of the indicators over each frame's reports.
    """

    version: int
    columns: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass
class _Watched:
    """A fleet's frames by one version.

    Attributes:
        waited: frames that came before there was a reference.
        problem: why they are not judged; empty while the reference is being made.
        targets: that came. target_bits: of one.
        sums, there, slots: of UEs' open frames, [J, ue_count] and [ue_count].
    """

    lease: Lease
    version: int
    waited: int = 0
    problem: str = ""
    reference: Reference | None = None
    windows: Windows | None = None
    targets: int = 0
    target_bits: int = 0
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros((len(NAMES), 0)))
    there: NDArray[np.int64] = field(default_factory=lambda: np.zeros((len(NAMES), 0), np.int64))
    slots: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


class Watch:
    """All fleets. The serving thread observes and adds, any thread asks.

    Args:
        calibrate: makes the frames that references are of.
        false_alarms: probability that a healthy window raises any alarm. window: frames in one.
    """

    def __init__(self, calibrate: Calibrate, false_alarms: float, window: int = WINDOW) -> None:
        self.alarms = Alarms()
        self._calibrate = calibrate
        self._false_alarms = false_alarms
        self._window = window
        self._watched: dict[tuple[str, int], _Watched] = {}
        self._trusted: dict[str, NDArray[np.float64]] = {}
        self._references: dict[tuple[str, int, str], Future[Reference]] = {}
        self._maker = ThreadPoolExecutor(1, "reference", _give_way)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Make no more references."""
        self._maker.shutdown(wait=False, cancel_futures=True)

    def forget(self, token: str) -> None:
        """Free what is held for a fleet, and end its alarms."""
        with self._lock:
            self._watched = {key: held for key, held in self._watched.items() if key[0] != token}
            self._trusted.pop(token, None)
        self.alarms.forget(token)

    def observe(
        self,
        fleet: Fleet,
        model: ModelVersion,
        part: Part,
        lengths: NDArray[np.int64],
        estimates: Estimates,
        target: Tensor | None = None,
    ) -> Frames | None:
        """Measure a decoded part of a chunk, whose reports are all new.

        Args:
            lengths: [slots, n], feedback bits. target: [n, entries], target CSI of its UEs in its last slot, if any.

        Returns:
            The frames that it ends, for `add` once they are stored; None while there is nothing to judge them by.
        """
        held = self._held(fleet, model, part)
        samples = part.lease.conditions.samples(
            Split.EMULATE, torch.from_numpy(part.rows + part.lease.first_ue), part.frame
        )
        by_target = self._by_target(held, model, estimates[-1], samples, target)
        if held.reference is None:
            return None
        reports = part.slots * len(part.rows)
        decoded = Decoded(
            estimates.reshape(reports, *estimates.shape[2:]),
            {name: values.reshape(reports, -1) for name, values in part.fields.items()},
            lengths.ravel(),
            erased(part.fates).ravel(),
            _by_uplink(model, part, samples, estimates).ravel(),
            np.concatenate([np.full(reports - len(part.rows), np.nan), by_target]),
        )
        values = held.reference.measure(decoded).reshape(len(NAMES), part.slots, len(part.rows))
        return self._ended(held, part, values)

    def add(self, lease: Lease, version: int, values: NDArray[np.float64]) -> list[Alarm]:
        """Judge stored frames, [J, n] as in `Frames`; returns the alarms that they raise."""
        held = self._watched.get((lease.token, version))
        if held is None or held.windows is None:
            return []
        with self._lock:
            findings = held.windows.add(values)
        slots = lease.conditions.scenario.slots
        taken = (self.alarms.take(lease, version, found, (found.last_frame + 1) * slots) for found in findings)
        return [alarm for alarm in taken if alarm is not None]

    def describe(self) -> list[dict[str, Any]]:
        """What is watched, for REST: a row for each fleet and version."""
        with self._lock:
            return [_described(held) for held in self._watched.values()]

    def _held(self, fleet: Fleet, model: ModelVersion, part: Part) -> _Watched:
        """What is held for a fleet and a version, with its reference as soon as there is one."""
        key = part.lease.token, model.version
        held = self._watched.get(key)
        if held is None:
            held = _Watched(part.lease, model.version)
            with self._lock:
                self._watched[key] = held
        held.problem = held.problem if fleet.rate == OWN else OWN_RATE
        if held.reference is None and not held.problem:
            held.waited += len(part.rows) if part.ends_frame else 0
            if held.waited >= self._window:
                self._take_reference(held, model)
        return held

    def _take_reference(self, held: _Watched, model: ModelVersion) -> None:
        """Have one made, or begin to judge by it. The first version of a fleet says what its target CSI has to be
        like: a later one that is worse has a reference that is none the better.
        """
        key = model.name, model.version, model.sha256
        if (making := self._references.get(key)) is None:
            making = self._references[key] = self._maker.submit(self._made, model)
        if not making.done():
            return
        try:
            reference = making.result()
        except CsiError as error:
            held.problem = str(error)
            return
        usual = reference.usual.copy()
        usual[:, TARGET] = self._trusted.setdefault(held.lease.token, usual[:, TARGET])
        held.windows = Windows(usual, self._false_alarms, self._window)
        held.reference = reference

    def _made(self, model: ModelVersion) -> Reference:
        try:
            return Reference.of(model.layout, model.scheme.domain, self._calibrate(model.name, model.version))
        except CsiError:
            raise
        except Exception as error:
            logging.exception("monitoring: %s/%d has no reference", model.name, model.version)
            raise CsiError(f"its reference could not be made: {error}") from error

    @staticmethod
    def _by_target(
        held: _Watched, model: ModelVersion, estimates: NDArray[np.complex64], samples: Samples, target: Tensor | None
    ) -> NDArray[np.float64]:
        """||e||^2 / ||h||^2 of the estimates of UEs [n] by their target CSI, NaN without."""
        if target is None:
            return np.full(len(estimates), np.nan)
        coder = TargetCoder(model.scheme.domain, estimates.shape[1:])
        held.targets += len(estimates)
        held.target_bits = coder.layout.bits
        return coder.ratio(torch.from_numpy(estimates), target, samples)

    @staticmethod
    def _ended(held: _Watched, part: Part, values: NDArray[np.float64]) -> Frames | None:
        """Values [J, slots, n] of a part added to those of its UEs' frames: means of the frames that it ends."""
        slots, there = part.lease.conditions.scenario.slots, np.isfinite(values)
        sums, counts = np.where(there, values, 0).sum(axis=1), there.sum(axis=1)
        if part.slots < slots:
            if not held.slots.size:
                ues = part.lease.ue_count
                held.sums, held.there = np.zeros((len(NAMES), ues)), np.zeros((len(NAMES), ues), np.int64)
                held.slots = np.zeros(ues, np.int64)
            if part.first_slot == 0:
                held.sums[:, part.rows], held.there[:, part.rows], held.slots[part.rows] = 0, 0, 0
            held.sums[:, part.rows] += sums
            held.there[:, part.rows] += counts
            held.slots[part.rows] += part.slots
            if not part.ends_frame:
                return None
            columns = np.flatnonzero(held.slots[part.rows] == slots)  # others were begun before there was a reference
            sums, counts = held.sums[:, part.rows[columns]], held.there[:, part.rows[columns]]
        else:
            columns = np.arange(len(part.rows))
        with np.errstate(invalid="ignore"):
            return Frames(held.version, columns, sums / counts)


def _by_uplink(model: ModelVersion, part: Part, samples: Samples, estimates: Estimates) -> NDArray[np.float64]:
    """[slots, n], NaN where a report is not compared with the uplink."""
    found = np.full((part.slots, len(part.rows)), np.nan)
    chosen = np.flatnonzero(uplink_frames(samples))
    scenario = part.lease.conditions.scenario
    if scenario.has_uplink and part.ends_frame and len(chosen):
        last, frames = torch.from_numpy(estimates[-1][chosen]), samples.take(torch.from_numpy(chosen))
        found[-1, chosen] = uplink_agreement(model.scheme.domain, scenario, frames, last)
    return found


def uplink_frames(samples: Samples) -> NDArray[np.bool_]:
    """Which of N frames are compared with the uplink, [N]: others from UE to UE and from frame to frame."""
    found: NDArray[np.bool_] = ((samples.ue + samples.frame) % UPLINK_EVERY == 0).numpy()
    return found


def _described(held: _Watched) -> dict[str, Any]:
    if held.windows is not None and not held.problem:
        state = "watched"
    else:
        state = f"not watched: {held.problem}" if held.problem else "waits for its reference"
    lease, newest = held.lease, held.windows.newest if held.windows else {}
    return {
        "token": lease.token,
        "model": lease.model,
        "version": held.version,
        "first_ue": lease.first_ue,
        "ue_count": lease.ue_count,
        "state": state,
        "frames": held.windows.frames if held.windows else 0,
        "target_reports": held.targets,
        "target_bits": held.target_bits or None,
        "indicators": [
            {
                "indicator": name,
                "unit": found.indicator.unit,
                "value": found.value,
                "usual": found.usual,
                "limit": found.limit,
                "exceeds": found.exceeds,
            }
            for name, found in newest.items()
        ],
    }


def _give_way() -> None:
    """Have this thread get less of the machine than others (in Linux niceness is a thread's own)."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    torch.set_num_threads(1)
