"""Reading data files: MATLAB .mat (5, and 7.3, which is HDF5, through h5py) and .npz.

HDF5 keeps no order of axes: column-major writers (MATLAB, Julia, Octave, hdf5storage) store theirs in reverse, h5py as
they are. What MATLAB and those that write for it made is marked, array by array, and Octave's is known by its groups.
Of arrays without a mark the layout's shapes decide, and where both orders fit the user has to say (`axes`).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.io
from numpy.typing import NDArray

from shared.channels.files.layouts import Channels, Layout, Shape, check_counts, layout_of
from shared.channels.files.stored import OnProgress, StoredChannels
from shared.errors import InvalidInput, NotFound

Axes = Literal["auto", "matlab", "c"]
"""Order of axes of arrays in HDF5: as marked, or else as fits; in reverse; as they are."""

WHOLE_BYTES = 2 * 2**30
"""Arrays up to this in a file are held in memory: random samples of a compressed file are slow to read."""

log = logging.getLogger(__name__)


def read(path: Path, shape: Shape, axes: Axes = "auto", frequency: Path | None = None) -> tuple[Layout, Channels]:
    """Layout and channels of a file, in memory.

    Args:
        axes: order of axes, if the file is HDF5; other formats have their own.
        frequency: file with HF_all of the same samples (csinet); it may be the same one.

    Raises:
        NotFound: no such file. InvalidInput: it is none of the layouts; the message names the array.
    """
    with _naming(path, frequency):
        layout, wanted = _wanted(path, frequency)
        arrays: dict[str, NDArray[Any]] = {}
        for file, keys in wanted:
            arrays |= _arrays(file, layout, keys, shape, axes)
        channels = layout.decode(arrays, shape)
    _say_skipped(channels, path, frequency)
    return layout, channels


def open_channels(
    path: Path,
    shape: Shape,
    axes: Axes = "auto",
    frequency: Path | None = None,
    on_progress: OnProgress = lambda done, of: None,
) -> tuple[Layout, Channels | StoredChannels]:
    """As `read`, but where arrays in HDF5 have more than WHOLE_BYTES, they are looked through (`on_progress` is told
    how far) and samples are read when they are needed.
    """
    with _naming(path, frequency):
        layout, wanted = _wanted(path, frequency)
        stored: dict[str, _Stored] = {}
        for file, keys in wanted if all(_is_hdf5(file) for file, _ in wanted) else ():
            stored |= _stored(file, layout, keys, shape, axes)
        sizes = layout.wanted(shape, {key: array.shape for key, array in stored.items()})
        in_order = all(
            sizes[key].fits(array.shape) != (array.shape == sizes[key].size) for key, array in stored.items()
        )
        if in_order and sum(array.nbytes for array in stored.values()) > WHOLE_BYTES:
            counts = {key: array.shape[0] for key, array in stored.items()}
            check_counts(counts)

            def samples(numbers: NDArray[np.int64], with_frequency: bool) -> dict[str, NDArray[Any]]:
                return {key: array.read(numbers) for key, array in stored.items() if with_frequency or key != "HF_all"}

            whole_band, count = frequency is not None, min(counts.values())
            found = StoredChannels(layout, shape, count, samples, frequency=whole_band, on_progress=on_progress)
            _say_skipped(found, path, frequency)
            return layout, found
    return read(path, shape, axes, frequency)


@contextlib.contextmanager
def _naming(path: Path, frequency: Path | None) -> Iterator[None]:
    """Names the files in what is raised. Raises NotFound if there is no such file."""
    files = _files(path, frequency)
    for file in files:
        if not file.is_file():
            raise NotFound(f"data file: {file} does not exist")
    names = ", ".join(file.name for file in files)
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(f"{names}: {error}") from None
    except MemoryError as error:
        size = sum(file.stat().st_size for file in files)
        raise InvalidInput(f"{names}: {size:,} bytes, too large for the memory here: {error or 'not enough'}") from None


def _files(path: Path, frequency: Path | None) -> list[Path]:
    return list(dict.fromkeys(file for file in (path, frequency) if file))


def _wanted(path: Path, frequency: Path | None) -> tuple[Layout, list[tuple[Path, list[str]]]]:
    """A file's layout, and which arrays are to be read of which file."""
    keys = _keys(path)
    layout = layout_of(keys)
    wanted = [(path, [*layout.keys, *keys.intersection(layout.optional)])]
    if frequency:
        if layout.name != "csinet":
            raise InvalidInput(f"frequency: {path.name} is of the {layout.name} layout; HF_all belongs to HT")
        if "HF_all" not in (keys := _keys(frequency)):
            raise InvalidInput(f"frequency: keys {', '.join(sorted(keys)) or 'none'}; wanted HF_all")
        wanted.append((frequency, ["HF_all"]))
    return layout, wanted


def _say_skipped(channels: Channels | StoredChannels, path: Path, frequency: Path | None) -> None:
    if channels.skipped:
        names = ", ".join(file.name for file in _files(path, frequency))
        log.warning("%s: zero samples skipped: %d; %d are left", names, channels.skipped, len(channels))


@functools.lru_cache(maxsize=64)
def fingerprint(path: Path, modified_ns: int) -> str:
    """First 16 hexadecimal digits of the file's SHA-256; `modified_ns` is there to notice that it changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _keys(path: Path) -> set[str]:
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return set(file.files)
        if _is_hdf5(path):
            import h5py  # only these files need it

            with h5py.File(path) as file:
                return set(file)
        return {name for name, _, _ in scipy.io.whosmat(path)}
    except ImportError:
        raise InvalidInput("MATLAB 7.3 files need h5py; wanted `pip install h5py`, or save with -v7") from None
    except MemoryError:
        raise
    except Exception:  # parsers meet damage with whatever comes: MatReadError, zlib.error, EOFError, RuntimeError, ...
        raise InvalidInput("not a readable .mat or .npz file") from None


def _arrays(path: Path, layout: Layout, keys: list[str], shape: Shape, axes: Axes) -> dict[str, NDArray[Any]]:
    """The arrays, the first axis of each being the sample's."""
    if _is_hdf5(path):
        return {key: array.read() for key, array in _stored(path, layout, keys, shape, axes).items()}
    with _no_damage(keys):
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {key: file[key] for key in keys}
        found = scipy.io.loadmat(path, variable_names=keys)
        return {key: np.asarray(found[key]) for key in keys}  # a sparse matrix becomes an object, not an array


@contextlib.contextmanager
def _no_damage(keys: list[str]) -> Iterator[None]:
    """Raises InvalidInput for whatever parsers raise when they meet damage, see `_keys`."""
    try:
        yield
    except (InvalidInput, MemoryError):
        raise
    except Exception as error:
        raise InvalidInput(f"{', '.join(keys)}: damaged, or no array of numbers: {error}") from None


def _is_hdf5(path: Path) -> bool:
    """HDF5, behind a block of the writer's own: MATLAB's has 512 bytes, others 0 or a larger power of two."""
    if path.suffix == ".npz":
        return False
    with path.open("rb") as file:
        head = file.read(4100)
    return b"\x89HDF" in (head[at : at + 4] for at in (0, 512, 1024, 2048, 4096))


@dataclass(frozen=True)
class _Stored:
    """An array in an HDF5 file.

    Attributes:
        key: its name; name: that of the dataset with its values.
        reverse: whether it has its axes in reverse.
        shape: with the axis of samples first. nbytes: of its values.
    """

    path: Path
    key: str
    name: str
    reverse: bool
    shape: tuple[int, ...]
    nbytes: int

    def read(self, samples: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """Its values, of some samples (ascending numbers) or of all. Raises InvalidInput if they cannot be read."""
        import h5py

        with _no_damage([self.key]), h5py.File(self.path) as file:
            return _values(file[self.name], samples, reverse=self.reverse)


def _stored(path: Path, layout: Layout, keys: list[str], shape: Shape, axes: Axes) -> dict[str, _Stored]:
    """A file's arrays, and the order of their axes."""
    import h5py

    with _no_damage(keys), h5py.File(path) as file:
        data = {key: file[key]["value"] if "OCTAVE_NEW_FORMAT" in file[key].attrs else file[key] for key in keys}
        for key, array in data.items():
            if not isinstance(array, h5py.Dataset):
                raise TypeError("a group")
            if isinstance(file.get(key, getlink=True), h5py.ExternalLink) or array.is_virtual or array.external:
                raise InvalidInput(f"{key}: its values lie in another file; wanted them in this one")
        marked = {key for key in keys if "MATLAB_class" in data[key].attrs or data[key].name != f"/{key}"}
        asked = {key: data[key].shape for key in keys if axes != "auto" or key not in marked}
        reverse = set(keys) if _is_reversed(layout, asked, shape, axes) else marked - set(asked)
        return {
            key: _Stored(
                path,
                key,
                array.name,
                key in reverse,
                () if "MATLAB_empty" in array.attrs else array.shape[:: -1 if key in reverse else 1],
                array.nbytes,
            )
            for key, array in data.items()
        }


def _is_reversed(layout: Layout, found: Mapping[str, tuple[int, ...]], shape: Shape, axes: Axes) -> bool:
    """Whether arrays of these shapes, as HDF5 has them, have their axes in reverse; False if there are none.

    Raises:
        InvalidInput: they fit in no order that `axes` allows, or in both and differ.
    """
    misfits: dict[str, dict[str, str]] = {}  # order -> array -> what is wanted of it
    for order in ("c", "matlab") if axes == "auto" else (axes,):
        shapes = {key: size[::-1] if order == "matlab" else size for key, size in found.items()}
        wanted = layout.wanted(shape, shapes)
        misfits[order] = {key: wanted[key].in_order(order) for key in found if not wanted[key].fits(shapes[key])}
    fitting = [order for order, misfit in misfits.items() if not misfit]
    if not fitting:
        key = max(found, key=lambda key: sum(key in misfit for misfit in misfits.values()))
        asked = " or ".join(misfit[key] for misfit in misfits.values() if key in misfit)
        raise InvalidInput(f"{key}: shape {list(found[key])}; wanted {asked}")
    different = [key for key, size in found.items() if sum(length > 1 for length in size) > 1]
    if len(fitting) > 1 and different:
        raise InvalidInput(
            f"{different[0]}: shape {list(found[different[0]])} fits both orders of axes, and nothing in the file says"
            " which it has; wanted axes=matlab (MATLAB, Julia and Octave store the sample last) or axes=c (h5py: first)"
        )
    return fitting[0] == "matlab"


def _values(data: Any, samples: NDArray[np.int64] | None, *, reverse: bool) -> NDArray[Any]:
    """An HDF5 dataset's numbers, the first axis that of samples; complex ones are pairs (real, imag), or (r, i), which
    h5py knows itself.
    """
    if "MATLAB_empty" in data.attrs:  # holds the shape
        return np.empty(data[()].astype(int).tolist())
    index: Any = ()
    if samples is not None:
        first, last = int(samples[0]), int(samples[-1])
        chosen = slice(first, last + 1) if last - first == len(samples) - 1 else samples  # which is faster
        index = (..., chosen) if reverse else chosen
    value = np.asarray(data[index])
    if value.dtype.names == ("real", "imag"):
        value = value["real"] + np.complex64(1j) * value["imag"]
    return value.T if reverse else value
