"""Reading data files: MATLAB .mat (5, and 7.3 through h5py) and .npz."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from shared.channels.files.layouts import Channels, Layout, Shape, layout_of
from shared.errors import InvalidInput, NotFound

_OPTIONAL = ("scale", "uplink")


def read(path: Path, shape: Shape) -> tuple[Layout, Channels]:
    """Layout and channels of a file.

    Raises:
        NotFound: no such file. InvalidInput: it is none of the layouts; the message names the array.
    """
    if not path.is_file():
        raise NotFound(f"data file: {path} does not exist")
    try:
        keys = _keys(path)
        layout = layout_of(keys)
        arrays = _arrays(path, [*layout.keys, *(key for key in _OPTIONAL if key in keys)])
        return layout, layout.decode(arrays, shape)
    except InvalidInput as error:
        raise InvalidInput(f"{path.name}: {error}") from None


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
    except Exception:  # parsers meet damage with whatever comes: MatReadError, zlib.error, EOFError, RuntimeError, ...
        raise InvalidInput("not a readable .mat or .npz file") from None


def _arrays(path: Path, keys: list[str]) -> dict[str, NDArray[Any]]:
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {key: file[key] for key in keys}
        if _is_hdf5(path):
            import h5py

            with h5py.File(path) as file:
                return {key: _from_hdf5(np.asarray(file[key][()])) for key in keys}
        found = scipy.io.loadmat(path, variable_names=keys)
        return {key: np.asarray(found[key]) for key in keys}  # a sparse matrix becomes an object, not an array
    except Exception as error:  # see `_keys`
        raise InvalidInput(f"{', '.join(keys)}: damaged, or no array of numbers: {error}") from None


def _is_hdf5(path: Path) -> bool:
    """MATLAB 7.3: HDF5 behind a 512-byte block."""
    with path.open("rb") as file:
        head = file.read(520)
    return b"\x89HDF" in (head[:4], head[512:516])


def _from_hdf5(value: NDArray[Any]) -> NDArray[Any]:
    """MATLAB's column-major arrays come out transposed, its complex numbers as pairs."""
    if value.dtype.names == ("real", "imag"):
        value = value["real"] + 1j * value["imag"]
    return value.T
