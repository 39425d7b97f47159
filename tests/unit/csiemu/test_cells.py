"""What runs in which cell, and what is refused before a cluster is asked for anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from csiemu.cells.plan import check, plan
from csiemu.emulate import Settings, run
from shared.errors import InvalidInput


def settings(**given: Any) -> Settings:
    return Settings(_cli_parse_args=[], **given)


def test_no_two_ues_have_the_same_id() -> None:
    fleets = plan(settings(cells=3, ues=5, slots=8), "run", {"rnn": 20.0, "crnet": "max"})
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
    assert [fleet.slots for fleet in plan(settings(duration=3.1), "run", rates)] == [62, 8]
    assert [fleet.slots for fleet in plan(settings(), "run", rates)] == [600, 75]
    with pytest.raises(InvalidInput, match="slots: none, with ray and rate max"):
        plan(settings(duration=3.1), "run", {"rnn": "max"})


@pytest.mark.parametrize(
    ("name", "value"), [("swap", "rnn:2@3s"), ("air_change", "rnn:loss=1@3s"), ("bits", 20), ("target_nmse", -3.0)]
)
def test_what_cells_cannot_have(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"{name}: {value}, and ray: not for cells"):
        check(settings(**{name: value}))


@pytest.mark.parametrize(("name", "value"), [("cells", 2), ("store", "postgresql://a@b/c")])
def test_what_wants_a_cluster(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"{name}: {value}, without ray; wanted --ray auto"):
        run(settings(**{name: value}))


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
