"""`csiemu export`: the single reports of a run as CSV or Parquet."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, CliPositionalArg

from csiemu.output import console
from csiemu.report.places import RUN, Place
from gnb_server.exports import Export, Selection
from gnb_server.tables import Format
from shared.checkpoints import NAME
from shared.settings import OutFile, options


class Settings(BaseSettings):
    """Write the reports that a run has kept, the newest of each UE, with all that their figures are named with."""

    model_config = options("CSIEMU_EXPORT_")

    run: CliPositionalArg[str] = Field(description=RUN)

    out: OutFile
    """File to write: what ends in .parquet is Parquet (extra `parquet`), all else CSV."""

    scheme: str | None = Field(None, pattern=f"^{NAME}$")
    """Checkpoint name; default all."""

    first_ue: int = Field(0, ge=0, lt=2**32)
    """First UE id."""

    ues: int | None = Field(None, ge=1)
    """So many UE ids from the first on; default all."""

    since: float = Field(0.0, ge=0)
    """Only reports received then or later [s since 1970]."""

    limit: int | None = Field(None, ge=1)
    """Reports at most, the first by UE and sequence."""


def run(settings: Settings) -> None:
    """Write the file."""
    selection = Selection(settings.scheme, settings.first_ue, settings.ues, settings.since, settings.limit)
    file_format: Format = "parquet" if settings.out.suffix == ".parquet" else "csv"
    with Place.parse(settings.run).open() as store:
        parts = Export(store, selection).write(file_format)
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        with settings.out.open("wb") as file:
            size = sum(file.write(part) for part in parts)
    console().print(f"{settings.out}: {size:,} bytes")
