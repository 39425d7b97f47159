"""Decode workers over real sockets: the same figures, killed in the middle of frames, versions that come and go."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csiemu.verify import misdecoded
from gnb_server.app import service
from gnb_server.handlers import Handlers
from gnb_server.settings import Settings
from shared.checkpoints import CheckpointStore
from shared.errors import DamagedCheckpoint, InvalidInput
from tests.integration.deadly import Deadly
from tests.integration.live_fleet import LiveFleet, until
from tests.unit.gnb_server.sending import Ues, one_batch
from ue_client.command import save_record

Gnb = Any
"""As `conftest` has it."""

UES = 20
"""So many that both of two workers have some."""


def pids() -> dict[str | None, int | None]:
    """Of the workers of this process's gNB, by name."""
    return {child.name: child.pid for child in multiprocessing.active_children() if child.name.startswith("decode-")}


def reports(gnb: Gnb) -> int:
    return int(gnb.call("/v1/nmse")[1]["overall"]["reports"])


def recorded(folder: Path) -> dict[tuple[int, int], np.ndarray]:
    """Estimate by UE and sequence."""
    found = {}
    for path in folder.glob("*.npz"):
        with np.load(path) as file:
            keys = zip(file["ue"].tolist(), file["sequence"].tolist(), strict=True)
            found |= dict(zip(keys, file["estimate"], strict=True))
    return found


def test_figures_are_those_of_one_process(start_gnb: Callable[..., Gnb], tmp_path: Path) -> None:
    """Of schemes with and without states, over a link that disturbs, whole frames and slots."""
    figures, estimates = [], []
    for workers in (0, 2):
        folder = tmp_path / f"{workers}"
        gnb = start_gnb(workers=workers, record=folder, store=f"sqlite:///{tmp_path / f'{workers}.sqlite'}")
        assert len(pids()) == workers
        fleets = (
            {"scheme": "hyperrnn", "slots": 19, "air": "loss=0.1,policy=blind"},
            {"scheme": "crnet", "slots": 5, "rate": 100.0},
            {"scheme": "gmtc", "slots": 4},
        )
        for fleet in fleets:
            gnb.run_ues(ues=UES, seed=4, **fleet)
        figures.append(gnb.call("/v1/nmse")[1]["schemes"])
        gnb.stop()
        assert not pids()
        estimates.append(recorded(folder))
    for alone, together in zip(*figures, strict=True):
        for name in ("scheme", "reports", "frames", "air_lost"):
            assert together[name] == alone[name]
        for name in ("nmse_db", "nmse_se_db", "sgcs"):
            assert together[name] == pytest.approx(alone[name], rel=1e-4)
    assert estimates[0].keys() == estimates[1].keys()
    for key, estimate in estimates[0].items():
        assert np.linalg.norm(estimates[1][key] - estimate) <= 1e-4 * np.linalg.norm(estimate)


def test_ues_do_not_notice_that_workers_are_killed(
    start_gnb: Callable[..., Gnb], small_store: CheckpointStore, tmp_path: Path
) -> None:
    """In the middle of frames: nothing is lost, nothing counted twice, nothing decoded otherwise."""
    gnb = start_gnb(workers=2, record=tmp_path / "recorded")
    live = LiveFleet(gnb, scheme="hyperrnn", ues=UES, rate=60, record=tmp_path / "sent.npz")
    before = pids()
    for name in ("decode-1", "decode-0"):
        so_far = reports(gnb)
        until(lambda so_far=so_far: reports(gnb) > so_far + 5 * UES)
        os.kill(pids()[name], signal.SIGKILL)
    so_far = reports(gnb)
    until(lambda: reports(gnb) > so_far + 20 * UES)
    assert not set(before.values()) & set(pids().values())
    fleet = live.stop()
    assert fleet.counts.connects == 1
    assert fleet.counts.sent == fleet.counts.acked == reports(gnb)
    gnb.stop()
    save_record(fleet)
    wrong, compared = misdecoded(small_store, tmp_path / "sent.npz", sorted((tmp_path / "recorded").glob("*.npz")))
    assert wrong == 0
    assert compared >= fleet.counts.sent - UES * fleet.slots  # the last frame may not be whole


@pytest.fixture
def handlers(tmp_path: Path, small_store: CheckpointStore) -> Iterator[Handlers]:
    """Of a gNB with workers."""
    store = f"sqlite:///{tmp_path / 'gnb.sqlite'}"
    with service(Settings(checkpoints=small_store.root, store=store, grpc_port=0, workers=2)) as running:
        yield running


def held(handlers: Handlers) -> list[set[int]]:
    """Versions of hyperrnn that each worker holds."""
    processes: Any = handlers._serving._executor._processes
    return [{version for name, version in worker.models if name == "hyperrnn"} for worker in processes]


def test_versions_come_and_go(
    handlers: Handlers, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ues = Ues(handlers, small_store, ues=UES).open()
    handlers.channel(UES - 1)
    ues.submit(0, ues=UES).result(60)
    report = handlers.channel(UES - 1)["report"]
    assert (report["sequence"], np.max(report["truth"])) == (0, 1)
    handlers.swaps.load("hyperrnn", 2)
    assert held(handlers) == [{1, 2}] * 2
    for slot in range(1, 9):
        versions = ues.submit(slot, ues=UES).result(60).versions.tolist()
        assert versions == [1 if slot < 8 else 2] * UES
    handlers.tick()
    assert held(handlers) == [{2}] * 2  # nothing needs the first any more

    with monkeypatch.context() as patch:
        patch.setattr("gnb_server.serving.channel.pickle.dumps", failing(small_store))
        with pytest.raises(DamagedCheckpoint, match="hyperrnn/3: a decode worker cannot load it: no room"):
            handlers.swaps.load("hyperrnn", 3)
    assert held(handlers) == [{2}] * 2
    assert handlers._repository.loaded("hyperrnn") == [2]
    assert ues.submit(9, ues=UES).result(60).versions.tolist() == [2] * UES


def failing(store: CheckpointStore) -> Callable[..., bytes]:
    """`pickle.dumps` that fails for hyperrnn/3."""
    import pickle

    dumps = pickle.dumps

    def fails(message: Any, *others: Any, **options: Any) -> bytes:
        if message[0] == "load" and message[1][0].version == 3:
            raise MemoryError("no room")
        return dumps(message, *others, **options)

    return fails


def make_deadly(handlers: Handlers, version: int) -> None:
    """Have workers end over reports of hyperrnn that are not all zeros."""
    model = handlers._repository.version("hyperrnn", version)
    model.scheme.decoder = Deadly(model.scheme.decoder)
    executor: Any = handlers._serving._executor
    for worker in executor._processes:
        worker.models.clear()


def test_reports_that_end_their_worker_each_time_are_refused(handlers: Handlers, small_store: CheckpointStore) -> None:
    """With one message and counted apart, while those beside them are decoded; nothing else is lost."""
    bad, good = Ues(handlers, small_store).open(), Ues(handlers, small_store, ues=UES).open()
    make_deadly(handlers, 1)
    for slot in range(2):
        bad.submit(slot).result(60)
        good.submit(slot, ues=UES).result(60)
    with one_batch(handlers):
        refused = bad.submit(2, payload=bytes([255] * 5))
        beside = good.submit(2, ues=UES)
    assert beside.result(120).nmse.shape == (1, UES)
    first_ue = bad.fleet.lease.first_ue
    text = f"2 reports of UEs {first_ue}..{first_ue + 1}, slots 2..2, end the decode worker of hyperrnn/1 each time"
    with pytest.raises(InvalidInput, match=f"payload: {text}"):
        refused.result(120)
    assert handlers.undecodable() == {("hyperrnn", 1): 2}
    events = [event for event in handlers.events(0, 9) if event["kind"] == "undecodable"]
    assert [(event["model"], event["version"]) for event in events] == [("hyperrnn", "1")]
    assert events[0]["text"].startswith(text)
    bad.come_back().submit(2).result(120)
    good.submit(3, ues=UES).result(60)
    assert handlers.nmse()["overall"]["reports"] == 3 * 2 + 4 * UES


def test_a_shadow_that_ends_its_worker_each_time_has_failed(handlers: Handlers, small_store: CheckpointStore) -> None:
    handlers.swaps.load("hyperrnn", 1)
    rollout = handlers.swaps.start("hyperrnn", 2, "shadow", 0.1, None)
    make_deadly(handlers, 2)
    ues = Ues(handlers, small_store).open()
    for slot in range(3 * 8):
        payload = bytes([255] * 5) if slot % 8 == 0 else None
        assert ues.submit(slot, payload=payload).result(120).versions.tolist() == [1, 1]
        if rollout.failure:
            break
    assert "the decode worker has ended over what it decoded, 3 times in a row" in rollout.failure


def test_a_shadow_is_decoded_by_workers_too(handlers: Handlers, small_store: CheckpointStore) -> None:
    """Where one is killed in the middle, it follows from the next frame on; that is no fault of the version."""
    handlers.swaps.load("hyperrnn", 1)
    rollout = handlers.swaps.start("hyperrnn", 2, "shadow", 0.1, None)
    ues = Ues(handlers, small_store, ues=UES).open()
    for slot in range(24):
        if slot == 11:
            os.kill(pids()["decode-0"], signal.SIGKILL)
        ues.submit(slot, ues=UES).result(60)
    found = rollout.comparison.difference()
    assert rollout.failure == ""
    assert 2 * UES <= found.frames_new == found.frames_old < 3 * UES
    assert handlers.nmse()["overall"]["reports"] == 24 * UES
