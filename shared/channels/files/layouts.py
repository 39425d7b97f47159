"""Layouts of channel data files: which arrays they hold, with which axes.

| layout | arrays | axes |
|---|---|---|
| `csinet` | HT | [sample, 2 M Q] in [0, 1]: real, then imaginary part, each [angle, delay]; largest magnitude 0.5 |
| | scale | [sample, 1]: H = scale * (HT - 0.5); ours, the public files lack it |
| | HF_all | [sample, 125 M] complex, optional: [angle, subcarrier 0..124], scaled alike, nothing truncated |
| `dualnet-outdoor` | H_dl, H_ul | [sample, delay, angle] complex |
| `dualnet-indoor` | Hur_down_t1, Hur_up_t1 | the same, the last Q_l delay rows before the first Q_f |
| `npz` | downlink, uplink (optional) | [sample, slot, delay, angle] complex |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidInput

Arrays = Mapping[str, NDArray[Any]]

HF_SUBCARRIERS, HF_FROM = 125, 257
"""Subcarriers that HF_all has, and that rho is taken over; it is known to have been made from this many."""


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
    """

    downlink: NDArray[np.complex64]
    uplink: NDArray[np.complex64] | None = None
    frequency: NDArray[np.complex64] | None = None


class Layout(ABC):
    """A layout; `keys` are the arrays that a file must have."""

    name: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]
    paired: ClassVar[bool]
    """Whether it holds the uplink too."""

    @abstractmethod
    def encode(self, channels: Channels, shape: Shape) -> dict[str, NDArray[Any]]:
        """The file's arrays, [N, ...] each."""

    @abstractmethod
    def decode(self, arrays: Arrays, shape: Shape) -> Channels:
        """The channels of a file's arrays.

        Raises:
            InvalidInput: an array has another shape or kind; names it, what was found and what is wanted.
        """


class CsiNet(Layout):
    """The public data of the CsiNet and CRNet papers: the downlink, each sample scaled by its own maximum."""

    name: ClassVar[str] = "csinet"
    keys: ClassVar[tuple[str, ...]] = ("HT",)
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

    def decode(self, arrays: Arrays, shape: Shape) -> Channels:
        parts = _check("HT", arrays["HT"], (2 * shape.antennas * shape.rows,), complex_=False)
        if parts.size and not (parts.min() >= 0 and parts.max() <= 1):
            raise InvalidInput(f"HT: values from {parts.min():g} to {parts.max():g}; wanted [0, 1]")
        split = parts.reshape(len(parts), 2, shape.antennas, shape.rows) - np.float32(0.5)
        image = (split[:, 0] + 1j * split[:, 1]).transpose(0, 2, 1)
        if "scale" in arrays:
            scale = _check("scale", arrays["scale"], (1,), complex_=False)
            _as_many({"HT": parts, "scale": scale})
            image = image * scale[..., None]
        return Channels(_with_power("HT" if "scale" not in arrays else "HT, scale", image[:, None]))


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

    def decode(self, arrays: Arrays, shape: Shape) -> Channels:
        size = (shape.rows, shape.antennas)
        links = {key: _check(key, arrays[key], size, complex_=True) for key in self.keys}
        _as_many(links)
        downlink, uplink = (
            _with_power(key, self._roll(link, shape.first_rows)[:, None]) for key, link in links.items()
        )
        return Channels(downlink, uplink)

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
    paired: ClassVar[bool] = True

    def encode(self, channels: Channels, shape: Shape) -> dict[str, NDArray[Any]]:
        return dict(zip(("downlink", "uplink"), _both(channels), strict=True))

    def decode(self, arrays: Arrays, shape: Shape) -> Channels:
        found = arrays["downlink"]
        slots = max(1, found.shape[1]) if found.ndim == 4 else 1
        size = (slots, shape.rows, shape.antennas)
        present = [key for key in ("downlink", "uplink") if key in arrays]
        links = {key: _check(key, arrays[key], size, complex_=True) for key in present}
        _as_many(links)
        return Channels(*(_with_power(key, link) for key, link in links.items()))


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


def _check(key: str, array: NDArray[Any], size: tuple[int, ...], *, complex_: bool) -> NDArray[Any]:
    """The array in single precision, if it is [N, *size] of numbers of the right kind, all finite."""
    wanted = f"[sample, {', '.join(map(str, size))}] {'complex' if complex_ else 'real'} numbers"
    if array.ndim != 1 + len(size) or array.shape[1:] != size or not len(array):
        raise InvalidInput(f"{key}: shape {list(array.shape)}; wanted {wanted}")
    if array.dtype.kind not in ("c" if complex_ else "fiu"):
        raise InvalidInput(f"{key}: {array.dtype}; wanted {wanted}")
    with np.errstate(over="ignore"):
        single = array.astype(np.complex64 if complex_ else np.float32)
    if not np.isfinite(single).all():
        raise InvalidInput(f"{key}: NaN or infinite values; wanted {wanted}, all finite")
    return single


def _as_many(arrays: Arrays) -> None:
    """Raises InvalidInput unless the arrays have as many samples each."""
    counts = [len(array) for array in arrays.values()]
    if len(set(counts)) > 1:
        raise InvalidInput(f"{', '.join(arrays)}: {' and '.join(map(str, counts))} samples; wanted as many")


def _with_power(key: str, images: NDArray[Any]) -> NDArray[np.complex64]:
    """Images [N, T, Q, M], if none is all zero: nothing can be compared with such a one."""
    silent = np.argwhere(~np.any(images, axis=(2, 3)))
    if len(silent):
        raise InvalidInput(f"{key}: the channel of sample {silent[0, 0]} is zero; wanted some power in each")
    return images.astype(np.complex64, copy=False)


def _one_slot(link: NDArray[np.complex64], layout: str) -> NDArray[np.complex64]:
    if link.shape[1] != 1:
        raise InvalidInput(f"scenario slots: {link.shape[1]}; the {layout} layout has 1 slot a sample")
    return link[:, 0]


def _both(channels: Channels) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    if channels.uplink is None:
        raise InvalidInput("uplink: there is none; the layout needs both links")
    return channels.downlink, channels.uplink
