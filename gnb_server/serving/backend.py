"""What decodes: models, recurrent states and side information behind an interface of plain arrays.

A backend is told which reports of which UEs to decode, in the order of their slots, and gives estimates. It derives
what it needs of the world, its own uplink, by itself. Nothing else in the gNB holds a state of a decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnb_server.repository import ModelVersion
from gnb_server.sessions import Lease
from shared.channels.streams import Split
from shared.link.decoding import Fields, decode_slot, side_information
from shared.schemes import State


@dataclass(frozen=True)
class Part:
    """Consecutive slots of one frame of some UEs of a fleet.

    Attributes:
        lease: of the fleet.
        rows: [n] int64, UE rows of the fleet.
        frame: number of the frame. first_slot: of the frame, 0-based; at 0 the frame begins.
        fields: payload fields, name -> [slots, n, count] int64.
        slots: how many.
    """

    lease: Lease
    rows: NDArray[np.int64]
    frame: int
    first_slot: int
    slots: int
    fields: Fields


Estimates = NDArray[np.complex64]
"""Of a part: [slots, n, M], or images [slots, n, Q, M]."""


class DecodeBackend(Protocol):
    """Decoders at work."""

    def decode(self, model: str, version: int, parts: list[Part]) -> list[Estimates]:
        """Decode parts of different UEs by one model version; nothing is changed if it raises.

        Raises:
            LookupError: a part goes on with a frame whose state is not held.
        """
        ...

    def forget(self, token: str) -> None:
        """Free what is held for a fleet."""
        ...


@dataclass
class _Frames:
    """Frames of a fleet's UEs that a model version is decoding: number of each UE's frame (-1: none), side information
    [ue_count, T, S] and recurrent states, name -> [ue_count, ...].
    """

    model: ModelVersion
    number: NDArray[np.int64]
    side: Tensor
    state: State


class InProcessBackend:
    """Decoders of this process, one call for all parts of a slot. `models` finds a version by name and number."""

    def __init__(self, models: Callable[[str, int], ModelVersion]) -> None:
        self._models = models
        self._frames: dict[tuple[str, int], _Frames] = {}

    @torch.inference_mode()
    def decode(self, model: str, version: int, parts: list[Part]) -> list[Estimates]:
        chosen = self._models(model, version)
        order = sorted(range(len(parts)), key=lambda index: -parts[index].slots)
        ordered = [parts[index] for index in order]  # those with most slots first: what is left of a slot is a prefix
        frames = [self._frames_of(chosen, part) for part in ordered]
        states = [_initial_or_held(chosen, part, held) for part, held in zip(ordered, frames, strict=True)]
        state = {name: torch.cat([of_part[name] for of_part in states]) for name in states[0]}
        ends = np.cumsum([len(part.rows) for part in ordered]).tolist()
        estimates: list[Tensor] = []
        for k in range(ordered[0].slots):
            active = [(part, held) for part, held in zip(ordered, frames, strict=True) if part.slots > k]
            fields = {
                name: np.concatenate([part.fields[name][k] for part, _ in active]) for name in active[0][0].fields
            }
            side = torch.cat([held.side[torch.from_numpy(part.rows), part.first_slot + k] for part, held in active])
            last = ends[len(active) - 1]
            found, after = decode_slot(chosen.scheme, fields, side, {name: v[:last] for name, v in state.items()})
            for name, values in after.items():
                state[name][:last] = values
            estimates.append(found)
        results: list[Estimates] = [np.empty(0, np.complex64)] * len(parts)
        for index, part, held, end in zip(order, ordered, frames, ends, strict=True):
            mine, rows = slice(end - len(part.rows), end), torch.from_numpy(part.rows)
            for name, values in state.items():
                held.state[name][rows] = values[mine]
            results[index] = torch.stack([found[mine] for found in estimates[: part.slots]]).numpy()
        return results

    def forget(self, token: str) -> None:
        for key in [key for key in self._frames if key[0] == token]:
            del self._frames[key]

    def _frames_of(self, model: ModelVersion, part: Part) -> _Frames:
        """The frames that a part belongs to, with the side information of those that begin in it."""
        token, conditions = part.lease.token, part.lease.conditions
        held = self._frames.get((token, model.version))
        if held is not None and held.model is not model:  # loaded again, with other weights
            held = None
        new = part.rows if held is None else part.rows[held.number[part.rows] != part.frame]
        if len(new) and part.first_slot > 0:
            raise LookupError(f"frame {part.frame} of UE {part.lease.first_ue + int(new[0])}: its state is not held")
        if held is not None and not len(new):
            return held
        samples = conditions.samples(Split.EMULATE, torch.from_numpy(new + part.lease.first_ue), part.frame)
        side = side_information(model.scheme, conditions.scenario, samples)
        if held is None:
            count, initial = part.lease.ue_count, model.scheme.decoder.initial_state(part.lease.ue_count)
            held = _Frames(model, np.full(count, -1, np.int64), side.new_zeros(count, *side.shape[1:]), initial)
            self._frames[token, model.version] = held
        held.side[torch.from_numpy(new)] = side
        held.number[new] = part.frame
        for key, other in list(self._frames.items()):
            if key[0] == token and other is not held:  # these UEs are on another version now
                other.number[new] = -1
                if (other.number < 0).all():
                    del self._frames[key]
        return held


def _initial_or_held(model: ModelVersion, part: Part, held: _Frames) -> State:
    """Recurrent states before a part's first slot."""
    if part.first_slot == 0:
        return model.scheme.decoder.initial_state(len(part.rows))
    return {name: values[torch.from_numpy(part.rows)] for name, values in held.state.items()}
