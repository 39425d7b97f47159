"""Rows of results: where each UE stands, sums of all its reports, and its newest single reports.

Rows are few, for each costs as much as decoding some reports: sums stand in blocks of UEs (`gnb_server.totals`), and
reports of a UE that came in one chunk are one row. All rows are written whole, none is added to: a transaction that is
written twice leaves what it has written once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from gnb_server.additions import Increment, Progress, Reports
from gnb_server.aging import AGED
from gnb_server.sessions import Fleet, Lease
from gnb_server.totals import BLOCK_UES, NewTotals
from shared.metrics import MEASURED

METADATA = sa.MetaData()
"""Of all tables of the store."""

UES = sa.Table(
    "ues",
    METADATA,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("ue", sa.BigInteger, primary_key=True),
    sa.Column("next_sequence", sa.BigInteger, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),  # of the open or last frame
    sa.Column(
        "open_frame", sa.LargeBinary, nullable=False
    ),  # reports of the open frame's slots so far, whole bytes each
    sa.Column("dropped", sa.BigInteger, nullable=False),  # reports that came too late
)

BLOCKS = sa.Table(
    "total_blocks",  # slot t of the frame; slot -1 sums frame means
    METADATA,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("first_ue", sa.BigInteger, primary_key=True),  # of the block
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("air_from", sa.BigInteger, primary_key=True),  # frame from which on their air was in force first
    sa.Column("slot", sa.Integer, primary_key=True),
    sa.Column("reports", sa.BigInteger, nullable=False),  # of all its UEs; 0 in slot -1
    sa.Column("sums", sa.LargeBinary, nullable=False),  # [UEs, totals.WIDTH] little-endian float64
)


def _of_fleets(name: str, *columns: sa.Column[Any]) -> sa.Table:
    """A table of what is added up over the UEs of a fleet, by version and air."""
    return sa.Table(
        name,
        METADATA,
        sa.Column("run", sa.String, primary_key=True),
        sa.Column("first_ue", sa.BigInteger, primary_key=True),  # of the fleet
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("air_from", sa.BigInteger, primary_key=True),
        *columns,
    )


LENGTHS = _of_fleets(
    "lengths",  # reports of a fleet by their feedback bits
    sa.Column("feedback_bits", sa.Integer, primary_key=True),
    sa.Column("reports", sa.BigInteger, nullable=False),
)

FATES = _of_fleets(
    "fates",  # reports of a fleet that the air changed or took, by what became of them
    sa.Column("fate", sa.String, primary_key=True),
    sa.Column("reports", sa.BigInteger, nullable=False),
)

AGED_SUMS = _of_fleets(
    "aged",  # sums over reports of a fleet against the channels of the slots in which their estimates were ready
    *(sa.Column(name, sa.Float, nullable=False) for name in AGED),
)

KEPT = sa.Table(
    "kept_reports",  # the newest of each UE: consecutive ones of a frame that came in one chunk
    METADATA,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("ue", sa.BigInteger, primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True),  # that later reports take, too (`Writer`)
    sa.Column("sequence", sa.BigInteger, nullable=False),  # of the first
    sa.Column("version", sa.Integer, nullable=False),  # 0: dropped
    sa.Column("reports", sa.LargeBinary, nullable=False),  # [slots] REPORT
    sa.Column("latency_ms", sa.Float, nullable=False),
    sa.Column("received_at", sa.Float, nullable=False),
)

REPORT = np.dtype([*((name, "<f8") for name in MEASURED), ("feedback_bits", "<i4"), ("fate", "i1")])
"""A report as it is stored: what was measured, its bits, and its fate (`shared.link.air.Fate`; -1: dropped, or kept
when it was not noted yet).
"""

PAGE = 512
"""Rows of kept reports that are read at once."""

Row = tuple[Any, ...]
"""Of a table, as its columns stand."""


@dataclass(frozen=True)
class Stored:
    """What one chunk of a fleet adds to the store."""

    fleet: Fleet
    progress: list[Progress] = field(default_factory=list)
    increments: list[Increment] = field(default_factory=list)
    reports: list[Reports] = field(default_factory=list)


class Writer:
    """Writes what chunks add to a run.

    Args:
        dialect: of the database.
        reports_kept: single reports of a UE. Those of a frame have places beside each other, in as many frames as
            these take, and one more for the frame that is open; then the first frame's places are taken again.
    """

    def __init__(self, dialect: sa.Dialect, run: str, reports_kept: int) -> None:
        self._run = run
        self._kept = reports_kept
        self._upserts = {table: upsert(table, dialect) for table in (UES, BLOCKS, LENGTHS, FATES, AGED_SUMS, KEPT)}

    def write(self, connection: sa.Connection, batch: Iterable[Stored]) -> list[NewTotals]:
        """Write rows; what the totals of the batch's fleets are once these are committed."""
        rows: dict[sa.Table, list[Row]] = {table: [] for table in self._upserts}
        increments: dict[tuple[Fleet, int, int], list[Increment]] = {}
        for stored in batch:
            fleet, first_ue = stored.fleet, stored.fleet.lease.first_ue
            for progress in stored.progress:
                rows[UES] += self._progress(first_ue, progress)
            for reports in stored.reports:
                rows[KEPT] += self._reports(fleet, reports)
            for increment in stored.increments:
                increments.setdefault((fleet, increment.version, increment.air_from), []).append(increment)
        found = []
        for (fleet, version, air_from), of_key in increments.items():
            found.append(new := NewTotals(fleet.totals_of(version, air_from), of_key))
            key = self._run, fleet.lease.first_ue, version, air_from
            for slot, first, count, sums in new.blocks():
                rows[BLOCKS].append((self._run, fleet.lease.first_ue + first, version, air_from, slot, count, sums))
            rows[LENGTHS] += [(*key, bits, count) for bits, count in new.lengths.items()]
            rows[FATES] += [(*key, fate, count) for fate, count in new.fates.items()]
            if new.aged.any():
                rows[AGED_SUMS].append((*key, *new.aged.tolist()))
        for table, of_table in rows.items():
            if of_table:
                connection.exec_driver_sql(self._upserts[table], of_table)
        return found

    def _progress(self, first_ue: int, progress: Progress) -> Iterator[Row]:
        ues, dropped = (first_ue + progress.rows).tolist(), progress.dropped.tolist()
        for ue, frame, count in zip(ues, progress.open_frame, dropped, strict=True):
            yield self._run, ue, progress.next_sequence, progress.version, frame, count

    def _reports(self, fleet: Fleet, reports: Reports) -> Iterator[Row]:
        place = place_of(reports.first_sequence, fleet.slots, self._kept)
        content = np.zeros(reports.lengths.T.shape, REPORT)
        for name, values in zip(MEASURED, reports.measured, strict=True):
            content[name] = values.T
        content["feedback_bits"] = reports.lengths.T
        content["fate"] = -1 if reports.fates is None else reports.fates.T
        data, size = content.tobytes(), len(reports.lengths) * REPORT.itemsize
        of_chunk = reports.latency_ms, reports.received_at
        for k, ue in enumerate((fleet.lease.first_ue + reports.rows).tolist()):
            of_ue = data[k * size : (k + 1) * size]
            yield self._run, ue, place, reports.first_sequence, reports.version, of_ue, *of_chunk


def upsert(table: sa.Table, dialect: sa.Dialect) -> str:
    """SQL that inserts rows, given as tuples of all columns, in place of those that are there. As text, for the driver:
    SQLAlchemy's handling of single parameters takes longer than the database.
    """
    statement: Any = (sqlite.insert if dialect.name == "sqlite" else postgresql.insert)(table)
    keys = [column.name for column in table.primary_key]
    new = {column.name: statement.excluded[column.name] for column in table.columns if column.name not in keys}
    return str(statement.on_conflict_do_update(index_elements=keys, set_=new).compile(dialect=dialect))


def place_of(sequence: int, slots: int, reports_kept: int) -> int:
    """The place of reports that begin with a sequence, in a frame of so many slots."""
    frame, slot = divmod(sequence, slots)
    return frame % (-(-reports_kept // slots) + 1) * slots + slot


def restore(connection: sa.Connection, run: str, fleet: Fleet, rows: range | None) -> None:
    """Put what is stored of a fleet's UEs, or of those of some rows, into its arrays."""
    lease, slots = fleet.lease, fleet.slots
    rows = range(lease.ue_count) if rows is None else rows
    for row in connection.execute(sa.select(UES).where(among(UES.c.ue, run, lease, rows))):
        index = row.ue - lease.first_ue
        fleet.next_sequence[index], fleet.version[index] = row.next_sequence, row.version
        fleet.dropped[index] = row.dropped
        if fleet.open is not None and row.version and (reached := row.next_sequence % slots):
            reports = np.frombuffer(row.open_frame, np.uint8).reshape(reached, -1)
            fleet.open.room_for(row.version, reports.shape[1])[index, :reached] = reports
    in_blocks = range(rows.start // BLOCK_UES * BLOCK_UES, rows.stop)
    for row in connection.execute(sa.select(BLOCKS).where(among(BLOCKS.c.first_ue, run, lease, in_blocks))):
        fleet.totals_of(row.version, row.air_from).read(row.slot, row.first_ue - lease.first_ue, row.sums)
    for row in connection.execute(sa.select(LENGTHS).where(_of(LENGTHS, run, lease))):
        fleet.totals_of(row.version, row.air_from).lengths[row.feedback_bits] = row.reports
    for row in connection.execute(sa.select(FATES).where(_of(FATES, run, lease))):
        fleet.totals_of(row.version, row.air_from).fates[row.fate] = row.reports
    for row in connection.execute(sa.select(AGED_SUMS).where(_of(AGED_SUMS, run, lease))):
        fleet.totals_of(row.version, row.air_from).aged[:] = row[4:]
    if fleet.open is not None:
        fleet.open.next_sequence[:], fleet.open.version[:] = fleet.next_sequence, fleet.version
        fleet.open.dropped[:] = fleet.dropped


def among(ue: sa.ColumnElement[int], run: str, lease: Lease, rows: range | None = None) -> sa.ColumnElement[bool]:
    """Whether a column has one of a lease's UEs in it, or of some of them, in a table of a run."""
    ues = lease.ues if rows is None else lease.ues[rows.start : rows.stop]
    return sa.and_(ue.table.c.run == run, ue.between(ues.start, ues.stop - 1))


def _of(table: sa.Table, run: str, lease: Lease) -> sa.ColumnElement[bool]:
    return (table.c.run == run) & (table.c.first_ue == lease.first_ue)


def reports_of(rows: Iterable[sa.Row[Any]], reports_kept: int) -> Iterator[list[dict[str, Any]]]:
    """The newest single reports of each UE, ascending, from rows of KEPT that are in the order of the UEs: with `ue`,
    `sequence`, `version`, MEASURED, `feedback_bits`, `fate` (None where it is not known), `latency_ms`, `received_at`.
    """
    names = [*MEASURED, "feedback_bits"]
    for ue, of_ue in groupby(rows, key=lambda row: row.ue):
        found = []
        for row in sorted(of_ue, key=lambda row: row.sequence):
            of_chunk = {"version": row.version, "latency_ms": row.latency_ms, "received_at": row.received_at}
            for k, values in enumerate(np.frombuffer(row.reports, REPORT).tolist()):
                of_report = dict(zip(names, values[:-1], strict=True))
                fate = None if values[-1] < 0 else values[-1]
                found.append({"ue": ue, "sequence": row.sequence + k, **of_chunk, **of_report, "fate": fate})
        oldest = found[-1]["sequence"] - reports_kept  # places that are not taken again have older ones
        yield [report for report in found if report["sequence"] > oldest]
