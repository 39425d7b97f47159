"""Which encoder each UE uses for which frame, and what is taken from a gNB as an encoder."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from shared.channels.scenario import Scenario
from shared.checkpoints import Checkpoint, CheckpointStore
from shared.conditions import RunConditions
from shared.errors import CsiError, DamagedCheckpoint, InvalidInput
from shared.schemes import Scheme
from ue_client.encoders import MOST_BYTES, Encoders, Run, checked, fetch

OWN, *OTHERS = IDS = [letter * 16 for letter in "abcd"]


def checkpoint(encoder_id: str) -> Checkpoint:
    """One of whose encoder nothing but the id is asked."""
    return Checkpoint("rnn", 1, cast(Scheme, None), {"encoder_id": encoder_id})


def runs_of(ues: int) -> st.SearchStrategy[list[Run]]:
    """Runs of a fleet's UEs as a gNB tells them: in order, none twice; some UEs may be left out."""

    def cut(edges: list[int], ids: list[str]) -> list[Run]:
        bounds = sorted({0, *edges, ues})
        runs = [Run(a, b - a, ids[i % len(ids)]) for i, (a, b) in enumerate(pairwise(bounds))]
        return [run for run in runs if run.encoder_id]

    return st.builds(cut, st.lists(st.integers(1, ues)), st.lists(st.sampled_from([*IDS, ""]), min_size=1))


@st.composite
def fleets(draw: st.DrawFn) -> tuple[int, list[Run], list[int], list[list[Run]]]:
    """UEs, those whose frame is open, the frames of all, and what is told one after the other."""
    ues = draw(st.integers(1, 12))
    frames = draw(st.lists(st.integers(0, 3), min_size=ues, max_size=ues))
    return ues, draw(runs_of(ues)), frames, draw(st.lists(runs_of(ues), max_size=4))


@given(fleets())
def test_plans_cover_all_rows_in_order_and_open_frames_keep_their_encoders(
    fleet: tuple[int, list[Run], list[int], list[list[Run]]],
) -> None:
    """Each told run counts from the next plan on; neighbours that encode alike are one run."""
    ues, opened, frames, told = fleet
    encoders, assigned, begun = Encoders(checkpoint(OWN), ues), np.full(ues, OWN), np.full(ues, "", "<U16")
    for encoder_id in encoders.lacks(opened):
        encoders.hold(checkpoint(encoder_id))
    encoders.resume(opened, frames)
    for run in opened:
        begun[run.first : run.first + run.count] = run.encoder_id
    for runs in [[], *told]:
        for encoder_id in encoders.lacks(runs):
            encoders.hold(checkpoint(encoder_id))
        encoders.assign(runs)
        for run in runs:
            assigned[run.first : run.first + run.count] = run.encoder_id
        for frame in range(5):
            planned = list(encoders.plan(frame))
            chosen = [encoder.encoder_id for _, count, encoder in planned for _ in range(count)]
            assert [first for first, *_ in planned] == np.cumsum([0, *(count for _, count, _ in planned)])[:-1].tolist()
            is_open = (np.array(frames) == frame) & (begun != "")
            assert chosen == np.where(is_open, begun, assigned).tolist()
            assert all(a[2] is not b[2] for a, b in pairwise(planned))
        assert encoders.base.encoder_id == assigned[-1]
        assert encoders.lacks([Run(0, 1, each) for each in IDS]) == [
            each for each in IDS if each not in {*assigned.tolist(), *begun.tolist()}
        ]


# --- what is fetched ---


class Stub:
    """A gNB that answers a fetch with these messages."""

    def __init__(self, *messages: pb.FetchEncoderResponse) -> None:
        self.messages, self.taken = messages, 0

    async def FetchEncoder(self, request: pb.FetchEncoderRequest, timeout: float) -> AsyncIterator[Any]:
        for message in self.messages:
            self.taken += 1
            yield message


def header(size: int) -> pb.FetchEncoderResponse:
    return pb.FetchEncoderResponse(header=pb.EncoderHeader(card="{}", size=size))


def piece(data: bytes) -> pb.FetchEncoderResponse:
    return pb.FetchEncoderResponse(data=data)


def fetched(stub: Stub) -> tuple[str, bytes]:
    return asyncio.run(fetch(cast(Any, stub), "t", OWN))


def test_a_file_comes_in_pieces() -> None:
    assert fetched(Stub(header(5), piece(b"abc"), piece(b"de"))) == ("{}", b"abcde")


@pytest.mark.parametrize(
    ("messages", "error", "says", "taken"),
    [
        ([header(MOST_BYTES + 1), piece(b"")], InvalidInput, f"encoder: {MOST_BYTES + 1} bytes; at most", 1),
        ([header(2**64 - 1), piece(b"")], InvalidInput, f"encoder: {2**64 - 1} bytes; at most", 1),
        ([header(3), *[piece(bytes(2**20))] * 70], InvalidInput, f"encoder: {MOST_BYTES + 2**20} bytes; at most", 66),
        ([header(5), piece(b"abc")], DamagedCheckpoint, "encoder: 3 bytes came of 5", 2),
        ([header(1), piece(b"abc")], DamagedCheckpoint, "encoder: 3 bytes came of 1", 2),
        ([piece(b"abc")], DamagedCheckpoint, "encoder: 3 bytes came of 0", 1),
    ],
)
def test_what_is_too_large_or_not_whole_is_refused(
    messages: list[pb.FetchEncoderResponse], error: type[CsiError], says: str, taken: int
) -> None:
    """No more of it than has to be is taken."""
    stub = Stub(*messages)
    with pytest.raises(error, match=says):
        fetched(stub)
    assert stub.taken == taken


def test_an_encoder_that_fits_is_taken(small_store: CheckpointStore) -> None:
    own = small_store.load("hyperrnn", 3, ("encoder",))
    found = checked(
        "hyperrnn", own.encoder_id, json.dumps(own.card), small_store.part("hyperrnn", 3, "encoder"), conditions(own)
    )
    assert (found.version, found.encoder_id) == (3, own.encoder_id)


def conditions(own: Checkpoint) -> RunConditions:
    return RunConditions(own.scenario)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda card, data: ("{", data), "encoder: its card cannot be read"),
        (lambda card, data: ("[" * 100_000, data), "encoder: its card cannot be read"),
        (lambda card, data: ("7", data), "encoder: its card cannot be read"),
        (lambda card, data: (json.dumps({**card, "version": "x"}), data), "encoder: its card cannot be read"),
        (lambda card, data: (json.dumps({**card, "encoder_id": OWN}), data), f"the gNB sent encoder {OWN}; wanted"),
        (lambda card, data: (json.dumps(card), data[:-1]), "encoder.safetensors has sha256"),
        (lambda card, data: (json.dumps(card), b""), "encoder.safetensors has sha256"),
        (lambda card, data: (json.dumps({**card, "scheme": "os.system"}), data), "os.system"),
        (lambda card, data: (json.dumps({**card, "sha256": {}}), data), "checkpoint hyperrnn/3"),
        (lambda card, data: (json.dumps({**card, "probe": {}}), data), "probe"),
    ],
)
def test_what_is_no_encoder_is_refused(small_store: CheckpointStore, change: Any, says: str) -> None:
    own = small_store.load("hyperrnn", 3, ("encoder",))
    card, data = change(own.card, small_store.part("hyperrnn", 3, "encoder"))
    with pytest.raises(DamagedCheckpoint, match=says):
        checked("hyperrnn", own.encoder_id, card, data, conditions(own))


def test_an_encoder_for_another_world_is_refused(small_store: CheckpointStore) -> None:
    own = small_store.load("hyperrnn", 3, ("encoder",))
    other = dataclasses.replace(conditions(own), scenario=Scenario.parse("multipath-p2:antennas=32"))
    with pytest.raises(InvalidInput, match="antennas"):
        checked("hyperrnn", own.encoder_id, json.dumps(own.card), small_store.part("hyperrnn", 3, "encoder"), other)
