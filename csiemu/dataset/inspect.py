"""`csiemu dataset inspect`: statistics and pictures of a data file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic_settings import BaseSettings, CliPositionalArg
from rich.table import Table

from csiemu.output import console
from shared.channels.files import reading
from shared.channels.files.layouts import Channels, Shape
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
    with screen.status(f"reading {settings.file}"):
        layout, channels = reading.read(settings.file, shape, settings.axes)
        found = {
            "file": settings.file.name,
            "layout": layout.name,
            "made_from": made.get("scenario"),
            **statistics(channels),
        }
    table = Table("statistic", "value")
    for name, value in found.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    screen.print(table)
    with screen.status("drawing"):
        draw(channels, shape, settings.file.name, picture)
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


def statistics(channels: Channels) -> dict[str, Any]:
    """Figures of the downlink images (slot 0), and how the uplink's resemble them."""
    image = channels.downlink[:, 0]
    power = np.abs(image.astype(np.complex64)) ** 2
    total = power.sum(axis=(1, 2))
    share = power / total[:, None, None]
    rows = share.sum(axis=2)
    found: dict[str, Any] = {
        "samples": len(image),
        "zero_samples_skipped": channels.skipped,
        "slots": channels.downlink.shape[1],
        "delay_rows": image.shape[1],
        "angles": image.shape[2],
        "power_db_mean": float(10 * np.log10(total).mean()),
        "power_db_sd": float(10 * np.log10(total).std()),
        "effective_entries": float((1 / (share**2).sum(axis=(1, 2))).mean()),
        "mean_delay_row": float((rows * np.arange(rows.shape[1])).sum(axis=1).mean()),
        "entries_for_90_percent": float(np.median(_entries_for(share, 0.9))),
        "strongest_entry_share": float(share.max(axis=(1, 2)).mean()),
        "correlation_of_neighbours": resemblance(image[:-1], image[1:]) if len(image) > 1 else None,
    }
    if channels.uplink is not None:
        uplink = channels.uplink[:, 0]
        found["uplink_correlation"] = resemblance(image, uplink)
        found["uplink_magnitude_correlation"] = resemblance(np.abs(image), np.abs(uplink))
        others = np.roll(uplink, 1, axis=0)
        found["uplink_magnitude_correlation_of_others"] = resemblance(np.abs(image), np.abs(others))
    return found


def draw(channels: Channels, shape: Shape, title: str, path: Path) -> None:
    """Mean delay and angle profiles, mean image and example images, to a picture."""
    os.environ["MPLBACKEND"] = "Agg"  # a notebook's, say, is not to be had here
    from matplotlib.figure import Figure

    image = channels.downlink[:, 0]
    power = np.abs(image) ** 2
    share = (power / power.sum(axis=(1, 2), keepdims=True)).mean(axis=0)  # [delay, angle]
    delay = np.concatenate([np.arange(shape.first_rows), np.arange(-shape.last_rows, 0)])
    order = np.argsort(delay)
    figure = Figure(figsize=(3.4 * EXAMPLES, 6.4), layout="constrained")
    axes = figure.subplots(2, EXAMPLES)
    figure.suptitle(f"{title}: {len(image)} samples, downlink, angular-delay domain")
    axes[0, 0].semilogy(delay[order], share.sum(axis=1)[order], ".-")
    axes[0, 0].set(title="power-delay profile", xlabel="delay row", ylabel="mean share of a sample's power")
    axes[0, 1].semilogy(np.arange(shape.antennas) - shape.antennas // 2, share.sum(axis=0), ".-")
    axes[0, 1].set(title="power-angle profile", xlabel="angle bin (0: broadside)")
    extent = (-shape.antennas / 2 - 0.5, shape.antennas / 2 - 0.5, shape.rows - 0.5, -0.5)
    mean = axes[0, 2].imshow(10 * np.log10(share + 1e-12), aspect="auto", extent=extent, vmin=-60)
    axes[0, 2].set(title="mean image", xlabel="angle bin", ylabel="delay row in file")
    figure.colorbar(mean, ax=axes[0, 2], label="share of power (dB)")
    largest = np.abs(image).reshape(len(image), -1).max(axis=1)
    levels = 20 * np.log10(largest)
    spread = (levels.min() - 0.5, levels.max() + 0.5)  # in public files all samples have the same
    axes[0, 3].hist(levels, bins=40, range=spread)
    axes[0, 3].set(title="largest magnitude", xlabel="dB", ylabel="samples")
    for axis, index in zip(axes[1], np.linspace(0, len(image) - 1, EXAMPLES).astype(int), strict=True):
        axis.imshow(np.abs(image[index]) / largest[index], aspect="auto", extent=extent, cmap="magma", vmin=0, vmax=1)
        axis.set(title=f"|H| of sample {index}, largest 1", xlabel="angle bin", ylabel="delay row in file")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _entries_for(share: NDArray[np.floating[Any]], part: float) -> NDArray[np.int64]:
    """[N] number of an image's strongest entries that hold that part of its power."""
    falling = -np.sort(-share.reshape(len(share), -1), axis=1)
    return (falling.cumsum(axis=1) < part).sum(axis=1) + 1


def resemblance(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Mean of |<a, b>| / (|a| |b|) over samples."""
    a, b = (values.reshape(len(values), -1) for values in (first, second))
    match = np.abs((a.conj() * b).sum(axis=1))
    return float((match / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).mean())
