"""`csiemu dataset inspect`: statistics and pictures of a data file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic_settings import BaseSettings, CliPositionalArg
from rich.table import Table

from csiemu.output import console, progress
from shared.channels.files import reading
from shared.channels.files.layouts import Channels, Shape
from shared.channels.files.stored import AT_ONCE, StoredChannels
from shared.channels.scenario import Scenario
from shared.channels.wideband import require_wideband
from shared.commands import write_json
from shared.errors import Conflict, InvalidInput
from shared.settings import JsonFile, OutFile, options
from shared.writable import why_no_file

EXAMPLES = 4

PICTURES = (".png", ".pdf", ".svg")


class Settings(BaseSettings):
    """Print what a .mat or .npz file of channels holds, and draw its delay and angle profiles and example images."""

    model_config = options("CSIEMU_DATASET_")

    file: CliPositionalArg[Path]
    """Data file."""

    first_rows: int = Field(32, ge=0, le=65536)
    """Q_f, first delay rows of an image; the file's sidecar (.json), if there is one, knows better."""

    last_rows: int = Field(0, ge=0, le=65536)
    """Q_l, last delay rows."""

    antennas: int = Field(32, ge=1, le=1024)
    """M."""

    axes: reading.Axes = "auto"
    """Order of axes in HDF5 (MATLAB 7.3): matlab stores them in reverse, c (h5py) as they are; auto: as the file tells.
    """

    plot: OutFile | None = None
    """Picture to write (.png, .pdf or .svg); default: the file's name with .png."""

    json_file: JsonFile = None


def run(settings: Settings) -> None:
    """Read, print, draw."""
    shape = Shape(settings.first_rows, settings.last_rows, settings.antennas)
    sidecar = settings.file.with_suffix(".json")
    made = _sidecar(sidecar)
    if made:
        if settings.json_file is not None and settings.json_file.absolute() == sidecar.absolute():
            raise Conflict(f"json: {sidecar} is the file's sidecar; choose another name")
        world = require_wideband(Scenario.parse(made["scenario"]), "a data file")
        shape = Shape(world.first_rows, world.last_rows, world.antennas)
    picture = settings.plot or settings.file.with_suffix(".png")
    if picture.suffix not in PICTURES:
        raise InvalidInput(f"plot: '{picture}' ends in none of {', '.join(PICTURES)}")
    if settings.file.exists() and (reason := why_no_file(picture)):
        raise InvalidInput(f"plot: {picture} {reason}; name another file with --plot")
    screen = console()
    with progress(screen) as bar:
        reading_it = bar.add_task(f"reading {settings.file.name}", total=None)
        layout, channels = reading.open_channels(
            settings.file,
            shape,
            settings.axes,
            on_progress=lambda done, of: bar.update(reading_it, completed=done, total=of),
        )
        bar.remove_task(reading_it)
        task = bar.add_task(f"{settings.file.name}: samples", total=len(channels))
        seen = look(channels, lambda samples: bar.advance(task, samples))
        found = {
            "file": settings.file.name,
            "layout": layout.name,
            "made_from": made.get("scenario"),
            **statistics(channels, seen),
        }
    table = Table("statistic", "value")
    for name, value in found.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    screen.print(table)
    with screen.status("drawing"):
        draw(channels, seen, shape, settings.file.name, picture)
    screen.print(f"drawn: {picture}")
    if settings.json_file:
        write_json(settings.json_file, found)


def _sidecar(path: Path) -> dict[str, Any]:
    """What `generate` wrote beside the file; empty if there is nothing, or a JSON file of something else."""
    try:
        made = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return made if isinstance(made, dict) and {"made_by", "scenario"} <= made.keys() else {}


@dataclass(frozen=True)
class Seen:
    """What is found of the N samples of a file, slot 0 of the downlink.

    Attributes:
        of_samples: [N] each: `power` of an image, number of `effective` entries, `mean_row`, `entries` for 90 % of the
            power, share of the `strongest` entry, `largest` magnitude; how images resemble `neighbours` [N - 1] and, if
            there is one, the `uplink`: its images, their magnitudes (`uplink_magnitude`, `magnitude_of_others`).
        share: [Q, M], mean share of a sample's power.
    """

    of_samples: dict[str, NDArray[Any]]
    share: NDArray[np.floating[Any]]


def look(channels: Channels | StoredChannels, on_progress: Callable[[int], None] = lambda samples: None) -> Seen:
    """Look at all samples, some at a time; `on_progress` is told how many more."""
    found: dict[str, list[NDArray[Any]]] = {}
    shares = []
    before = channels.take(np.array([len(channels) - 1]), frequency=False)  # of the first one
    for start in range(0, len(channels), AT_ONCE):
        numbers = np.arange(start, min(start + AT_ONCE, len(channels)))
        here = channels.take(numbers, frequency=False)
        image = here.downlink[:, 0]
        power = np.abs(image) ** 2
        total = power.sum(axis=(1, 2))
        share = power / total[:, None, None]
        shares.append(share.sum(axis=0))
        neighbours = np.concatenate([before.downlink[:, 0], image])[int(start == 0) :]
        of_block = {
            "power": total,
            "effective": 1 / (share**2).sum(axis=(1, 2)),
            "mean_row": (share.sum(axis=2) * np.arange(share.shape[1])).sum(axis=1),
            "entries": _entries_for(share, 0.9),
            "strongest": share.max(axis=(1, 2)),
            "largest": np.abs(image).max(axis=(1, 2)),
            "neighbours": _resemblances(neighbours[:-1], neighbours[1:]),
        }
        if here.uplink is not None and before.uplink is not None:
            uplink = here.uplink[:, 0]
            others = np.concatenate([before.uplink[:, 0], uplink])[:-1]
            of_block["uplink"] = _resemblances(image, uplink)
            of_block["uplink_magnitude"] = _resemblances(np.abs(image), np.abs(uplink))
            of_block["magnitude_of_others"] = _resemblances(np.abs(image), np.abs(others))
        for name, values in of_block.items():
            found.setdefault(name, []).append(values)
        before = here.take(np.array([-1]))
        on_progress(len(numbers))
    of_samples = {name: np.concatenate(parts) for name, parts in found.items()}
    return Seen(of_samples, np.sum(shares, axis=0) / len(channels))


def statistics(channels: Channels | StoredChannels, seen: Seen) -> dict[str, Any]:
    """Figures of the downlink images (slot 0), and how the uplink's resemble them."""
    of_samples, decibels = seen.of_samples, 10 * np.log10(seen.of_samples["power"])
    found: dict[str, Any] = {
        "samples": len(channels),
        "zero_samples_skipped": channels.skipped,
        "slots": channels.slots,
        "delay_rows": seen.share.shape[0],
        "angles": seen.share.shape[1],
        "power_db_mean": float(decibels.mean()),
        "power_db_sd": float(decibels.std()),
        "effective_entries": float(of_samples["effective"].mean()),
        "mean_delay_row": float(of_samples["mean_row"].mean()),
        "entries_for_90_percent": float(np.median(of_samples["entries"])),
        "strongest_entry_share": float(of_samples["strongest"].mean()),
        "correlation_of_neighbours": float(of_samples["neighbours"].mean()) if len(channels) > 1 else None,
    }
    if channels.paired:
        found["uplink_correlation"] = float(of_samples["uplink"].mean())
        found["uplink_magnitude_correlation"] = float(of_samples["uplink_magnitude"].mean())
        found["uplink_magnitude_correlation_of_others"] = float(of_samples["magnitude_of_others"].mean())
    return found


def draw(channels: Channels | StoredChannels, seen: Seen, shape: Shape, title: str, path: Path) -> None:
    """Mean delay and angle profiles, mean image and example images, to a picture."""
    os.environ["MPLBACKEND"] = "Agg"  # a notebook's, say, is not to be had here
    from matplotlib.figure import Figure

    share, largest = seen.share, seen.of_samples["largest"]
    delay = np.concatenate([np.arange(shape.first_rows), np.arange(-shape.last_rows, 0)])
    order = np.argsort(delay)
    figure = Figure(figsize=(3.4 * EXAMPLES, 6.4), layout="constrained")
    axes = figure.subplots(2, EXAMPLES)
    figure.suptitle(f"{title}: {len(channels)} samples, downlink, angular-delay domain")
    axes[0, 0].semilogy(delay[order], share.sum(axis=1)[order], ".-")
    axes[0, 0].set(title="power-delay profile", xlabel="delay row", ylabel="mean share of a sample's power")
    axes[0, 1].semilogy(np.arange(shape.antennas) - shape.antennas // 2, share.sum(axis=0), ".-")
    axes[0, 1].set(title="power-angle profile", xlabel="angle bin (0: broadside)")
    extent = (-shape.antennas / 2 - 0.5, shape.antennas / 2 - 0.5, shape.rows - 0.5, -0.5)
    mean = axes[0, 2].imshow(10 * np.log10(share + 1e-12), aspect="auto", extent=extent, vmin=-60)
    axes[0, 2].set(title="mean image", xlabel="angle bin", ylabel="delay row in file")
    figure.colorbar(mean, ax=axes[0, 2], label="share of power (dB)")
    levels = 20 * np.log10(largest)
    spread = (levels.min() - 0.5, levels.max() + 0.5)  # in public files all samples have the same
    axes[0, 3].hist(levels, bins=40, range=spread)
    axes[0, 3].set(title="largest magnitude", xlabel="dB", ylabel="samples")
    examples = np.linspace(0, len(channels) - 1, EXAMPLES).astype(int)
    images = np.abs(channels.take(examples, frequency=False).downlink[:, 0])
    for axis, index, image in zip(axes[1], examples, images, strict=True):
        axis.imshow(image / largest[index], aspect="auto", extent=extent, cmap="magma", vmin=0, vmax=1)
        axis.set(title=f"|H| of sample {index}, largest 1", xlabel="angle bin", ylabel="delay row in file")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _entries_for(share: NDArray[np.floating[Any]], part: float) -> NDArray[np.int64]:
    """[N] number of an image's strongest entries that hold that part of its power."""
    falling = -np.sort(-share.reshape(len(share), -1), axis=1)
    return (falling.cumsum(axis=1) < part).sum(axis=1) + 1


def resemblance(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Mean of |<a, b>| / (|a| |b|) over samples."""
    return float(_resemblances(first, second).mean())


def _resemblances(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """[N] |<a, b>| / (|a| |b|)."""
    a, b = (values.reshape(len(values), math.prod(values.shape[1:])) for values in (first, second))
    match = np.abs((a.conj() * b).sum(axis=1))
    return match / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
