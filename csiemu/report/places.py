"""Where the results of a run are: RUN on a command line.

runs/emulate-...        a folder of `csiemu emulate`
runs/gnb.sqlite         the store of a `csiemu gnb`: a file, or an SQLAlchemy URL (sqlite:///, postgresql://)
runs/gnb.sqlite#monday  its run `monday`; without a name the only one that the store has
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from csiemu.processes import STORE
from gnb_server.store import Store, sqlite_url, without_password
from shared.errors import NotFound

RUN = "folder of csiemu emulate, or store of csiemu gnb: FILE or URL, with #RUN if it has several"
"""Help for a RUN."""


SQLITE = "sqlite:///"


@dataclass(frozen=True)
class Place:
    """Where a run is.

    Attributes:
        text: as it was named, but for a password.
        folder: of the emulation; None for another store.
        url: of the store.
        name: of the run in the store; empty: the only one.
    """

    text: str
    folder: Path | None
    url: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Place:
        """A RUN. Raises NotFound."""
        where, _, name = text.partition("#")
        if "://" in where and not where.startswith(SQLITE):
            return cls(without_password(where) + text[len(where) :], None, where, name)
        path = Path(where.removeprefix(SQLITE))
        file = path / STORE if path.is_dir() else path
        if not file.is_file():
            raise NotFound(f"run: {where} is no {RUN}{f'; it has no {STORE}' if path.is_dir() else ''}")
        return cls(text, path if path.is_dir() else None, sqlite_url(file), name)

    @contextmanager
    def open(self) -> Iterator[Store]:
        """The store of the run. Raises NotFound, InvalidInput."""
        found = Store(self.url, self.name, 1)
        try:
            names = found.runs()
            if not self.name and len(names) == 1:
                found.run = names[0]
            elif self.name not in names:
                raise NotFound(
                    f"run: '{self.name}'; {self.text.partition('#')[0]} has the runs {', '.join(names) or 'none'}"
                )
            if processes := found.processes():
                found.reports_kept = processes[-1][1]["settings"].get("reports_kept", found.reports_kept)
            yield found
        finally:
            found.close()
