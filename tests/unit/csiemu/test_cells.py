"""What runs in which cell, and what is refused before a cluster is asked for anything."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from csiemu.cells.changes import Changes
from csiemu.cells.plan import plan
from csiemu.emulate import Settings, run
from csiemu.schedule import Schedule, parse_swaps
from gnb_server.store import Store
from shared.errors import InvalidInput, NotReady, StoreUnavailable


def settings(**given: Any) -> Settings:
    return Settings(_cli_parse_args=[], **given)


NO_BITS: dict[str, dict[str, Any]] = {"rnn": {}, "crnet": {}}


def test_no_two_ues_have_the_same_id() -> None:
    fleets = plan(settings(cells=3, ues=5, slots=8), "run", {"rnn": 20.0, "crnet": "max"}, NO_BITS)
    assert [(fleet.cell, fleet.scheme, fleet.first_ue) for fleet in fleets] == [
        ("run-1", "rnn", 0),
        ("run-1", "crnet", 5),
        ("run-2", "rnn", 10),
        ("run-2", "crnet", 15),
        ("run-3", "rnn", 20),
        ("run-3", "crnet", 25),
    ]
    assert {fleet.slots for fleet in fleets} == {8}


def test_a_duration_is_a_number_of_reports() -> None:
    """So that those end, too, that were started again."""
    rates: dict[str, Any] = {"rnn": 20.0, "crnet": 2.5}
    assert [fleet.slots for fleet in plan(settings(duration=3.1), "run", rates, NO_BITS)] == [62, 8]
    assert [fleet.slots for fleet in plan(settings(), "run", rates, NO_BITS)] == [600, 75]
    with pytest.raises(InvalidInput, match="slots: none, with ray and rate max"):
        plan(settings(duration=3.1), "run", {"rnn": "max"}, NO_BITS)


def test_bits_are_asked_for_where_a_scheme_can_have_them() -> None:
    fleets = plan(settings(slots=8), "run", {"rnn": 20.0, "gmtc": 2.0}, {"rnn": {}, "gmtc": {"bits": 300}})
    assert [fleet.options().get("bits") for fleet in fleets] == [None, 300]


class Gnb:
    """REST of a gNB that is away for its first three requests."""

    def __init__(self, at: list[int], all_came: threading.Barrier) -> None:
        self.at = at
        self.all_came = all_came

    def post(self, path: str, body: Any) -> Any:
        self.all_came.wait(60)  # or it breaks: each gNB is asked while the others have not answered
        self.at.append(len(self.at))
        if len(self.at) <= 3:
            raise NotReady("gnb: cannot be reached")
        return {}


def test_cells_are_asked_at_once_and_until_they_are_there() -> None:
    all_came = threading.Barrier(2)
    gnbs: dict[str, Any] = {cell: Gnb([], all_came) for cell in ("run-1", "run-2")}
    said, told = [], threading.Semaphore(0)

    def say(text: str) -> None:
        said.append(text)
        told.release()

    schedules = {cell: Schedule([*parse_swaps("rnn:2@0s,rnn:9@999s")]) for cell in gnbs}
    changes = Changes(schedules, gnbs.__getitem__, say)
    changes.begin()
    changes.begin()
    assert all(told.acquire(timeout=60) for _ in gnbs)
    assert changes.end() == [f"{cell}: swap of rnn to version 9: the run was over" for cell in gnbs]
    assert sorted(said) == [f"{cell}: rnn/2 is loaded: UEs use it from their next frame on" for cell in gnbs]
    assert [len(gnb.at) for gnb in gnbs.values()] == [4, 4]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [("cells", 2, "2"), ("store", "postgresql://a@b/c", "postgresql://a@b/c"), ("token", "abc", r"\*+")],
)
def test_what_wants_a_cluster(name: str, value: Any, shown: str) -> None:
    with pytest.raises(InvalidInput, match=f"{name}: {shown}, without ray; wanted --ray auto"):
        run(settings(**{name: value}))


def test_a_token_that_can_be_none_is_not_shown() -> None:
    with pytest.raises(InvalidInput, match="token: wanted letters, digits") as caught:
        run(settings(ray="auto", token="no secret"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("store", "says"), [(None, "none is given"), ("sqlite:////tmp/a.sqlite", "'sqlite:////tmp/a.sqlite' is a file")]
)
def test_a_file_is_the_store_of_one_node_alone(monkeypatch: pytest.MonkeyPatch, store: str | None, says: str) -> None:
    ray, live = pytest.importorskip("ray"), pytest.importorskip("csiemu.cells.live")
    nodes = [{"NodeID": "a", "Alive": True}, {"NodeID": "b", "Alive": False}, {"NodeID": "c", "Alive": True}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    with pytest.raises(InvalidInput, match=f"store: {says}, and the cluster has 2 nodes; wanted postgresql://"):
        live.common_store(store, Path("/runs/one"))
    assert live.common_store("postgresql://a@b/c", Path("/runs/one")) == ("postgresql://a@b/c", None)
    del nodes[2]
    assert live.common_store(store, Path("/runs/one")) == (store or "sqlite:////runs/one/gnb.sqlite", "a")


def test_a_store_that_is_away_is_waited_for_and_the_token_is_in_a_file_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    actors = pytest.importorskip("csiemu.cells.gnb")
    monkeypatch.setenv("CSIEMU_GNB_STORE", "")  # which the actor sets
    monkeypatch.setattr("csiemu.cells.gnb.PAUSE_S", 0.0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    opened = iter([StoreUnavailable("store: away"), StoreUnavailable("store: away")])

    def store(url: str, run: str, reports_kept: int) -> Store:
        if (problem := next(opened, None)) is not None:
            raise problem
        return Store(url, run, reports_kept)

    monkeypatch.setattr("gnb_server.store.Store", store)
    actor = actors.GnbActor("run-1", f"sqlite:///{tmp_path / 'gnb.sqlite'}", "secret", {})
    assert actor.lease(0) is None
    assert next(opened, None) is None
    [token] = tmp_path.glob("csiemu-gnb-*/token")
    assert (token.read_text(), token.stat().st_mode & 0o777) == ("secret", 0o600)
