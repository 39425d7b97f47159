"""Reports over a disturbed link: erased ones have estimates and are counted apart; a crash changes none."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gnb_server import airs, monitor
from gnb_server.app import service
from gnb_server.handlers import Handlers
from gnb_server.settings import Settings
from shared.channels.streams import Split
from shared.checkpoints import CheckpointStore
from shared.conditions import RunConditions
from shared.errors import Conflict, InvalidInput, LimitReached, NotFound
from shared.link.air import FATES, Air, Fate, count_fates
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

    def expected(self, air: str | None = None) -> NDArray[Any]:
        """NMSE as an evaluation finds it, [slots of the run, UEs], over this air."""
        conditions = self.conditions if air is None else dataclasses.replace(self.conditions, air=Air.parse(air))
        found = outcomes(self.checkpoint.scheme, conditions, self.samples, self.bits).nmse
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


LATE = f"{AIR},delay=2"

CHANGES = {2: "loss=0.5", 3: LATE, 5: ""}
"""Frame from which on an air is in force."""


def over_time(ues: Disturbed) -> NDArray[Any]:
    """NMSE as evaluations find it where the air changes, [slots of the run, UEs]."""
    starts = [0, *CHANGES]
    parts = zip(starts, [*CHANGES, FRAMES], ["", *CHANGES.values()], strict=True)
    return np.concatenate([ues.expected(air)[start * SLOTS : stop * SLOTS] for start, stop, air in parts])


@pytest.mark.parametrize("crash", [False, True])
def test_an_air_that_changes(settings: Settings, small_store: CheckpointStore, crash: bool) -> None:
    """From the next frame on that no UE has begun; each report counts in the row of its air, also after a crash."""
    with service(settings) as handlers:
        ues = Disturbed(handlers, small_store, "").open()
        found = ues.nmse(range(SLOTS), range(SLOTS, SLOTS + 3))
        assert handlers.set_air(0, Air(loss=0.5), "me")["from_frame"] == 2
        found += ues.nmse(range(SLOTS + 3, 2 * SLOTS), range(2 * SLOTS, 2 * SLOTS + 3))
        assert handlers.set_air(0, Air.parse(LATE), "me")["from_frame"] == 3
        if not crash:
            found += ues.nmse(range(2 * SLOTS + 3, 3 * SLOTS), range(3 * SLOTS, 4 * SLOTS))
    with service(settings) as handlers:
        ues.handlers = handlers
        ues.come_back()
        reached = 2 * SLOTS + 3 if crash else 4 * SLOTS
        found += ues.nmse(*(range(slot, slot + 1) for slot in range(reached, 5 * SLOTS)))
        answer = handlers.set_air(UES - 1, Air(), "me")
        found += ues.nmse(range(5 * SLOTS, FRAMES * SLOTS))
        assert np.concatenate(found) == pytest.approx(over_time(ues), rel=1e-3)
        assert answer["history"] == [{"air": "", "from_frame": 0}] + [
            {"air": air, "from_frame": frame} for frame, air in CHANGES.items()
        ]
        assert (answer["scheme"], answer["first_ue"], answer["ue_count"], answer["air"]) == ("hyperrnn", 0, UES, "")
        rows = {row.get("air", ""): row for row in handlers.nmse()["schemes"]}
        assert {air: row["reports"] for air, row in rows.items()} == {
            "": 3 * UES * SLOTS,
            "loss=0.5": UES * SLOTS,
            LATE: 2 * UES * SLOTS,
        }
        assert {air: row["air_lost"] > 0 for air, row in rows.items()} == {"": False, "loss=0.5": True, LATE: True}
        assert rows[LATE]["feedback_bits"] == rows[""]["feedback_bits"] + 6
        assert [rows[air]["delay_slots"] for air in ("", "loss=0.5", LATE)] == [0, 0, 2]
        ratios = over_time(ues)[3 * SLOTS : 5 * SLOTS]
        assert rows[LATE]["nmse_db"] == pytest.approx(10 * np.log10(ratios.mean()), rel=1e-3)
        assert {air: row["ues"] for air, row in rows.items()} == {"": UES, "loss=0.5": 0, LATE: 0}
        of_ue = handlers.ue(3)
        assert (of_ue.get("air"), of_ue["reports"]) == (None, 3 * SLOTS)
        kept = handlers.reports(3, 1000)["reports"]
        assert [row["air"] for row in kept][::SLOTS] == [None, None, "loss=0.5", LATE, LATE, None]
        lost = receive(ues.checkpoint.scheme, Air(loss=0.5), ues.samples, range(SLOTS), ues.bits).fates[3 * FRAMES + 2]
        assert [row["fate"] == "lost" for row in kept[2 * SLOTS : 3 * SLOTS]] == (lost == Fate.LOST).tolist()
        assert {row["fate"] for row in kept[: 2 * SLOTS]} == {"received"}
        assert [event["text"] for event in handlers.events(0, 9) if event["kind"] == "air"] == [
            f"UEs 0..15: {air or 'undisturbed'} from frame {frame}" for frame, air in CHANGES.items()
        ]


def test_ues_in_different_frames_have_different_airs(handlers: Handlers, small_store: CheckpointStore) -> None:
    """Who is still in a frame that was begun before keeps its air."""
    ues, half = Disturbed(handlers, small_store, "loss=0.3,policy=blind,delay=3").open(), UES // 2
    by_ue = ues.bits.reshape(UES, FRAMES * SLOTS, -1)

    def send(first: int, slot: int) -> Any:
        payload = ues.checkpoint.scheme.layout.pack_bits(by_ue[first : first + half, slot : slot + 1].swapaxes(0, 1))
        return ues.submit(slot, first=first, ues=half, payload=payload)

    found = np.full((2 * SLOTS, UES), np.nan)
    for slot in range(SLOTS + 1):
        found[slot, :half] = send(0, slot).result(60).nmse
    assert handlers.set_air(0, Air(), "me")["from_frame"] == 2
    found[0, half:] = send(half, 0).result(60).nmse
    for slot in range(1, SLOTS):
        with one_batch(handlers):
            behind, ahead = send(half, slot), send(0, SLOTS + slot)
        found[slot, half:], found[SLOTS + slot, :half] = behind.result(60).nmse, ahead.result(60).nmse
    for slot in range(SLOTS, 2 * SLOTS):
        with one_batch(handlers):
            behind, ahead = send(half, slot), send(0, SLOTS + slot)
        found[slot, half:] = behind.result(60).nmse
        assert ahead.result(60).nmse[0] == pytest.approx(ues.expected("")[SLOTS + slot, :half], rel=1e-3)
    assert found == pytest.approx(ues.expected()[: 2 * SLOTS], rel=1e-3)


def test_an_air_that_no_report_came_over_leaves_no_trace(handlers: Handlers, small_store: CheckpointStore) -> None:
    """It was replaced before its first frame; nothing changes where the air is as it was."""
    ues = Disturbed(handlers, small_store, "").open()
    assert handlers.set_air(0, Air(loss=1.0), "me")["from_frame"] == 0
    ues.nmse(range(3))
    for air in ("ber=0.1", "loss=0.5", "loss=0.5"):
        handlers.set_air(0, Air.parse(air), "me")
    ues.nmse(range(3, SLOTS), range(SLOTS, 2 * SLOTS))
    assert [(row.get("air"), row["reports"]) for row in handlers.nmse()["schemes"] if row["reports"]] == [
        ("loss=1.0", UES * SLOTS),
        ("loss=0.5", UES * SLOTS),
    ]
    assert [change["from_frame"] for change in handlers.air(0)["history"]] == [0, 0, 1]
    assert len(handlers.events(0, 9)) == 3


def test_a_fleet_that_has_gone_has_its_air_still(handlers: Handlers, small_store: CheckpointStore) -> None:
    ues = Disturbed(handlers, small_store, "loss=0.5").open()
    ues.nmse(range(SLOTS))
    handlers.close_stream(ues.fleet, ues.stream)
    handlers.set_air(0, Air(), "me")
    ues.come_back()
    assert ues.nmse(range(SLOTS, 2 * SLOTS))[0] == pytest.approx(ues.expected("")[SLOTS : 2 * SLOTS], rel=1e-3)
    handlers.detach(ues.fleet.lease.token)
    with pytest.raises(Conflict, match="ue: 0; its fleet has gone: it is finished"):
        handlers.set_air(0, Air(), "me")
    assert handlers.air(0)["air"] == ""
    with pytest.raises(NotFound, match="ue: 77 is unknown"):
        handlers.set_air(77, Air(), "me")
    assert [(row.get("air"), row["reports"]) for row in handlers.nmse()["schemes"]] == [
        ("loss=0.5", UES * SLOTS),
        (None, UES * SLOTS),
    ]


def test_airs_of_a_fleet_are_bounded(
    handlers: Handlers, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(airs, "MOST_AIRS", 3)
    ues = Disturbed(handlers, small_store, "").open()
    for frame, air in enumerate(["loss=0.1", "loss=0.2", "loss=0.1", ""]):
        ues.nmse(range(frame * SLOTS, frame * SLOTS + SLOTS))
        handlers.set_air(0, Air.parse(air), "me")
    with pytest.raises(LimitReached, match=r"air: loss=0\.3; that of a fleet changes 1000 times, and between 3 diff"):
        handlers.set_air(0, Air(loss=0.3), "me")
    assert handlers.air(0)["air"] == ""


def test_the_first_airs_of_a_run_are_apart_in_its_history(
    settings: Settings, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "AIRS", 2)
    with service(settings) as handlers:
        ues = Disturbed(handlers, small_store, "").open()
        handlers.tick()
        for frame, air in enumerate(["delay=2", "loss=0.2", "loss=0.3"]):
            ues.nmse(range(frame * SLOTS, frame * SLOTS + SLOTS))
            handlers.set_air(0, Air.parse(air), "me")
        ues.nmse(range(3 * SLOTS, 4 * SLOTS))
        found = handlers.history(600.0)["series"]
    assert {series["air"]: series["reports"][-1] for series in found} == {
        "": UES * SLOTS,
        "delay=2": UES * SLOTS,
        None: 2 * UES * SLOTS,
    }


def test_an_air_that_is_none_is_refused(handlers: Handlers, small_store: CheckpointStore) -> None:
    with pytest.raises(InvalidInput, match=r"air loss: 2\.0"):
        Ues(handlers, small_store, air="loss=2")


def test_who_comes_back_has_the_air_that_it_had(handlers: Handlers, small_store: CheckpointStore) -> None:
    ues = Disturbed(handlers, small_store, "loss=0.5").open()
    ues.come_back()
    ues.wanted = dataclasses.replace(ues.wanted, air="")
    with pytest.raises(Conflict, match=r"air: ; the lease of this token has loss=0\.5"):
        ues.come_back()
