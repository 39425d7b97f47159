"""Leases, versions, restored fleets and the ring of reports."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from gnb_server.additions import Increment, Progress, Reports
from gnb_server.results import KEPT, METADATA, Stored
from gnb_server.sessions import Fleet, Lease, VersionFacts
from gnb_server.store import Store
from shared.channels.scenario import Scenario
from shared.conditions import AirChange, RunConditions
from shared.errors import Conflict, InvalidInput, StoreUnavailable
from shared.link.air import Air, Fates
from shared.metrics import COLUMNS, MEASURED

SLOTS, BITS, ENCODER = 4, 5, "00" * 8
CONDITIONS = RunConditions(Scenario.parse(f"multipath-p2:slots={SLOTS}"), 2**64 - 1, Air(delay=1))
LEASE = Lease("t", "rnn", CONDITIONS, 10, 3)
FACTS = VersionFacts(ENCODER, BITS, "spatial")
CHANGE = AirChange(3, Air(loss=0.5))


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
    METADATA.drop_all(opened._engine)
    opened.close()


def reports(sequences: range) -> Stored:
    """Of row 1: error 1, power and total 2, sgcs 0.5, rho 0.6."""
    measured = np.tile(np.array([1.0, 2.0, 2.0, 0.5, 0.6])[:, None, None], (1, len(sequences), 1))
    lengths = np.array(sequences)[:, None] + 20
    of_row = Reports(7, np.array([1]), sequences.start, measured, lengths, 3.0, 4.0)
    return Stored(Fleet(LEASE, ENCODER), reports=[of_row])


def test_leases(store: Store) -> None:
    store.lease(LEASE, ENCODER)
    for first, count in ((9, 2), (12, 1), (0, 100)):
        with pytest.raises(Conflict, match=r"overlap those leased before \(10\.\.12\)"):
            store.lease(dataclasses.replace(LEASE, token="u", first_ue=first, ue_count=count), ENCODER)
    other = dataclasses.replace(LEASE, token="u", first_ue=13)
    store.lease(other, ENCODER)
    store.keep_encoder("u", "11" * 8)
    assert store.leases() == [(LEASE, ENCODER, False), (other, "11" * 8, False)]
    store.finish(LEASE)
    assert [finished for *_, finished in store.leases()] == [True, False]


def a_fleet(generator: np.random.Generator) -> tuple[Fleet, list[Stored]]:
    """A fleet whose first UEs are two slots into a frame and whose third has had the first two of it dropped, and the
    chunks that bring another one there.
    """
    fleet, other, chunks = Fleet(LEASE, ENCODER), Fleet(LEASE, ENCODER), []
    assert fleet.open is not None
    for version, rows, first, count in ((7, [0, 1, 2], 0, 4), (8, [0, 1], 4, 1), (8, [0, 1], 5, 1)):
        index = np.array(rows)
        sums = generator.random((count, len(rows), len(COLUMNS)))
        sums[..., 0] = 1
        fleet.open.keep(version, index, first, generator.integers(0, 2, (count, len(rows), BITS), np.uint8))
        reached = (first + count) % SLOTS
        frames = [row.tobytes() for row in fleet.open.reports[version][index, :reached]]
        whole = generator.random((len(rows) if reached == 0 else 0, len(COLUMNS)))
        slots = range(first % SLOTS, first % SLOTS + count)
        progress = Progress(index, first + count, version, frames, np.zeros(len(rows), np.int64))
        lengths = generator.integers(20, 24, (count, len(rows)))
        chunks.append(Stored(other, [progress], [Increment(version, index, slots, sums, whole, 1.5, lengths)]))
        totals = fleet.totals_of(version)
        totals.sums[index, slots.start : slots.stop] += sums.swapaxes(0, 1)
        totals.sums[index[: len(whole)], -1] += whole
        totals.wire_bytes[index, slots.start : slots.stop] += 1.5
        totals.feedback_bits[index, slots.start : slots.stop] += lengths.T
        totals.lengths.update(lengths.ravel().tolist())
        fleet.next_sequence[index], fleet.version[index] = first + count, version
    third = np.array([2])
    fleet.open.drop(third, 4, 2)
    fleet.next_sequence[2], fleet.version[2], fleet.dropped[2] = 6, 0, 2
    chunks.append(Stored(other, [Progress(third, 6, 0, [b""], fleet.open.dropped[third])]))
    return fleet, chunks


def check_totals(found: Fleet, expected: Fleet) -> None:
    assert set(found.totals) == set(expected.totals)
    for key, totals in expected.totals.items():
        np.testing.assert_array_equal(found.totals[key].table, totals.table)
        assert found.totals[key].lengths == totals.lengths


@pytest.mark.parametrize("together", [True, False])
def test_a_fleet_comes_back_as_it_was(store: Store, together: bool) -> None:
    store.lease(LEASE, ENCODER)
    fleet, chunks = a_fleet(np.random.default_rng(0))
    for batch in [chunks] if together else [[chunk] for chunk in chunks]:
        store.commit(batch)
    again = Fleet(LEASE, ENCODER)
    store.restore(again)
    assert again.open is not None
    assert fleet.open is not None
    for name in ("next_sequence", "version", "dropped"):
        np.testing.assert_array_equal(getattr(again, name), getattr(fleet, name))
        np.testing.assert_array_equal(getattr(again.open, name), getattr(fleet.open, name))
    assert set(again.totals) == {(7, 0), (8, 0)}
    check_totals(again, fleet)
    check_totals(chunks[0].fleet, fleet)
    assert set(again.open.reports) == {8}
    np.testing.assert_array_equal(again.open.reports[8][:2, :2], fleet.open.reports[8][:2, :2])
    assert store.counted() == {"t": 16}
    assert store.dropped() == {"t": 2}
    store.finish(LEASE)
    finished = Fleet(LEASE, ENCODER)
    finished.open = None
    store.restore(finished)
    np.testing.assert_array_equal(finished.totals[7, 0].sums, fleet.totals[7, 0].sums)


def test_ring(store: Store) -> None:
    """The newest are there, in whatever chunks they came; others take no room but for some frames."""
    for part in (range(3), range(3, 4), range(4, 6), range(6, 7)):
        store.commit([reports(part)])
    assert [(row["sequence"], row["feedback_bits"]) for row in store.reports(11)] == [(n, n + 20) for n in range(3, 7)]
    assert [row["sequence"] for row in store.reports(11, first=5)] == [5, 6]
    assert [row["sequence"] for row in store.reports(11, limit=2)] == [5, 6]
    assert store.reports(12) == []
    assert {name: store.reports(11)[0][name] for name in MEASURED} == {
        "error": 1.0,
        "power": 2.0,
        "total": 2.0,
        "sgcs": 0.5,
        "rho": 0.6,
    }
    for frame in range(2, 40):
        slots = range(SLOTS * frame, SLOTS * (frame + 1))
        store.commit([reports(range(slot, slot + 1)) for slot in slots] if frame % 5 else [reports(slots)])
        assert [row["sequence"] for row in store.reports(11)] == list(slots)
        assert list(store.kept_reports(LEASE.ues)) == store.reports(11)
    with store._engine.connect() as connection:
        assert len(connection.execute(sa.select(KEPT)).all()) <= 2 * SLOTS


def test_reports_that_were_dropped_have_their_places_in_the_ring(store: Store) -> None:
    store.commit([reports(range(3))])
    nothing, lengths = np.zeros((len(MEASURED), 1, 1)), np.full((1, 1), 20)
    for sequence in (3, 4):
        dropped = Reports(0, np.array([1]), sequence, nothing, lengths, 3.0, 4.0)
        store.commit([Stored(Fleet(LEASE, ENCODER), reports=[dropped])])
    assert [row["sequence"] for row in store.reports(11)] == [1, 2]
    assert [row["sequence"] for row in store.reports(11, limit=1)] == [2]
    kept = store.reports(11, first=2, dropped=True)
    assert [(row["sequence"], row["version"]) for row in kept] == [(2, 7), (3, 0), (4, 0)]


def test_versions(store: Store) -> None:
    """Those that were loaded or unloaded, in their order; one that UEs brought up keeps its place."""
    other = dataclasses.replace(FACTS, encoder_id="11" * 8)
    for version, facts in ((2, FACTS), (3, FACTS), (1, other), (2, FACTS)):
        store.keep_version("rnn", version, facts)
    assert store.versions() == {"rnn": {1: other, 2: FACTS, 3: FACTS}}
    store.keep_loaded("rnn", [2], loaded=True)
    store.keep_loaded("rnn", [1], loaded=True)
    store.keep_loaded("rnn", [2], loaded=True, asked=False)
    assert store.loaded() == [("rnn", 2, True), ("rnn", 1, True)]
    store.keep_loaded("rnn", [2], loaded=True)
    assert store.loaded() == [("rnn", 1, True), ("rnn", 2, True)]
    store.keep_loaded("rnn", [1, 2], loaded=False)
    assert store.loaded() == [("rnn", 1, False), ("rnn", 2, False)]


def test_runs_are_kept_apart(store: Store, url: str) -> None:
    store.lease(LEASE, ENCODER)
    store.keep_version("rnn", 2, FACTS)
    store.keep_loaded("rnn", [2], loaded=True)
    other = Store(url, "other", 4)
    assert (store.loaded(), other.loaded(), other.versions()) == ([("rnn", 2, True)], [], {})
    assert other.leases() == []


def test_tables_of_another_version_are_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.sqlite'}"
    Store(url, "r", 4).close()
    with sqlite3.connect(tmp_path / "old.sqlite") as connection:
        connection.execute("ALTER TABLE ues DROP COLUMN dropped")
    with pytest.raises(InvalidInput, match=r"store: table ues of .*old\.sqlite lacks dropped"):
        Store(url, "r", 4)


def test_a_lease_that_is_not_heard_of_takes_no_ids(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks after the database has committed; whoever asks next, the same fleet or another, has it."""
    dialect = store._engine.dialect
    really = dialect.do_commit

    def breaks(connection: Any) -> None:
        really(connection)
        raise store._engine.dialect.loaded_dbapi.OperationalError("server closed the connection unexpectedly")

    other = dataclasses.replace(LEASE, token="u", first_ue=11)
    for lease in (LEASE, other):
        with monkeypatch.context() as broken:
            broken.setattr(dialect, "do_commit", breaks)
            with pytest.raises(StoreUnavailable):
                store.lease(lease, ENCODER)
    store.lease(other, ENCODER)
    with pytest.raises(Conflict):
        store.lease(LEASE, ENCODER)
    assert [lease.token for lease, *_ in store.leases()] == ["u"]


@pytest.mark.parametrize("committed", [False, True])
def test_a_commit_that_is_not_heard_of_counts_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """The connection breaks before or after the database has committed: whoever writes the batch again adds nothing."""
    store.lease(LEASE, ENCODER)
    fleet, chunks = a_fleet(np.random.default_rng(0))
    store.commit(chunks[:2])
    dialect = store._engine.dialect
    really = dialect.do_commit

    def breaks(connection: Any) -> None:
        if committed:
            really(connection)
        raise store._engine.dialect.loaded_dbapi.OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as broken:
        broken.setattr(dialect, "do_commit", breaks)
        with pytest.raises(StoreUnavailable):
            store.commit(chunks[2:])
    for chunk in chunks[2:]:  # together or one by one
        store.commit([chunk])
    again = Fleet(LEASE, ENCODER)
    store.restore(again)
    np.testing.assert_array_equal(again.next_sequence, fleet.next_sequence)
    check_totals(again, fleet)


def test_the_run_is_owned_again_after_an_outage(url: str) -> None:
    """PostgreSQL's lock goes with its connection; while another gNB has it nothing is written."""
    if url.startswith("sqlite"):
        pytest.skip("the lock of a file stays")
    first, second = Store(url, "run", 4), Store(url, "run", 4)
    first.own()

    def outage() -> None:
        with second._engine.begin() as connection:
            mine = "pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            connection.exec_driver_sql(f"SELECT pg_terminate_backend(pid, 5000) FROM {mine}")

    outage()
    first.keep_target("rnn", 1)
    with pytest.raises(Conflict, match=r"run: 'run' of .* has a gNB"):
        second.own()
    outage()
    second.own()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="cannot be written: run 'run' has another gNB by now"):
            first.keep_target("rnn", 2)
    assert not first.writable()
    assert second.targets() == {"rnn": 1}
    second.close()
    assert first.writable()
    METADATA.drop_all(first._engine)
    first.close()


def as_an_earlier_version(store: Store, fleet: Fleet, sequences: range, *, airs_change: bool) -> None:
    """Make the tables of results those of a version that had a row for each UE and slot, and for each report; before
    fleets' airs could change they had neither `air_from` nor `fate`.
    """
    air, fate = ({"air_from": 0}, {"fate": 2}) if airs_change else ({}, {})
    sums = (*COLUMNS, "wire_bytes", "feedback_bits")
    rows = {
        "totals": [
            {"run": "run", "ue": ue, "version": version, **air, "slot": slot, **dict(zip(sums, of_ue, strict=True))}
            for (version, _), totals in fleet.totals.items()
            for slot in (-1, *range(SLOTS))
            for ue, of_ue in zip(LEASE.ues, totals.table[slot].tolist(), strict=True)
        ],
        "reports": [
            {"run": "run", "ue": 11, "ring": sequence % 4, "sequence": sequence, "version": 7}
            | {"error": 1.0, "power": 2.0, "total": 2.0, "sgcs": 0.5, "rho": 0.6}
            | {"feedback_bits": sequence + 20, **fate, "latency_ms": 3.0, "received_at": 4.0}
            for sequence in sequences
        ],
    }
    types = {str: sa.String, int: sa.BigInteger, float: sa.Float}
    with store._engine.begin() as connection:
        for name, of_table in rows.items():
            columns = [sa.Column(column, types[type(value)]) for column, value in of_table[0].items()]
            earlier = sa.Table(name, sa.MetaData(), *columns)
            earlier.create(connection)
            connection.execute(sa.insert(earlier), of_table)
        for name in ("total_blocks", "kept_reports"):
            connection.exec_driver_sql(f"DROP TABLE {name}")
        for name in () if airs_change else ("lengths", "fates"):
            table = METADATA.tables[name]
            columns = ", ".join(column.name for column in table.columns if column.name != "air_from")
            keys = ", ".join(column.name for column in table.primary_key if column.name != "air_from")
            connection.exec_driver_sql(f"CREATE TABLE earlier AS SELECT {columns} FROM {name}")
            connection.exec_driver_sql(f"CREATE UNIQUE INDEX key_of_{name} ON earlier ({keys})")
            connection.exec_driver_sql(f"DROP TABLE {name}")
            connection.exec_driver_sql(f"ALTER TABLE earlier RENAME TO {name}")


@pytest.mark.parametrize("airs_change", [True, False])
def test_a_store_of_an_earlier_version_goes_on(store: Store, url: str, airs_change: bool) -> None:
    fleet, chunks = a_fleet(np.random.default_rng(0))
    store.lease(LEASE, ENCODER)
    store.commit(chunks[:1])
    as_an_earlier_version(store, chunks[0].fleet, range(2, 4), airs_change=airs_change)
    again = Store(url, "run", 4)
    found = Fleet(LEASE, ENCODER)
    again.restore(found)
    check_totals(found, chunks[0].fleet)
    assert again.counted() == {"t": 12}
    again.commit([*chunks[1:], reports(range(4, 7))])
    kept = [(row["sequence"], row["feedback_bits"], row["fate"], row["rho"]) for row in again.reports(11)]
    assert kept == [(3, 23, 2 if airs_change else None, 0.6), *((n, n + 20, None, 0.6) for n in range(4, 7))]
    found = Fleet(LEASE, ENCODER)
    again.restore(found)
    check_totals(found, fleet)
    again.keep_air(LEASE, CHANGE)
    assert again.leases()[0][0].air_changes == (CHANGE,)
    assert not {"totals", "reports"} & set(sa.inspect(again._engine).get_table_names())
    again.close()


def test_reports_of_an_earlier_version_are_kept_whoever_opens_the_store_first(store: Store, url: str) -> None:
    _, chunks = a_fleet(np.random.default_rng(0))
    store.lease(LEASE, ENCODER)
    store.commit(chunks[:1])
    as_an_earlier_version(store, chunks[0].fleet, range(10), airs_change=True)
    Store(url, "run", 1).close()
    again = Store(url, "run", 10)
    assert [row["sequence"] for row in again.reports(11)] == [*range(10)]
    again.close()


def test_airs_of_a_fleet(store: Store) -> None:
    """A change takes the place of those that were to begin then or later; figures of each air are kept apart."""
    other = dataclasses.replace(LEASE, token="u", first_ue=13)
    for lease in (LEASE, other):
        store.lease(lease, ENCODER)
    for frame, loss in ((2, 0.1), (7, 0.2), (7, 0.3), (5, 0.4)):
        store.keep_air(LEASE, AirChange(frame, Air(loss=loss)))
    changes = (AirChange(2, Air(loss=0.1)), AirChange(5, Air(loss=0.4)))
    assert [lease.air_changes for lease, *_ in store.leases()] == [changes, ()]
    assert store.furthest(LEASE) == 0
    fleet, row, sums = Fleet(LEASE, ENCODER), np.array([1]), np.ones((1, 1, len(COLUMNS)))
    for air_from, reports_ in ((0, 3), (2, 2)):
        part = Increment(7, row, range(1), sums, sums[0, :0], 1.5, np.full((1, 1), 20), Fates(air_lost=1), air_from)
        store.commit([Stored(fleet, [Progress(row, 9, 7, [b""], row)], reports_ * [part])])
    assert store.furthest(LEASE) == 9
    assert store.furthest(other) == 0
    again = Fleet(store.leases()[0][0], ENCODER)
    store.restore(again)
    for key, count in {(7, 0): 3, (7, 2): 2}.items():
        totals = again.totals[key]
        assert totals.sums[1, 0].tolist() == len(COLUMNS) * [count]
        assert (totals.lengths[20], totals.fates["air_lost"], totals.wire_bytes[1, 0]) == (count, count, 1.5 * count)
    assert store.counted() == {"t": 5}


@pytest.mark.parametrize("url", ["nonsense", "mysql://h/d", "sqlite:////proc/no/such"])
def test_a_database_that_cannot_be_used(url: str) -> None:
    with pytest.raises(InvalidInput, match=f"store: '{url}' cannot be used; wanted sqlite:///FILE"):
        Store(url, "run", 4)


def test_a_database_that_is_away_may_come_back_and_its_password_is_not_shown() -> None:
    with pytest.raises(
        StoreUnavailable, match=r"store: 'postgresql://me:\*\*\*@127.0.0.1:1/none' cannot be reached: .*refused"
    ) as caught:
        Store("postgresql://me:secret@127.0.0.1:1/none", "run", 4)
    assert "secret" not in str(caught.value)
