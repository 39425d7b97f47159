"""The encoders of a fleet's UEs: fetched from the gNB, checked, and used from a frame's beginning on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from protos.csi_feedback.v1 import csi_feedback_pb2_grpc as pb_grpc
from shared.checkpoints import Checkpoint, assemble
from shared.conditions import RunConditions
from shared.errors import DamagedCheckpoint, InvalidInput
from shared.link.encoding import check_encoder

MOST_BYTES = 64 * 2**20
"""Of an encoder's file: more is not taken."""

FETCH_S = 120.0
"""Deadline of a fetch."""


@dataclass(frozen=True)
class Run:
    """Rows first .. first + count - 1 of a fleet, and the encoder of these UEs."""

    first: int
    count: int
    encoder_id: str

    @classmethod
    def of(cls, assigned: Iterable[pb.EncoderAssignment], first_ue: int) -> list[Run]:
        """Runs of a message about a fleet whose first UE has this id."""
        return [cls(part.first_ue - first_ue, part.ue_count, part.encoder_id.hex()) for part in assigned]


class Encoders:
    """Which encoder each of a fleet's UEs uses for which frame, and the encoders themselves."""

    def __init__(self, own: Checkpoint, ues: int) -> None:
        self._held = {own.encoder_id: own}
        self._assigned = np.full(ues, own.encoder_id)
        self._open = np.full(ues, "", self._assigned.dtype)  # of the frame that another process had begun
        self._open_frame = np.full(ues, -1)

    @property
    def base(self) -> Checkpoint:
        """The encoder of the fleet's last UE: of most, when some try another one."""
        return self._held[str(self._assigned[-1])]

    def lacks(self, runs: list[Run]) -> list[str]:
        """Ids of encoders that are not held yet."""
        return [
            encoder_id for encoder_id in dict.fromkeys(run.encoder_id for run in runs) if encoder_id not in self._held
        ]

    def hold(self, checkpoint: Checkpoint) -> None:
        """Keep an encoder that was fetched."""
        self._held[checkpoint.encoder_id] = checkpoint

    def assign(self, runs: list[Run]) -> None:
        """Use these encoders, which are held, for frames that are not planned yet."""
        for run in runs:
            self._assigned[run.first : run.first + run.count] = run.encoder_id
        used = {*self._assigned.tolist(), *self._open.tolist()}
        self._held = {encoder_id: held for encoder_id, held in self._held.items() if encoder_id in used}

    def resume(self, runs: list[Run], frames: list[int]) -> None:
        """Finish the frames, [UEs], that another process began with these encoders, which are held."""
        for run in runs:
            rows = slice(run.first, run.first + run.count)
            self._open[rows], self._open_frame[rows] = run.encoder_id, frames[rows]

    def plan(self, frame: int) -> Iterator[tuple[int, int, Checkpoint]]:
        """(first row, UEs, encoder) of each run of UEs that encode a frame alike."""
        chosen = np.where(self._open_frame == frame, self._open, self._assigned)
        edges = [0, *(np.flatnonzero(chosen[1:] != chosen[:-1]) + 1).tolist(), len(chosen)]
        for first, stop in pairwise(edges):
            yield first, stop - first, self._held[str(chosen[first])]


async def fetch(stub: pb_grpc.CsiFeedbackStub, token: str, encoder_id: str) -> tuple[str, bytes]:
    """Card and file of an encoder, as the gNB sends them. Raises InvalidInput for more than MOST_BYTES."""
    card, size, data = "", 0, bytearray()
    request = pb.FetchEncoderRequest(token=token, encoder_id=bytes.fromhex(encoder_id))
    async for response in stub.FetchEncoder(request, timeout=FETCH_S):
        if response.HasField("header"):
            card, size = response.header.card, response.header.size
        data += response.data
        if max(size, len(data)) > MOST_BYTES:
            raise InvalidInput(f"encoder: {max(size, len(data))} bytes; at most {MOST_BYTES} are taken")
    if len(data) != size:
        raise DamagedCheckpoint(f"encoder: {len(data)} bytes came of {size}")
    return card, bytes(data)


def checked(name: str, encoder_id: str, card: str, data: bytes, conditions: RunConditions) -> Checkpoint:
    """The encoder of a card and a file.

    Raises:
        DamagedCheckpoint: they do not fit, it is another encoder, or it does not give the bits of the card's probe.
        InvalidInput: it cannot run in these conditions.
    """
    try:
        content: dict[str, Any] = dict(json.loads(card))
        found, version = str(content["encoder_id"]), int(content["version"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedCheckpoint(f"encoder: its card cannot be read: {error}") from None
    if found != encoder_id:
        raise DamagedCheckpoint(f"encoder: the gNB sent encoder {found}; wanted {encoder_id}")
    checkpoint = assemble(name, version, content, {"encoder": data})
    check_encoder(checkpoint.scheme, content.get("probe", {}))
    checkpoint.scheme.check_scenario(conditions.scenario, conditions.delay_slots)
    return checkpoint
