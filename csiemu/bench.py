"""`csiemu bench`."""

from __future__ import annotations

import itertools
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg
from rich.console import Group
from rich.table import Table

from csiemu.benchmarks import (
    OnProgress,
    channels,
    endurance,
    flood,
    kills,
    layouts,
    overload,
    serving,
    swaps,
    training,
    vanish,
)
from csiemu.benchmarks.peers import load
from csiemu.output import console, number, progress
from gnb_server.openvino import Backend, check_backend
from shared.commands import write_json
from shared.errors import InvalidInput
from shared.link.precision import Precision
from shared.settings import CheckpointSettings, JsonFile, options


class Settings(CheckpointSettings):
    """Measure ratios against a named peer in one run. `serving`: decodes over gRPC against the decoder in a loop.
    `channels`: channel generation against Octave and stock Sionna. `training`: CRNet's step against the
    structure of its public code. `flood`: what a gNB bears while fleets send as fast as they can and hang up. `swaps`:
    versions with different encoders swapped under full load, with `kill -9` of gNB and UEs. `vanish`: what a gNB
    holds of fleets that attach, send and vanish. `layouts`: DualNet-MP's training step with the device's own
    convolutions and with block layers. `overload`: what a gNB serves, and how late, of half to four times what it can.
    `kills`: decode workers, gNB, PostgreSQL and UEs killed at random, whether all goes on by itself.
    `endurance`: 10,000 UEs for five minutes, what is lost, whether memory grows, how soon REST answers.
    """

    model_config = options("CSIEMU_BENCH_") | {"env_ignore_empty": False}  # --workers ""

    benchmark: CliPositionalArg[
        Literal[
            "serving", "channels", "training", "flood", "swaps", "vanish", "layouts", "overload", "kills", "endurance"
        ]
    ]
    """Which one."""

    schemes: str = "hyperrnn,dldnn"
    """serving: checkpoint names, comma-separated; flood, swaps, vanish, overload, kills: the first of them; endurance:
    a UE process for each, the same several times if you like."""

    presets: str = ",".join(channels.PRESETS)
    """channels: scenario presets, comma-separated."""

    samples: int = Field(2048, ge=1, le=65536)
    """channels: samples made in one call."""

    ues: int = Field(512, ge=1, le=65536)
    """serving: UEs, and batch of the peer; swaps, overload: UEs; kills: 256 by default, endurance: 10,000."""

    precision: Precision = "fp32"
    """serving: what decoders compute in, the peer's too."""

    backend: Backend = "torch"
    """serving: what computes networks in the gNB; the peer's is torch."""

    workers: str = Field("1,2", pattern="^([0-9]+(,[0-9]+)*)?$")
    """serving: numbers of decode workers that are measured besides none; empty: no others."""

    peers: str = ""
    """serving: servers of others that are measured too, ray-serve or litserve, comma-separated (extra `peers`)."""

    batch: int = Field(200, ge=2, le=65536)
    """training, layouts: images a step."""

    steps: int = Field(10, ge=1, le=10_000)
    """layouts: steps of a measurement."""

    device: Literal["cpu", "cuda"] = "cpu"
    """layouts: what trains."""

    fleets: int = Field(200, ge=1, le=2000)
    """flood, vanish: fleets, of 64 and 1,000 UEs each."""

    versions: str = Field("1,3", pattern="^[1-9][0-9]*,[1-9][0-9]*$")
    """swaps: the two versions that take turns."""

    swaps: int = Field(100, ge=1, le=10_000)
    """swaps: how many."""

    kills: int = Field(20, ge=0, le=10_000)
    """swaps: how many of them with a `kill -9`, half of the gNB and half of UEs."""

    seed: int = Field(0, ge=0)
    """swaps, kills, endurance: of the world, and of what is killed and when."""

    seconds: float = Field(5.0, gt=0, le=600)
    """Length of each measurement. endurance: 300 by default."""

    rounds: int = Field(3, ge=1, le=10_000)
    """Interleaved repetitions; medians are shown. kills: how many, 50 by default."""

    json_file: JsonFile = None


def run(settings: Settings) -> None:
    """Measure, show, keep."""
    benchmarks = {
        "serving": _serving,
        "channels": _channels,
        "training": _training,
        "flood": _flood,
        "swaps": _swaps,
        "vanish": _vanish,
        "layouts": _layouts,
        "overload": _overload,
        "kills": _kills,
        "endurance": _endurance,
    }
    screen = console()
    with progress(screen) as bar:
        task = bar.add_task(f"{settings.benchmark}: {'seconds' if settings.benchmark == 'flood' else 'measurements'}")
        results, table = benchmarks[settings.benchmark](
            settings, lambda done, of: bar.update(task, completed=done, total=of)
        )
    screen.print(table)
    if settings.json_file:
        write_json(settings.json_file, results)


def _serving(settings: Settings, on_progress: OnProgress) -> tuple[dict[str, Any], Table | Group]:
    names, store = _names(settings.schemes), settings.checkpoint_store()
    for name in names:
        store.load(name)  # before any of them is measured
    workers, peers = [int(count) for count in _names(settings.workers)], _names(settings.peers)
    load.check(peers)
    check_backend(settings.backend)
    lengths = settings.seconds, settings.rounds
    results = serving.measure(
        store.root, names, settings.ues, *lengths, settings.precision, workers, peers, settings.backend, on_progress
    )
    table = Table(
        "scheme",
        "decodes per server CPU second: ceiling",
        "decode only",
        "everything on",
        "share",
        "share, all on",
        "cost of the monitoring",
        "by the clock, without it",
        *(f"{count} workers" for count in workers),
    )
    for name, row in results["schemes"].items():
        rates = [row[f"{mode}_per_cpu_s"] for mode in ("ceiling", "decode_only", "everything")]
        shares = (row["share_of_ceiling"], row["share_of_ceiling_everything"], row["cost_of_monitoring"])
        clock = [row[f"{mode}_per_s"] for mode in ("unwatched", *(f"workers_{count}" for count in workers))]
        cells = [*map("{:,.0f}".format, rates), *map("{:.2f}".format, shares), *map("{:,.0f}".format, clock)]
        table.add_row(name, *cells)
    return results, Group(table, _beside_peers(results["schemes"], peers)) if peers else table


def _beside_peers(schemes: dict[str, Any], peers: list[str]) -> Table:
    """What others serve, and how many times that the gNB does, decode only."""
    table = Table("scheme", "server", "reports a request", "by the clock", "ours", "per server CPU second", "ours")
    for (name, row), peer, at_once in itertools.product(schemes.items(), peers, load.REPORTS):
        cells = []
        for unit in ("per_s", "per_cpu_s"):
            theirs = row[f"{peer}_{at_once}_{unit}"]
            cells += [f"{theirs:,.0f}", f"{row[f'decode_only_{unit}'] / theirs:.1f} x"]
        table.add_row(name, peer, str(at_once), *cells)
    return table


def _channels(settings: Settings, on_progress: OnProgress) -> tuple[dict[str, Any], Table]:
    results = channels.measure(
        _names(settings.presets), settings.samples, settings.seconds, settings.rounds, on_progress
    )
    table = Table("preset", "per CPU second: images", "pairs", "pairs one by one", "stock Sionna, pairs", "ratio")
    for preset, row in results["presets"].items():
        if "pairs_to_stock_sionna" in row:
            ratio = f"{row['pairs_to_stock_sionna']:,.0f} x stock Sionna"
        else:
            ratio = "{:,.0f} - {:,.0f} x Octave".format(*row["samples_to_octave"])
        columns = ("samples", "pairs", "single_pairs", "stock_sionna_pairs")
        rates = (row.get(f"{name}_per_cpu_s") for name in columns)
        table.add_row(preset, *("-" if rate is None else f"{rate:,.0f}" for rate in rates), ratio)
    return results, table


def _training(settings: Settings, on_progress: OnProgress) -> tuple[dict[str, Any], Table]:
    results = training.measure(settings.batch, settings.seconds, settings.rounds, on_progress)
    table = Table("CRNet 1/4, samples per CPU second", "ours", "public structure", "ratio")
    for precision, row in results["precisions"].items():
        rates = (row[f"{name}_per_cpu_s"] for name in ("ours", "public_structure"))
        table.add_row(precision, *(f"{rate:,.0f}" for rate in rates), f"{row['ratio']:.2f}")
    return results, table


def _flood(settings: Settings, on_progress: OnProgress) -> tuple[dict[str, Any], Table]:
    found = flood.measure(
        settings.checkpoints, _names(settings.schemes)[0], settings.fleets, flood.UES, settings.seconds, on_progress
    )
    table = Table("figure", "value")
    for when in ("during", "after"):
        slowest = max(found[f"first_ack_{when}_s"])
        table.add_row(f"slowest first ack of a fresh fleet, {when} the flood (s)", f"{slowest:.2f}")
    for when in ("before", "peak", "after"):
        table.add_row(f"memory, {when} (MB)", f"{found[f'memory_{when}_mb']:.0f}")
    table.add_row("reports acknowledged per second", f"{found['acked_per_s']:,.0f}")
    table.add_row("to the end after SIGTERM (s)", f"{found['ended_in_s']:.2f}")
    return found, table


def _swaps(settings: Settings, on_progress: OnProgress) -> tuple[dict[str, Any], Table]:
    name, (first, second) = _names(settings.schemes)[0], map(int, settings.versions.split(","))
    if settings.kills > settings.swaps:
        raise InvalidInput(f"kills: {settings.kills} of {settings.swaps} swaps; wanted at most one each")
    for version in (first, second):
        settings.checkpoint_store().load(name, version)
    found = swaps.measure(
        settings.checkpoints,
        name,
        (first, second),
        settings.ues,
        settings.swaps,
        settings.kills,
        settings.seed,
        on_progress,
    )
    table = Table("figure", "value")
    table.add_row("swaps; kill -9 of the gNB, of UEs", "{}; {gNB}, {UEs}".format(found["swaps"], **found["kills"]))
    table.add_row("reports counted", f"{found['reports']:,}")
    table.add_row("lost; counted twice", f"{found['lost']}; {found['twice']}")
    table.add_row("misdecoded, of those made and decoded again", f"{found['misdecoded']} of {found['checked']:,}")
    for version, frames in found["frames_by_version"].items():
        table.add_row(f"frames on version {version}", f"{frames:,}")
    table.add_row("until all UEs use it: median, longest (s)", "{p50:.2f}, {p100:.2f}".format(**found["swap_s"]))
    table.add_row("UE processes ended with", ", ".join(map(str, found["ues_ended_with"])))
    return found, table


def _vanish(settings: Settings, on_progress: OnProgress) -> tuple[dict[str, Any], Table]:
    found = vanish.measure(settings.checkpoints, _names(settings.schemes)[0], settings.fleets, vanish.UES, on_progress)
    table = Table("fleets that have vanished", "memory (MB)")
    for cycles, memory in zip(found["cycles"], found["memory_mb"], strict=True):
        table.add_row(str(cycles), f"{memory:.1f}")
    table.add_row("slope, kB a fleet", f"{found['kb_per_cycle']:.1f}")
    return found, table


def _layouts(settings: Settings, on_progress: OnProgress) -> tuple[dict[str, Any], Table]:
    found = layouts.measure(settings.device, settings.batch, settings.steps, settings.rounds, on_progress)
    table = Table(f"DualNet-MP, batch {settings.batch}, on {found['settings']['device']}", "ms a step")
    table.add_row("own circular convolutions", f"{found['step_ms']['own']:.1f}")
    table.add_row("block layers", f"{found['step_ms']['blocks']:.1f}")
    return found, table


def _overload(settings: Settings, on_progress: OnProgress) -> tuple[dict[str, Any], Table]:
    name, ues = _names(settings.schemes)[0], settings.ues
    if ues % overload.FLEETS:
        raise InvalidInput(f"ues: {ues}; wanted a multiple of {overload.FLEETS}, which is the number of fleets")
    found = overload.measure(settings.checkpoints, name, ues, settings.seconds, on_progress)
    table = Table(
        f"offered, of {found['capacity_per_s']:,.0f} reports/s",
        "offered /s",
        "served /s",
        "delay p50 (ms)",
        "p99",
        "behind at the end",
        "memory (MB)",
    )
    for row in found["offered"]:
        rates = (f"{row[f'{name}_per_s']:,.0f}" for name in ("offered", "served"))
        delays = ("-" if row[f"delay_{p}_ms"] is None else f"{row[f'delay_{p}_ms']:,.1f}" for p in ("p50", "p99"))
        table.add_row(f"{row['share']:g}", *rates, *delays, f"{row['behind']:,}", f"{row['memory_mb']:.0f}")
    return found, table


def _kills(settings: Settings, on_progress: OnProgress) -> tuple[dict[str, Any], Table]:
    name, chosen = _names(settings.schemes)[0], settings.model_fields_set
    ues = settings.ues if "ues" in chosen else kills.UES
    rounds = settings.rounds if "rounds" in chosen else kills.ROUNDS
    if ues % kills.FLEETS:
        raise InvalidInput(f"ues: {ues}; wanted a multiple of {kills.FLEETS}, which is the number of UE processes")
    settings.checkpoint_store().load(name)
    found = kills.measure(settings.checkpoints, name, ues, rounds, settings.seed, on_progress)
    table = Table("figure", "value")
    for victim, row in found["kills"].items():
        times, longest = row["times"], number(row["longest_s"], 1)
        table.add_row(f"{victim} killed", f"{times} times; all UEs served again after {longest} s at most")
    table.add_row(f"reports counted in {found['store']}", f"{found['reports']:,}")
    table.add_row("lost; counted twice", f"{found['lost']}; {found['twice']}")
    table.add_row("misdecoded, of those made and decoded again", f"{found['misdecoded']} of {found['checked']:,}")
    table.add_row("UE processes ended with", ", ".join(map(str, found["ues_ended_with"])))
    return found, table


def _endurance(settings: Settings, on_progress: OnProgress) -> tuple[dict[str, Any], Table]:
    names, chosen = _names(settings.schemes), settings.model_fields_set
    ues = settings.ues if "ues" in chosen else endurance.UES
    seconds = settings.seconds if "seconds" in chosen else endurance.SECONDS
    if not names or ues % len(names):
        raise InvalidInput(f"ues: {ues}; wanted a multiple of {len(names)}, which is the number of UE processes")
    for name in names:
        settings.checkpoint_store().load(name)
    found = endurance.measure(settings.checkpoints, names, ues, seconds, settings.seed, on_progress)
    table = Table("figure", "value")
    table.add_row("until all UEs were served (s)", f"{found['served_after_s']:.1f}")
    table.add_row("offered; served (reports/s)", f"{found['offered_per_s']:,.0f}; {found['served_per_s']:,.0f}")
    table.add_row("reports sent", f"{found['sent']:,}")
    table.add_row("lost; counted twice", f"{found['lost']}; {found['twice']}")
    table.add_row("misdecoded, of those made and decoded again", f"{found['misdecoded']} of {found['checked']:,}")
    first, last, most = found["memory_mb"][0], found["memory_mb"][-1], max(found["memory_mb"])
    table.add_row("memory: first, last, most (MB)", f"{first:.0f}, {last:.0f}, {most:.0f}")
    slope, error = found["memory_mb_per_min"], found["memory_mb_per_min_se"]
    table.add_row("its slope over the second half (MB/min)", f"{slope:+.2f}, standard error {error:.2f}")
    for path, waits in found["rest_ms"].items():
        table.add_row(f"GET {path}: p50, p99 (ms)", f"{waits['p50']:.0f}, {waits['p99']:.0f}")
    return found, table


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
