"""Channels from a data file as a scenario: who has the public files trains and emulates with them as they are."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.channels.files import reading
from shared.channels.files.layouts import HF_FROM, Channels, Shape
from shared.channels.files.stored import StoredChannels
from shared.channels.scenario import PRESETS, Link
from shared.channels.streams import Samples, Split
from shared.channels.transforms import to_spatial_frequency, zero_fill
from shared.channels.wideband import Wideband
from shared.errors import Conflict, InvalidInput, NotFound
from shared.fields import OneOf

DATA_FOLDER = "CSIEMU_DATA"
"""Environment variable: folder of the data files; `data` if it is not set. Requests name files in it, and no others."""

PUBLIC_TEST = re.compile(r"(?<![^/])DATA_Htest(in|out)\.mat$")
"""Names of the files of the CsiNet papers' data that have HF_all in another one."""

WITHOUT = "none"
"""As a name of a file with HF_all: there is to be none."""

_SHARES = {Split.TRAIN: (0.0, 0.8), Split.VALIDATION: (0.8, 0.9), Split.TEST: (0.9, 1.0), Split.EMULATE: (0.9, 1.0)}


@dataclass(frozen=True)
class DataFile(Wideband):
    """Channels of files in the folder CSIEMU_DATA, in memory unless a file is large and HDF5.

    Each split reads its own file; splits without one share `file`: its first 80 % are for training, then 10 % for
    validation and 10 % for test. Emulation reads the rows of the test. Frame f of UE u is row u + 1009 f of the split,
    from the start again after the last one; in training every pass has an order of its own.

    Attributes:
        file, train, validation, test: names of files, or empty: paths in the folder, `indoor/my data.mat`.
        frequency: name of the file with HF_all of the samples that are tested (CsiNet's layout). What is cut off is
            then not 0 but follows from it: see `whole`. Empty: the one that belongs to a public file, if it lies beside
            that; `none`: without.
        axes: order of axes in HDF5 files (MATLAB 7.3): `matlab` stores them in reverse, `c` (h5py) as they are; `auto`:
            as the file says, or as its shapes tell.
        sha256: first 16 digits of the files' hash, to make sure that UE and gNB have the same; empty: not checked.
    """

    file: str = ""
    train: str = ""
    validation: str = ""
    test: str = ""
    frequency: str = ""
    axes: Annotated[reading.Axes, OneOf(get_args(reading.Axes))] = "auto"
    sha256: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("file", "train", "validation", "test", "frequency"):
            name = getattr(self, field)
            if name and not _is_name(name) and (field, name) != ("frequency", WITHOUT):
                raise InvalidInput(
                    f"scenario {field}: '{name}' is not the name of a .mat or .npz file in the folder {DATA_FOLDER}: up"
                    " to 255 bytes without comma, backslash and unprintable ones; no part begins with a dot, space or ~"
                )
        if self.frequency not in ("", WITHOUT) and (self.subcarriers, self.last_rows) != (HF_FROM, 0):
            found = f"{self.subcarriers}, {self.last_rows}"
            raise InvalidInput(f"scenario subcarriers, last_rows: {found}; with HF_all they are {HF_FROM}, 0")

    @property
    def has_uplink(self) -> bool:
        return self._channels(Split.TEST)[0].paired

    def pinned(self) -> DataFile:
        """Self with the hash of the files that are here, and the name of the one with HF_all if it was found."""
        return replace(self, frequency=self.frequency or self._whole_band, sha256=self._fingerprint())

    def check_here(self, delay_slots: int = 0) -> None:
        """Raises NotFound, InvalidInput or Conflict if the files are not here, are malformed, or are other ones."""
        found = self._fingerprint()
        if self.sha256 and found != self.sha256:
            raise Conflict(f"scenario sha256: {self.sha256}; the files here have {found}")
        slots = self._channels(Split.TEST)[0].slots
        if self.slots + delay_slots > slots:
            raise InvalidInput(
                f"scenario slots, delay_slots: {self.slots} + {delay_slots}; the file has {slots} slots a sample"
            )

    def angular_delay(self, samples: Samples, link: Link, slots: Tensor, *, full: bool = False) -> Tensor:
        """As `Wideband.angular_delay`; a file does not have the rows that were cut off: with `full` they are 0.

        Raises:
            InvalidInput: slots or a link that the file does not have.
        """
        self.check_here()
        channels, part = self._channels(samples.split)
        if link is Link.UPLINK and not channels.paired:
            raise InvalidInput(f"scenario: {self} holds no uplink channels")
        if int(slots.max()) >= channels.slots:
            raise InvalidInput(f"scenario: slot {int(slots.max())} of a frame; the file has {channels.slots} a sample")
        found = channels.take(self._rows(samples, part), frequency=False)
        images = found.downlink if link is Link.DOWNLINK else found.uplink
        assert images is not None  # checked above
        kept = torch.from_numpy(images[:, slots.cpu().numpy()]).to(slots.device)
        return zero_fill(kept, self.first_rows, self.last_rows, self.subcarriers) if full else kept

    def whole_band(self, samples: Samples, link: Link, slots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `Wideband.whole_band`, of the rows that the file has."""
        images = self.angular_delay(samples, link, slots)
        return images, *self._compared(images, self.rows())

    def spatial(self, samples: Samples, link: Link, slots: Tensor) -> Tensor:
        """As `Scenario.spatial`: the middle subcarrier of the truncated channel, each frame's mean power set to 1."""
        images = self.angular_delay(samples, link, slots)
        full = self.angular_delay(samples, link, slots, full=True)
        channel = to_spatial_frequency(full)[..., self.subcarriers // 2, :]
        power = images.abs().square().sum((-2, -1)).mean(1) / self.antennas**2  # per antenna, mean over the band
        return channel / power.sqrt()[:, None, None]

    def whole(self, samples: Samples) -> tuple[Tensor, Tensor] | None:
        """What HF_all knows of the samples, if the scenario names its file and it is of this split.

        Returns:
            The channel at the first F = 125 subcarriers, nothing cut off, [N, F, M] complex64, and the share [N] of its
            power that the kept rows explain.
        """
        channels, part = self._channels(samples.split)
        found, device = channels.take(self._rows(samples, part)), samples.ue.device
        if found.frequency is None or found.kept is None:
            return None
        return torch.from_numpy(found.frequency).to(device).transpose(1, 2), torch.from_numpy(found.kept).to(device)

    @property
    def _whole_band(self) -> str:
        """Name of the file with HF_all, or empty. Who has a hash had the same files before, and has named them."""
        if self.frequency == WITHOUT:
            return ""
        if self.frequency or self.sha256 or (self.subcarriers, self.last_rows) != (HF_FROM, 0):
            return self.frequency
        beside = PUBLIC_TEST.sub(r"DATA_HtestF\1_all.mat", tested := self.test or self.file)
        return beside if beside != tested and (_folder() / beside).is_file() else ""

    def _channels(self, split: Split) -> tuple[Channels | StoredChannels, range]:
        """The channels of the split's file, and its part of them."""
        owns = {Split.TRAIN: self.train, Split.VALIDATION: self.validation}
        own, tested = owns.get(split, self.test), self.test or self.file
        frequency = self._whole_band if (own or self.file) == tested else ""  # HF_all is of the file that is tested
        files = [_path(own or self.file, split), *([_path(frequency, split)] if frequency else [])]
        changed = tuple(path.stat().st_mtime_ns for path in files)
        shape = Shape(self.first_rows, self.last_rows, self.antennas)
        channels = _load(tuple(files), changed, shape, self.axes)
        if own:
            return channels, range(len(channels))
        first, last = (math.ceil(share * len(channels)) for share in _SHARES[split])
        if first == last:
            raise InvalidInput(f"{self.file}: {len(channels)} samples leave none for {split.name.lower()}")
        return channels, range(first, last)

    def _rows(self, samples: Samples, part: range) -> NDArray[np.int64]:
        """[N] samples of the split's part."""
        number, count = (samples.ue + 1009 * samples.frame).cpu().numpy(), len(part)
        if samples.split is not Split.TRAIN:
            return part.start + number % count
        passes = number // count
        orders = {p: _order(samples.seed, p, count) for p in np.unique(passes).tolist()}
        rows = [orders[p][row] for p, row in zip(passes.tolist(), (number % count).tolist(), strict=True)]
        return part.start + np.array(rows, np.int64)

    def _fingerprint(self) -> str:
        """Hash of the files' hashes."""
        names = (self.file, self.train, self.validation, self.test, self._whole_band)
        paths = [_path(name, Split.TEST) for name in names if name]
        if not any(names[:-1]):
            raise InvalidInput("scenario file: empty; wanted the name of a .mat or .npz file")
        hashes = "".join(reading.fingerprint(path, path.stat().st_mtime_ns) for path in paths)
        return hashlib.sha256(hashes.encode()).hexdigest()[:16]


def _is_name(name: str) -> bool:
    """Whether it may name a file: a path in the folder of data files, without what a scenario's text cannot hold."""
    fair = name.isprintable() and not set(name) & {",", "\\"} and name.endswith((".mat", ".npz"))
    parts = name.split("/")
    return fair and len(name.encode()) <= 255 and all(part and part[0] not in ". ~" for part in parts)


def _folder() -> Path:
    return Path(os.environ.get(DATA_FOLDER) or "data").absolute()


def _path(name: str, split: Split) -> Path:
    if not name:
        raise InvalidInput(f"scenario file: empty, and no file for {split.name.lower()}; wanted the name of a file")
    folder = _folder()
    path = folder / name
    if not path.is_file():
        raise NotFound(f"scenario file: '{name}' is not in {folder}, the folder {DATA_FOLDER}")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InvalidInput(f"scenario file: '{name}' is a link out of {folder}, the folder {DATA_FOLDER}")
    return path


@functools.lru_cache(maxsize=4)
def _load(
    files: tuple[Path, ...], modified_ns: tuple[int, ...], shape: Shape, axes: reading.Axes
) -> Channels | StoredChannels:
    """The channels of a file, and of its HF_all; `modified_ns` is there to notice that they changed."""
    path, frequency = (*files, None)[:2]
    assert path is not None
    return reading.open_channels(path, shape, axes, frequency)[1]


@functools.lru_cache(maxsize=8)
def _order(seed: int, number: int, count: int) -> NDArray[np.int64]:
    """Permutation of the rows for the pass of that number."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64))).permutation(count)


PRESETS |= {
    "file": DataFile(),  # CsiNet's files: 32 delay rows of 257 subcarriers
    "file-dualnet": DataFile(subcarriers=1024, first_rows=16, last_rows=16),
}
