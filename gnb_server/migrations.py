"""Stores that earlier versions of this program wrote, brought up to date when they are opened; nothing is lost.

Fleets' airs can change since `totals`, `lengths` and `fates` have a column `air_from` in their primary keys: it is 0 of
what was stored before. Reports that were kept before they had a `fate` have none.
"""

from __future__ import annotations

import sqlalchemy as sa

KEYED_ANEW = {"totals": "air_from", "lengths": "air_from", "fates": "air_from"}
"""Table -> column that came into its primary key, 0 of earlier rows."""


def bring_up_to_date(engine: sa.Engine, metadata: sa.MetaData) -> None:
    """Change the tables that an earlier version wrote to those of `metadata`, all in one transaction; tables that lack
    more than it knows of are left as they are.
    """
    with engine.connect() as connection:
        if not _outdated(connection, metadata):
            return
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver has tables changed outside of transactions
        for table in _outdated(connection, metadata):
            if table.name in KEYED_ANEW:
                _write_anew(connection, table)
            else:
                connection.exec_driver_sql("ALTER TABLE reports ADD COLUMN fate INTEGER")


def _outdated(connection: sa.Connection, metadata: sa.MetaData) -> list[sa.Table]:
    inspector, found = sa.inspect(connection), []
    for name, column in (*KEYED_ANEW.items(), ("reports", "fate")):
        table = metadata.tables[name]
        if inspector.has_table(name):
            missing = {c.name for c in table.columns} - {c["name"] for c in inspector.get_columns(name)}
            found += [table] if missing == {column} else []
    return found


def _write_anew(connection: sa.Connection, table: sa.Table) -> None:
    """A table with its new primary key, which cannot be added to one that is there."""
    new, before = KEYED_ANEW[table.name], f"{table.name}_before"
    names = ", ".join(f'"{column.name}"' for column in table.columns if column.name != new)
    connection.exec_driver_sql(f"ALTER TABLE {table.name} RENAME TO {before}")
    table.create(connection)
    connection.exec_driver_sql(f"INSERT INTO {table.name} ({names}, {new}) SELECT {names}, 0 FROM {before}")
    connection.exec_driver_sql(f"DROP TABLE {before}")
