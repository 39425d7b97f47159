"""kill -9 of the gNB or of UEs in mid-run: nothing is lost, nothing is counted twice, the rest goes on."""

from __future__ import annotations

import json
import signal
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from e2e_tools import Spawn, get, ready, wait_for

from csiemu.verify import misdecoded
from gnb_server.cells import stored_fleets
from gnb_server.store import Store
from shared.channels.streams import Split
from shared.checkpoints import CheckpointStore
from shared.conditions import ChangingConditions
from shared.link.evaluation import true_channels

UES, SLOTS = 6, 203  # ends within a frame


def gnb_options(folder: Path, port: int = 0) -> dict[str, Any]:
    return {
        "grpc_port": port,
        "rest_port": 0,
        "store": f"sqlite:///{folder / 'gnb.sqlite'}",
        "record": folder / "recorded",
        "ready_file": folder / "ready.json",
    }


def ue_options(folder: Path, grpc: str) -> dict[str, Any]:
    return {
        "gnb": grpc,
        "scheme": "hyperrnn",
        "ues": UES,
        "slots": SLOTS,
        "rate": 60,
        "seed": 9,
        "ue_base": 0,
        "summary": folder / "ue.json",
        "record": folder / "ue.npz",
    }


def columns(folder: Path) -> dict[str, np.ndarray]:
    """What the UEs recorded, in the order of UE and sequence."""
    with np.load(folder / "ue.npz", allow_pickle=False) as file:
        order = np.lexsort((file["sequence"], file["ue"]))
        return {name: file[name][order] for name in file.files}


def estimates(folder: Path) -> dict[tuple[int, int], np.ndarray]:
    found = {}
    for path in (folder / "recorded").glob("*.npz"):
        with np.load(path, allow_pickle=False) as file:
            found |= dict(
                zip(zip(file["ue"].tolist(), file["sequence"].tolist(), strict=True), file["estimate"], strict=True)
            )
    return found


def undisturbed(spawn: Spawn, folder: Path) -> None:
    folder.mkdir()
    gnb = spawn("gnb_server", **gnb_options(folder))
    addresses = ready(folder / "ready.json")
    urllib.request.urlopen(swap_request(addresses["rest"])).close()
    ue = spawn("ue_client", **ue_options(folder, addresses["grpc"]))
    assert ue.wait() == 0
    gnb.send_signal(signal.SIGTERM)
    assert gnb.wait() == 0


def totals(folder: Path) -> np.ndarray:
    """Sums of each UE and slot in the store, [UES, T + 1, COLUMNS], over all versions."""
    with closing(Store(f"sqlite:///{folder / 'gnb.sqlite'}", "default", 1)) as store:
        [fleet] = stored_fleets(store)
    return sum(totals.sums for totals in fleet.totals.values())


def swap_request(rest: str) -> urllib.request.Request:
    body = json.dumps({"parameters": {"version": 2}}).encode()
    url = f"http://{rest}/v2/repository/models/hyperrnn/load"
    return urllib.request.Request(url, body, {"content-type": "application/json"})


def test_gnb_killed_and_restarted(spawn: Spawn, tmp_path: Path) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    undisturbed(spawn, calm)
    rough.mkdir()
    gnb = spawn("gnb_server", **gnb_options(rough))
    addresses = ready(rough / "ready.json")
    port = int(addresses["grpc"].rsplit(":", 1)[1])
    ue = spawn("ue_client", **ue_options(rough, addresses["grpc"]))
    urllib.request.urlopen(swap_request(addresses["rest"])).close()  # the swap outlives the process
    for reports in (40 * UES, 120 * UES):
        rest = addresses["rest"]
        wait_for(lambda rest=rest, reports=reports: get(rest, "/v1/nmse")["overall"]["reports"] >= reports)
        gnb.kill()
        gnb.wait()
        (rough / "ready.json").unlink()
        gnb = spawn("gnb_server", **gnb_options(rough, port))
        addresses = ready(rough / "ready.json")
    assert ue.wait() == 0
    live = get(addresses["rest"], "/v1/nmse")["schemes"][0]
    gnb.send_signal(signal.SIGTERM)
    assert gnb.wait() == 0

    sent = json.loads((rough / "ue.json").read_text())
    assert sent["connects"] >= 3
    assert sent["sent"] == sent["acked"] == live["reports"] == UES * SLOTS
    store = Store(f"sqlite:///{rough / 'gnb.sqlite'}", "default", 1)
    assert sum(store.counted().values()) == sent["sent"]  # lost is 0
    store.close()
    np.testing.assert_allclose(totals(rough), totals(calm), rtol=1e-4)
    first, second = columns(calm), columns(rough)
    assert set(second["decoder_version"].tolist()) == {2}
    for name in ("ue", "sequence", "payload"):
        np.testing.assert_array_equal(first[name], second[name])
    before, after = estimates(calm), estimates(rough)
    assert len(before) == UES * SLOTS
    assert len(after) > UES * 40  # a killed gNB takes the records with it that it had not written
    for key, estimate in after.items():
        assert np.linalg.norm(estimate - before[key]) <= 1e-4 * np.linalg.norm(before[key])


def test_ue_process_killed(spawn: Spawn, tmp_path: Path) -> None:
    spawn("gnb_server", **gnb_options(tmp_path))
    addresses = ready(tmp_path / "ready.json")
    common = {"gnb": addresses["grpc"], "rate": 50, "ues": 3}
    doomed = spawn("ue_client", scheme="rnn", **common)
    other = spawn("ue_client", scheme="dldnn", slots=200, **common)
    wait_for(lambda: get(addresses["rest"], "/v1/nmse?scheme=rnn")["overall"]["reports"] > 30)
    doomed.kill()
    wait_for(lambda: get(addresses["rest"], "/v1/ues?scheme=rnn&status=gone")["total"] == 3)
    assert other.wait() == 0
    assert get(addresses["rest"], "/v1/nmse?scheme=dldnn")["overall"]["reports"] == 600
    assert get(addresses["rest"], "/v1/ues?scheme=dldnn&status=finished")["total"] == 3


def test_killed_ues_come_back_to_their_ids(spawn: Spawn, tmp_path: Path) -> None:
    """With their token, and only with it; a lease that is over is refused with what to do."""
    spawn("gnb_server", **gnb_options(tmp_path))
    addresses = ready(tmp_path / "ready.json")
    token = tmp_path / "token"
    options = {"gnb": addresses["grpc"], "scheme": "rnn", "ues": 3, "ue_base": 70, "slots": 203}
    doomed = spawn("ue_client", rate=50, token_file=token, **options)
    wait_for(lambda: get(addresses["rest"], "/v1/nmse")["overall"]["reports"] > 30)
    doomed.kill()
    doomed.wait()
    kept = token.read_text()
    assert spawn("ue_client", rate="max", **options).wait() == 2  # the ids are leased
    summary = tmp_path / "again.json"
    assert spawn("ue_client", rate="max", token_file=token, summary=summary, **options).wait() == 0
    assert json.loads(summary.read_text())["sent"] < 3 * 203 - 20
    assert get(addresses["rest"], "/v1/nmse")["overall"]["reports"] == 3 * 203
    assert get(addresses["rest"], "/v1/ues?status=finished")["total"] == 3
    assert not token.exists()
    token.write_text(kept)
    assert spawn("ue_client", rate="max", token_file=token, **options).wait() == 2
    assert f"remove {token}, which has it, for a new lease" in (tmp_path / "ue_client-4.log").read_text()


def test_ues_wait_for_a_gnb_that_is_not_up_yet(spawn: Spawn, tmp_path: Path) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ue = spawn("ue_client", gnb=f"127.0.0.1:{port}", scheme="rnn", ues=2, slots=8)
    wait_for(lambda: b"waiting for the gNB" in (tmp_path / "ue_client-0.log").read_bytes())
    spawn("gnb_server", **gnb_options(tmp_path, port))
    assert ue.wait() == 0


def test_an_air_that_changes_around_crashes(spawn: Spawn, tmp_path: Path, small_store: CheckpointStore) -> None:
    """Twice, with a kill -9 after each: all reports count once, over the air of their frame, are decoded right, and are
    compared with the channels after the delay of that air.
    """
    gnb = spawn("gnb_server", **gnb_options(tmp_path))
    addresses = ready(tmp_path / "ready.json")
    port = int(addresses["grpc"].rsplit(":", 1)[1])
    ue = spawn("ue_client", **ue_options(tmp_path, addresses["grpc"]))
    airs = {"loss=0.3,burst=3.0,policy=blind": 40 * UES, "ber=0.02,crc=6,state=reset,delay=3": 120 * UES}
    for air, reports in airs.items():
        rest = addresses["rest"]
        wait_for(lambda rest=rest, reports=reports: get(rest, "/v1/nmse")["overall"]["reports"] >= reports)
        body = json.dumps({"air": air}).encode()
        url, content = f"http://{rest}/v1/fleets/0/air", {"content-type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(url, body, content)).close()
        gnb.kill()
        gnb.wait()
        (tmp_path / "ready.json").unlink()
        gnb = spawn("gnb_server", **gnb_options(tmp_path, port))
        addresses = ready(tmp_path / "ready.json")
    assert ue.wait() == 0
    history = get(addresses["rest"], "/v1/fleets/0/air")["history"]
    rows = get(addresses["rest"], "/v1/nmse")["schemes"]
    gnb.send_signal(signal.SIGTERM)
    assert gnb.wait() == 0

    assert [change["air"] for change in history] == ["", *airs]
    sent = json.loads((tmp_path / "ue.json").read_text())
    assert sent["sent"] == sent["acked"] == UES * SLOTS
    frames = [change["from_frame"] for change in history]
    ends = [*(8 * frame for frame in frames[1:]), SLOTS]
    expected = {c["air"] or None: UES * (end - 8 * c["from_frame"]) for c, end in zip(history, ends, strict=True)}
    assert {row["air"]: row["reports"] for row in rows} == expected
    assert {row["air"]: row["air_lost"] > 0 for row in rows} == {air: "loss" in (air or "") for air in expected}
    recorded = sorted((tmp_path / "recorded").glob("*.npz"))
    wrong, compared = misdecoded(small_store, tmp_path / "ue.npz", recorded)
    assert wrong == 0
    assert compared > UES * 40  # a killed gNB takes the records with it that it had not written
    for path in recorded:
        with np.load(path, allow_pickle=False) as file:
            meta, keys, truth = json.loads(str(file["meta"])), np.stack([file["ue"], file["sequence"]]), file["truth"]
        by_frame = ChangingConditions.from_json(meta)
        for conditions, rows in by_frame.split(keys[1] // 8):
            ues, sequence = torch.from_numpy(keys[:, rows])
            samples = conditions.samples(Split.EMULATE, ues, sequence // 8)
            channels = true_channels(conditions, "spatial", samples).channel
            assert np.allclose(channels[torch.arange(len(rows)), sequence % 8], truth[rows], atol=1e-6)


def children(pid: int) -> list[int]:
    """Processes that a process has started (Linux)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and whose parent has not asked yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_gnb_that_ends_leaves_no_worker(spawn: Spawn, tmp_path: Path, number: signal.Signals) -> None:
    """Whatever ends it, and while they decode."""
    gnb = spawn("gnb_server", workers=2, **gnb_options(tmp_path))
    addresses = ready(tmp_path / "ready.json")
    spawn("ue_client", gnb=addresses["grpc"], scheme="hyperrnn", ues=64)
    wait_for(lambda: get(addresses["rest"], "/v1/nmse")["overall"]["reports"] > 1000)
    started = children(gnb.pid)
    assert len(started) >= 2
    gnb.send_signal(number)
    assert gnb.wait(60) == (-number if number == signal.SIGKILL else 0)
    wait_for(lambda: not any(map(alive, started)))
