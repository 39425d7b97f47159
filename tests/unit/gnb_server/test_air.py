"""Reports over a disturbed link: erased ones have estimates and are counted apart; a crash changes none."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gnb_server.app import service
from gnb_server.handlers import Handlers
from gnb_server.settings import Settings
from shared.channels.streams import Split
from shared.checkpoints import CheckpointStore
from shared.conditions import RunConditions
from shared.errors import Conflict, InvalidInput
from shared.link.air import FATES, Air, count_fates
from shared.link.decoding import receive
from shared.link.encoding import encode_frames
from shared.link.evaluation import outcomes
from tests.unit.gnb_server.sending import Ues, one_batch

SLOTS, FRAMES, UES = 8, 6, 16
AIR = "ber=0.02,loss=0.2,burst=3.0,crc=6"


class Disturbed(Ues):
    """UEs that send what they measure over a disturbed link."""

    def __init__(self, handlers: Handlers, store: CheckpointStore, air: str, first_ue: int = 0) -> None:
        super().__init__(handlers, store, ues=UES, air=air, ue_base=first_ue)
        scheme, world = self.checkpoint.scheme, self.checkpoint.scenario
        self.conditions = RunConditions(world, air=Air.parse(air))
        pairs = torch.cartesian_prod(torch.arange(first_ue, first_ue + UES), torch.arange(FRAMES))
        self.samples = self.conditions.samples(Split.EMULATE, *pairs.mT.contiguous())
        self.bits = encode_frames(scheme, world, self.samples)

    def nmse(self, *chunks: range) -> list[NDArray[Any]]:
        """NMSE of the acks of chunks of slots, [slots, UEs] each."""
        by_ue = self.bits.reshape(UES, FRAMES * SLOTS, -1)
        futures = []
        for slots in chunks:
            payload = self.checkpoint.scheme.layout.pack_bits(by_ue[:, slots.start : slots.stop].swapaxes(0, 1))
            futures.append(self.submit(slots.start, slots=len(slots), ues=UES, payload=payload))
        return [future.result(60).nmse for future in futures]

    def expected(self) -> NDArray[Any]:
        """NMSE as an evaluation finds it, [slots of the run, UEs]."""
        found = outcomes(self.checkpoint.scheme, self.conditions, self.samples, self.bits).nmse
        return found.reshape(UES, FRAMES * SLOTS).T

    def fates(self) -> dict[str, int]:
        received = receive(self.checkpoint.scheme, self.conditions.air, self.samples, range(SLOTS), self.bits)
        return {**dict.fromkeys(FATES, 0), **count_fates(received.fates)}


def by_slot() -> list[range]:
    return [range(slot, slot + 1) for slot in range(FRAMES * SLOTS)]


def in_parts() -> list[range]:
    """Chunks of 3 and 5 slots."""
    starts = [start for frame in range(FRAMES) for start in (frame * SLOTS, frame * SLOTS + 3)]
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], FRAMES * SLOTS], strict=True)]


def by_frame() -> list[range]:
    return [range(frame * SLOTS, (frame + 1) * SLOTS) for frame in range(FRAMES)]


@pytest.mark.parametrize("air", [AIR, f"{AIR},policy=blind", f"{AIR},policy=blind,state=reset", "loss=1.0"])
@pytest.mark.parametrize("chunks", [by_slot(), in_parts(), by_frame()])
def test_a_gnb_finds_what_an_evaluation_finds(
    handlers: Handlers, small_store: CheckpointStore, air: str, chunks: list[range]
) -> None:
    """Whatever chunks the reports come in; each counts once, with its fate, and its CRC in its bits."""
    ues = Disturbed(handlers, small_store, air).open()
    found = np.concatenate(ues.nmse(*chunks))
    assert found == pytest.approx(ues.expected(), rel=1e-3)
    [row] = handlers.nmse()["schemes"]
    assert {name: row[name] for name in FATES} == ues.fates()
    assert (row["reports"], row["dropped"], row["air"]) == (UES * FRAMES * SLOTS, 0, str(Air.parse(air)))
    assert row["feedback_bits"] == ues.checkpoint.scheme.layout.bits + Air.parse(air).crc
    assert handlers.nmse()["overall"]["air_lost"] == row["air_lost"]


def test_fleets_of_several_airs_are_decoded_together_and_shown_apart(
    handlers: Handlers, small_store: CheckpointStore
) -> None:
    fleets = [Disturbed(handlers, small_store, air, UES * n).open() for n, air in enumerate(["", AIR, "loss=0.5"])]
    with one_batch(handlers):
        futures = []
        for ues in fleets:
            reports = ues.bits.reshape(UES, FRAMES * SLOTS, -1)[:, :3].swapaxes(0, 1)
            payload = ues.checkpoint.scheme.layout.pack_bits(reports)
            futures.append(ues.submit(0, slots=3, ues=UES, payload=payload))
    for ues, future in zip(fleets, futures, strict=True):
        assert future.result(60).nmse == pytest.approx(ues.expected()[:3], rel=1e-3)
    rows = handlers.nmse()["schemes"]
    assert [row.get("air") for row in rows] == [None, AIR, "loss=0.5"]
    assert [row["air_lost"] > 0 for row in rows] == [False, True, True]


@pytest.mark.parametrize("air", [AIR, f"{AIR},policy=blind,state=reset"])
def test_a_crash_in_the_middle_of_a_frame_changes_nothing(
    settings: Settings, small_store: CheckpointStore, air: str
) -> None:
    """The states, newest estimates among them, are those of before; counts go on."""
    first, rest = by_slot()[: 2 * SLOTS + 3], by_slot()[2 * SLOTS + 3 :]
    with service(settings) as handlers:
        ues = Disturbed(handlers, small_store, air).open()
        found = ues.nmse(*first)
    with service(settings) as handlers:
        ues.handlers = handlers
        ues.come_back()
        found += ues.nmse(*rest)
        assert np.concatenate(found) == pytest.approx(ues.expected(), rel=1e-3)
        [row] = handlers.nmse()["schemes"]
        assert {name: row[name] for name in FATES} == ues.fates()


def test_what_is_sent_again_counts_once(handlers: Handlers, small_store: CheckpointStore) -> None:
    ues = Disturbed(handlers, small_store, AIR).open()
    [first], [again] = ues.nmse(range(3)), ues.nmse(range(3))
    assert again == pytest.approx(first, rel=1e-6)
    whole = ues.nmse(range(SLOTS))[0]
    assert whole == pytest.approx(ues.expected()[:SLOTS], rel=1e-3)
    [row] = handlers.nmse()["schemes"]
    assert row["reports"] == UES * SLOTS
    assert 0 < row["air_lost"] < UES * SLOTS


def test_an_air_that_is_none_is_refused(handlers: Handlers, small_store: CheckpointStore) -> None:
    with pytest.raises(InvalidInput, match=r"air loss: 2\.0"):
        Ues(handlers, small_store, air="loss=2")


def test_who_comes_back_has_the_air_that_it_had(handlers: Handlers, small_store: CheckpointStore) -> None:
    ues = Disturbed(handlers, small_store, "loss=0.5").open()
    ues.come_back()
    ues.wanted = dataclasses.replace(ues.wanted, air="")
    with pytest.raises(Conflict, match=r"air: ; the lease of this token has loss=0\.5"):
        ues.come_back()
