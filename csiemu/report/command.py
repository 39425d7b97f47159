"""`csiemu report`: a run as one page."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, CliPositionalArg

from csiemu.output import console
from csiemu.report.page import report_page
from csiemu.report.places import RUN, Place
from csiemu.report.reading import read_run
from shared.settings import OutFile, options


class Settings(BaseSettings):
    """Write a run's figures, plots, events, settings and checkpoints as one HTML file that needs nothing else."""

    model_config = options("CSIEMU_REPORT_")

    run: CliPositionalArg[str] = Field(description=RUN)

    out: OutFile | None = None
    """File to write; default report.html in the run's folder, else in the present one."""


def run(settings: Settings) -> None:
    """Write the page."""
    page = report_page(read_run(settings.run))
    out = settings.out or (Place.parse(settings.run).folder or Path()) / "report.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page)
    console().print(f"{out}: open it in a browser")
