"""Chunks of reports as they come, as they are worked on, and as they are acknowledged."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gnb_server.repository import ModelVersion
from gnb_server.sessions import Fleet
from shared.link.decoding import Fields


@dataclass(frozen=True)
class Chunk:
    """A chunk as it came: coordinates and target CSI as in `FeedbackRequest`, and its size on the wire [bytes].

    Attributes:
        waited_s: by slot, since its channel was measured until it was sent [s]; empty if the UE does not say.
        ack_wait_s: how long the UE has waited for acks since the chunk before [s]; None if it does not say.
    """

    encoder_id: str
    first_ue: int
    ue_count: int
    first_slot: int
    slot_count: int
    payload: bytes
    wire_bytes: int
    waited_s: tuple[float, ...] = ()
    ack_wait_s: float | None = None
    target: bytes = b""

    @property
    def reports(self) -> int:
        """Reports in it."""
        return self.ue_count * self.slot_count

    @property
    def ues(self) -> range:
        """UE ids in it."""
        return range(self.first_ue, self.first_ue + self.ue_count)


@dataclass(frozen=True)
class Ack:
    """A stored chunk.

    Attributes:
        versions: [U] int64, that decoded each UE's reports; 0: they were dropped.
        nmse: [slots, U] float64; NaN where a repeat's result is not kept, or the report was dropped.
        dropped: reports of it that were.
    """

    chunk: Chunk
    versions: NDArray[np.int64]
    nmse: NDArray[np.float64]
    dropped: int = 0


@dataclass(frozen=True)
class Group:
    """UEs of a chunk whose new reports begin at the same slot and are decoded by one version.

    Attributes:
        model: the version.
        columns: [n] int64, of the chunk's UEs.
        skipped: slots at the chunk's beginning that were stored before.
    """

    model: ModelVersion
    columns: NDArray[np.int64]
    skipped: int


@dataclass(frozen=True)
class Dropped:
    """UEs of a chunk whose new reports begin at the same slot and are not decoded; fields as in `Group`."""

    columns: NDArray[np.int64]
    skipped: int


@dataclass(frozen=True)
class Admitted:
    """What admission found out about a chunk.

    Attributes:
        bits: [slots, U, bits] uint8, zeros and ones, as sent. lengths: [slots, U] int64, feedback bits: how many of
            them were, and those of a CRC.
        fields: name -> [slots, U, count] int64, as they came over the air. fates: [slots, U] uint8, what became of
            them there (`shared.link.air.Fate`).
        rows: [U] int64, UE rows of the fleet.
        groups: what is to be decoded. dropped: what is not. UEs that have sent nothing new are in neither.
        model: the version that decodes new frames of the chunk's encoder.
        target: [U, entries], target CSI of the chunk's UEs in the frame's last slot, if they have sent it.
    """

    bits: NDArray[np.uint8]
    lengths: NDArray[np.int64]
    fields: Fields
    fates: NDArray[np.uint8]
    rows: NDArray[np.int64]
    groups: list[Group]
    dropped: list[Dropped]
    model: ModelVersion
    target: Tensor | None = None


@dataclass(eq=False)
class Job:
    """A chunk of a fleet on its way to its ack, from its stream of a number; it came at `received` [s since 1970] and
    `arrived` [s, monotonic].
    """

    fleet: Fleet
    stream: int
    chunk: Chunk
    future: Future[Ack]
    received: float = field(default_factory=time.time)
    arrived: float = field(default_factory=time.monotonic)

    @property
    def frame(self) -> int:
        """Number of the frame that the chunk is of."""
        return self.chunk.first_slot // self.fleet.slots

    @property
    def slots(self) -> range:
        """Slots of the frame, 0-based."""
        first = self.chunk.first_slot % self.fleet.slots
        return range(first, first + self.chunk.slot_count)

    def ages_s(self, latency_ms: float) -> list[float]:
        """By slot, from its measurement to when its estimate was ready, so long after the chunk's arrival [s]; empty if
        the UE does not say how long it has waited.
        """
        return [waited_s + latency_ms / 1e3 for waited_s in self.chunk.waited_s]

    def overlaps(self, other: Job) -> bool:
        """Whether both have reports of one UE."""
        mine, theirs = self.chunk.ues, other.chunk.ues
        return self.fleet is other.fleet and mine.start < theirs.stop and theirs.start < mine.stop
