"""Fleets of UEs: their leases, and where each UE stands in its open frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.channels.scenario import Scenario
from shared.link.payload import PayloadLayout
from shared.metrics import COLUMNS, MEASURED, Domain, Sums
from shared.schemes import State


@dataclass(frozen=True)
class Lease:
    """What a fleet attached with, and the ids that it got. Persisted.

    Attributes:
        token: secret name of the fleet.
        scheme: checkpoint name.
        scenario, seed: the fleet's world.
        encoder_id: 16 hexadecimal digits.
        first_ue, ue_count: leased ids.
        delay: slots between a report and the channel that its estimate is compared with.
    """

    token: str
    scheme: str
    scenario: Scenario
    seed: int
    encoder_id: str
    first_ue: int
    ue_count: int
    delay: int


@dataclass
class OpenFrames:
    """Each UE's frame in progress: what its next report needs. Row = UE of the fleet.

    Attributes:
        bits: [ue_count, T, bits] uint8, payload bits of the slots so far (kept to rebuild the states after a crash).
        side: [ue_count, T, S] side information of the frame, by decoder version (versions may want different input).
        state: recurrent states, name -> [ue_count, ...], by decoder version.
        outcome: [MEASURED, ue_count, T]: what was measured of the slots so far.
    """

    bits: NDArray[np.uint8]
    outcome: NDArray[np.float64]
    side: dict[int, Tensor] = field(default_factory=dict)
    state: dict[int, State] = field(default_factory=dict)


class Fleet:
    """A lease with the present state of its UEs; arrays have one row per UE.

    Attributes:
        next_sequence: [ue_count] int64, the sequence that the gNB waits for.
        version: [ue_count] int64, decoder version of the open (or last) frame; 0 before the first.
        sums: [ue_count, T + 1, COLUMNS] totals by slot; the last row sums frame means.
        wire_bytes: [ue_count] float64, share of the messages received.
        stream: number of the newest stream; older ones are fenced off.
        broken: memory and store may differ; the fleet is to be restored from the store at its next attach.
        status: `attached`, `gone` (its stream ended without a detach) or `finished`.
    """

    def __init__(self, lease: Lease, layout: PayloadLayout, domain: Domain) -> None:
        self.lease = lease
        self.token = lease.token
        self.scenario = lease.scenario
        self.seed = lease.seed
        self.delay = lease.delay
        self.first_ue = lease.first_ue
        self.ue_count = lease.ue_count
        self.layout = layout
        self.domain = domain
        count, slots = lease.ue_count, lease.scenario.slots
        self.next_sequence = np.zeros(count, np.int64)
        self.version = np.zeros(count, np.int64)
        self.sums: Sums = np.zeros((count, slots + 1, len(COLUMNS)))
        self.wire_bytes = np.zeros(count)
        measured = np.zeros((len(MEASURED), count, slots))
        self.open = OpenFrames(np.zeros((count, slots, layout.bits), np.uint8), measured)
        self.stream = 0
        self.broken = False
        self.status = "gone"

    @property
    def ues(self) -> range:
        """The fleet's UE ids."""
        return range(self.first_ue, self.first_ue + self.ue_count)

    def start_frames(self, rows: NDArray[np.int64], version: int, side: Tensor, state: State) -> None:
        """Begin a frame for `rows` on a decoder version: its side information [rows, T, S] and initial states."""
        index = torch.from_numpy(rows)
        if version not in self.open.side or self.open.side[version].shape[1:] != side.shape[1:]:
            self.open.side[version] = torch.zeros(self.ue_count, *side.shape[1:])
            self.open.state[version] = {k: torch.zeros(self.ue_count, *v.shape[1:]) for k, v in state.items()}
        self.open.side[version][index] = side
        for name, values in state.items():
            self.open.state[version][name][index] = values
        self.version[rows] = version
        for unused in set(self.open.side) - set(self.version.tolist()):
            del self.open.side[unused], self.open.state[unused]
