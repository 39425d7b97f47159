"""Fleets of UEs: their leases, where each UE stands, and what its reports summed up to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gnb_server.totals import Totals
from shared.conditions import AirChange, ChangingConditions, RunConditions
from shared.link.rate import OWN, Rate
from shared.metrics import MEASURED, Domain
from shared.rate_watch import RateWatch


@dataclass(frozen=True)
class Lease:
    """What a fleet attached for, and the ids that it got. Persisted.

    Attributes:
        token: secret name of the fleet.
        model: checkpoint name; which version decodes a frame, its encoder id says.
        conditions: the fleet's world, feedback delay, and air as it attached.
        first_ue, ue_count: leased ids.
        air_changes: since then, as in `ChangingConditions`.
    """

    token: str
    model: str
    conditions: RunConditions
    first_ue: int
    ue_count: int
    air_changes: tuple[AirChange, ...] = ()

    @property
    def ues(self) -> range:
        """The fleet's UE ids."""
        return range(self.first_ue, self.first_ue + self.ue_count)

    @cached_property
    def by_frame(self) -> ChangingConditions:
        """The conditions of each frame."""
        return ChangingConditions(self.conditions, self.air_changes)


@dataclass(frozen=True)
class VersionFacts:
    """What the figures of a model version's reports have to be named with. Persisted.

    Attributes:
        encoder_id: of the encoder that it decodes for, 16 hexadecimal digits.
        feedback_bits: of a report, at most.
        domain: of an estimate.
    """

    encoder_id: str
    feedback_bits: int
    domain: Domain


@dataclass(frozen=True)
class Absent:
    """A fleet that has detached, or has been gone for long: its lease, as `Fleet` has it, and nothing else in memory.

    Attributes:
        status: `finished` or `gone`.
    """

    lease: Lease
    encoder_id: str
    status: Literal["finished", "gone"]
    client: str = ""


@dataclass(frozen=True)
class Assignment:
    """UEs first .. first + count - 1 (rows of a fleet), and the model version that they are to use."""

    first: int
    count: int
    version: int


@dataclass
class Asked:
    """How many bits UEs of a fleet are asked for, and what is known of their distortion where a target is to be held.

    Attributes:
        bits, step: [ue_count] int64, as in `shared.link.rate.Rates`.
        level: [ue_count] float64, what their NMSE would be at step 0, by their newest reports. seen: [ue_count] int64,
            all reports so far.
        told: whether the UEs have been told what stands here.
    """

    bits: NDArray[np.int64]
    step: NDArray[np.int64]
    level: NDArray[np.float64]
    seen: NDArray[np.int64]
    told: bool = True

    def runs(self) -> list[tuple[int, int, int, int]]:
        """(first row, UEs, bits, step) of each run of UEs that are asked for the same."""
        edges = np.flatnonzero((np.diff(self.bits) != 0) | (np.diff(self.step) != 0)) + 1
        bounds = pairwise([0, *edges.tolist(), len(self.bits)])
        return [(first, stop - first, int(self.bits[first]), int(self.step[first])) for first, stop in bounds]


@dataclass
class OpenFrames:
    """Each UE's frame in progress, row = UE of the fleet: ahead of the store by the batch in hand.

    Attributes:
        next_sequence: [ue_count] int64, the sequence to be decoded next.
        version: [ue_count] int64, that decodes the open (or last) frame; 0 before the first, and for one of which a
            report was dropped: its decoder's state lacks it, so that the rest is dropped, too.
        dropped: [ue_count] int64, reports that were.
        outcome: [MEASURED, ue_count, T], what was measured of the slots so far.
        reports: bits of the slots so far, packed for each report, [ue_count, T, bytes] uint8 by version (kept to bring
            recurrent states back after a crash).
    """

    next_sequence: NDArray[np.int64]
    version: NDArray[np.int64]
    dropped: NDArray[np.int64]
    outcome: NDArray[np.float64]
    reports: dict[int, NDArray[np.uint8]] = field(default_factory=dict)

    def keep(self, version: int, rows: NDArray[np.int64], sequence: int, bits: NDArray[np.uint8]) -> None:
        """Note reports [slots, rows, bits] of a frame that a version has decoded, from `sequence` on."""
        packed, first = np.packbits(bits, axis=-1), sequence % self.outcome.shape[2]
        held = self.room_for(version, packed.shape[2])
        held[rows, first : first + len(bits)] = packed.swapaxes(0, 1)
        self.version[rows] = version
        self.next_sequence[rows] = sequence + len(bits)
        if len(self.reports) > 1:
            for unused in self.reports.keys() - set(self.version.tolist()):
                del self.reports[unused]

    def drop(self, rows: NDArray[np.int64], sequence: int, slots: int) -> None:
        """Note that reports of UEs [n] in so many slots from `sequence` on, of one frame, are not decoded."""
        self.version[rows] = 0
        self.next_sequence[rows] = sequence + slots
        self.dropped[rows] += slots

    def room_for(self, version: int, report_bytes: int) -> NDArray[np.uint8]:
        """The array of a version's packed reports, of `report_bytes` each."""
        if version not in self.reports:
            shape = (len(self.version), self.outcome.shape[2], report_bytes)
            self.reports[version] = np.zeros(shape, np.uint8)
        return self.reports[version]


class Fleet:
    """A lease with the present state of its UEs; arrays have one row per UE and hold what is stored.

    Attributes:
        encoder_id: of the encoder that it attached with last, or has switched to since.
        client: who attached with it last; empty if that was an earlier process's.
        next_sequence: [ue_count] int64, the sequence that the gNB waits for.
        version: [ue_count] int64, model version of the open (or last) frame; 0 before the first, and for one of which a
            report was dropped.
        dropped: [ue_count] int64, reports that came too late and were not decoded.
        totals: by model version and the frame from which on the air was in force first
            (`ChangingConditions.air_from`). facts: of these versions, and of the encoder's.
        open: frames in progress; None once the fleet has detached.
        assigned: [ue_count] int64, version that each UE's frames are to begin on; 0: whichever decodes for its encoder.
        can_switch: whether its UEs fetch another encoder when they are told to; None until the fleet has attached.
        told: encoder id of each run of UEs, (first row, UEs, id), as they have it or were told last.
        problem: why its UEs do not use what they are assigned; empty if they do, None until they have answered.
        on_assigned: called in any thread when there is something new to tell; None without a stream.
        rate: that its reports are to have. asked: what that comes to; None where it is the scheme's own.
        on_rates: called in any thread when UEs are asked for something else; None without a stream.
        offered_per_s: reports a second that each of its UEs is to send; None: as many as are acknowledged, or unknown.
        watch: whether they are served, while it has a stream; None where nothing is known of what is asked for.
        stream: number of the newest stream; older ones are fenced off.
        broken: memory and store may differ; the fleet is to be restored from the store at its next attach.
        status: `attached`, `idle` (attached, and silent for so long that nothing is held for its open frames), `gone`
            (its stream ended without a detach) or `finished`.
        seen: when something was heard of it last, by the gNB's clock [s].
    """

    def __init__(self, lease: Lease, encoder_id: str, rate: Rate = OWN) -> None:
        self.lease = lease
        self.encoder_id = encoder_id
        self.client = ""
        self.slots = lease.conditions.scenario.slots
        self.next_sequence = np.zeros(lease.ue_count, np.int64)
        self.version = np.zeros(lease.ue_count, np.int64)
        self.dropped = np.zeros(lease.ue_count, np.int64)
        self.totals: dict[tuple[int, int], Totals] = {}
        self.facts: dict[int, VersionFacts] = {}
        self.open: OpenFrames | None = OpenFrames(
            self.next_sequence.copy(),
            self.version.copy(),
            self.dropped.copy(),
            np.zeros((len(MEASURED), lease.ue_count, self.slots)),
        )
        self.assigned = np.zeros(lease.ue_count, np.int64)
        self.can_switch: bool | None = None
        self.told: list[tuple[int, int, str]] = [(0, lease.ue_count, encoder_id)]
        self.problem: str | None = ""
        self.on_assigned: Callable[[], None] | None = None
        self.rate = rate
        self.asked: Asked | None = None
        self.on_rates: Callable[[], None] | None = None
        self.offered_per_s: float | None = None
        self.watch: RateWatch | None = None
        self.stream = 0
        self.broken = False
        self.status: Literal["attached", "idle", "gone", "finished"] = "gone"
        self.seen = 0.0

    @property
    def attached(self) -> bool:
        """Whether it has a stream."""
        return self.status in ("attached", "idle")

    def totals_of(self, version: int, air_from: int = 0) -> Totals:
        """Sums of a version's reports over an air, zeros at first."""
        key = version, air_from
        if key not in self.totals:
            self.totals[key] = Totals(self.lease.ue_count, self.slots)
        return self.totals[key]

    def air_from(self) -> NDArray[np.int64]:
        """Of each UE's open or last frame, [ue_count], as in `totals`; of its first one before that."""
        return self.lease.by_frame.air_from(np.maximum(self.next_sequence - 1, 0) // self.slots)

    def conditions_of(self, row: int) -> RunConditions:
        """Of a UE's open or last frame."""
        return self.lease.by_frame.at(max(int(self.next_sequence[row]) - 1, 0) // self.slots)

    def encoder_of(self, row: int) -> str:
        """Id of the encoder of a UE's open or last frame, or the one that the fleet attached with."""
        version = int(self.version[row])
        return self.facts[version].encoder_id if version in self.facts else self.encoder_id

    def facts_of(self, encoder_id: str) -> VersionFacts:
        """Facts that all versions for an encoder have in common."""
        return next(facts for facts in list(self.facts.values()) if facts.encoder_id == encoder_id)

    def totals_for(self, encoder_id: str, conditions: RunConditions) -> dict[int, Totals]:
        """Sums of the reports by an encoder in some conditions, by version."""
        return {
            version: totals
            for (version, air_from), totals in list(self.totals.items())
            if self.facts[version].encoder_id == encoder_id and self.lease.by_frame.at(air_from) == conditions
        }

    def assignments(self) -> list[Assignment]:
        """`assigned` as runs of UEs; those of none are left out."""
        return runs_of(self.assigned)

    def open_frames(self) -> list[Assignment]:
        """UEs whose frame is begun, as runs, with the version that decodes it."""
        begun = np.where(self.next_sequence % self.slots > 0, self.version, 0)
        return runs_of(begun)


def runs_of(versions: NDArray[np.int64]) -> list[Assignment]:
    """Versions of a fleet's UEs [ue_count] as runs of equal ones; those of version 0 are left out."""
    edges = [0, *(np.flatnonzero(np.diff(versions)) + 1).tolist(), len(versions)]
    runs = [Assignment(first, stop - first, int(versions[first])) for first, stop in pairwise(edges)]
    return [run for run in runs if run.version]
