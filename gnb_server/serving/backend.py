"""What decodes: models, recurrent states and side information behind an interface of plain arrays.

A backend is told which reports of which UEs to decode, in the order of their slots, and gives estimates. It derives
what it needs of the world, its own uplink, by itself. Nothing else in the gNB holds a state of a decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnb_server.places import Places
from gnb_server.repository import ModelVersion
from gnb_server.sessions import Lease
from shared.channels.scenario import Scenario
from shared.channels.streams import Split
from shared.errors import NotReady
from shared.link.air import Air, erased
from shared.link.decoding import Fields, decode_received, initial_state, side_information
from shared.schemes import Scheme, State


@dataclass(frozen=True)
class Part:
    """Consecutive slots of one frame of some UEs of a fleet.

    Attributes:
        lease: of the fleet.
        rows: [n] int64, UE rows of the fleet.
        frame: number of the frame. first_slot: of the frame, 0-based; at 0 the frame begins.
        fields: payload fields, name -> [slots, n, count] int64.
        slots: how many.
        fates: [slots, n] uint8, what became of the reports on the air; erased ones are not decoded.
        measured_at: [slots], when the UEs measured the channel [s, monotonic]; empty where they do not say.
        offered_per_s: reports a second that each of them is to send; None: as they please.
        watched: whether the estimates are wanted. shown: whether these and the true channels are.
    """

    lease: Lease
    rows: NDArray[np.int64]
    frame: int
    first_slot: int
    slots: int
    fields: Fields
    fates: NDArray[np.uint8]
    measured_at: tuple[float, ...] = ()
    offered_per_s: float | None = None
    watched: bool = False
    shown: bool = False

    @property
    def air(self) -> Air:
        """Over which its reports came."""
        return self.lease.by_frame.at(self.frame).air

    @property
    def ends_frame(self) -> bool:
        """Whether the last of its slots is the frame's."""
        return self.first_slot + self.slots == self.lease.conditions.scenario.slots


Estimates = NDArray[np.complex64]
"""Of a part: [slots, n, M], or images [slots, n, Q, M]."""


class StateNotHeld(NotReady):
    """A part goes on with a frame whose state is not held."""


class DecodeBackend(Protocol):
    """Decoders at work."""

    def decode(self, model: ModelVersion, parts: list[Part]) -> list[Estimates]:
        """Decode parts of different UEs by one model version; nothing is changed if it raises.

        Raises:
            StateNotHeld: a part goes on with a frame whose state is not held.
        """
        ...

    def abandon(self, token: str, ues: NDArray[np.int64]) -> None:
        """Free what is held for the open frames of a fleet's UEs [n]: the rest of them is not decoded."""
        ...

    def forget(self, token: str) -> None:
        """Free what is held for a fleet."""
        ...


_Key = tuple[str, int, Air]
"""Token, version and air: open frames whose states have the same parts."""


@dataclass
class _Frames:
    """Open frames of a fleet's UEs that came over one air and that a model version is decoding, a row of the tables for
    each: side information [rows, T, S] and recurrent states, name -> [rows, ...].
    """

    model: ModelVersion
    scenario: Scenario
    air: Air
    places: Places
    side: Tensor
    state: State

    def open(self, ues: NDArray[np.int64], frame: int, side: Tensor) -> None:
        """Begin a frame of UEs [n] with side information [n, T, S]."""
        self.places.open(ues, frame)
        if (missing := self.places.room - len(self.side)) > 0:
            more = initial_state(self.model.scheme, self.scenario, self.air, missing)
            self.state = {name: torch.cat([values, more[name]]) for name, values in self.state.items()}
            self.side = torch.cat([self.side, self.side.new_zeros(missing, *self.side.shape[1:])])
        self.side[torch.from_numpy(self.places.of(ues))] = side


@dataclass(frozen=True)
class _Begun:
    """A part with what its decoding starts from.

    Attributes:
        side: [n, slots, S] of its slots. state: before the first.
        held: where the state goes; None for whole frames, of which nothing is held.
    """

    part: Part
    side: Tensor
    state: State
    held: _Frames | None


class InProcessBackend:
    """Decoders of this process, one call for all parts of a slot and an air. What is held is of open frames alone.

    Args:
        keep: side information stays when a frame ends, for the next one of the same number (benchmarks).
    """

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self._frames: dict[_Key, _Frames] = {}

    @torch.inference_mode()
    def decode(self, model: ModelVersion, parts: list[Part]) -> list[Estimates]:
        order = sorted(range(len(parts)), key=lambda index: -parts[index].slots)
        begun = {index: self._begin(model, parts[index]) for index in order}  # what is left of a slot is a prefix
        done: dict[int, tuple[Estimates, State]] = {}
        for air in {part.air for part in parts}:
            alike = {index: each for index, each in begun.items() if each.part.air == air}
            done |= dict(zip(alike, _decoded(model.scheme, air, list(alike.values())), strict=True))
        for index, each in begun.items():
            self._end(each, done[index][1])
        return [done[index][0] for index in range(len(parts))]

    def abandon(self, token: str, ues: NDArray[np.int64]) -> None:
        for key in [key for key in self._frames if key[0] == token]:
            self._close(key, ues)

    def forget(self, token: str) -> None:
        for key in [key for key in self._frames if key[0] == token]:
            del self._frames[key]

    def _begin(self, model: ModelVersion, part: Part) -> _Begun:
        """What a part starts from; frames that begin in it are opened, unless they end in it too."""
        key = part.lease.token, model.version, part.air
        held = self._frames.get(key)
        if held is not None and held.model is not model:  # loaded again, with other weights
            held = None
        new = part.rows if held is None else part.rows[held.places.frame[part.rows] != part.frame]
        if len(new) and part.first_slot > 0:
            ue = part.lease.first_ue + int(new[0])
            raise StateNotHeld(f"frame {part.frame} of UE {ue}: its state is not held")
        if part.first_slot == 0 and part.ends_frame and not self._keep:
            return _Begun(part, self._side(model, part, part.rows), _initial(model, part, len(part.rows)), None)
        if held is None or len(new):
            side = self._side(model, part, new)
            if held is None:
                state = _initial(model, part, 0)
                scenario, places = part.lease.conditions.scenario, Places(part.lease.ue_count)
                held = _Frames(model, scenario, part.air, places, side[:0], state)
                self._frames[key] = held
            held.open(new, part.frame, side)
            for other in list(self._frames):
                if other[0] == part.lease.token and other != key:  # these UEs are on this version and air now
                    self._close(other, new)
        at = torch.from_numpy(held.places.of(part.rows))
        begins = part.first_slot == 0
        state = _initial(model, part, len(at)) if begins else {name: v[at] for name, v in held.state.items()}
        return _Begun(part, held.side[at, part.first_slot : part.first_slot + part.slots], state, held)

    def _end(self, begun: _Begun, state: State) -> None:
        """Hold the states after a part, if its frames go on."""
        part, held = begun.part, begun.held
        if held is None:
            return
        if part.ends_frame and not self._keep:
            self._close((part.lease.token, held.model.version, held.air), part.rows)
        else:
            at = torch.from_numpy(held.places.of(part.rows))
            for name, values in state.items():
                held.state[name][at] = values

    def _close(self, key: _Key, ues: NDArray[np.int64]) -> None:
        places = self._frames[key].places
        places.close(ues)
        if not places:
            del self._frames[key]

    @staticmethod
    def _side(model: ModelVersion, part: Part, rows: NDArray[np.int64]) -> Tensor:
        """Side information [n, T, S] of the frames of UEs."""
        conditions = part.lease.conditions
        samples = conditions.samples(Split.EMULATE, torch.from_numpy(rows + part.lease.first_ue), part.frame)
        return side_information(model.scheme, conditions.scenario, samples)


def _initial(model: ModelVersion, part: Part, ues: int) -> State:
    return initial_state(model.scheme, part.lease.conditions.scenario, part.air, ues)


def _decoded(scheme: Scheme, air: Air, begun: list[_Begun]) -> list[tuple[Estimates, State]]:
    """Estimates of parts, the longest first, by one call for all of a slot, and the states after them."""
    state = {name: torch.cat([each.state[name] for each in begun]) for name in begun[0].state}
    ends = np.cumsum([len(each.part.rows) for each in begun]).tolist()
    estimates: list[Tensor] = []
    for k in range(begun[0].part.slots):
        active = [each for each in begun if each.part.slots > k]
        names = begun[0].part.fields
        fields = {name: np.concatenate([each.part.fields[name][k] for each in active]) for name in names}
        side = torch.cat([each.side[:, k] for each in active])
        missing = np.concatenate([erased(each.part.fates[k]) for each in active])
        last = ends[len(active) - 1]
        before = {name: values[:last] for name, values in state.items()}
        found, after = decode_received(scheme, air, fields, missing, side, before)
        for name, values in after.items():
            state[name][:last] = values
        estimates.append(found)
    results = []
    for each, end in zip(begun, ends, strict=True):
        mine = slice(end - len(each.part.rows), end)
        found_of_it = torch.stack([found[mine] for found in estimates[: each.part.slots]]).numpy()
        results.append((found_of_it, {name: values[mine] for name, values in state.items()}))
    return results
