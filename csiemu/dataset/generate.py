"""`csiemu dataset generate`: channels of a preset to a data file."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic_settings import BaseSettings

from csiemu.dataset.writing import MAT_LIMIT, assemble, mat_size, write_shard
from csiemu.output import console, progress
from shared.channels.files.layouts import HF_FROM, HF_SUBCARRIERS, LAYOUTS, Channels, Shape
from shared.channels.scenario import Link, Scenario
from shared.channels.streams import Samples, Split
from shared.channels.wideband import require_wideband
from shared.errors import Conflict, InvalidInput
from shared.fields import differences
from shared.settings import OutFile, Seed, options
from shared.stopping import handled_by

FORMAT = 1
"""Version of the sidecar."""


class Settings(BaseSettings):
    """Write channels of a preset to a .mat or .npz file, with a JSON sidecar. Ctrl-C keeps what is done; run it again
    to go on.
    """

    model_config = options("CSIEMU_DATASET_")

    preset: str
    """preset[:field=value,...], a wideband one: cost2100-..., tr38901-...."""

    count: int = Field(ge=1, le=100_000_000)
    """Samples."""

    out: OutFile
    """File to write, .mat or .npz."""

    seed: Seed = 0

    split: Literal["train", "validation", "test", "emulate"] = "train"
    """Population: no two share a sample."""

    first: int = Field(0, ge=0, lt=2**32)
    """Number of the first sample, to spread one data set over several files."""

    layout: Literal["csinet", "dualnet-outdoor", "dualnet-indoor", "npz"] | None = None
    """Arrays and axes; default csinet for .mat, npz for .npz."""

    frequency: bool = False
    """csinet: write HF_all too, the channel over the first 125 subcarriers before truncation."""

    shard: int = Field(2000, ge=1, le=1_000_000)
    """Samples in memory at once, per worker."""

    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=1024)
    """Processes."""


@dataclass(frozen=True)
class Plan:
    """Everything that the file's content depends on; also the head of the sidecar."""

    scenario: str
    layout: str
    frequency: bool
    seed: int
    split: str
    first: int
    count: int


def run(settings: Settings) -> None:
    """Generate shards that are missing, join them, write the sidecar."""
    plan = _plan(settings)
    parts = settings.out.with_name(settings.out.name + ".parts")
    note = settings.out.with_suffix(".json")
    for path in [settings.out] if parts.exists() else [settings.out, note]:  # once begun, the sidecar is ours
        if path.exists():
            raise Conflict(f"out: {path} exists; remove it first")
    _claim(parts, plan, settings.shard)
    starts = range(0, plan.count, settings.shard)
    shards = [parts / f"{index:06d}" for index in range(len(starts))]
    jobs = [
        (plan, start, min(settings.shard, plan.count - start), shard)
        for start, shard in zip(starts, shards, strict=True)
        if not shard.exists()
    ]
    screen = console()
    with progress(screen) as bar:
        task = bar.add_task("samples", total=plan.count, completed=plan.count - sum(job[2] for job in jobs))
        for size in _work(jobs, settings.workers):
            bar.advance(task, size)
    note.write_text(json.dumps(_sidecar(plan, settings, shards), indent=1) + "\n")
    assemble(settings.out, shards)
    shutil.rmtree(parts)
    screen.print(f"{settings.out}: {plan.count} samples of {plan.scenario}, {settings.out.stat().st_size:,} bytes")


def _plan(settings: Settings) -> Plan:
    world = require_wideband(Scenario.parse(settings.preset).pinned(), "a data file", "preset")
    endings = {".mat": "csinet", ".npz": "npz"}
    suffix = settings.out.suffix
    if suffix not in endings:
        raise InvalidInput(f"out: '{settings.out.name}' ends in neither .mat nor .npz")
    layout = settings.layout or endings[suffix]
    if (layout == "npz") != (suffix == ".npz"):
        raise InvalidInput(f"layout: {layout} does not go into a {suffix} file")
    if settings.frequency and layout != "csinet":
        raise InvalidInput(f"frequency: the {layout} layout has no HF_all, csinet has")
    if settings.frequency and world.subcarriers != HF_FROM:
        raise InvalidInput(f"frequency: {world.subcarriers} subcarriers; users of HF_all take it to be of {HF_FROM}")
    if layout == "csinet" and world.last_rows:
        raise InvalidInput(f"scenario last_rows: {world.last_rows}; the csinet layout has first rows only")
    if settings.first + settings.count > 2**32:
        raise InvalidInput(f"first, count: {settings.first} + {settings.count} is beyond sample 2^32 - 1")
    world.check_here()
    plan = Plan(str(world), layout, settings.frequency, settings.seed, settings.split, settings.first, settings.count)
    if suffix == ".mat":
        for key, array in _arrays(plan, 0, 1).items():
            one = mat_size(array.shape, array.dtype)
            if one * plan.count > MAT_LIMIT:
                raise InvalidInput(
                    f"count: {plan.count}; a .mat file takes {MAT_LIMIT // one} samples of {key}: "
                    "write .npz, or several files with --first"
                )
    return plan


def _claim(parts: Path, plan: Plan, shard: int) -> None:
    """Make the folder of shards ours, or refuse one that belongs to other settings."""
    wanted = asdict(plan) | {"shard": shard}
    note = parts / "plan.json"
    parts.mkdir(parents=True, exist_ok=True)
    if note.exists() and (begun := json.loads(note.read_text())) != wanted:
        others = ", ".join(differences(wanted, begun))
        raise Conflict(f"out: {parts} was begun with other settings: {others}; remove it, or go on with the earlier")
    note.write_text(json.dumps(wanted))


def _work(jobs: list[tuple[Plan, int, int, Path]], workers: int) -> Iterator[int]:
    """Do the jobs in processes; yields the size of each that is done."""
    if not jobs:
        return
    os.environ["PYTHONSAFEPATH"] = "1"  # workers import nothing from the folder that one stands in
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _begin_worker) as pool:
        # a signal may reach all processes of a group, but only this one is to stop the others: they start deaf to it
        with handled_by(signal.SIG_IGN):
            sizes = {pool.submit(make_shard, *job): job[2] for job in jobs}
        try:
            for done in as_completed(sizes):
                done.result()
                yield sizes[done]
        except BaseException:
            pool.shutdown(cancel_futures=True)  # waits for the shards in work; that of `with` would do all the rest
            raise


def _begin_worker() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for jobs for ever, or write into the folder of the next run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def make_shard(plan: Plan, start: int, count: int, folder: Path) -> None:
    """Write the arrays of samples start .. start+count-1 of the plan."""
    write_shard(folder, _arrays(plan, start, count))


@torch.inference_mode()
def _arrays(plan: Plan, start: int, count: int) -> dict[str, NDArray[Any]]:
    world, layout = require_wideband(Scenario.parse(plan.scenario), "a data file"), LAYOUTS[plan.layout]
    ue = torch.arange(plan.first + start, plan.first + start + count)
    samples = Samples(plan.seed, Split[plan.split.upper()], ue, torch.zeros_like(ue))
    slots = torch.arange(world.slots)
    frequency = None
    if plan.frequency:
        full = world.angular_delay(samples, Link.DOWNLINK, slots, full=True)
        downlink = full[..., world.rows(), :].numpy()
        frequency = torch.fft.fft(full[:, 0], dim=1)[:, :HF_SUBCARRIERS].transpose(1, 2).numpy()
    else:
        downlink = world.angular_delay(samples, Link.DOWNLINK, slots).numpy()
    uplink = world.angular_delay(samples, Link.UPLINK, slots).numpy() if layout.paired else None
    shape = Shape(world.first_rows, world.last_rows, world.antennas)
    return layout.encode(Channels(downlink, uplink, frequency), shape)


def _sidecar(plan: Plan, settings: Settings, shards: list[Path]) -> dict[str, Any]:
    """What the file is: the plan, its arrays, and the samples' scales."""
    arrays, scales = {}, []
    for file in sorted(shards[0].glob("*.npy")):
        array = np.load(file, mmap_mode="r")
        arrays[file.stem] = {"shape": [plan.count, *array.shape[1:]], "dtype": str(array.dtype)}
    if "scale" in arrays:
        scales = [np.load(shard / "scale.npy") for shard in shards]
    decibels = 20 * np.log10(np.concatenate(scales)) if scales else None
    return {
        "format": FORMAT,
        "made_by": f"csi-feedback-emulator {version('csi-feedback-emulator')}",
        "file": settings.out.name,
        **asdict(plan),
        "shard": settings.shard,  # images of other batches differ in the last bits
        "arrays": arrays,
        "scale_db": None if decibels is None else {"least": float(decibels.min()), "largest": float(decibels.max())},
    }
