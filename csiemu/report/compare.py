"""`csiemu compare`: two runs side by side."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, CliPositionalArg
from rich.console import Console
from rich.table import Table

from csiemu.output import console, error_text, number, with_error
from csiemu.report.differences import Comparison, Difference, compare_runs
from csiemu.report.page import comparison_page, plain
from csiemu.report.places import RUN
from csiemu.report.reading import Row, read_run
from shared.commands import write_json
from shared.settings import JsonFile, OutFile, options


class Settings(BaseSettings):
    """Show the figures of two runs side by side, their differences with standard errors, and what else differs."""

    model_config = options("CSIEMU_COMPARE_")

    first: CliPositionalArg[str] = Field(description=RUN)

    second: CliPositionalArg[str] = Field(description="The same, of the run that is compared with the first.")

    out: OutFile | None = None
    """HTML file to write, too: the tables with a plot."""

    json_file: JsonFile = None


def run(settings: Settings) -> None:
    """Print the tables, and write the files."""
    comparison = compare_runs(read_run(settings.first), read_run(settings.second))
    screen = console()
    _show(comparison, screen)
    if settings.json_file:
        write_json(settings.json_file, comparison.to_json())
    if settings.out:
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        settings.out.write_text(comparison_page(comparison))
        screen.print(f"{settings.out}: open it in a browser")


def _show(comparison: Comparison, screen: Console) -> None:
    table = Table("scheme/version", "bits", "reports", "NMSE (dB)", "difference", "SGCS", "difference", "paired")
    for pair in comparison.pairs:
        first, second = pair.first, pair.second
        table.add_row(
            f"{_name(first)}\n{_name(second)}",
            f"{number(first['feedback_bits'], 0)}\n{number(second['feedback_bits'], 0)}",
            f"{first['reports']}\n{second['reports']}",
            "-"
            if pair.nmse is None
            else "\n".join(_figure(row, "nmse_db", "nmse_se_db", 2) for row in (first, second)),
            _change(pair.nmse, 2),
            "\n".join(_figure(row, "sgcs", "sgcs_se", 4) for row in (first, second)),
            _change(pair.sgcs, 4),
            f"{pair.sgcs.paired} UEs" if pair.sgcs.paired else "no",
        )
    screen.print(f"first {comparison.first.place}, second {comparison.second.place}; difference: second minus first")
    screen.print(table)
    screen.print("NMSE: mean of ratios over all slots and UEs; ± standard error; what is paired has the same channels")
    for domain in dict.fromkeys(pair.first["domain"] for pair in comparison.pairs):
        names = dict.fromkeys(pair.first["scheme"] for pair in comparison.pairs if pair.first["domain"] == domain)
        screen.print(f"domain of {', '.join(names)}: {domain}")
    for which, rows in (("first", comparison.only_first), ("second", comparison.only_second)):
        for row in rows:
            sgcs = f"SGCS {_figure(row, 'sgcs', 'sgcs_se', 4)}"
            nmse = "" if row["nmse_db"] is None else f"NMSE {_figure(row, 'nmse_db', 'nmse_se_db', 2)} dB, "
            screen.print(f"only in the {which}: {_name(row)}, {nmse}{sgcs}, {row['reports']} reports")
    if comparison.settings:
        table = Table("what differs", "first", "second")
        for name, values in comparison.settings.items():
            table.add_row(name, *map(plain, values))
        screen.print(table)


def _name(row: Row) -> str:
    return f"{row['scheme']}/{row['version']}"


def _figure(row: Row, value: str, error: str, digits: int) -> str:
    return f"{with_error(row[value], row[error], digits)}"


def _change(difference: Difference | None, digits: int) -> str:
    if difference is None:
        return "-"
    return f"{difference.value:+.{digits}f} ± {error_text(difference.standard_error, digits)}"
