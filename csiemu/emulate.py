"""`csiemu emulate`: one gNB process, one UE process per scheme, a live table, and every promise checked at the end."""

from __future__ import annotations

import contextlib
import json
import math
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, SecretStr
from pydantic_settings import CliSuppress
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from csiemu.output import console, number, progress, with_error
from csiemu.pace import median_and_tail, not_held, of_version, pace, pace_table
from csiemu.processes import RESULTS, STORE, Gnb, end, spawn, tail
from csiemu.rest import Rest
from csiemu.schedule import Schedule, parse_air_changes, parse_swaps
from csiemu.training.recipes import DESIGNS
from csiemu.verify import misdecoded
from gnb_server.openvino import Backend
from gnb_server.store import Store
from shared.checkpoints import CheckpointStore
from shared.commands import write_json
from shared.errors import DamagedCheckpoint, InvalidInput, NotReady
from shared.link.air import FATES, Air
from shared.link.precision import Precision
from shared.link.rate import Rate
from shared.machine import machine
from shared.metrics import Domain
from shared.schemes import schemes
from shared.settings import JsonFile, Late, OutFolder, RunSettings, options
from shared.settings import Rate as ReportRate
from shared.stopping import SIGNALS, STOP_S

POLL_S = 1.0

BY_VERSION = "/v1/nmse?by=version"

DURATION_S = 30.0
"""How long UEs send where nothing else is asked for."""

WINDOW_S = 5
"""What is shown as now."""

_LOG_HEAD = re.compile(r"^\S+ \S+ csiemu ue [A-Z]+ ")

RATES: dict[Domain, float] = {"spatial": 20.0, "angular-delay": 2.0, "precoder": 2.0}
"""Reports per second and UE where none are asked for: whole bands take some 50 times as much computing."""


class Settings(RunSettings):
    """Run a gNB process and UE processes on loopback, and check that what was sent was decoded, stored and right."""

    model_config = options("CSIEMU_EMULATE_")

    ues: int = Field(32, ge=1, le=65536)
    """UEs of each scheme."""

    schemes: str | None = None
    """Checkpoint names, comma-separated; default: those that bear their scheme's name, unless it is a mere bound, which
    has nothing to train."""

    duration: float | None = Field(None, gt=0)
    """Seconds to send for; default 30 if --slots is not given."""

    slots: int | None = Field(None, ge=1)
    """Reports per UE."""

    rate: ReportRate | None = None
    """Reports per second and UE, or max; default 20, of images and precoders 2."""

    bits: int | None = Field(None, ge=1)
    """Most bits of a report, of the schemes that can give more or fewer."""

    target_nmse: float | None = Field(None, ge=-60, le=0)
    """NMSE [dB] that the gNB is to hold with the fewest bits, of the schemes that have steps."""

    target_csi: int = Field(0, ge=0, le=1_000_000)
    """Have UEs send target CSI with every so many frames, for the monitoring, as of csiemu ue; 0: never."""

    swap: str = ""
    """Swaps while the UEs send, NAME:VERSION@SECONDS, comma-separated: hyperrnn:3@10s."""

    air_change: str = ""
    """Other airs while the UEs send, NAME:AIR@SECONDS, comma-separated: hyperrnn:loss=0.3,burst=5@10s,hyperrnn:@20s."""

    json_file: JsonFile = None

    config: Path | None = None
    """YAML file with these settings; the command line goes before it."""

    out: OutFolder | None = None
    """Folder for store, logs and records; default runs/emulate-TIME."""

    rest_port: int = Field(8000, ge=0, le=65535)
    """Port of REST; a free one if it is taken, or if 0."""

    check_every: int = Field(10, ge=1)
    """Every how many frames payloads are recorded and decoded again offline at the end."""

    reports_kept: int = Field(256, ge=1, le=1_000_000)
    """Single reports kept per UE, the newest, for csiemu export."""

    late: Late = "decode"
    """What becomes of reports that have waited at the gNB for longer than --late-s: decode them all the same, or drop
    them and the rest of their frames."""

    late_s: float = Field(1.0, gt=0)
    """How long a report may wait to be decoded with --late drop [s]."""

    precision: Precision = "fp32"
    """What decoders compute in, as of csiemu gnb."""

    backend: Backend = "torch"
    """What computes networks, as of csiemu gnb."""

    workers: int | None = Field(None, ge=0, le=256)
    """Decode workers, as of csiemu gnb."""

    ray: str | None = None
    """Run gNBs (cells), each with UEs of its own, over the machines of a Ray cluster (extra `ray`): its host:port, or
    auto: one that is known here, else one of this machine alone (docs/cluster.md)."""

    cells: int = Field(1, ge=1, le=1024)
    """With --ray: how many."""

    store: str | None = None
    """With --ray: SQLAlchemy URL of the store of all cells, PostgreSQL's; by default, on one machine alone, a file in
    --out. CSIEMU_EMULATE_STORE says it, too, where others can read a command line."""

    token: CliSuppress[SecretStr | None] = None
    """With --ray: bearer token that REST of the cells' gNBs wants for whatever changes something:
    CSIEMU_EMULATE_TOKEN; by default one that only this command knows."""

    fault: Literal["none", "lose", "misdecode", "slow"] = "none"
    """Fault injection in the gNB: shows that lost and misdecoded can be other than 0."""

    def gnb_options(self) -> dict[str, Any]:
        """Options of csiemu gnb that are said here."""
        same = ("reports_kept", "fault", "late", "late_s", "precision", "backend", "workers")
        return {"record_every": self.check_every, **{name: getattr(self, name) for name in same}}

    def ue_options(self) -> dict[str, Any]:
        """Options of csiemu ue that all UEs have in common."""
        own = {"air": str(self.link()) or None, "target_csi": self.target_csi or None}
        return {**own, **{name: getattr(self, name) for name in ("ues", "seed", "scenario")}}

    def link(self) -> Air:
        """What it does to reports, with the delay of their feedback. Raises InvalidInput."""
        return Air.parse(self.air).delayed(self.delay_slots)


@dataclass
class _Ues:
    """A UE process of one scheme, sending `rate` reports per second and UE."""

    scheme: str
    rate: ReportRate
    process: subprocess.Popen[bytes]
    summary: Path
    record: Path
    log: Path


def run(settings: Settings) -> int:
    """Emulate; 0 if nothing was lost or decoded wrongly and every process ended well, else 1."""
    settings = _with_config(settings)
    if settings.ray is not None:
        from csiemu.cells.run import run as run_cells  # over this module

        return run_cells(settings)
    of_cells = ("cells", settings.cells > 1 and settings.cells), ("store", settings.store), ("token", settings.token)
    for name, value in of_cells:
        if value:
            raise InvalidInput(f"{name}: {value}, without ray; wanted --ray auto, or --ray ADDRESS")
    settings.link()
    store = settings.checkpoint_store()
    screen = console()
    rates = report_rates(settings, store, screen)
    asked = bit_rates(settings, store, rates)
    first_ues = {name: index * settings.ues for index, name in enumerate(rates)}
    schedule = scheduled(settings, store, first_ues)
    out = settings.out or Path("runs") / f"emulate-{datetime.now():%Y%m%d-%H%M%S-%f}"
    if (out / STORE).exists():
        raise InvalidInput(f"out: {out} holds an earlier run; wanted a new folder")
    out.mkdir(parents=True, exist_ok=True)
    stop = Stop()
    with contextlib.ExitStack() as stack:
        gnb = stack.enter_context(
            Gnb(
                out,
                run="default",
                rest_port=_free(settings.rest_port),
                checkpoints=settings.checkpoints,
                record=out / "recorded",
                **settings.gnb_options(),
            )
        )
        rest = Rest(f"http://{gnb.rest}")
        screen.print(f"live page: {rest.url}   REST API: {rest.url}/docs   gRPC: {gnb.grpc}   files: {out}")
        fleets: list[_Ues] = []
        for name, rate in rates.items():
            fleets.append(_start_ues(settings, out, name, rate, asked[name], first_ues[name], gnb.grpc))
            stack.callback(end, fleets[-1].process)
        stack.callback(_ask, fleets)  # all of them, before each is waited for
        stop.heard = True
        _watch(fleets, gnb.process, rest, screen, stop, schedule)
        stop.heard = False
        final: dict[str, Any] = {"schemes": [], "versions": []}
        with contextlib.suppress(NotReady):
            final = {"schemes": rest.get("/v1/nmse")["schemes"], "versions": rest.get(BY_VERSION)["schemes"]}
        if stop.asked > 1:
            end(gnb.process, patience_s=2.0)
    results = _results(settings, store, gnb.store, fleets, final, screen, stopped=stop.asked > 0)
    results["failed"] += schedule.end()
    _show(results, screen)
    for file in filter(None, (out / RESULTS, settings.json_file)):
        write_json(file, results)
    screen.print(f"csiemu report {out}: the same as a page, with plots")
    return 0 if results["lost"] == results["misdecoded"] == 0 and not results["failed"] else 1


def _with_config(settings: Settings) -> Settings:
    if settings.config is None:
        return settings
    try:
        content = yaml.safe_load(settings.config.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise InvalidInput(f"config: {settings.config} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise InvalidInput(f"config: {settings.config} is not a mapping of settings")
    names = {str(key).replace("-", "_"): value for key, value in content.items()}
    given = settings.model_dump(include=settings.model_fields_set, by_alias=True)
    if isinstance(names.get("schemes"), list):
        names["schemes"] = ",".join(names["schemes"])
    return Settings(**{**names, **given})


def report_rates(settings: Settings, store: CheckpointStore, screen: Console) -> dict[str, ReportRate]:
    """Reports per second and UE of each scheme that is to run. Raises InvalidInput, NotFound."""
    if settings.schemes is None:
        known, there = schemes(), store.names()
        names = [n for n in dict.fromkeys([*DESIGNS, *known]) if n in there and n in known and known[n].trainable]
        names = [name for name in names if _is_readable(store, name, screen)]
    else:
        names = [name.strip() for name in settings.schemes.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise InvalidInput(
            f"schemes: '{settings.schemes or ''}'; wanted different names out of {', '.join(store.names())}"
        )
    rates = {}
    for name in names:
        checkpoint = store.load(name)
        conditions = settings.conditions(checkpoint)
        checkpoint.scheme.check_scenario(conditions.scenario, conditions.delay_slots)
        rates[name] = settings.rate if settings.rate is not None else RATES[checkpoint.scheme.domain]
    return rates


def bit_rates(settings: Settings, store: CheckpointStore, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Options of the UEs of each scheme that can have the bits or the target NMSE asked for. Raises InvalidInput."""
    asked = {"bits": settings.bits, "target_nmse": settings.target_nmse}
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    if not any(value is not None for value in asked.values()):
        return found
    for name in names:
        scheme = store.load(name).scheme
        if scheme.least_bits is not None and (scheme.steps or settings.target_nmse is None):
            scheme.check_rate(Rate(settings.bits, None, settings.target_nmse))
            found[name] = asked
    if not any(found.values()):
        what = ", ".join(f"{name} {value}" for name, value in asked.items() if value is not None)
        raise InvalidInput(f"{what}: all reports of {', '.join(names)} have one rate")
    return found


def scheduled(settings: Settings, store: CheckpointStore, first_ues: Mapping[str, int]) -> Schedule:
    """What a gNB is to change when. Raises InvalidInput, NotFound.

    Args:
        first_ues: of each scheme that runs.
    """
    swaps = parse_swaps(settings.swap)
    for swap in swaps:
        if swap.model not in first_ues:
            raise InvalidInput(f"swap: '{swap.model}' does not run; wanted one of {', '.join(first_ues)}")
        store.folder(swap.model, swap.version)
    return Schedule([*swaps, *parse_air_changes(settings.air_change, first_ues)])


def _is_readable(store: CheckpointStore, name: str, screen: Console) -> bool:
    """Whether the first version of a checkpoint has a card; where it cannot be read, this is said."""
    try:
        store.card(name, store.versions(name)[0])
    except DamagedCheckpoint as error:
        screen.print(f"left out: {error}", style="red")
        return False
    return True


def _start_ues(
    settings: Settings, out: Path, name: str, rate: ReportRate, bit_rate: dict[str, Any], base: int, gnb: str
) -> _Ues:
    summary, record, log = (out / f"ue-{name}.{ending}" for ending in ("json", "npz", "log"))
    duration = settings.duration if settings.slots or settings.duration else DURATION_S
    process = spawn(
        "ue_client",
        log,
        gnb=gnb,
        scheme=name,
        checkpoints=settings.checkpoints,
        ue_base=base,
        rate=rate,
        **bit_rate,
        slots=settings.slots,
        duration=duration,
        **settings.ue_options(),
        summary=summary,
        record=record,
        record_every=settings.check_every,
    )
    return _Ues(name, rate, process, summary, record, log)


def _ask(fleets: list[_Ues]) -> None:
    """Ask those that run to end: once to bring in what is not acked, again to end at once."""
    for fleet in fleets:
        fleet.process.terminate()


class Stop:
    """Signal handler that counts: the first Ctrl-C or SIGTERM asks for an orderly end, the second for one at once."""

    def __init__(self) -> None:
        self.asked = 0
        self.heard = False  # somebody looks at `asked` all the time
        for heard in SIGNALS:
            signal.signal(heard, self)

    def __call__(self, *_: object) -> None:
        self.asked += 1
        if self.asked > 1 and not self.heard:
            raise KeyboardInterrupt


def _watch(
    fleets: list[_Ues],
    gnb: subprocess.Popen[bytes],
    rest: Rest,
    screen: Console,
    stop: Stop,
    schedule: Schedule,
) -> None:
    """Show live figures, and who waits for what, until every UE process has ended, and change what is due; when asked
    to stop, have them finish within STOP_S, or end at once.
    """
    said, told, limit = 0.0, 0, math.inf
    begun: float | None = None
    with (
        Live(console=screen, auto_refresh=False, transient=True)
        if screen.is_terminal
        else contextlib.nullcontext() as live
    ):
        while any(fleet.process.poll() is None for fleet in fleets):
            if told < min(stop.asked, 2) or time.monotonic() > limit:
                screen.print("ending at once" if told else "stopping: UEs finish what they sent (again to end at once)")
                told, limit = told + 1, time.monotonic() + STOP_S
                _ask(fleets)
            if gnb.poll() is not None:
                raise NotReady(f"gnb: ended with {gnb.returncode} while UEs were sending; see gnb.log")
            with contextlib.suppress(NotReady):
                recent, total = rest.get(f"{BY_VERSION}&window={WINDOW_S}"), rest.get(BY_VERSION)
                if begun is None and total["overall"]["reports"]:
                    begun = time.monotonic()
                if begun is not None:
                    for text in schedule.step(rest, time.monotonic() - begun):
                        screen.print(text)
                shown = Group(_live_table(recent, total), *not_held(recent), *_waiting(fleets, recent))
                if live is not None:
                    live.update(shown, refresh=True)
                elif time.monotonic() - said > 10 * POLL_S:
                    screen.print(shown)
                    said = time.monotonic()
            time.sleep(POLL_S)


def _waiting(fleets: list[_Ues], recent: dict[str, Any]) -> list[str]:
    """What UEs said last that send nothing; nothing of those whose last word is their summary."""
    heard = {row["scheme"] for row in recent["schemes"] if row["reports"]}
    silent = [fleet for fleet in fleets if fleet.scheme not in heard and fleet.process.poll() is None]
    said = {fleet.scheme: _LOG_HEAD.sub("", tail(fleet.log, 1)) or "starting" for fleet in silent}
    return [f"{scheme}: no reports in the last {WINDOW_S} s: {text}" for scheme, text in said.items() if text[0] != "{"]


def _live_table(recent: dict[str, Any], total: dict[str, Any]) -> Table:
    table = Table(
        "scheme/version",
        "UEs",
        "asked/s",
        "served/s",
        "dropped",
        "bits",
        "NMSE now (dB)",
        "aged (dB)",
        "NMSE total (dB)",
        "SGCS",
        "age p50/p99 (ms)",
    )
    now = {(row["scheme"], row["version"], row.get("air")): row for row in recent["schemes"]}
    for row in total["schemes"]:
        latest = now.get((row["scheme"], row["version"], row.get("air")), row)
        table.add_row(
            f"{row['scheme']}/{row['version'] or '-'}" + (f"\n{row['air']}" if row.get("air") else ""),
            f"{row['ues_attached']}/{row['ues']}",
            number(latest["offered_reports_per_s"], 0),
            f"{latest['reports_per_s']:.0f}",
            str(row["dropped"]),
            number(latest["feedback_bits"], 0),
            number(latest["nmse_db"]),
            number(latest["aged_nmse_db"]),
            number(row["nmse_db"]),
            number(row["sgcs"], 3),
            median_and_tail(latest["age_ms"]),
        )
    return table


def _results(
    settings: Settings,
    store: CheckpointStore,
    gnb_store: str,
    fleets: list[_Ues],
    final: dict[str, Any],
    screen: Console,
    *,
    stopped: bool,
) -> dict[str, Any]:
    """All figures, and the checks: lost from the store itself, misdecoded by decoding again."""
    rows: dict[str, list[dict[str, Any]]] = {}  # one for each encoder
    for row in final["schemes"]:
        rows.setdefault(row["scheme"], []).append(row)
    counted, dropped = _counted(gnb_store)
    schemes: dict[str, Any] = {}
    failed = []
    wrong = compared = 0
    for fleet in fleets:
        if stopped and fleet.process.returncode in (-signal.SIGTERM, 130) and not fleet.summary.exists():
            continue  # stopped before it had begun
        if fleet.process.returncode or not fleet.summary.exists():
            failed.append(f"UEs of {fleet.scheme} ended with {fleet.process.returncode}: {tail(fleet.log)}")
            if not fleet.summary.exists():
                continue
        sent = json.loads(fleet.summary.read_text())
        try:
            bad, checked = _misdecoded(store, fleet, screen)
        except KeyboardInterrupt:
            bad, checked = 0, 0
            failed.append(f"reports of {fleet.scheme} were not decoded again: stopped")
        wrong, compared = wrong + bad, compared + checked
        schemes[fleet.scheme] = {
            "rate": fleet.rate,
            "reports_sent": sent["sent"],
            "reports_decoded": counted[fleet.scheme],
            "reports_dropped": dropped[fleet.scheme],
            "reports_resent": sent["resent"],
            "reports_unacked": sent["unacked"],
            "round_trip_ms": sent["round_trip_ms"],
            "misdecoded": bad,
            "checked": checked,
            **(rows[fleet.scheme][0] if len(rows.get(fleet.scheme, [])) == 1 else {}),
            **pace(fleet.rate, settings.ues, sent),
            "versions": [row for row in final["versions"] if row["scheme"] == fleet.scheme and row["version"]],
        }
    return {
        "settings": settings.model_dump(mode="json", exclude={"config", "json_file", "out"}),
        "schemes": schemes,
        "lost": sum(r["reports_sent"] - r["reports_decoded"] - r["reports_dropped"] for r in schemes.values()),
        "dropped": sum(row["reports_dropped"] for row in schemes.values()),
        "unacked": sum(row["reports_unacked"] for row in schemes.values()),
        "misdecoded": wrong,
        "checked": compared,
        "failed": failed,
        "machine": machine(),
        "files": str(fleets[0].log.parent),
    }


def _misdecoded(store: CheckpointStore, fleet: _Ues, screen: Console) -> tuple[int, int]:
    """Decode again what was recorded of a fleet."""
    recorded = sorted((fleet.log.parent / "recorded").glob(f"{fleet.scheme}-*.npz"))
    recorded = [path for path in recorded if path.name.rsplit("-", 2)[0] == fleet.scheme]
    with progress(screen) as bar:
        task = bar.add_task(f"{fleet.scheme}: decoding again", total=None)
        return misdecoded(store, fleet.record, recorded, lambda done, of: bar.update(task, completed=done, total=of))


def _counted(url: str) -> tuple[Counter[str], Counter[str]]:
    """Reports counted in the store and dropped ones, by scheme, read from it after the gNB has ended."""
    store = Store(url, "default", 1)
    try:
        schemes = {lease.token: lease.model for lease, *_ in store.leases()}
        counts: tuple[Counter[str], Counter[str]] = Counter(), Counter()
        for of_scheme, by_token in zip(counts, (store.counted(), store.dropped()), strict=True):
            for token, count in by_token.items():
                of_scheme[schemes[token]] += count
        return counts
    finally:
        store.close()


def _show(results: dict[str, Any], screen: Console) -> None:
    table = Table(
        "scheme",
        "sent",
        "decoded",
        "dropped",
        "bits",
        "wire bytes",
        "NMSE (dB)",
        "t=T ratio of sums (dB)",
        "SGCS",
        "RTT p50 (ms)",
    )
    for name, row in results["schemes"].items():
        sent = name, *(str(row[f"reports_{what}"]) for what in ("sent", "decoded", "dropped"))
        if len(row["versions"]) < 2:
            table.add_row(*sent, *_figures(row))
            continue
        table.add_row(*sent, *5 * [""], number(row["round_trip_ms"].get("p50"), 1))
        for version in row["versions"]:
            table.add_row(of_version(version), "", str(version["reports"]), "", *_figures(version))
    screen.print(table)
    screen.print(pace_table(results))
    screen.print(
        "NMSE: mean of ratios over all slots and UEs; bits and wire bytes per report; aged: against the channel of the"
        " slot in which the estimate was ready, at the rate asked for"
    )
    disturbed = {
        name: row["versions"] for name, row in results["schemes"].items() if any(v.get("air") for v in row["versions"])
    }
    if disturbed:
        screen.print("air: a report is corrupted (decoded with errors), detected or lost; delay: of feedback, in slots")
    for name, versions in disturbed.items():
        for air in dict.fromkeys(version.get("air") or "undisturbed" for version in versions):
            of_air = [version for version in versions if (version.get("air") or "undisturbed") == air]
            counts = ", ".join(f"{fate[4:]} {sum(version[fate] for version in of_air)}" for fate in FATES)
            screen.print(f"  {name}, {air}: {counts}")
    by_domain: dict[str, list[str]] = {}
    for name, row in results["schemes"].items():
        by_domain.setdefault((row["versions"] or [row])[0].get("domain", "-"), []).append(name)
    for domain, names in by_domain.items():
        screen.print(f"domain of {', '.join(names)}: {domain}")
    screen.print(
        f"lost {results['lost']}, dropped {results['dropped']}, unacked {results['unacked']}, misdecoded"
        f" {results['misdecoded']} of {results['checked']} reports decoded again offline"
    )
    for text in results["failed"]:
        screen.print(text, style="red")


def _bits(row: dict[str, Any]) -> str:
    """Feedback bits of a report: their mean, and where they differ the 5th and 95th percentile."""
    low, high = row.get("feedback_bits_p5"), row.get("feedback_bits_p95")
    return number(row.get("feedback_bits"), 0) + ("" if low == high else f" ({low} to {high})")


def _figures(row: dict[str, Any]) -> list[str]:
    """Bits, wire bytes, NMSE, NMSE of the last slot, SGCS and round trip (of all versions)."""
    last = row["by_slot"][-1] if row.get("by_slot") else None
    return [
        _bits(row),
        number(row.get("wire_bytes"), 1),
        with_error(row.get("nmse_db"), row.get("nmse_se_db")),
        with_error(last["ratio_of_sums_db"], last["ratio_of_sums_se_db"]) if last else "-",
        number(row.get("sgcs"), 3),
        number(row.get("round_trip_ms", {}).get("p50"), 1),
    ]


def _free(port: int) -> int:
    """The port if it can be had, else 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port
