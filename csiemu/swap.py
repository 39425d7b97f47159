"""`csiemu swap`: a version of a model into service on a gNB that runs, at once or as a roll-out, with a live view."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, CliPositionalArg, CliSuppress
from rich.console import Group
from rich.live import Live
from rich.table import Table

from csiemu.output import console, number
from csiemu.rest import Rest
from shared.errors import NotReady
from shared.settings import options

POLL_S = 1.0


def _share(value: object) -> object:
    """`10%` as well as `0.1`."""
    text = str(value)
    return float(text[:-1]) / 100 if text.endswith("%") else value


class Settings(BaseSettings):
    """Have a running gNB load a version: UEs fetch its encoder and use it from their next frame on."""

    model_config = options("CSIEMU_SWAP_")

    name: CliPositionalArg[str]
    """Checkpoint name."""

    version: CliPositionalArg[int]
    """Version that is to serve."""

    gnb: str = "http://127.0.0.1:8000"
    """REST address of the gNB."""

    token: CliSuppress[SecretStr | None] = None
    """Bearer token of the gNB, if it has one: CSIEMU_SWAP_TOKEN."""

    token_file: Path | None = None
    """File with the bearer token of the gNB (or CSIEMU_SWAP_TOKEN has it)."""

    tls_ca: Path | None = None
    """File of the certificate authority to be trusted, for an https address."""

    canary: Annotated[float, Field(gt=0, lt=1), BeforeValidator(_share)] | None = None
    """Share of the UEs that try the version first, 0.1 or 10%."""

    shadow: bool = False
    """Decode with the version, of the same encoder, beside the one that serves."""

    guard: bool = True
    """A roll-out ends by itself: promoted when the version is better, aborted when it is worse."""

    worse_db: float = Field(0.2, ge=0, le=100)
    """Guard: worse by more than this is too much [dB]."""

    standard_errors: float = Field(3.0, ge=0, le=100)
    """Guard: by so many standard errors."""

    frames: int = Field(200, ge=2)
    """Guard: after so many whole frames of each version."""

    wait: bool = False
    """Wait, with a live view, until all UEs that are attached use the version, or the roll-out is decided."""

    wait_s: float = Field(600.0, gt=0)
    """How long to wait at most."""

    @model_validator(mode="after")
    def _one_way(self) -> Settings:
        if self.shadow and self.canary is not None:
            raise ValueError("shadow, canary: wanted one of them")
        return self


def run(settings: Settings) -> int:
    """Ask for it, and watch; 0 if the version serves (or, without --wait, is on its way), 1 if not."""
    token = settings.token.get_secret_value() if settings.token else None
    if settings.token_file is not None:
        token = settings.token_file.read_text().strip()
    rest = Rest(settings.gnb, token, settings.tls_ca)
    screen = console()
    if settings.shadow or settings.canary is not None:
        rollout = rest.post("/v1/rollouts", _asked(settings))
        screen.print(f"roll-out {rollout['number']}: {rest.url}/v1/rollouts/{rollout['number']}")
    else:
        rollout = None
        path = f"/v2/repository/models/{settings.name}/load"
        rest.post(path, {"parameters": {"version": settings.version}})
        screen.print(f"{settings.name}/{settings.version} is loaded")
    if not settings.wait:
        return 0
    deadline = time.monotonic() + settings.wait_s
    with Live(console=screen, auto_refresh=False) if screen.is_terminal else contextlib.nullcontext() as live:
        while True:
            parts, outcome = _rollout_state(rest, rollout) if rollout else _ues_state(rest, settings)
            if live is not None:
                live.update(Group(_versions(rest, settings.name), *parts), refresh=True)
            if outcome is not None:
                break
            if time.monotonic() > deadline:
                raise NotReady(f"wait_s: not done after {settings.wait_s:g} s: {'; '.join(parts)}")
            time.sleep(POLL_S)
    if live is None:
        screen.print(Group(_versions(rest, settings.name), *parts))
    return outcome


def _asked(settings: Settings) -> dict[str, Any]:
    """The body of a roll-out."""
    limits = {"worse_db": settings.worse_db, "standard_errors": settings.standard_errors, "frames": settings.frames}
    return {
        "model": settings.name,
        "version": settings.version,
        "mode": "shadow" if settings.shadow else "canary",
        **({} if settings.canary is None else {"share": settings.canary}),
        "guard": limits if settings.guard else None,
    }


def _rollout_state(rest: Rest, rollout: dict[str, Any]) -> tuple[list[str], int | None]:
    """How a roll-out stands, and the exit code once it is decided."""
    now = rest.get(f"/v1/rollouts/{rollout['number']}")
    found, ues = now["figures"], now["ues"]
    text = (
        f"{now['mode']} of {now['model']}/{now['version']}, old version {now['old_version']}: {now['state']}"
        f" {now['reason']}".rstrip()
    )
    difference = (
        f"difference {number(found['difference_db'])} ± {number(found['standard_error_db'])} dB over"
        f" {found['frames_new']} and {found['frames_old']} frames"
    )
    parts = [text, difference]
    if now["mode"] == "canary":
        parts.append(f"UEs on the new version {ues['new']} of {ues['assigned']}, refused {ues['refused']}")
    return parts, {"running": None, "promoted": 0, "aborted": 1}[now["state"]]


def _ues_state(rest: Rest, settings: Settings) -> tuple[list[str], int | None]:
    """How many UEs have switched, and the exit code once all have, or have refused."""
    ues = rest.get(f"/v2/models/{settings.name}")["parameters"]["ues"]
    there = ues["by_version"].get(str(settings.version), 0)
    parts = [f"UEs on version {settings.version}: {there} of {ues['attached']}", *ues["problems"]]
    if there + ues["refused"] < ues["attached"]:
        return parts, None
    return parts, 1 if ues["refused"] else 0


def _versions(rest: Rest, name: str) -> Table:
    """Figures of the versions of a model."""
    table = Table("version", "encoder", "UEs", "reports", "NMSE now (dB)", "NMSE (dB)")
    rows, recent_rows = (
        rest.get(f"/v1/nmse?scheme={name}&by=version{window}")["schemes"] for window in ("", "&window=5")
    )
    now = {_named_with(row): row for row in recent_rows}
    for row in rows:
        if row["version"] is not None:
            recent = now.get(_named_with(row), {})
            table.add_row(
                f"{row['version']}, {row['air']}" if row["air"] else str(row["version"]),
                row["encoder_id"][:8],
                f"{row['ues_attached']}/{row['ues']}",
                str(row["reports"]),
                number(recent.get("nmse_db")),
                f"{number(row['nmse_db'])} ± {number(row['nmse_se_db'])}",
            )
    return table


def _named_with(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells the rows of a model apart."""
    return tuple(row[name] for name in ("version", "encoder_id", "scenario", "seed", "delay_slots", "air"))
