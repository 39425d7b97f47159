"""Data files written from shards, so that memory stays bounded whatever their size.

A shard is a folder of .npy files, one an array, that appears in one move: what is there is whole. `assemble` streams
the shards of all samples into one .mat (MATLAB 5, uncompressed) or .npz file.
"""

from __future__ import annotations

import math
import shutil
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidInput

MAT_LIMIT = 2**31 - 2**16
"""Bytes of one array that MATLAB 5 files and their readers take."""

_BLOCK = 32 * 2**20
"""Bytes copied at once."""

_MATRIX, _INT8, _INT32, _UINT32, _SINGLE = 14, 1, 5, 6, 7  # MAT-file 5 data types
_SINGLE_CLASS, _COMPLEX = 7, 0x800


def write_shard(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write one shard, whole or not at all."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for key, array in arrays.items():
        np.save(partial / f"{key}.npy", array)
    partial.rename(folder)


def assemble(path: Path, shards: list[Path]) -> None:
    """Join shards, in order, to one file; it appears in one move.

    Raises:
        InvalidInput: an array is too large for a .mat file.
    """
    partial = path.with_name(path.name + ".partial")
    keys = sorted(file.stem for file in shards[0].glob("*.npy"))
    with partial.open("wb") as file:
        if path.suffix == ".mat":
            file.write(
                b"MATLAB 5.0 MAT-file, written by csiemu".ljust(116) + bytes(8) + struct.pack("<H2s", 0x100, b"IM")
            )
            for key in keys:
                _write_matrix(file, key, _parts(shards, key))
        else:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for key in keys:
                    with archive.open(f"{key}.npy", "w", force_zip64=True) as entry:
                        _write_npy(entry, _parts(shards, key))
    partial.rename(path)


def mat_size(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Bytes that an array takes in a .mat file: single precision, complex or real."""
    return math.prod(shape) * (8 if dtype.kind == "c" else 4)


def _parts(shards: list[Path], key: str) -> list[NDArray[Any]]:
    return [np.load(shard / f"{key}.npy", mmap_mode="r") for shard in shards]


def _write_npy(file: IO[bytes], parts: list[NDArray[Any]]) -> None:
    shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
    header = {"descr": parts[0].dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, header)
    for part in parts:  # each was in a worker's memory whole
        file.write(part.tobytes())


def _write_matrix(file: IO[bytes], key: str, parts: list[NDArray[Any]]) -> None:
    """One variable, single precision, column-major: the sample's index runs fastest."""
    shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
    complex_ = parts[0].dtype.kind == "c"
    size = mat_size(shape, parts[0].dtype)
    if size > MAT_LIMIT:
        raise InvalidInput(
            f"{key}: {size} bytes; a .mat file takes {MAT_LIMIT} of an array: write .npz or fewer samples"
        )
    plane = math.prod(shape) * 4
    name = key.encode()
    head = struct.pack("<IIII", _UINT32, 8, _SINGLE_CLASS | (_COMPLEX if complex_ else 0), 0)
    head += _element(_INT32, struct.pack(f"<{len(shape)}i", *shape)) + _element(_INT8, name)
    planes = 2 if complex_ else 1
    file.write(struct.pack("<II", _MATRIX, len(head) + planes * (8 + plane + -plane % 8)) + head)
    for imaginary in range(planes):
        file.write(struct.pack("<II", _SINGLE, plane))
        for columns in _columns(parts):
            values = columns.imag if imaginary else columns.real
            file.write(np.asarray(values, np.float32).tobytes(order="F"))
        file.write(bytes(-plane % 8))


def _element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data.ljust(len(data) + -len(data) % 8, b"\0")


def _columns(parts: list[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """All samples of a few of the columns at a time, in column-major order, [N, columns]."""
    flat = [part.reshape(len(part), -1, order="C") for part in parts]
    order = np.arange(flat[0].shape[1]).reshape(parts[0].shape[1:]).ravel(order="F")  # first index fastest
    width = max(1, _BLOCK // (sum(len(part) for part in parts) * parts[0].itemsize))
    for start in range(0, len(order), width):
        yield np.concatenate([part[:, order[start : start + width]] for part in flat])
