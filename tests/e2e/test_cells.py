"""`csiemu emulate --ray`: cells over the nodes of a cluster on this machine, one of which dies."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from e2e_tools import get, wait_for

from csiemu.benchmarks.postgres import Postgres, programs
from csiemu.rest import Rest
from gnb_server.cells import stored_fleets
from gnb_server.store import Store, sqlite_url
from shared.checkpoints import CheckpointStore
from shared.errors import InvalidInput

UES, SLOTS = 4, 160
TOKEN = "of-the-tests"
QUICK = {"health_check_period_ms": 1000, "health_check_timeout_ms": 20_000, "health_check_failure_threshold": 3}
"""Ray takes a node for dead after three checks that fail, which on a busy machine may take long."""


class Nodes:
    """A cluster of so many nodes on this machine, the first of which is the head."""

    def __init__(self, count: int) -> None:
        from tests.ray_cluster import start_cluster

        size = {"num_cpus": 2, "memory": 8 * 2**30, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        self.cluster = start_cluster(**size, _system_config=QUICK)
        self.others = [self.cluster.add_node(**size) for _ in range(count - 1)]

    def kill(self) -> None:
        """The last one."""
        self.cluster.remove_node(self.others.pop(), allow_graceful=False)


@pytest.fixture
def nodes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    pytest.importorskip("ray")
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:  # short: Ray has sockets there
        monkeypatch.setenv("TMPDIR", folder)  # also for what processes that were killed leave
        monkeypatch.setattr(tempfile, "tempdir", None)  # which is read once
        monkeypatch.setenv("RAY_raylet_start_wait_time_s", "120")
        made = Nodes(request.param)
        yield made
        made.cluster.shutdown()


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a cluster of two nodes, each by a `ray start`, with a token, as docs/cluster.md has it."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", 64 * "7")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    size = ["--num-cpus", "1", "--memory", str(8 * 2**30), "--object-store-memory", str(80 * 2**20)]
    processes: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> str:
        line = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--block",
            "--disable-usage-stats",
            *size,
            *options,
        ]
        log = tmp_path / f"node-{len(processes)}.log"
        with log.open("wb") as file:
            processes.append(subprocess.Popen(line, stdout=file, stderr=subprocess.STDOUT))
        wait_for(lambda: "Ray runtime started." in log.read_text() or processes[-1].poll() is not None)
        assert processes[-1].poll() is None, log.read_text()
        return log.read_text()

    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:  # short: Ray has sockets there
        try:
            with socket.socket() as probe:
                probe.bind(("", 0))
                port = str(probe.getsockname()[1])
            said = start("--head", "--port", port, "--temp-dir", folder, "--include-dashboard", "false")
            found = re.search(rf"--address='(\S+:{port})'", said)
            assert found is not None, said
            start("--address", found[1])
            yield found[1]
        finally:
            for process in reversed(processes):
                process.terminate()
            for process in processes:
                process.wait()


@pytest.fixture
def database() -> Iterator[str]:
    """A database of its own on the server of the tests."""
    if not (server := os.environ.get("CSIEMU_TEST_POSTGRES")):
        pytest.skip("CSIEMU_TEST_POSTGRES is not set")
    url, name = sa.make_url(server).set(drivername="postgresql+psycopg"), f"cells_{os.getpid()}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield sa.make_url(server).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


class Emulation:
    """The command, at work in `folder`."""

    def __init__(self, folder: Path, address: str, checkpoints: CheckpointStore, **options: Any) -> None:
        self.folder, self.log, self.cells = folder, folder.with_suffix(".log"), options["cells"]
        given = {
            "ray": address,
            "checkpoints": checkpoints.root,
            "schemes": "hyperrnn",
            "ues": UES,
            **options,
        }
        line = [sys.executable, "-m", "csiemu", "emulate", "--out", str(folder), "--slots", str(SLOTS), "--seed", "5"]
        line += [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        with self.log.open("wb") as log:
            environment = {**os.environ, "CSIEMU_EMULATE_TOKEN": TOKEN}
            self.process = subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT, env=environment)

    def rest(self) -> str:
        """Of the first cell, once all have begun."""
        wait_for(lambda: len(self._places()) == self.cells or self.process.poll() is not None)
        assert self.process.poll() is None, self.log.read_text()
        return self._places()["run-1"]

    def _places(self) -> dict[str, str]:
        """Where REST of each cell has been seen last."""
        return dict(re.findall(r"^(\S+): page and REST API: http://(\S+)", self.log.read_text(), re.MULTILINE))

    def results(self, status: int = 0) -> Any:
        assert self.process.wait(300) == status, self.log.read_text()
        return json.loads((self.folder / "results.json").read_text())


def each_counted_once(url: str, cells: list[str], ues: int) -> None:
    store = Store(url, "", 1)
    fleets = [fleet for cell in cells for fleet in stored_fleets(store.of(cell))]
    store.close()
    assert sum(fleet.lease.ue_count for fleet in fleets) == ues
    for fleet in fleets:
        counted = sum(totals.sums[:, :-1, 0].sum(axis=1) for totals in fleet.totals.values())
        assert counted.tolist() == fleet.next_sequence.tolist() == fleet.lease.ue_count * [SLOTS]


def process(*parts: str) -> tuple[int, str]:
    """Its id and command line, by parts of this, one of which is the folder of this test's own processes."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = file.read_text().replace("\0", " ")
            if all(part in line for part in (*parts, f"{tempfile.gettempdir()}/csiemu-")):
                return int(file.parent.name), line
    raise AssertionError(f"no process {parts}")


@pytest.mark.parametrize("nodes", [1], indirect=True)
def test_processes_die(nodes: Nodes, small_store: CheckpointStore, tmp_path: Path) -> None:
    """The gNB of a cell and the UEs of another: on one node, where the cells have a file in common. What is to change
    meanwhile does so in both.
    """
    cells, air = ["run-1", "run-2"], "loss=0.2"
    changes = {"swap": "hyperrnn:3@2s", "air_change": f"hyperrnn:{air}@3s"}
    run = Emulation(tmp_path / "run", nodes.cluster.address, small_store, cells=2, rate=10, **changes)
    rest = run.rest()
    wait_for(lambda: get(rest, "/v1/nmse?cell=all")["overall"]["reports"] > 30 * UES)
    for victim in (("-m gnb_server", "--run run-1"), ("-m ue_client", f"--ue-base {UES} ")):
        os.kill(process(*victim)[0], signal.SIGKILL)
    results = run.results()
    assert (results["lost"], results["misdecoded"], results["failed"]) == (0, 0, [])
    assert results["checked"] > 0
    assert [results["cells"][name]["gnb_starts"] for name in cells] == [2, 1]
    of_cells = [results["cells"][name]["schemes"]["hyperrnn"]["versions"] for name in cells]
    for versions in (*of_cells, results["schemes"]["hyperrnn"]["versions"]):
        assert {(1, None), (3, air)} <= {(row["version"], row.get("air")) for row in versions}
    assert [sum(row["reports"] for row in versions) for versions in of_cells] == 2 * [UES * SLOTS]
    assert of_cells[0][0]["nmse_db"] != of_cells[1][0]["nmse_db"]  # no UE of one has the channels of another's
    each_counted_once(sqlite_url(run.folder / "gnb.sqlite"), cells, 2 * UES)


@pytest.mark.parametrize("nodes", [1], indirect=True)
def test_processes_die_while_postgresql_is_away(nodes: Nodes, small_store: CheckpointStore, tmp_path: Path) -> None:
    """What is started again waits for it, and so does what is to change."""
    if (binaries := programs()) is None:
        pytest.skip("PostgreSQL is not installed")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, Postgres(binaries, Path(folder)) as postgres:
        changes = {"air_change": "hyperrnn:loss=0.2@4s"}
        run = Emulation(
            tmp_path / "run", nodes.cluster.address, small_store, cells=2, rate=10, store=postgres.url, **changes
        )
        rest = run.rest()
        wait_for(lambda: get(rest, "/v1/nmse?cell=all")["overall"]["reports"] > 16 * UES)
        postgres.stop(signal.SIGKILL)
        for victim in (("-m gnb_server", "--run run-1"), ("-m ue_client", f"--ue-base {UES} ")):
            os.kill(process(*victim)[0], signal.SIGKILL)
        wait_for(lambda: _says("it is waited for"))
        postgres.start()
        results = run.results()
        assert (results["lost"], results["dropped"], results["misdecoded"], results["failed"]) == (0, 0, 0, [])
        for cell in results["cells"].values():
            assert {row.get("air") for row in cell["schemes"]["hyperrnn"]["versions"]} == {None, "loss=0.2"}
        each_counted_once(postgres.url, ["run-1", "run-2"], 2 * UES)


def _says(text: str) -> bool:
    """Whether a log of a gNB of this test's does."""
    return any(text in log.read_text() for log in Path(tempfile.gettempdir()).glob("csiemu-gnb-*/*/gnb.log"))


@pytest.mark.parametrize("nodes", [1], indirect=True)
def test_checks_can_fail_and_ctrl_c_ends_well(nodes: Nodes, small_store: CheckpointStore, tmp_path: Path) -> None:
    run = Emulation(
        tmp_path / "run", nodes.cluster.address, small_store, cells=1, rate=20, slots=10_000, fault="misdecode"
    )
    rest = run.rest()
    wait_for(lambda: get(rest, "/v1/nmse")["overall"]["reports"] > 30 * UES)
    assert TOKEN not in process("-m gnb_server", "--run run-1")[1]
    load = "/v2/repository/models/hyperrnn/load", {"parameters": {"version": 2}}
    with pytest.raises(InvalidInput, match="token: missing"):
        Rest(f"http://{rest}").post(*load)
    Rest(f"http://{rest}", TOKEN).post(*load)
    run.process.send_signal(signal.SIGINT)
    results = run.results(status=1)
    assert results["misdecoded"] > 0
    assert (results["lost"], results["failed"]) == (0, [])
    assert 0 < sum(row["reports"] for row in results["schemes"]["hyperrnn"]["versions"]) < 10_000 * UES


@pytest.mark.parametrize("nodes", [3], indirect=True)
def test_a_node_dies(nodes: Nodes, small_store: CheckpointStore, database: str, tmp_path: Path) -> None:
    """With the gNB of one cell and UEs of another: all go on elsewhere, and every report counts once."""
    cells = ["run-1", "run-2", "run-3"]
    run = Emulation(tmp_path / "run", nodes.cluster.address, small_store, cells=3, rate=20, store=database)
    rest = run.rest()
    wait_for(lambda: get(rest, "/v1/nmse?cell=all")["overall"]["reports"] > 30 * UES)
    nodes.kill()
    results = run.results()
    assert (results["lost"], results["dropped"], results["misdecoded"], results["failed"]) == (0, 0, 0, [])
    assert results["checked"] > 0
    assert results["schemes"]["hyperrnn"]["reports"] == 3 * UES * SLOTS
    assert sum(cell["gnb_starts"] for cell in results["cells"].values()) > 3, "no gNB was on that node"
    each_counted_once(database, cells, 3 * UES)


def test_nodes_of_ray_start(
    started: str, small_store: CheckpointStore, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.delenv("RAY_AUTH_MODE")
        refused = Emulation(tmp_path / "refused", started, small_store, cells=2, store=database)
        assert refused.process.wait(60) == 2
        assert f"ray: the cluster at {started} wants a token; wanted RAY_AUTH_MODE=token" in refused.log.read_text()
    run = Emulation(tmp_path / "run", started, small_store, cells=2, rate=40, store=database)
    results = run.results()
    assert (results["lost"], results["misdecoded"], results["failed"]) == (0, 0, [])
    assert results["checked"] > 0
    each_counted_once(database, ["run-1", "run-2"], 2 * UES)
