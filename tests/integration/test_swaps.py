"""Swaps of both ends over real sockets: UEs fetch the new encoder and use it from a frame's beginning on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from csiemu.verify import misdecoded
from shared.checkpoints import CheckpointStore
from ue_client.command import save_record
from ue_client.fleet import UeFleet
from ue_client.settings import Settings as UeSettings

UES = 6

Gnb = Any
"""As `conftest` has it."""


def load(gnb: Gnb, version: int, model: str = "hyperrnn") -> None:
    answer = gnb.call(f"/v2/repository/models/{model}/load", {"parameters": {"version": version}})
    assert answer[0] == 200, answer


def until(condition: Callable[[], Any], patience_s: float = 60.0) -> Any:
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


class LiveFleet:
    """A fleet that runs in a thread while the test does other things."""

    def __init__(self, gnb: Gnb, fleet_class: type[UeFleet] = UeFleet, **settings: Any) -> None:
        chosen = UeSettings(**{"gnb": gnb.grpc, "checkpoints": gnb.checkpoints, "rate": 200.0, **settings})
        checkpoint = CheckpointStore(gnb.checkpoints).load(chosen.scheme, chosen.version, ("encoder",))
        self.fleet = fleet_class(chosen, checkpoint)
        self.loop = asyncio.new_event_loop()
        self.done = ThreadPoolExecutor(1).submit(self._live)

    def _live(self) -> UeFleet:
        self.loop.run_until_complete(self.fleet.run())
        return self.fleet

    def stop(self) -> UeFleet:
        self.loop.call_soon_threadsafe(self.fleet.stop)
        return self.done.result(60)


def versions_of(gnb: Gnb) -> list[int]:
    return [row["decoder_version"] for row in gnb.call("/v1/ues")[1]["ues"]]


def events(gnb: Gnb) -> list[str]:
    return [event["kind"] for event in gnb.call("/v1/events")[1]["events"]]


def test_ues_fetch_the_new_encoder_and_nothing_is_lost(
    start_gnb: Callable[..., Gnb], small_store: CheckpointStore, tmp_path: Path
) -> None:
    gnb = start_gnb(record=tmp_path / "recorded")
    live = LiveFleet(gnb, scheme="hyperrnn", ues=UES, record=tmp_path / "sent.npz", chunk_ues=4)
    until(lambda: gnb.call("/v1/nmse")[1]["overall"]["reports"] > 0)
    load(gnb, 3)
    until(lambda: set(versions_of(gnb)) == {3})
    until(lambda: "retired" in events(gnb))
    load(gnb, 2)  # another decoder for the encoder of version 1
    until(lambda: set(versions_of(gnb)) == {2})
    fleet = live.stop()
    gnb.stop()
    assert fleet.counts.sent == fleet.counts.acked
    save_record(fleet)
    with np.load(tmp_path / "sent.npz") as file:
        columns = dict(file)
    assert set(columns["decoder_version"].tolist()) == {1, 2, 3}
    encoders = {version: small_store.card("hyperrnn", version)["encoder_id"] for version in (1, 2, 3)}
    for version, encoder_id in zip(columns["decoder_version"].tolist(), columns["encoder_id"].tolist(), strict=True):
        assert encoders[version] == encoder_id
    frames = np.stack([columns["ue"], columns["sequence"] // fleet.slots], axis=1)
    for frame in np.unique(frames, axis=0):
        assert len(set(columns["encoder_id"][(frames == frame).all(axis=1)])) == 1
    recorded = sorted((tmp_path / "recorded").glob("*.npz"))
    wrong, compared = misdecoded(small_store, tmp_path / "sent.npz", recorded)
    assert wrong == 0
    assert compared > 0
