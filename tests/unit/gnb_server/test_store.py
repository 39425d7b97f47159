"""Leases, restored fleets and the ring of reports."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gnb_server.sessions import Fleet, Lease
from gnb_server.store import Store, Stored, _metadata
from shared.channels.scenario import Scenario
from shared.errors import Conflict, InvalidInput
from shared.link.payload import Field, PayloadLayout

LAYOUT = PayloadLayout((Field("signs", 5, 1),))
LEASE = Lease("t", "rnn", Scenario.parse("multipath-p2:slots=4"), 2**64 - 1, "00" * 8, 10, 3, 1)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """PostgreSQL where CSIEMU_TEST_POSTGRES has the URL of a database for tests alone, which they empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.sqlite'}"
    if not (server := os.environ.get("CSIEMU_TEST_POSTGRES")):
        pytest.skip("CSIEMU_TEST_POSTGRES is not set")
    return server


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store(url, "run", 4)
    yield opened
    _metadata.drop_all(opened._engine)
    opened.close()


def reports(sequences: range) -> np.ndarray:
    """Of row 1: latency 3, received at 4, error 1, power and total 2, sgcs 0.5, rho 0.6."""
    return np.array([[1, sequence, 7, 3.0, 4.0, 1.0, 2.0, 2.0, 0.5, 0.6] for sequence in sequences])


def test_leases(store: Store) -> None:
    assert store.next_free_ue() == 0
    store.lease(LEASE)
    assert store.next_free_ue() == 13
    for first, count in ((9, 2), (12, 1), (0, 100)):
        with pytest.raises(Conflict, match=r"overlap those leased before \(10\.\.12\)"):
            store.lease(dataclasses.replace(LEASE, token="u", first_ue=first, ue_count=count))
    store.lease(dataclasses.replace(LEASE, token="u", first_ue=13))
    assert store.leases() == [(LEASE, False), (dataclasses.replace(LEASE, token="u", first_ue=13), False)]
    store.finish("t")
    assert [finished for _, finished in store.leases()] == [True, False]


def test_a_fleet_comes_back_as_it_was(store: Store) -> None:
    store.lease(LEASE)
    fleet = Fleet(LEASE, LAYOUT, "spatial")
    generator = np.random.default_rng(0)
    fleet.next_sequence[:] = [6, 6, 4]  # two slots into a frame, and at the start of one
    fleet.version[:] = 7
    fleet.wire_bytes[:] = [1.5, 2.5, 3.5]
    fleet.open.bits[:] = generator.integers(0, 2, fleet.open.bits.shape)
    fleet.sums[:] = generator.random(fleet.sums.shape)
    store.commit([Stored(fleet, np.arange(3), [0, 1, 2, 3, 4], reports(range(6)))])
    again = Fleet(LEASE, LAYOUT, "spatial")
    store.restore(again)
    for name in ("next_sequence", "version", "sums", "wire_bytes"):
        np.testing.assert_array_equal(getattr(again, name), getattr(fleet, name))
    np.testing.assert_array_equal(again.open.bits[:2, :2], fleet.open.bits[:2, :2])
    assert store.counted() == {"t": int(fleet.sums[:, :4, 0].sum())}


def test_ring(store: Store) -> None:
    fleet = Fleet(LEASE, LAYOUT, "spatial")
    for part in (range(3), range(3, 6), range(6, 7)):
        store.commit([Stored(fleet, np.array([1]), [], reports(part))])
    assert [row["sequence"] for row in store.reports(11)] == [3, 4, 5, 6]
    assert [row["sequence"] for row in store.reports(11, first=5)] == [5, 6]
    assert [row["sequence"] for row in store.reports(11, limit=2)] == [5, 6]
    assert store.reports(12) == []


def test_runs_are_kept_apart(store: Store, url: str) -> None:
    store.lease(LEASE)
    store.keep_serving("rnn", 2)
    store.keep_serving("rnn", 3)
    other = Store(url, "other", 4)
    assert (store.serving(), other.serving()) == ({"rnn": 3}, {})
    assert (other.next_free_ue(), other.leases()) == (0, [])


def test_tables_of_another_version_are_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.sqlite'}"
    Store(url, "r", 4).close()
    with sqlite3.connect(tmp_path / "old.sqlite") as connection:
        connection.execute("ALTER TABLE totals DROP COLUMN rho")
    with pytest.raises(InvalidInput, match=r"store: table totals of .*old\.sqlite lacks rho"):
        Store(url, "r", 4)


@pytest.mark.parametrize("url", ["nonsense", "mysql://h/d", "sqlite:////proc/no/such", "postgresql://127.0.0.1:1/none"])
def test_a_database_that_cannot_be_used(url: str) -> None:
    with pytest.raises(InvalidInput, match=f"store: '{url}' cannot be used; wanted sqlite:///FILE"):
        Store(url, "run", 4)


def test_a_password_is_not_shown() -> None:
    with pytest.raises(
        InvalidInput, match=r"store: 'postgresql://me:\*\*\*@127.0.0.1:1/none' cannot be used"
    ) as caught:
        Store("postgresql://me:secret@127.0.0.1:1/none", "run", 4)
    assert "secret" not in str(caught.value)
