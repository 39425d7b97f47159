"""Shards joined to files that numpy and scipy read back."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from csiemu.dataset import generate, writing
from csiemu.dataset.writing import MAT_LIMIT, assemble, mat_size, write_shard
from shared.errors import Conflict, InvalidInput

SIZES = [3, 1, 5, 2]


def numbers(shape: tuple[int, ...], kind: type, seed: int = 0) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape)
    return (values + 1j * rng.normal(size=shape) if issubclass(kind, np.complexfloating) else values).astype(kind)


def shards_of(folder: Path, arrays: dict[str, NDArray[Any]], sizes: list[int]) -> list[Path]:
    """The arrays cut into shards of the given sizes."""
    ends = np.cumsum(sizes)
    for index, (end, size) in enumerate(zip(ends, sizes, strict=True)):
        write_shard(folder / f"{index:06d}", {key: array[end - size : end] for key, array in arrays.items()})
    return [folder / f"{index:06d}" for index in range(len(sizes))]


@pytest.mark.parametrize("block", [1, 100, 333, 32 * 2**20])
def test_mat_reads_back(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_BLOCK", block)
    arrays = {
        "HT": numbers((11, 7), np.float32),
        "HF_all": numbers((11, 9), np.complex64, 1),
        "Hur_down_t1": numbers((11, 3, 5), np.complex64, 2),
        "odd": numbers((11, 3, 1), np.float32, 3),
        "scale": numbers((11, 1), np.float32, 4),
    }
    path = tmp_path / "x.mat"
    assemble(path, shards_of(tmp_path / "parts", arrays, SIZES))
    found = scipy.io.loadmat(path)
    assert {key for key in found if not key.startswith("__")} == set(arrays)
    for key, array in arrays.items():
        assert found[key].dtype == array.dtype
        assert found[key].shape == array.shape
        assert np.array_equal(found[key], array), key
    assert found["__version__"] == "1.0"
    assert not list(tmp_path.glob("*.partial"))
    one_variable = scipy.io.loadmat(path, variable_names=["scale"])["scale"]
    assert np.array_equal(one_variable, arrays["scale"])


@pytest.mark.parametrize("block", [1, 100, 333, 32 * 2**20])
def test_npz_reads_back(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_BLOCK", block)
    arrays = {
        "downlink": numbers((11, 2, 3, 5), np.complex64),
        "uplink": numbers((11, 2, 3, 5), np.complex64, 1),
        "real": numbers((11, 4), np.float64, 2),
    }
    path = tmp_path / "x.npz"
    assemble(path, shards_of(tmp_path / "parts", arrays, SIZES))
    with np.load(path, allow_pickle=False) as found:
        assert set(found.files) == set(arrays)
        for key, array in arrays.items():
            assert found[key].dtype == array.dtype
            assert np.array_equal(found[key], array), key
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("suffix", [".mat", ".npz"])
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    inner=st.lists(st.integers(1, 5), min_size=1, max_size=2),
    kind=st.sampled_from([np.float32, np.complex64]),
    key=st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,30}", fullmatch=True),
    block=st.integers(1, 400),
)
def test_any_sizes_read_back(
    suffix: str,
    sizes: list[int],
    inner: list[int],
    kind: type,
    key: str,
    block: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    array = numbers((sum(sizes), *inner), kind)
    folder = tmp_path_factory.mktemp("shards")
    path = folder / f"x{suffix}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_BLOCK", block)
        assemble(path, shards_of(folder / "parts", {key: array}, sizes))
    found = scipy.io.loadmat(path)[key] if suffix == ".mat" else np.load(path)[key]
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


@pytest.mark.parametrize("suffix", [".mat", ".npz"])
def test_file_does_not_depend_on_the_shards(suffix: str, tmp_path: Path) -> None:
    arrays = {"H_dl": numbers((11, 3, 5), np.complex64), "scale": numbers((11, 1), np.float32)}
    contents = set()
    for name, sizes in (("a", SIZES), ("b", [11]), ("c", [1] * 11)):
        path = tmp_path / f"{name}{suffix}"
        assemble(path, shards_of(tmp_path / f"{name}.parts", arrays, sizes))
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_double_precision_becomes_single_in_mat_files(tmp_path: Path) -> None:
    array = numbers((4, 3), np.complex128)
    assemble(tmp_path / "x.mat", shards_of(tmp_path / "parts", {"H": array}, [1, 3]))
    found = scipy.io.loadmat(tmp_path / "x.mat")["H"]
    assert found.dtype == np.complex64
    assert np.array_equal(found, array.astype(np.complex64))


def test_mat_size_is_that_in_the_file(tmp_path: Path) -> None:
    array = numbers((8, 6, 5), np.complex64)
    assert mat_size(array.shape, array.dtype) == array.nbytes
    assemble(tmp_path / "x.mat", shards_of(tmp_path / "parts", {"H": array}, [8]))
    assert 0 < (tmp_path / "x.mat").stat().st_size - array.nbytes < 300


def test_array_too_large_for_a_mat_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = numbers((11, 7), np.complex64)
    shards = shards_of(tmp_path / "parts", {"HT": array}, SIZES)
    monkeypatch.setattr(writing, "MAT_LIMIT", array.nbytes)
    assemble(tmp_path / "x.mat", shards)
    monkeypatch.setattr(writing, "MAT_LIMIT", array.nbytes - 1)
    with pytest.raises(InvalidInput, match=f"HT: {array.nbytes} bytes; a .mat file takes .*: write .npz or fewer"):
        assemble(tmp_path / "y.mat", shards)
    assert not (tmp_path / "y.mat").exists()
    assemble(tmp_path / "y.npz", shards)


@pytest.mark.parametrize(
    ("options", "key", "most"),
    [
        ({}, "HT", MAT_LIMIT // (2048 * 4)),
        ({"frequency": True}, "HF_all", MAT_LIMIT // (4000 * 8)),
        ({"layout": "dualnet-outdoor"}, "H_dl", MAT_LIMIT // (1024 * 8)),
    ],
)
def test_too_many_samples_are_refused_before_the_work(
    options: dict[str, Any], key: str, most: int, tmp_path: Path
) -> None:
    """The field's 100,000 training samples fit in any of the layouts, HF_all is for the test samples."""
    assert most > (60_000 if key == "HF_all" else 200_000)
    common: dict[str, Any] = {"preset": "cost2100-indoor-csinet", "out": tmp_path / "x.mat", **options}
    with pytest.raises(InvalidInput, match=f"count: {most + 1}; a .mat file takes {most} samples of {key}"):
        generate.run(generate.Settings(count=most + 1, **common))
    assert not list(tmp_path.iterdir())
    generate._plan(generate.Settings(count=most, **common))
    npz = {**common, "out": tmp_path / "x.npz", "layout": None, "frequency": False}
    generate._plan(generate.Settings(count=most + 1, **npz))


# --- shards ---


def test_a_shard_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {"a": numbers((3, 2), np.float32), "b": numbers((3, 4), np.complex64)}
    save, folder = np.save, tmp_path / "parts" / "000000"

    def break_at_b(path: Path, array: NDArray[Any]) -> None:
        save(path, array)
        assert not folder.exists()
        if path.name == "b.npy":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", break_at_b)
    with pytest.raises(OSError, match="No space"):
        write_shard(folder, arrays)
    assert not folder.exists()
    monkeypatch.undo()
    del arrays["a"]
    write_shard(folder, arrays)
    assert [path.name for path in folder.iterdir()] == ["b.npy"]  # nothing of the attempt before
    assert np.array_equal(np.load(folder / "b.npy"), arrays["b"])
    assert list(folder.parent.iterdir()) == [folder]


def test_leftovers_of_a_killed_join_do_not_matter(tmp_path: Path) -> None:
    array = numbers((11, 3), np.float32)
    for name in ("x.mat", "x.npz"):
        (tmp_path / f"{name}.partial").write_bytes(b"half a file" * 100)
        assemble(tmp_path / name, shards_of(tmp_path / f"{name}.parts", {"HT": array}, SIZES))
        found = scipy.io.loadmat(tmp_path / name)["HT"] if name == "x.mat" else np.load(tmp_path / name)["HT"]
        assert np.array_equal(found, array)
        assert not (tmp_path / f"{name}.partial").exists()


def test_begun_parts_belong_to_their_settings(tmp_path: Path) -> None:
    plan = generate.Plan("cost2100-indoor", "npz", False, 0, "train", 0, 10)
    parts = tmp_path / "x.npz.parts"
    generate._claim(parts, plan, 5)
    generate._claim(parts, plan, 5)
    note = json.loads((parts / "plan.json").read_text())
    assert (note["scenario"], note["count"], note["shard"]) == ("cost2100-indoor", 10, 5)
    for other, shard in ((plan, 6), (generate.Plan("cost2100-indoor", "npz", False, 1, "train", 0, 10), 5)):
        with pytest.raises(Conflict, match="begun with other settings"):
            generate._claim(parts, other, shard)
    assert json.loads((parts / "plan.json").read_text()) == note
