"""What a RUN of a command line is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from csiemu.report.places import Place
from csiemu.report.reading import read_run
from gnb_server.sessions import Lease
from gnb_server.store import Store
from shared.errors import NotFound
from tests.unit.csiemu.report.making import SLOTS, MadeRun, conditions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An emulation's."""
    MadeRun(tmp_path / "run").decoded(np.full((2, 3, SLOTS), 0.1))
    return tmp_path / "run"


@pytest.mark.parametrize("how", ["{}", "{}/gnb.sqlite", "sqlite:///{}/gnb.sqlite", "{}#default"])
def test_ways_to_say_it(folder: Path, how: str) -> None:
    found = read_run(how.format(folder))
    assert (found.name, sum(row["reports"] for row in found.rows)) == ("default", 2 * 3 * SLOTS)
    assert Place.parse(how.format(folder)).folder == (None if "sqlite" in how else folder)


def test_several_runs(folder: Path) -> None:
    Store(f"sqlite:///{folder / 'gnb.sqlite'}", "monday", 4).keep_process(1.0, {})
    with pytest.raises(NotFound, match=r"run: ''; .*/run has the runs default, monday"):
        read_run(str(folder))
    with pytest.raises(NotFound, match=r"run: 'sunday'; .*/run has the runs default, monday"):
        read_run(f"{folder}#sunday")
    assert read_run(f"{folder}#default").rows


def test_nothing_is_made_where_nothing_is(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "x.sqlite", f"sqlite:///{tmp_path}/x.sqlite"):
        with pytest.raises(NotFound, match="is no folder of csiemu emulate, or store of csiemu gnb"):
            Place.parse(str(place))
    assert not list(tmp_path.iterdir())


def test_a_password_is_not_shown() -> None:
    place = Place.parse("postgresql://me:secret@host/name#monday")
    assert place.text == "postgresql://me:***@host/name#monday"
    assert place.url == "postgresql://me:secret@host/name"


def test_ues_that_attach_at_this_moment(folder: Path) -> None:
    store = Store(f"sqlite:///{folder / 'gnb.sqlite'}", "default", 4)
    store.lease(Lease("new", "dldnn", conditions(), 50, 2), "ff" * 8)
    assert {row["scheme"] for row in read_run(str(folder)).rows} == {"rnn"}
