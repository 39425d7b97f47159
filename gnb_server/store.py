"""Results that outlive the process: leases, where each UE stands, sums of all reports, and the newest single reports.

Everything that an ack promises is written in one transaction. A report counts once because `ues.next_sequence` moves
with it. Any SQLAlchemy URL of SQLite (WAL) or PostgreSQL (psycopg, the extra `postgres`).
"""

from __future__ import annotations

import copy
import dataclasses
import fcntl
import hashlib
import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from gnb_server.migrations import bring_up_to_date
from gnb_server.results import BLOCKS, KEPT, METADATA, PAGE, UES, Stored, Writer, among, reports_of, restore
from gnb_server.sessions import Assignment, Fleet, Lease, VersionFacts
from shared.conditions import AirChange, RunConditions
from shared.errors import Conflict, InvalidInput, StoreUnavailable
from shared.link.air import Air
from shared.link.rate import OWN, Rate

_leases = sa.Table(
    "leases",
    METADATA,
    sa.Column("token", sa.String, primary_key=True),
    sa.Column("run", sa.String, nullable=False),
    sa.Column("model", sa.String, nullable=False),
    sa.Column("conditions", sa.String, nullable=False),  # as JSON: a seed has 64 bits, more than SQL's integers hold
    sa.Column("encoder_id", sa.String, nullable=False),  # that the fleet attached with last
    sa.Column("first_ue", sa.BigInteger, nullable=False),
    sa.Column("ue_count", sa.BigInteger, nullable=False),
    sa.Column(
        "assigned", sa.String, nullable=False
    ),  # versions that UEs are to use, as JSON: [first row, UEs, version]
    sa.Column("rate", sa.String, nullable=False),  # of its reports, as JSON
    sa.Column("finished", sa.Boolean, nullable=False, default=False),
)

_air_changes = sa.Table(
    "air_changes",  # of fleets, since they attached
    METADATA,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("first_ue", sa.BigInteger, primary_key=True),  # of the fleet
    sa.Column("from_frame", sa.BigInteger, primary_key=True),
    sa.Column("air", sa.String, nullable=False),
)

_versions = sa.Table(
    "versions",  # that this run has used
    METADATA,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("model", sa.String, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("encoder_id", sa.String, nullable=False),
    sa.Column("feedback_bits", sa.Integer, nullable=False),
    sa.Column("domain", sa.String, nullable=False),
)

_models = sa.Table(
    "models",  # versions that were loaded or unloaded, and when that was last
    METADATA,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("model", sa.String, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("loaded", sa.Boolean, nullable=False),
    sa.Column("changed_at", sa.Float, nullable=False),
)

_targets = sa.Table(
    "targets",  # the version of a model that all UEs are to use
    METADATA,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("model", sa.String, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)

_rollouts = sa.Table(
    "rollouts",
    METADATA,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("content", sa.String, nullable=False),  # JSON
)

_events = sa.Table(
    "events",  # what happened to models: the newest EVENTS_KEPT of a run
    METADATA,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),  # from 1
    sa.Column("at", sa.Float, nullable=False),  # seconds since 1970
    *(sa.Column(name, sa.String, nullable=False) for name in ("kind", "model", "version", "by", "text")),
)

_runs = sa.Table(
    "runs",  # when the store was tried after an outage
    METADATA,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("written_at", sa.Float, nullable=False),
)

_processes = sa.Table(
    "processes",  # gNBs of the run: when each began, on which machine and with which settings
    METADATA,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("at", sa.Float, primary_key=True),  # seconds since 1970
    sa.Column("content", sa.String, nullable=False),  # JSON
)

_checkpoints = sa.Table(
    "checkpoints",  # that decoded reports of the run; a version whose files were replaced has several rows
    METADATA,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("model", sa.String, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("sha256", sa.String, primary_key=True),  # of the decoder
    sa.Column("content", sa.String, nullable=False),  # JSON
)

_snapshots = sa.Table(
    "snapshots",  # what the totals were from time to time
    METADATA,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("at", sa.Float, primary_key=True),  # seconds since 1970
    sa.Column("content", sa.String, nullable=False),  # JSON
)

EVENTS_KEPT = 10_000
"""Events of a run that are kept, the newest."""

_LOCK_KEEPALIVES = ("tcp_keepalives_idle = 5", "tcp_keepalives_interval = 5", "tcp_keepalives_count = 3")
"""Of the connection that holds a run: PostgreSQL gives the run to others about 20 s after the machine of its gNB is
gone without a word; by default that takes hours.
"""

_OUTAGES = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError, OSError)
"""Errors of a database that is away, full or read-only: what is to be written is not at fault."""


class Store:
    """The result store of one run.

    Raises:
        InvalidInput: no database can be at the URL, or another version of this program wrote it.
        StoreUnavailable: PostgreSQL does not answer there, or not yet.
    """

    def __init__(self, url: str, run: str, reports_kept: int) -> None:
        self.run = run
        self.reports_kept = reports_kept
        self.problem: str | None = None
        """Why the last write failed, if it did."""
        self._lock: Any = None
        self._owning = threading.Lock()
        self._unheard: set[str] = set()  # tokens of leases whose keeping was not confirmed
        self._event_lock = threading.Lock()
        try:
            self._engine = _engine(url)
            self._sqlite = self._engine.dialect.name == "sqlite"
            bring_up_to_date(self._engine, reports_kept)
            METADATA.create_all(self._engine)
        except (sa.exc.SQLAlchemyError, ModuleNotFoundError, OSError) as error:
            if isinstance(error, _OUTAGES) and url.startswith("postgresql"):
                what = f"store: '{without_password(url)}' cannot be reached: {_first_line(error)}"
                raise StoreUnavailable(what) from None
            wanted = "wanted sqlite:///FILE, or postgresql://USER@HOST/NAME with the extra `postgres`"
            raise InvalidInput(f"store: '{without_password(url)}' cannot be used; {wanted}: {error}") from None
        self._check_tables()
        self._insert: Any = sqlite.insert if self._sqlite else postgresql.insert
        self._results = Writer(self._engine.dialect, run, reports_kept)

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """A transaction. Raises StoreUnavailable if the database is not there or takes nothing (a full disk, say)."""
        try:
            self._keep_owning()
            with self._engine.begin() as connection:
                yield connection
        except _OUTAGES as error:
            self.problem = f"store: {without_password(str(self._engine.url))} cannot be written: {_first_line(error)}"
            raise StoreUnavailable(self.problem) from error
        self.problem = None

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        """A connection. Raises StoreUnavailable."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except _OUTAGES as error:
            raise StoreUnavailable(f"store: cannot be read: {_first_line(error)}") from error

    def writable(self) -> bool:
        """Whether the last write went well; if not, whether one does now."""
        if self.problem is not None:
            with suppress(StoreUnavailable), self._writing() as connection:
                connection.execute(sa.delete(_runs).where(_runs.c.run == self.run))
                connection.execute(sa.insert(_runs).values(run=self.run, written_at=time.time()))
        return self.problem is None

    def own(self) -> None:
        """Be the only process that writes to this run, until this one ends. Raises Conflict if another one does."""
        if self._sqlite:
            path = Path(f"{self._engine.url.database}-{hashlib.sha256(self.run.encode()).hexdigest()[:8]}.lock")
            self._lock = path.open("w")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                self._lock.close()
        elif self._advisory_lock():
            return
        raise Conflict(f"run: '{self.run}' of {without_password(str(self._engine.url))} has a gNB; name another run")

    def _advisory_lock(self) -> bool:
        """Get PostgreSQL's lock on the run, which lasts as long as a connection of its own; whether it is to be had."""
        self._lock = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        for setting in _LOCK_KEEPALIVES:
            self._lock.exec_driver_sql(f"SET {setting}")
        number = int.from_bytes(hashlib.sha256(self.run.encode()).digest()[:8], signed=True)
        if self._lock.execute(sa.select(sa.func.pg_try_advisory_lock(number))).scalar():
            return True
        self._lock.close()
        return False

    def _keep_owning(self) -> None:
        """PostgreSQL's lock goes with its connection: get it again if that has gone. Raises OSError if another gNB has
        it by now.
        """
        if self._sqlite or self._lock is None:
            return
        with self._owning:
            if not self._lock.closed:
                with suppress(*_OUTAGES):
                    self._lock.execute(sa.select(1))
                    return
            self._lock.close()
            if not self._advisory_lock():
                raise OSError(f"run '{self.run}' has another gNB by now")

    def _check_tables(self) -> None:
        """Raises InvalidInput if the tables are those of another version of this program."""
        inspector = sa.inspect(self._engine)
        for table in METADATA.sorted_tables:
            missing = {column.name for column in table.columns} - {c["name"] for c in inspector.get_columns(table.name)}
            if missing:
                what = f"table {table.name} of {self._engine.url} lacks {', '.join(sorted(missing))}"
                raise InvalidInput(f"store: {what}: another version wrote it; move it away or name another store")

    def lease(self, lease: Lease, encoder_id: str, rate: Rate = OWN) -> None:
        """Keep a new lease, of UEs with this encoder and rate. Raises Conflict if one of its ids is taken. Of those
        before it that perhaps were kept, for all that was heard, none is: nobody was told of them.
        """
        self._unheard.add(lease.token)
        with self._writing() as connection:
            connection.execute(sa.delete(_leases).where(_leases.c.token.in_(self._unheard)))
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
            ids = {name: getattr(lease, name) for name in ("token", "model", "first_ue", "ue_count")}
            text = {"conditions": json.dumps(lease.conditions.to_json()), "encoder_id": encoder_id, "run": self.run}
            connection.execute(
                sa.insert(_leases).values(**ids, **text, assigned="[]", rate=rate.to_text(), finished=False)
            )
        self._unheard.clear()

    def keep_encoder(self, token: str, encoder_id: str) -> None:
        """Note the encoder that a fleet came back with."""
        with self._writing() as connection:
            connection.execute(sa.update(_leases).where(_leases.c.token == token).values(encoder_id=encoder_id))

    def keep_assigned(self, assigned: Mapping[str, list[Assignment]]) -> None:
        """Note which versions the UEs of fleets are to use, by token."""
        with self._writing() as connection:
            for token, runs in assigned.items():
                text = json.dumps([dataclasses.astuple(run) for run in runs])
                connection.execute(sa.update(_leases).where(_leases.c.token == token).values(assigned=text))

    def keep_rate(self, token: str, rate: Rate) -> None:
        """Note what a fleet's reports are to take."""
        with self._writing() as connection:
            connection.execute(sa.update(_leases).where(_leases.c.token == token).values(rate=rate.to_text()))

    def keep_air(self, lease: Lease, change: AirChange) -> None:
        """Note another air of a fleet's reports, instead of those that were to begin with that frame or later."""
        mine = (_air_changes.c.run == self.run) & (_air_changes.c.first_ue == lease.first_ue)
        row = {"run": self.run, "first_ue": lease.first_ue, "from_frame": change.from_frame, "air": str(change.air)}
        with self._writing() as connection:
            connection.execute(sa.delete(_air_changes).where(mine, _air_changes.c.from_frame >= change.from_frame))
            connection.execute(sa.insert(_air_changes).values(**row))

    def furthest(self, lease: Lease) -> int:
        """The highest sequence that the gNB waits for of any UE of a fleet."""
        query = sa.select(sa.func.max(UES.c.next_sequence)).where(among(UES.c.ue, self.run, lease))
        with self._reading() as connection:
            return int(connection.execute(query).scalar() or 0)

    def finish(self, lease: Lease) -> None:
        """Mark a lease as finished and forget its open frames."""
        with self._writing() as connection:
            connection.execute(sa.update(_leases).where(_leases.c.token == lease.token).values(finished=True))
            connection.execute(sa.update(UES).where(among(UES.c.ue, self.run, lease)).values(open_frame=b""))

    def leases(self) -> list[tuple[Lease, str, bool]]:
        """All leases of the run, each with its encoder id and whether it is finished, in the order of their ids."""
        query = sa.select(_leases).where(_leases.c.run == self.run).order_by(_leases.c.first_ue)
        of_air = sa.select(_air_changes).where(_air_changes.c.run == self.run).order_by(_air_changes.c.from_frame)
        changes: dict[int, list[AirChange]] = {}
        with self._reading() as connection:
            rows = connection.execute(query).mappings().all()
            for row in connection.execute(of_air):
                changes.setdefault(row.first_ue, []).append(AirChange(row.from_frame, Air.parse(row.air)))
        ids = ("token", "model", "first_ue", "ue_count")
        return [
            (
                Lease(
                    conditions=RunConditions.from_json(json.loads(row["conditions"])),
                    air_changes=tuple(changes.get(row["first_ue"], ())),
                    **{name: row[name] for name in ids},
                ),
                row["encoder_id"],
                row["finished"],
            )
            for row in rows
        ]

    def keep_version(self, model: str, version: int, facts: VersionFacts) -> None:
        """Remember a version that the run uses."""
        row = {"run": self.run, "model": model, "version": version, **dataclasses.asdict(facts)}
        with self._writing() as connection:
            connection.execute(self._insert(_versions).values(**row).on_conflict_do_nothing())

    def versions(self) -> dict[str, dict[int, VersionFacts]]:
        """Versions that the run has used, by model."""
        found: dict[str, dict[int, VersionFacts]] = {}
        with self._reading() as connection:
            for row in connection.execute(sa.select(_versions).where(_versions.c.run == self.run)):
                facts = VersionFacts(row.encoder_id, row.feedback_bits, row.domain)
                found.setdefault(row.model, {})[row.version] = facts
        return found

    def keep_loaded(self, model: str, versions: list[int], *, loaded: bool, asked: bool = True) -> None:
        """Remember that versions were loaded or unloaded, now; not again if nobody `asked` for it."""
        with self._writing() as connection:
            for version in versions:
                key = {"run": self.run, "model": model, "version": version}
                statement = self._insert(_models).values(**key, loaded=loaded, changed_at=time.time())
                changes = {name: statement.excluded[name] for name in ("loaded", "changed_at")}
                again = statement.on_conflict_do_update(index_elements=list(key), set_=changes)
                connection.execute(again if asked else statement.on_conflict_do_nothing())

    def forget_loaded(self, model: str, version: int) -> None:
        """Remember no more that a version was loaded."""
        mine = (_models.c.run == self.run) & (_models.c.model == model) & (_models.c.version == version)
        with self._writing() as connection:
            connection.execute(sa.delete(_models).where(mine))

    def keep_target(self, model: str, version: int | None) -> None:
        """Note the version of a model that all UEs are to use; None: there is none."""
        with self._writing() as connection:
            connection.execute(sa.delete(_targets).where(_targets.c.run == self.run, _targets.c.model == model))
            if version is not None:
                connection.execute(sa.insert(_targets).values(run=self.run, model=model, version=version))

    def targets(self) -> dict[str, int]:
        """The versions that all UEs are to use, by model."""
        with self._reading() as connection:
            rows = connection.execute(sa.select(_targets).where(_targets.c.run == self.run))
            return {row.model: row.version for row in rows}

    def keep_rollout(self, number: int, content: dict[str, Any]) -> None:
        """Note a roll-out's present state."""
        row = {"run": self.run, "number": number, "content": json.dumps(content)}
        statement = self._insert(_rollouts).values(**row)
        changes = {"content": statement.excluded.content}
        with self._writing() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["run", "number"], set_=changes))

    def rollouts(self) -> list[dict[str, Any]]:
        """All roll-outs, the oldest first."""
        query = sa.select(_rollouts.c.content).where(_rollouts.c.run == self.run).order_by(_rollouts.c.number)
        with self._reading() as connection:
            return [json.loads(content) for content in connection.execute(query).scalars()]

    def keep_event(self, kind: str, model: str, version: str, by: str, text: str) -> None:
        """Note something that happened to a model, now."""
        row = {"run": self.run, "at": time.time(), "kind": kind, "model": model, "version": version, "by": by}
        newest = sa.select(sa.func.coalesce(sa.func.max(_events.c.number), 0)).where(_events.c.run == self.run)
        with self._event_lock, self._writing() as connection:
            number = int(connection.execute(newest).scalar_one()) + 1
            connection.execute(sa.insert(_events).values(**row, number=number, text=text))
            old = (_events.c.run == self.run) & (_events.c.number <= number - EVENTS_KEPT)
            connection.execute(sa.delete(_events).where(old))

    def events(self, after: int, limit: int) -> list[dict[str, Any]]:
        """The newest events whose number is above `after`, at most `limit`, ascending."""
        mine = (_events.c.run == self.run) & (_events.c.number > after)
        query = sa.select(_events).where(mine).order_by(_events.c.number.desc()).limit(limit)
        with self._reading() as connection:
            rows = connection.execute(query).mappings().all()
        return [{name: value for name, value in row.items() if name != "run"} for row in reversed(rows)]

    def of(self, run: str) -> Store:
        """The same store, to read another run."""
        other = copy.copy(self)
        other.run = run
        return other

    def runs(self) -> list[str]:
        """Names of all runs that the store has."""
        query = sa.union(sa.select(_leases.c.run), sa.select(_processes.c.run))
        with self._reading() as connection:
            return sorted(connection.execute(query).scalars())

    def keep_process(self, at: float, content: dict[str, Any]) -> None:
        """Note that a gNB of the run began."""
        self._keep_content(_processes, at, content)

    def processes(self) -> list[tuple[float, dict[str, Any]]]:
        """The run's gNBs, by when they began."""
        return self._contents(_processes)

    def keep_checkpoint(self, model: str, version: int, sha256: str, content: dict[str, Any]) -> None:
        """Note a version, with its decoder's hash, that decodes reports of the run."""
        row = {"run": self.run, "model": model, "version": version, "sha256": sha256, "content": json.dumps(content)}
        with self._writing() as connection:
            connection.execute(self._insert(_checkpoints).values(**row).on_conflict_do_nothing())

    def checkpoints(self) -> list[dict[str, Any]]:
        """What is known of the versions, each with `model`, `version` and `sha256`, by name and version."""
        table = _checkpoints.c
        query = sa.select(_checkpoints).where(table.run == self.run).order_by(table.model, table.version, table.sha256)
        with self._reading() as connection:
            rows = connection.execute(query).mappings().all()
        named = ("model", "version", "sha256")
        return [json.loads(row["content"]) | {name: row[name] for name in named} for row in rows]

    def keep_snapshot(self, at: float, content: list[dict[str, Any]]) -> None:
        """Note what the totals are now."""
        self._keep_content(_snapshots, at, content)

    def forget_snapshots(self, times: Iterable[float]) -> None:
        """Forget what the totals were then."""
        with self._writing() as connection:
            for at in times:
                connection.execute(sa.delete(_snapshots).where(_snapshots.c.run == self.run, _snapshots.c.at == at))

    def snapshots(self) -> list[tuple[float, list[dict[str, Any]]]]:
        """What the totals were, by time."""
        return self._contents(_snapshots)

    def last_snapshots(self) -> dict[str, float]:
        """When that was last, by run [s since 1970]."""
        table = _snapshots.c
        with self._reading() as connection:
            rows = connection.execute(sa.select(table.run, sa.func.max(table.at)).group_by(table.run))
            return {row[0]: row[1] for row in rows}

    def _keep_content(self, table: sa.Table, at: float, content: Any) -> None:
        row = {"run": self.run, "at": at, "content": json.dumps(content)}
        with self._writing() as connection:  # a clock that was set back may show a time again
            connection.execute(self._insert(table).values(**row).on_conflict_do_nothing())

    def _contents(self, table: sa.Table) -> list[tuple[float, Any]]:
        query = sa.select(table.c.at, table.c.content).where(table.c.run == self.run).order_by(table.c.at)
        with self._reading() as connection:
            return [(row.at, json.loads(row.content)) for row in connection.execute(query)]

    def loaded(self) -> list[tuple[str, int, bool]]:
        """(model, version, whether it was loaded or else unloaded), in the order of when that was last."""
        query = sa.select(_models).where(_models.c.run == self.run).order_by(_models.c.changed_at)
        with self._reading() as connection:
            return [(row.model, row.version, row.loaded) for row in connection.execute(query)]

    def restore(self, fleet: Fleet, rows: range | None = None) -> None:
        """Put a fleet's stored sequences, versions, sums and open frames into its arrays, or those of some rows."""
        wanted = sa.select(_leases.c.assigned, _leases.c.rate).where(_leases.c.token == fleet.lease.token)
        with self._reading() as connection:
            if (found := connection.execute(wanted).first()) is not None:
                fleet.rate = Rate.from_text(found.rate)
                for first, count, version in json.loads(found.assigned):
                    fleet.assigned[first : first + count] = version
            restore(connection, self.run, fleet, rows)

    def commit(self, batch: Iterable[Stored]) -> None:
        """Write what chunks added, in one transaction; then it is in their fleets' totals, too."""
        with self._writing() as connection:
            totals = self._results.write(connection, batch)
        for new in totals:
            new.keep()

    def reports(
        self, ue: int, first: int = 0, limit: int | None = None, *, dropped: bool = False
    ) -> list[dict[str, Any]]:
        """Kept reports of a UE from sequence `first` on, the newest `limit`, ascending; if asked, with those that were
        dropped, whose version is 0.
        """
        query = sa.select(KEPT).where(KEPT.c.run == self.run, KEPT.c.ue == ue)
        with self._reading() as connection:
            rows = connection.execute(query).all()
        newest = [report for of_ue in reports_of(rows, self.reports_kept) for report in of_ue]
        found = [row for row in newest if row["sequence"] >= first and (dropped or row["version"])]
        return found if limit is None else found[-limit:]

    def kept_reports(self, ues: range, since: float = 0.0) -> Iterator[dict[str, Any]]:
        """Kept reports of UEs that were received then [s since 1970] or later, dropped ones among them, by UE and
        sequence. They are read page by page, each in a transaction of its own: whoever takes long holds up nobody, and
        what is written meanwhile is there or not. No more than a page and the reports of one UE are in memory.
        """
        for of_ue in reports_of(self._by_place(ues), self.reports_kept):
            yield from (report for report in of_ue if report["received_at"] >= since)

    def _by_place(self, ues: range) -> Iterator[sa.Row[Any]]:
        """Rows of kept reports by UE and place: by the primary key, so that a page needs no sorting."""
        table, place = KEPT.c, (ues.start, -1)
        mine = (table.run == self.run) & (table.ue < ues.stop)
        page = sa.select(KEPT).where(mine).order_by(table.ue, table.place).limit(PAGE)
        while True:
            with self._reading() as connection:
                rows = connection.execute(page.where(sa.tuple_(table.ue, table.place) > place)).all()
            yield from rows
            if len(rows) < PAGE:
                return
            place = rows[-1].ue, rows[-1].place

    def counted(self) -> dict[str, int]:
        """Reports in the store's totals, by token."""
        query = (
            sa.select(_leases.c.token, sa.func.sum(BLOCKS.c.reports))
            .join(
                BLOCKS,
                sa.and_(
                    BLOCKS.c.run == _leases.c.run,
                    BLOCKS.c.first_ue >= _leases.c.first_ue,
                    BLOCKS.c.first_ue < _leases.c.first_ue + _leases.c.ue_count,
                ),
            )
            .where(_leases.c.run == self.run)
            .group_by(_leases.c.token)
        )
        with self._reading() as connection:
            return {token: int(count) for token, count in connection.execute(query)}

    def dropped(self) -> dict[str, int]:
        """Reports that came too late and were dropped, by token."""
        mine = (UES.c.run == _leases.c.run) & UES.c.ue.between(
            _leases.c.first_ue, _leases.c.first_ue + _leases.c.ue_count - 1
        )
        query = (
            sa.select(_leases.c.token, sa.func.sum(UES.c.dropped))
            .join(UES, mine)
            .where(_leases.c.run == self.run)
            .group_by(_leases.c.token)
        )
        with self._reading() as connection:
            return {token: int(count) for token, count in connection.execute(query)}

    def close(self) -> None:
        """Close all connections, and leave the run to others."""
        if self._lock is not None:
            self._lock.close()
        self._engine.dispose()


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite store in a file, whatever its name."""
    return sa.URL.create("sqlite", database=str(path)).render_as_string()


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]


def without_password(url: str) -> str:
    """A URL as it may be shown."""
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
    if parsed.drivername == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise sa.exc.ArgumentError("an SQLite store is a file: each connection would have a memory of its own")
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(parsed, paramstyle="qmark" if parsed.drivername == "sqlite" else "format")
    if parsed.drivername == "sqlite":
        sa.event.listen(engine, "connect", _use_wal)
    return engine


def _use_wal(connection: Any, _record: Any) -> None:
    """WAL with synchronous=NORMAL: commits survive the death of the process, and readers never block the writer."""
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000"):
        connection.execute(f"PRAGMA {pragma}")
