"""`csiemu bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from pydantic_settings import BaseSettings, CliPositionalArg
from rich.table import Table

from benchmarks import serving
from csiemu.output import console
from shared.settings import options


class Settings(BaseSettings):
    """Measure ratios against a named peer in one run. `serving`: decodes over gRPC against the decoder in a loop."""

    model_config = options("CSIEMU_BENCH_")

    benchmark: CliPositionalArg[Literal["serving"]]
    """Which one."""

    schemes: str = "hyperrnn,dldnn"
    """Checkpoint names, comma-separated."""

    checkpoints: Path = Path("checkpoints")
    """Folder of checkpoints."""

    ues: int = Field(512, ge=1, le=8192)
    """UEs, and batch of the peer."""

    seconds: float = Field(5.0, gt=0, le=600)
    """Length of each measurement."""

    rounds: int = Field(3, ge=1, le=100)
    """Interleaved repetitions; medians are shown."""

    json_file: Path | None = Field(None, alias="json")
    """File for the results, JSON."""


def run(settings: Settings) -> None:
    """Measure, show, keep."""
    torch.set_num_threads(1)
    names = [name.strip() for name in settings.schemes.split(",") if name.strip()]
    results = serving.measure(settings.checkpoints, names, settings.ues, settings.seconds, settings.rounds)
    table = Table(
        "scheme", "decodes per server CPU second: ceiling", "decode only", "everything on", "share", "share, all on"
    )
    for name, row in results["schemes"].items():
        rates = (row[f"{mode}_per_cpu_s"] for mode in ("ceiling", "decode_only", "everything"))
        shares = (row["share_of_ceiling"], row["share_of_ceiling_everything"])
        table.add_row(name, *(f"{rate:,.0f}" for rate in rates), *(f"{share:.2f}" for share in shares))
    console().print(table)
    serving.write(results, settings.json_file)
