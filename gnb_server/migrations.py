"""Stores that earlier versions of this program wrote, brought up to date when they are opened; nothing is lost.

`lengths` and `fates` have a column `air_from` in their primary keys since fleets' airs can change: it is 0 of what was
stored before. Sums stand in blocks of UEs (`total_blocks`) since writing a row for each UE and slot (`totals`) took
longer than decoding; for the same reason kept reports of a chunk are one row (`kept_reports`), where each had its own
(`reports`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from gnb_server.results import BLOCKS, FATES, KEPT, LENGTHS, METADATA, REPORT, Row, place_of, upsert
from gnb_server.totals import BLOCK_UES, WIDTH
from shared.conditions import RunConditions
from shared.metrics import COLUMNS, MEASURED


def bring_up_to_date(engine: sa.Engine, reports_kept: int) -> None:
    """Change the tables that an earlier version wrote to those of METADATA, all in one transaction; tables that lack
    more than it knows of are left as they are.

    Args:
        reports_kept: single reports of a UE.
    """
    with engine.connect() as connection:
        if not _outdated(connection):
            return
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver has tables changed outside of transactions
        for name in _outdated(connection):
            if name in (LENGTHS.name, FATES.name):
                _write_anew(connection, METADATA.tables[name])
                continue
            earlier = sa.Table(name, sa.MetaData(), autoload_with=connection)
            new, rows = (BLOCKS, _blocks) if name == "totals" else (KEPT, _reports)
            new.create(connection, checkfirst=True)
            statement = upsert(new, engine.dialect)
            for run, ues, slots in _blocks_of_ues(connection):
                mine = (earlier.c.run == run) & earlier.c.ue.between(ues.start, ues.stop - 1)
                found = connection.execute(sa.select(earlier).where(mine).order_by(earlier.c.ue)).mappings().all()
                if found:
                    connection.exec_driver_sql(statement, list(rows(found, ues, slots, reports_kept)))
            earlier.drop(connection)


def _outdated(connection: sa.Connection) -> list[str]:
    """Tables of an earlier version."""
    inspector = sa.inspect(connection)
    has = {name: {column["name"] for column in inspector.get_columns(name)} for name in inspector.get_table_names()}
    found = [
        table.name for table in (LENGTHS, FATES) if {*table.columns.keys()} - has.get(table.name, set()) == {"air_from"}
    ]
    wanted = {"totals": {*COLUMNS, "wire_bytes", "feedback_bits"}, "reports": {*MEASURED, "feedback_bits"}}
    return found + [name for name, columns in wanted.items() if columns <= has.get(name, set())]


def _blocks_of_ues(connection: sa.Connection) -> Iterator[tuple[str, range, int]]:
    """Run, UEs and slots of a frame, block by block of each lease."""
    leases = METADATA.tables["leases"].c
    query = sa.select(leases.run, leases.first_ue, leases.ue_count, leases.conditions)
    for run, first_ue, count, conditions in connection.execute(query).all():
        slots, stop = RunConditions.from_json(json.loads(conditions)).scenario.slots, first_ue + count
        for first in range(first_ue, stop, BLOCK_UES):
            yield run, range(first, min(first + BLOCK_UES, stop)), slots


def _blocks(earlier: Sequence[sa.RowMapping], ues: range, _slots: int, _kept: int) -> Iterator[Row]:
    """Of a block's rows of `totals`."""
    tables: dict[tuple[int, int, int], NDArray[np.float64]] = {}
    for row in earlier:
        key = row["version"], row.get("air_from", 0), row["slot"]
        table = tables.setdefault(key, np.zeros((len(ues), WIDTH)))
        table[row["ue"] - ues.start] = [row[name] for name in (*COLUMNS, "wire_bytes", "feedback_bits")]
    for (version, air_from, slot), table in tables.items():
        reports = int(table[:, 0].sum()) if slot >= 0 else 0
        yield earlier[0]["run"], ues.start, version, air_from, slot, reports, table.astype("<f8").tobytes()


def _reports(earlier: Sequence[sa.RowMapping], _ues: range, slots: int, kept: int) -> Iterator[Row]:
    """Of a block's rows of `reports`."""
    kept = max(kept, *Counter(row["ue"] for row in earlier).values())  # whoever opens it first may want fewer
    for row in earlier:
        fate = -1 if row.get("fate") is None else row["fate"]
        content = np.array([(*(row[name] for name in MEASURED), row["feedback_bits"], fate)], REPORT).tobytes()
        place = place_of(row["sequence"], slots, kept)
        of_chunk = row["latency_ms"], row["received_at"]
        yield row["run"], row["ue"], place, row["sequence"], row["version"], content, *of_chunk


def _write_anew(connection: sa.Connection, table: sa.Table) -> None:
    """A table with `air_from` in its primary key, which cannot be added to one that is there."""
    before = f"{table.name}_before"
    names = ", ".join(f'"{column.name}"' for column in table.columns if column.name != "air_from")
    connection.exec_driver_sql(f"ALTER TABLE {table.name} RENAME TO {before}")
    table.create(connection)
    connection.exec_driver_sql(f"INSERT INTO {table.name} ({names}, air_from) SELECT {names}, 0 FROM {before}")
    connection.exec_driver_sql(f"DROP TABLE {before}")
