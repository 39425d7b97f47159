"""Layouts of channel data files: which arrays they hold, with which axes.

| layout | arrays | axes |
|---|---|---|
| `csinet` | HT | [sample, 2 M Q] in [0, 1]: real, then imaginary part, each [angle, delay]; largest magnitude 0.5 |
| | scale | [sample, 1]: H = scale * (HT - 0.5); ours, the public files lack it |
| | HF_all | [sample, 125 M] complex, optional: [angle, subcarrier 0..124], nothing truncated; ours scaled alike |
| `dualnet-outdoor` | H_dl, H_ul | [sample, delay, angle] complex |
| `dualnet-indoor` | Hur_down_t1, Hur_up_t1 | the same, the last Q_l delay rows before the first Q_f |
| `npz` | downlink, uplink (optional) | [sample, slot, delay, angle] complex |

Complex arrays may be real ones with another axis at their end: real part, imaginary part. Without the sample's axis an
array of one size is one sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidInput

Arrays = Mapping[str, NDArray[Any]]

Zeros = Mapping[str, NDArray[np.bool_]]
"""Which samples are zero, by array: [N] each."""

HF_SUBCARRIERS, HF_FROM = 125, 257
"""Subcarriers that HF_all has, and that rho is taken over; it is known to have been made from this many."""

TOLERANCE = 1e-6
"""By how much values of HT may leave [0, 1]: they are clipped."""

ZERO_SHARE = 0.1
"""Share of a file's samples that may be zero: they are skipped. A file with more is taken to be half written."""

LEAST_KEPT = 0.5
"""Share of the power of HF_all that the images of the same samples explain, at least (public data: 0.97)."""

_BLOCK = 1024
"""Samples that are worked on at once."""


@dataclass(frozen=True)
class Shape:
    """Size of an image: Q_f first and Q_l last delay rows, M angles."""

    first_rows: int
    last_rows: int
    antennas: int

    @property
    def rows(self) -> int:
        """Q."""
        return self.first_rows + self.last_rows


@dataclass(frozen=True)
class Channels:
    """Channels of a file, angular-delay.

    Attributes:
        downlink: [N, T, Q, M] complex64. uplink: the same, or None.
        frequency: [N, M, subcarrier] complex64, angular-frequency before truncation, or None.
        kept: [N] float32, share of the power of a file's `frequency` that the rows of `downlink` explain, or None.
        skipped: how many samples of the file were zero and are left out.
    """

    downlink: NDArray[np.complex64]
    uplink: NDArray[np.complex64] | None = None
    frequency: NDArray[np.complex64] | None = None
    kept: NDArray[np.float32] | None = None
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.downlink)

    @property
    def slots(self) -> int:
        """T."""
        return self.downlink.shape[1]

    @property
    def paired(self) -> bool:
        """Whether there is the uplink too."""
        return self.uplink is not None

    def take(self, rows: NDArray[Any], *, frequency: bool = True) -> Channels:
        """The channels of some samples (numbers or a mask), without `frequency` if that is not wanted."""
        names = ("downlink", "uplink", *(("frequency", "kept") if frequency else ()))
        parts = {name: part[rows] for name in names if (part := getattr(self, name)) is not None}
        return Channels(**parts, skipped=self.skipped)


@dataclass(frozen=True)
class Wanted:
    """What an array is to be: [sample, *size] numbers, complex or real."""

    size: tuple[int, ...]
    complex: bool = True

    def __str__(self) -> str:
        return self.in_order("c")

    def in_order(self, order: str) -> str:
        """As text, with the axes as HDF5 has those of a writer of order `c` or `matlab`."""
        axes = ["sample", *map(str, self.size)]
        axes = axes[::-1] if order == "matlab" else axes
        return f"[{', '.join(axes)}] {'complex' if self.complex else 'real'} numbers"

    def fits(self, found: tuple[int, ...]) -> bool:
        """Whether an array of that shape is this, with at least one sample."""
        if found == self.size:
            return True  # one sample, without an axis for it
        pairs = self.complex and len(found) == len(self.size) + 2 and found[-1] == 2
        rest = found[1:-1] if pairs else found[1:]
        dropped = self.size[-1] == 1 and rest == self.size[:-1]  # as MATLAB does with a last axis of 1
        return bool(found) and found[0] > 0 and (rest == self.size or dropped)

    def check(self, key: str, array: NDArray[Any], first: int) -> NDArray[Any]:
        """The array [N, *size], of samples `first` on, in single precision.

        Raises:
            InvalidInput: it has another shape, numbers of another kind, or some that are not finite.
        """
        if not self.fits(array.shape):
            raise InvalidInput(f"{key}: shape {list(array.shape)}; wanted {self}")
        if self.complex and array.dtype.kind in "fiu" and array.ndim == len(self.size) + 2:
            array = array[..., 0] + np.complex64(1j) * array[..., 1]
        if array.dtype.kind not in ("c" if self.complex else "fiu"):
            raise InvalidInput(f"{key}: {array.dtype}; wanted {self}")
        with np.errstate(over="ignore"):
            single = array.astype(np.complex64 if self.complex else np.float32, copy=False).reshape(-1, *self.size)
        if (bad := _first(single, lambda block: ~np.isfinite(block))) is not None:
            raise InvalidInput(
                f"{key}: NaN or infinite values; wanted {self}, all finite; first in sample {first + bad}"
            )
        return single


class Layout(ABC):
    """A layout; `keys` are the arrays that a file must have."""

    name: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]
    optional: ClassVar[tuple[str, ...]] = ()
    """Arrays that it may have too."""
    paired: ClassVar[bool]
    """Whether it holds the uplink too."""

    @abstractmethod
    def encode(self, channels: Channels, shape: Shape) -> dict[str, NDArray[Any]]:
        """The file's arrays, [N, ...] each."""

    @abstractmethod
    def wanted(self, shape: Shape, found: Mapping[str, tuple[int, ...]]) -> dict[str, Wanted]:
        """What its arrays, optional ones too, are to be; `found`: the shapes of those that are there."""

    def decode(self, arrays: Arrays, shape: Shape) -> Channels:
        """The channels of a file's arrays, without samples that are zero.

        Raises:
            InvalidInput: an array has another shape, kind or values; names it, what was found and what is wanted.
        """
        channels, zeros = self.decode_some(arrays, shape)
        silent = checked_zeros(zeros)
        if silent.any():
            channels = replace(channels.take(~silent), skipped=int(silent.sum()))
        if channels.kept is not None:
            check_kept(channels.kept)
        return channels

    def decode_some(self, arrays: Arrays, shape: Shape, first: int = 0) -> tuple[Channels, Zeros]:
        """The channels of samples `first` on of a file, and which of them are zero. Raises InvalidInput as `decode`."""
        wanted = self.wanted(shape, {key: array.shape for key, array in arrays.items()})
        checked = {key: wanted[key].check(key, array, first) for key, array in arrays.items() if key in wanted}
        check_counts({key: len(array) for key, array in checked.items()})
        channels, names = self._decode(checked, shape, first)
        images = dict(zip(names, (channels.downlink, channels.uplink, channels.frequency), strict=False))
        zeros = {name: _silent(links) for name, links in images.items() if links is not None}
        return channels if channels.frequency is None else replace(channels, kept=_kept_share(channels)), zeros

    @abstractmethod
    def _decode(self, arrays: Arrays, shape: Shape, first: int) -> tuple[Channels, tuple[str, ...]]:
        """The channels of checked arrays, and what errors call downlink, uplink and frequency."""


class CsiNet(Layout):
    """The public data of the CsiNet and CRNet papers: the downlink, each sample scaled by its own maximum."""

    name: ClassVar[str] = "csinet"
    keys: ClassVar[tuple[str, ...]] = ("HT",)
    optional: ClassVar[tuple[str, ...]] = ("scale",)  # HF_all is read for those who ask for it: it is large
    paired: ClassVar[bool] = False

    def encode(self, channels: Channels, shape: Shape) -> dict[str, NDArray[Any]]:
        image = _one_slot(channels.downlink, self.name).transpose(0, 2, 1)  # [N, angle, delay]
        scale = 2 * np.abs(image).max(axis=(1, 2), keepdims=True)
        unit = image / scale
        parts = np.stack([unit.real, unit.imag], axis=1).reshape(len(image), -1) + np.float32(0.5)
        arrays: dict[str, NDArray[Any]] = {"HT": parts, "scale": scale[:, :, 0]}
        if channels.frequency is not None:
            frequency = channels.frequency[:, :, :HF_SUBCARRIERS] / scale
            arrays["HF_all"] = frequency.reshape(len(image), -1)
        return arrays

    def wanted(self, shape: Shape, found: Mapping[str, tuple[int, ...]]) -> dict[str, Wanted]:
        return {
            "HT": Wanted((2 * shape.antennas * shape.rows,), complex=False),
            "scale": Wanted((1,), complex=False),
            "HF_all": Wanted((HF_SUBCARRIERS * shape.antennas,)),
        }

    def _decode(self, arrays: Arrays, shape: Shape, first: int) -> tuple[Channels, tuple[str, ...]]:
        parts = arrays["HT"]
        bad = _first(parts, lambda block: (block < -TOLERANCE) | (block > 1 + TOLERANCE))
        if bad is not None:
            raise InvalidInput(
                f"HT: values from {parts.min():.8g} to {parts.max():.8g}; wanted [0, 1], or {TOLERANCE:g} outside;"
                f" first in sample {first + bad}"
            )
        image = np.empty((len(parts), shape.rows, shape.antennas), np.complex64)
        for start in range(0, len(parts), _BLOCK):  # whole files take several times their size
            block = np.clip(parts[start : start + _BLOCK], 0, 1).reshape(-1, 2, shape.antennas, shape.rows)
            image[start : start + _BLOCK] = (block[:, 0] + 1j * block[:, 1] - (0.5 + 0.5j)).transpose(0, 2, 1)
        frequency = arrays["HF_all"].reshape(-1, shape.antennas, HF_SUBCARRIERS) if "HF_all" in arrays else None
        if "scale" in arrays:
            scale = arrays["scale"][..., None]
            image *= scale
            frequency = None if frequency is None else frequency * scale
        names = ("HT, scale" if "scale" in arrays else "HT", "", "HF_all")
        return Channels(image[:, None], None, frequency), names


class DualNetOutdoor(Layout):
    """The outdoor data of the DualNet-MP paper's code: both links, complex, unscaled."""

    name: ClassVar[str] = "dualnet-outdoor"
    keys: ClassVar[tuple[str, ...]] = ("H_dl", "H_ul")
    paired: ClassVar[bool] = True

    def encode(self, channels: Channels, shape: Shape) -> dict[str, NDArray[Any]]:
        return {
            key: self._roll(_one_slot(link, self.name), shape.last_rows)
            for key, link in zip(self.keys, _both(channels), strict=True)
        }

    def wanted(self, shape: Shape, found: Mapping[str, tuple[int, ...]]) -> dict[str, Wanted]:
        return dict.fromkeys(self.keys, Wanted((shape.rows, shape.antennas)))

    def _decode(self, arrays: Arrays, shape: Shape, first: int) -> tuple[Channels, tuple[str, ...]]:
        downlink, uplink = (self._roll(arrays[key], shape.first_rows)[:, None] for key in self.keys)
        return Channels(downlink, uplink), self.keys

    def _roll(self, image: NDArray[Any], rows: int) -> NDArray[Any]:
        """The image with its delay rows in the file's order: here as they are."""
        return image


class DualNetIndoor(DualNetOutdoor):
    """The indoor data of the DualNet-MP paper's code: the delays ascend from -Q_l to Q_f - 1."""

    name: ClassVar[str] = "dualnet-indoor"
    keys: ClassVar[tuple[str, ...]] = ("Hur_down_t1", "Hur_up_t1")

    def _roll(self, image: NDArray[Any], rows: int) -> NDArray[Any]:
        return np.roll(image, rows, axis=1)


class Npz(Layout):
    """Ours: all slots, in the world's own power."""

    name: ClassVar[str] = "npz"
    keys: ClassVar[tuple[str, ...]] = ("downlink",)
    optional: ClassVar[tuple[str, ...]] = ("uplink",)
    paired: ClassVar[bool] = True

    def encode(self, channels: Channels, shape: Shape) -> dict[str, NDArray[Any]]:
        return dict(zip(("downlink", "uplink"), _both(channels), strict=True))

    def wanted(self, shape: Shape, found: Mapping[str, tuple[int, ...]]) -> dict[str, Wanted]:
        axes = found.get("downlink", ())
        slots = max(1, axes[1]) if len(axes) in (4, 5) else 1
        return dict.fromkeys(("downlink", "uplink"), Wanted((slots, shape.rows, shape.antennas)))

    def _decode(self, arrays: Arrays, shape: Shape, first: int) -> tuple[Channels, tuple[str, ...]]:
        return Channels(arrays["downlink"], arrays.get("uplink")), ("downlink", "uplink")


LAYOUTS: dict[str, Layout] = {layout.name: layout() for layout in (CsiNet, DualNetOutdoor, DualNetIndoor, Npz)}
"""By name."""


def layout_of(keys: set[str]) -> Layout:
    """The layout of a file with these arrays.

    Raises:
        InvalidInput: none has them.
    """
    for layout in LAYOUTS.values():
        if keys.issuperset(layout.keys):
            return layout
    known = "; ".join(f"{', '.join(layout.keys)} ({name})" for name, layout in LAYOUTS.items())
    raise InvalidInput(f"data file: keys {', '.join(sorted(keys)) or 'none'}; wanted {known}")


def _first(array: NDArray[Any], bad: Callable[[NDArray[Any]], NDArray[np.bool_]]) -> int | None:
    """Number of the first sample with a bad value, if there is one; looks at some samples at a time."""
    for start in range(0, len(array), _BLOCK):
        block = array[start : start + _BLOCK]
        found = bad(block).reshape(len(block), -1).any(axis=1)
        if found.any():
            return start + int(found.argmax())
    return None


def check_counts(counts: Mapping[str, int]) -> None:
    """Raises InvalidInput if a file's arrays are not of as many samples."""
    if len(set(counts.values())) > 1:
        found = " and ".join(map(str, counts.values()))
        raise InvalidInput(f"{', '.join(counts)}: {found} samples; wanted as many")


def checked_zeros(zeros: Zeros) -> NDArray[np.bool_]:
    """[N] which samples of a file are zero in some slot or link: nothing can be compared with such a one.

    Raises:
        InvalidInput: too many are.
    """
    silent = np.zeros_like(next(iter(zeros.values())))
    for name, here in zeros.items():
        silent |= here
        if silent.mean() > ZERO_SHARE:
            raise InvalidInput(
                f"{name}: the channel of sample {here.argmax()} is zero, {silent.sum()} of {len(silent)} are;"
                f" wanted some power in each, up to {ZERO_SHARE:.0%} are skipped"
            )
    return silent


def check_kept(kept: NDArray[np.float32]) -> None:
    """Raises InvalidInput if the images of a file explain too little of its HF_all: it is of other samples."""
    if kept.mean() < LEAST_KEPT:
        raise InvalidInput(
            f"HF_all: HT explains {kept.mean():.0%} of its power; wanted {LEAST_KEPT:.0%} or more: other samples, or"
            " another order of axes"
        )


def _silent(images: NDArray[np.complex64]) -> NDArray[np.bool_]:
    """[N] whether a sample is zero in any slot."""
    return ~np.any(images, axis=(-2, -1)).reshape(len(images), -1).all(axis=1)


def _kept_share(channels: Channels) -> NDArray[np.float32]:
    """[N] |<F, S h>|^2 / (|F|^2 |S h|^2), whatever the scales: F is HF_all, h the image, S a 257-point FFT along delay
    at the subcarriers of F, as those compare who use HF_all; 0 where one of them is.
    """
    assert channels.frequency is not None
    shares = []
    turns = np.outer(np.arange(channels.downlink.shape[2]), np.arange(HF_SUBCARRIERS)) / HF_FROM  # [delay, subcarrier]
    for start in range(0, len(channels), _BLOCK):
        block = slice(start, start + _BLOCK)
        truth = channels.frequency[block].astype(np.complex128)  # [N, angle, subcarrier]
        image = channels.downlink[block, 0].astype(np.complex128).transpose(0, 2, 1)  # [N, angle, delay]
        ours = image @ np.exp(-2j * np.pi * turns)
        norms = np.linalg.norm(ours, axis=(1, 2)) * np.linalg.norm(truth, axis=(1, 2))
        shares.append((np.abs((ours.conj() * truth).sum((1, 2))) / np.maximum(norms, 1e-300)) ** 2)
    return np.concatenate(shares).astype(np.float32)


def _one_slot(link: NDArray[np.complex64], layout: str) -> NDArray[np.complex64]:
    if link.shape[1] != 1:
        raise InvalidInput(f"scenario slots: {link.shape[1]}; the {layout} layout has 1 slot a sample")
    return link[:, 0]


def _both(channels: Channels) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    if channels.uplink is None:
        raise InvalidInput("uplink: there is none; the layout needs both links")
    return channels.downlink, channels.uplink
