"""Results that outlive the process: leases, where each UE stands, sums of all reports, and the newest single reports.

Everything that an ack promises is written in one transaction. A report counts once because `ues.next_sequence` moves
with it. Any SQLAlchemy URL of SQLite (WAL) or PostgreSQL (psycopg, the extra `postgres`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.dialects import postgresql, sqlite

from gnb_server.sessions import Fleet, Lease
from shared.channels.scenario import Scenario
from shared.errors import Conflict, InvalidInput
from shared.metrics import COLUMNS, MEASURED

_metadata = sa.MetaData()

_leases = sa.Table(
    "leases",
    _metadata,
    sa.Column("token", sa.String, primary_key=True),
    sa.Column("run", sa.String, nullable=False),
    sa.Column("scheme", sa.String, nullable=False),
    sa.Column("scenario", sa.String, nullable=False),
    sa.Column("seed", sa.String, nullable=False),  # 64 bits unsigned, more than SQL's integers hold
    sa.Column("encoder_id", sa.String, nullable=False),
    sa.Column("first_ue", sa.BigInteger, nullable=False),
    sa.Column("ue_count", sa.BigInteger, nullable=False),
    sa.Column("delay", sa.Integer, nullable=False),
    sa.Column("finished", sa.Boolean, nullable=False, default=False),
)

_serving = sa.Table(
    "serving",  # the decoder version that was loaded last, by checkpoint name
    _metadata,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)

_ues = sa.Table(
    "ues",
    _metadata,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("ue", sa.BigInteger, primary_key=True),
    sa.Column("next_sequence", sa.BigInteger, nullable=False),
    sa.Column("decoder_version", sa.Integer, nullable=False),
    sa.Column("open_frame", sa.LargeBinary, nullable=False),  # payload bits of the open frame's slots so far
    sa.Column("wire_bytes", sa.Float, nullable=False),
)

_totals = sa.Table(
    "totals",  # slot t of the frame; slot -1 sums frame means
    _metadata,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("ue", sa.BigInteger, primary_key=True),
    sa.Column("slot", sa.Integer, primary_key=True),
    *(sa.Column(name, sa.Float, nullable=False) for name in COLUMNS),
)

_reports = sa.Table(
    "reports",  # the newest of each UE: ring = sequence modulo reports_kept
    _metadata,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("ue", sa.BigInteger, primary_key=True),
    sa.Column("ring", sa.Integer, primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("decoder_version", sa.Integer, nullable=False),
    *(sa.Column(name, sa.Float, nullable=False) for name in MEASURED),
    sa.Column("latency_ms", sa.Float, nullable=False),
    sa.Column("received_at", sa.Float, nullable=False),
)


@dataclass(frozen=True)
class Stored:
    """What one chunk adds.

    Attributes:
        fleet: whose.
        rows: [R] UE rows of the fleet that moved on.
        touched: slots of the frame (0..T-1, and T for frame means) whose sums changed.
        reports: [K, 5 + MEASURED] float64, one row per report: row of the fleet, sequence, version,
            latency [ms], time of arrival [s since 1970].
    """

    fleet: Fleet
    rows: NDArray[np.int64]
    touched: list[int]
    reports: NDArray[np.float64]


class Store:
    """The result store of one run.

    Raises:
        InvalidInput: no database can be reached at the URL, or another version of this program wrote it.
    """

    def __init__(self, url: str, run: str, reports_kept: int) -> None:
        self.run = run
        self.reports_kept = reports_kept
        try:
            self._engine = _engine(url)
            self._sqlite = self._engine.dialect.name == "sqlite"
            _metadata.create_all(self._engine)
        except (sa.exc.SQLAlchemyError, ModuleNotFoundError, OSError) as error:
            wanted = "wanted sqlite:///FILE, or postgresql://USER@HOST/NAME with the extra `postgres`"
            raise InvalidInput(f"store: '{_without_password(url)}' cannot be used; {wanted}: {error}") from None
        self._check_tables()
        insert = sqlite.insert if self._sqlite else postgresql.insert
        self._upserts = {}
        for table in (_serving, _ues, _totals, _reports):
            statement: Any = insert(table)
            keys = [column.name for column in table.primary_key]
            changes = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
            self._upserts[table.name] = statement.on_conflict_do_update(index_elements=keys, set_=changes)

    def _check_tables(self) -> None:
        """Raises InvalidInput if the tables are those of another version of this program."""
        inspector = sa.inspect(self._engine)
        for table in _metadata.sorted_tables:
            missing = {column.name for column in table.columns} - {c["name"] for c in inspector.get_columns(table.name)}
            if missing:
                what = f"table {table.name} of {self._engine.url} lacks {', '.join(sorted(missing))}"
                raise InvalidInput(f"store: {what}: another version wrote it; move it away or name another store")

    def lease(self, lease: Lease) -> None:
        """Keep a new lease. Raises Conflict if one of its ids is taken."""
        with self._engine.begin() as connection:
            taken = sa.select(_leases.c.first_ue, _leases.c.ue_count).where(
                _leases.c.run == self.run,
                _leases.c.first_ue < lease.first_ue + lease.ue_count,
                _leases.c.first_ue + _leases.c.ue_count > lease.first_ue,
            )
            if other := connection.execute(taken).first():
                raise Conflict(
                    f"ue_base: UE ids {lease.first_ue}..{lease.first_ue + lease.ue_count - 1} overlap those leased"
                    f" before ({other.first_ue}..{other.first_ue + other.ue_count - 1})"
                )
            row = {
                name: getattr(lease, name)
                for name in ("token", "scheme", "encoder_id", "first_ue", "ue_count", "delay")
            }
            text = {"run": self.run, "scenario": str(lease.scenario), "seed": str(lease.seed), "finished": False}
            connection.execute(sa.insert(_leases).values(**row, **text))

    def next_free_ue(self) -> int:
        """The first id above all leased ones."""
        last = sa.select(sa.func.max(_leases.c.first_ue + _leases.c.ue_count)).where(_leases.c.run == self.run)
        with self._engine.connect() as connection:
            return int(connection.execute(last).scalar() or 0)

    def finish(self, token: str) -> None:
        """Mark a lease as finished."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(_leases).where(_leases.c.token == token).values(finished=True))

    def leases(self) -> list[tuple[Lease, bool]]:
        """All leases of the run with whether they are finished, in the order of their ids."""
        query = sa.select(_leases).where(_leases.c.run == self.run).order_by(_leases.c.first_ue)
        with self._engine.connect() as connection:
            return [
                (
                    Lease(
                        token=row.token,
                        scheme=row.scheme,
                        scenario=Scenario.parse(row.scenario),
                        seed=int(row.seed),
                        encoder_id=row.encoder_id,
                        first_ue=row.first_ue,
                        ue_count=row.ue_count,
                        delay=row.delay,
                    ),
                    row.finished,
                )
                for row in connection.execute(query)
            ]

    def keep_serving(self, name: str, version: int) -> None:
        """Remember which version a model was loaded at."""
        with self._engine.begin() as connection:
            row = {"run": self.run, "name": name, "version": version}
            connection.execute(self._upserts[_serving.name], row)

    def serving(self) -> dict[str, int]:
        """Versions that models were loaded at last, by name."""
        query = sa.select(_serving.c.name, _serving.c.version).where(_serving.c.run == self.run)
        with self._engine.connect() as connection:
            return {row.name: row.version for row in connection.execute(query)}

    def restore(self, fleet: Fleet) -> None:
        """Put a fleet's stored sequences, versions, sums, wire bytes and open payload bits into its arrays."""
        among = (fleet.first_ue, fleet.first_ue + fleet.ue_count - 1)
        with self._engine.connect() as connection:
            for row in connection.execute(sa.select(_ues).where(_ues.c.run == self.run, _ues.c.ue.between(*among))):
                index = row.ue - fleet.first_ue
                fleet.next_sequence[index] = row.next_sequence
                fleet.version[index] = row.decoder_version
                fleet.wire_bytes[index] = row.wire_bytes
                bits = np.unpackbits(np.frombuffer(row.open_frame, np.uint8))
                slots = row.next_sequence % fleet.scenario.slots
                fleet.open.bits[index, :slots] = bits[: slots * fleet.layout.bits].reshape(slots, fleet.layout.bits)
            totals = sa.select(_totals).where(_totals.c.run == self.run, _totals.c.ue.between(*among))
            for row in connection.execute(totals):
                fleet.sums[row.ue - fleet.first_ue, row.slot] = row[3:]  # slot -1 is the last row

    def commit(self, batch: Iterable[Stored]) -> None:
        """Write what chunks added, in one transaction."""
        ues: list[dict[str, Any]] = []
        totals: list[dict[str, Any]] = []
        reports: list[dict[str, Any]] = []
        for item in batch:
            ues += self._ue_rows(item.fleet, item.rows)
            totals += self._total_rows(item.fleet, item.rows, item.touched)
            reports += self._report_rows(item.fleet, item.reports)
        with self._engine.begin() as connection:
            for table, rows in ((_ues, ues), (_totals, totals), (_reports, reports)):
                if rows:
                    connection.execute(self._upserts[table.name], rows)

    def _ue_rows(self, fleet: Fleet, rows: NDArray[np.int64]) -> list[dict[str, Any]]:
        slots = fleet.next_sequence[rows] % fleet.scenario.slots
        frames = [np.packbits(fleet.open.bits[row, :t]).tobytes() for row, t in zip(rows, slots, strict=True)]
        columns = (fleet.first_ue + rows, fleet.next_sequence[rows], fleet.version[rows], fleet.wire_bytes[rows])
        return [
            {
                "run": self.run,
                "ue": ue,
                "next_sequence": sequence,
                "decoder_version": version,
                "open_frame": frame,
                "wire_bytes": wire,
            }
            for ue, sequence, version, wire, frame in zip(*(c.tolist() for c in columns), frames, strict=True)
        ]

    def _total_rows(self, fleet: Fleet, rows: NDArray[np.int64], touched: list[int]) -> list[dict[str, Any]]:
        names = {t: -1 if t == fleet.scenario.slots else t for t in touched}
        return [
            {"run": self.run, "ue": ue, "slot": names[t], **dict(zip(COLUMNS, sums, strict=True))}
            for t in touched
            for ue, sums in zip((fleet.first_ue + rows).tolist(), fleet.sums[rows, t].tolist(), strict=True)
        ]

    def _report_rows(self, fleet: Fleet, reports: NDArray[np.float64]) -> list[dict[str, Any]]:
        return [
            {
                "run": self.run,
                "ue": fleet.first_ue + int(row),
                "ring": int(sequence) % self.reports_kept,
                "sequence": int(sequence),
                "decoder_version": int(version),
                "latency_ms": latency,
                "received_at": received,
                **dict(zip(MEASURED, measured, strict=True)),
            }
            for row, sequence, version, latency, received, *measured in reports.tolist()
        ]

    def reports(self, ue: int, first: int = 0, limit: int | None = None) -> list[dict[str, Any]]:
        """Kept reports of a UE from sequence `first` on, the newest `limit`, ascending."""
        query = (
            sa.select(_reports)
            .where(_reports.c.run == self.run, _reports.c.ue == ue, _reports.c.sequence >= first)
            .order_by(_reports.c.sequence.desc())
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return [dict(row) for row in reversed(connection.execute(query).mappings().all())]

    def counted(self) -> dict[str, int]:
        """Reports in the store's totals, by token."""
        query = (
            sa.select(_leases.c.token, sa.func.sum(_totals.c.count))
            .join(
                _totals,
                sa.and_(
                    _totals.c.run == _leases.c.run,
                    _totals.c.slot >= 0,
                    _totals.c.ue >= _leases.c.first_ue,
                    _totals.c.ue < _leases.c.first_ue + _leases.c.ue_count,
                ),
            )
            .where(_leases.c.run == self.run)
            .group_by(_leases.c.token)
        )
        with self._engine.connect() as connection:
            return {token: int(count) for token, count in connection.execute(query)}

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _without_password(url: str) -> str:
    try:
        return sa.make_url(url).render_as_string()
    except sa.exc.ArgumentError:  # none that it could be part of
        return url


def _engine(url: str) -> sa.Engine:
    parsed = sa.make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise sa.exc.ArgumentError(f"no database of '{parsed.drivername}' is known")
    if parsed.drivername == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(parsed)
    if parsed.drivername == "sqlite":
        sa.event.listen(engine, "connect", _use_wal)
    return engine


def _use_wal(connection: Any, _record: Any) -> None:
    """WAL with synchronous=NORMAL: commits survive the death of the process, and readers never block the writer."""
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000"):
        connection.execute(f"PRAGMA {pragma}")
