"""Tasks on a Ray cluster: what they write, print and raise comes to the driver. Nodes die in
tests/e2e/test_clusters.py.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from csiemu import tasks
from csiemu.cluster import connected
from csiemu.tasks import Task, TasksFailed, run_tasks
from shared.errors import InvalidInput, NotFound
from tests.ray_cluster import start_cluster


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    made = start_cluster(num_cpus=2, include_dashboard=False)
    try:
        with connected(made.address):
            yield
    finally:
        made.shutdown()


def test_what_a_task_writes_and_prints_comes_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def work(folder: Path) -> None:
        print("begins with", *sorted(path.name for path in folder.rglob("*.*")))
        (folder / "states" / "before.json").unlink()
        (folder / "states" / "kept.json").write_text("changed")
        (folder / "new").mkdir()
        (folder / "new" / "file.txt").write_text("new")
        (folder / "new" / "half.partial").write_text("")

    for path in ("states/before.json", "states/kept.json", "others/theirs.json", "one.zip"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(path)
    run_tasks([Task("one", work, ("states", "one.zip", "nothing"), 0.5, 0)], tmp_path)
    assert capsys.readouterr().out == "begins with before.json kept.json one.zip\n"
    found = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {
        "states/kept.json": "changed",
        "others/theirs.json": "others/theirs.json",
        "one.zip": "one.zip",
        "new/file.txt": "new",
    }


def test_a_task_that_fails_leaves_the_others_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(folder: Path) -> None:
        raise NotFound("scheme: 'nonsense' is unknown")

    def breaks(folder: Path) -> None:
        raise ValueError("a mistake")

    def dies(folder: Path) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def works(folder: Path) -> None:
        (folder / "done").touch()

    monkeypatch.setattr(tasks, "MOST_LOSSES", 1)
    all_of_them = (refuses, breaks, dies, works)
    with pytest.raises(TasksFailed, match=r"^ray: 3 of 4 failed: (\w+, ){2}\w+$") as error:
        run_tasks([Task(work.__name__, work, (), 0.5, 0) for work in all_of_them], tmp_path)
    assert "works" not in str(error.value)
    assert (tmp_path / "done").exists()
    printed = capsys.readouterr()
    assert "refuses: scheme: 'nonsense' is unknown\n" in printed.err
    assert "a mistake" in printed.err
    assert 'raise ValueError("a mistake")' in printed.err  # where it is
    assert "dies: lost, WorkerCrashedError; begun again with what it has sent\n" in printed.out
    assert "dies: lost, WorkerCrashedError, 2 times\n" in printed.err


def test_what_no_node_has(tmp_path: Path) -> None:
    def never(folder: Path) -> None:
        (folder / "ran").touch()

    for cpus, gpus in ((2.5, 0), (1, 0.25)):
        with pytest.raises(
            InvalidInput, match=rf"one: num_cpus: {cpus} and num_gpus: {gpus}; no node .* has as many: 2 and 0$"
        ):
            run_tasks([Task("other", never, (), 1, 0), Task("one", never, (), cpus, gpus)], tmp_path)
    assert not list(tmp_path.iterdir())


def test_tasks_that_are_interrupted_send_what_they_leave(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        (folder / "begun").touch()
        try:
            while True:
                time.sleep(0.1)
        except KeyboardInterrupt:
            time.sleep(2)
            (folder / "left").touch()
            raise

    def interrupt() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            run_tasks([Task("one", work, (), 1, 0)], tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "left").exists()
