"""Data files: layouts, reading what others wrote, and files as a world."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.channels.downlink import DownlinkView
from shared.channels.files import DataFile, reading, stored
from shared.channels.files import world as world_module
from shared.channels.files.layouts import LAYOUTS, Channels, Shape
from shared.channels.scenario import Link, Scenario
from shared.channels.streams import Samples, Split
from shared.channels.wideband import Wideband
from shared.errors import Conflict, CsiError, InvalidInput, NotFound
from shared.metrics import Outcomes
from tests.unit.truncation import truncation_loss

MakeSamples = Callable[..., Samples]
PUBLIC = Shape(32, 0, 32)
SMALL = Shape(3, 1, 4)
SIZES = "antennas=4,first_rows=3,last_rows=1,subcarriers=9"
"""Those of SMALL, as fields of a scenario."""

any_layout = pytest.mark.parametrize("layout", LAYOUTS)


def normal(*shape: int, seed: int = 0) -> NDArray[np.complex64]:
    """CN(0, 2)."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def channels(count: int, shape: Shape, *, slots: int = 1, seed: int = 0) -> Channels:
    images = normal(2, count, slots, shape.rows, shape.antennas, seed=seed)
    images *= 10 ** np.random.default_rng(seed).uniform(-3, 0, (2, count, 1, 1, 1)).astype(np.float32)
    return Channels(images[0], images[1])


def write(path: Path, arrays: dict[str, Any], **options: Any) -> Path:
    """As numpy and MATLAB would."""
    if path.suffix == ".npz":
        (np.savez_compressed if options else np.savez)(path, **arrays)
    else:
        scipy.io.savemat(path, arrays, **options)
    return path


def write_73(path: Path, arrays: dict[str, NDArray[Any]]) -> Path:
    """As `save -v7.3`: axes in reverse, complex numbers as pairs, behind a block of 512 bytes."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, array in arrays.items():
            values = array.T
            if np.iscomplexobj(array):
                part = array.real.dtype
                pairs = np.empty(values.shape, [("real", part), ("imag", part)])
                pairs["real"], pairs["imag"] = values.real, values.imag
                values = pairs
            data = file.create_dataset(key, data=values, chunks=values.shape, compression="gzip")
            data.attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\0\2IM")
    return path


def refusal(path: Path, shape: Shape = SMALL, read: Callable[[Path, Shape], Any] = reading.read) -> str:
    """The one line that a file is refused with, without the file's name in front."""
    with pytest.raises(InvalidInput) as caught:
        read(path, shape)
    name, _, reason = str(caught.value).partition(": ")
    assert name == path.name
    assert "\n" not in reason
    return reason


# --- layouts ---


@any_layout
@given(
    count=st.integers(1, 4),
    first=st.integers(0, 6),
    last=st.integers(0, 6),
    antennas=st.integers(1, 7),
    slots=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_decode_brings_back_what_encode_took(
    layout: str, count: int, first: int, last: int, antennas: int, slots: int, seed: int
) -> None:
    shape = Shape(first, last + (first + last == 0), antennas)
    given_ = channels(count, shape, slots=slots if layout == "npz" else 1, seed=seed)
    found = LAYOUTS[layout].decode(LAYOUTS[layout].encode(given_, shape), shape)
    assert found.downlink.dtype == np.complex64
    if layout == "csinet":  # numbers around 0.5 have 24 bits
        largest = np.abs(given_.downlink).max(axis=(2, 3), keepdims=True)
        assert (np.abs(found.downlink - given_.downlink) <= 2e-7 * largest).all()
        assert found.uplink is None
    else:
        assert np.array_equal(found.downlink, given_.downlink)
        assert found.uplink is not None
        assert given_.uplink is not None
        assert found.uplink.dtype == np.complex64
        assert np.array_equal(found.uplink, given_.uplink)


@any_layout
def test_a_file_is_known_by_its_arrays(layout: str, tmp_path: Path) -> None:
    given_, shape = channels(5, Shape(4, 2, 3)), Shape(4, 2, 3)
    arrays = LAYOUTS[layout].encode(given_, shape)
    path = write(tmp_path / ("x.npz" if layout == "npz" else "x.mat"), {**arrays, "unrelated": np.arange(3)})
    found, read = reading.read(path, shape)
    assert found.name == layout
    assert np.abs(read.downlink - given_.downlink).max() < 1e-6


def test_csinet_axes_and_scale() -> None:
    """HT[sample, part * 1024 + angle * 32 + delay]."""
    given_ = channels(3, PUBLIC)
    arrays = LAYOUTS["csinet"].encode(given_, PUBLIC)
    parts, scale = arrays["HT"], arrays["scale"]
    assert (parts.shape, scale.shape) == ((3, 2048), (3, 1))
    assert parts.dtype == scale.dtype == np.float32
    for i in range(3):
        image = given_.downlink[i, 0]  # [delay, angle]
        for angle, delay in [(0, 0), (0, 31), (31, 0), (31, 31), (5, 17), (17, 5)]:
            value = image[delay, angle] / scale[i, 0]
            assert parts[i, angle * 32 + delay] == pytest.approx(0.5 + value.real, abs=1e-6)
            assert parts[i, 1024 + angle * 32 + delay] == pytest.approx(0.5 + value.imag, abs=1e-6)
        magnitude = np.abs((parts[i, :1024] - 0.5) + 1j * (parts[i, 1024:] - 0.5)).reshape(32, 32).T
        assert magnitude.max() == pytest.approx(0.5, abs=1e-6)
        assert (magnitude > 0.5 - 1e-6).sum() == 1
        assert magnitude.argmax() == np.abs(image).argmax()
        power = float((magnitude.astype(np.float64) ** 2).sum()) * float(scale[i, 0]) ** 2
        assert power == pytest.approx(float((np.abs(image) ** 2).sum()), rel=1e-5)
    assert parts.min() >= 0
    assert parts.max() <= 1


def test_csinet_file_without_scale_gives_normalised_images() -> None:
    """As the public files are."""
    given_ = channels(4, PUBLIC)
    arrays = LAYOUTS["csinet"].encode(given_, PUBLIC)
    scale = arrays.pop("scale")
    found = LAYOUTS["csinet"].decode(arrays, PUBLIC).downlink
    assert np.abs(found - given_.downlink / scale[:, :, None, None]).max() < 1e-6
    assert np.abs(found).max(axis=(1, 2, 3)) == pytest.approx(0.5, abs=1e-6)


def rho(image: NDArray[Any], hf_all: NDArray[Any]) -> NDArray[np.float64]:
    """[N, 125] cosine similarity, as the field's evaluators compute it from images [N, angle, delay] and HF_all."""
    padded = np.concatenate([image, np.zeros((len(image), 32, 257 - 32))], axis=2)
    ours = np.fft.fft(padded, axis=2)[:, :, :125]
    truth = hf_all.reshape(-1, 32, 125)
    norms = np.linalg.norm(truth, axis=1) * np.linalg.norm(ours, axis=1)
    return np.asarray(np.abs((truth.conj() * ours).sum(axis=1)) / norms)


def indoor_pair() -> tuple[torch.Tensor, NDArray[Any], dict[str, NDArray[Any]]]:
    """40 indoor samples: [ue, frame, delay, angle], [ue, antenna, subcarrier], and HT and HF_all as published."""
    world = Scenario.parse("cost2100-indoor-csinet")
    assert isinstance(world, Wideband)
    ue = torch.arange(40)
    samples = Samples(1, Split.TEST, ue, torch.zeros_like(ue))
    full = world.angular_delay(samples, Link.DOWNLINK, torch.arange(1), full=True)
    frequency = torch.fft.fft(full[:, 0], dim=1).transpose(1, 2).numpy()
    arrays = LAYOUTS["csinet"].encode(Channels(full[:, :, :32].numpy(), None, frequency), PUBLIC)
    return full, frequency, arrays


def test_hf_all_is_what_evaluators_compare_with() -> None:
    """What the truncation costs is all that keeps rho from 1."""
    full, frequency, arrays = indoor_pair()
    assert arrays["HF_all"].shape == (40, 4000)
    image = LAYOUTS["csinet"].decode({"HT": arrays["HT"]}, PUBLIC).downlink[:, 0].transpose(0, 2, 1)
    found = rho(image, arrays["HF_all"])
    assert found.mean() > 0.97
    # over the band, rho^2 weighted with the power of truth and estimate is what the truncation leaves
    kept = np.concatenate([full[:, 0, :32].numpy(), np.zeros((40, 225, 32))], axis=1)
    ours, truth = np.fft.fft(kept, axis=1), frequency.transpose(0, 2, 1)
    expected = np.abs((ours.conj() * truth).sum(2)) / np.linalg.norm(ours, axis=2) / np.linalg.norm(truth, axis=2)
    assert np.abs(found - expected[:, :125]).max() < 1e-4
    whole = np.abs((ours.conj() * truth).sum((1, 2))) ** 2 / (np.abs(ours) ** 2).sum((1, 2))
    left = whole / (np.abs(truth) ** 2).sum((1, 2))
    assert left == pytest.approx(1 - truncation_loss(full[:, 0], 32).numpy(), abs=1e-4)


def test_hf_all_of_images_with_nothing_cut_off() -> None:
    images = normal(6, 1, 32, 32)
    full = np.concatenate([images[:, 0], np.zeros((6, 225, 32), np.complex64)], axis=1)
    frequency = np.fft.fft(full, axis=1).transpose(0, 2, 1).astype(np.complex64)  # all 257: the first 125 are taken
    arrays = LAYOUTS["csinet"].encode(Channels(images, None, frequency), PUBLIC)
    image = LAYOUTS["csinet"].decode({"HT": arrays["HT"]}, PUBLIC).downlink[:, 0].transpose(0, 2, 1)
    assert rho(image, arrays["HF_all"]).min() > 1 - 1e-6
    padded = np.concatenate([image, np.zeros((6, 32, 225))], axis=2)
    difference = np.fft.fft(padded, axis=2)[:, :, :125] - arrays["HF_all"].reshape(-1, 32, 125)
    assert np.abs(difference).max() < 1e-5  # scaled alike, not only parallel


def test_indoor_loader_swaps_the_halves() -> None:
    """The loader of the DualNet-MP paper's code, and the delays 0..15, -16..-1 that it wants."""
    shape, images = Shape(16, 16, 32), normal(3, 1, 257, 32)
    kept = np.concatenate([images[:, :, :16], images[:, :, -16:]], axis=2)
    arrays = LAYOUTS["dualnet-indoor"].encode(Channels(kept, 2 * kept), shape)
    assert set(arrays) == {"Hur_down_t1", "Hur_up_t1"}
    x = arrays["Hur_down_t1"]
    assert x.shape == (3, 32, 32)
    loaded = np.concatenate((x[:, 16:32], x[:, 0:16]), axis=1)
    assert np.array_equal(loaded[:, :16], images[:, 0, :16])
    assert np.array_equal(loaded[:, 16:], images[:, 0, -16:])
    assert np.array_equal(arrays["Hur_up_t1"], 2 * x)


@pytest.mark.parametrize(("first", "last"), [(26, 6), (5, 0), (0, 5)])
def test_indoor_delays_ascend(first: int, last: int) -> None:
    shape = Shape(first, last, 2)
    delay = np.concatenate([np.arange(first), np.arange(-last, 0)])
    images = np.broadcast_to(delay[None, None, :, None] + 1j, (1, 1, first + last, 2)).astype(np.complex64)
    arrays = LAYOUTS["dualnet-indoor"].encode(Channels(images, images), shape)
    assert arrays["Hur_down_t1"][0, :, 0].real.tolist() == list(range(-last, first))


def test_outdoor_rows_stay() -> None:
    given_ = channels(2, SMALL)
    arrays = LAYOUTS["dualnet-outdoor"].encode(given_, SMALL)
    assert np.array_equal(arrays["H_dl"], given_.downlink[:, 0])
    assert given_.uplink is not None
    assert np.array_equal(arrays["H_ul"], given_.uplink[:, 0])


@pytest.mark.parametrize("layout", ["csinet", "dualnet-outdoor", "dualnet-indoor"])
def test_layouts_of_one_slot_refuse_more(layout: str) -> None:
    with pytest.raises(InvalidInput, match=f"slots: 2; the {layout} layout has 1"):
        LAYOUTS[layout].encode(channels(2, SMALL, slots=2), SMALL)


@pytest.mark.parametrize("layout", ["dualnet-outdoor", "dualnet-indoor", "npz"])
def test_paired_layouts_need_the_uplink(layout: str) -> None:
    with pytest.raises(InvalidInput, match="uplink: there is none"):
        LAYOUTS[layout].encode(Channels(normal(2, 1, 4, 4)), SMALL)


# --- files of others ---

HT = np.random.default_rng(1).random((6, 32)).astype(np.float32)
DL, UL = normal(6, 4, 4, seed=1), normal(6, 4, 4, seed=2)


@pytest.mark.parametrize(
    ("arrays", "layout"),
    [
        ({"HT": HT}, "csinet"),
        ({"HT": HT.astype(np.float64), "scale": np.full((6, 1), 3.0)}, "csinet"),
        ({"H_dl": DL, "H_ul": UL}, "dualnet-outdoor"),
        ({"Hur_down_t1": DL.astype(np.complex128), "Hur_up_t1": UL}, "dualnet-indoor"),
    ],
)
@pytest.mark.parametrize("version", ["7.3", "7", "4"])
def test_every_matlab_version_reads_alike(
    arrays: dict[str, NDArray[Any]], layout: str, version: str, tmp_path: Path
) -> None:
    _, expected = reading.read(write(tmp_path / "six.mat", arrays), SMALL)
    other = tmp_path / "other.mat"
    if version == "7.3":
        write_73(other, arrays)
    elif version == "7" or "HT" not in arrays:  # format 4 has matrices only
        write(other, arrays, do_compression=True)
    else:
        write(other, arrays, format="4")
    found, read = reading.read(other, SMALL)
    assert found.name == layout
    assert np.array_equal(read.downlink, expected.downlink)
    assert (read.uplink is None) == (expected.uplink is None)
    if read.uplink is not None and expected.uplink is not None:
        assert np.array_equal(read.uplink, expected.uplink)
        assert np.array_equal(read.uplink[:, 0], np.roll(UL, -1 if layout == "dualnet-indoor" else 0, axis=1))


# --- HDF5 of other writers ---

NPZ = {"downlink": normal(6, 3, 4, 4), "uplink": normal(6, 3, 4, 4, seed=1)}
OTHERS: dict[str, dict[str, NDArray[Any]]] = {
    "csinet": {"HT": HT, "scale": np.full((6, 1), 3.0)},
    "dualnet-outdoor": {"H_dl": DL, "H_ul": UL},
    "dualnet-indoor": {"Hur_down_t1": DL.astype(np.complex128), "Hur_up_t1": UL},
    "npz": NPZ,
}


def write_h5py(path: Path, arrays: dict[str, NDArray[Any]], *, reverse: bool = False, **options: Any) -> Path:
    """As h5py does, axes as they are, complex numbers as (r, i); in reverse as Julia's HDF5.jl does."""
    with h5py.File(path, "w", **options) as file:
        for key, array in arrays.items():
            file.create_dataset(key, data=array.T if reverse else array, compression="gzip")
    return path


def write_octave(path: Path, arrays: dict[str, NDArray[Any]]) -> Path:
    """As `save -hdf5`: a group for each variable, axes in reverse, complex numbers as (real, imag)."""
    write_73(path, arrays)
    with h5py.File(path) as file:
        values = {key: file[key][()] for key in arrays}
    with h5py.File(path, "w") as file:
        for key, array in values.items():
            group = file.create_group(key)
            group.attrs["OCTAVE_NEW_FORMAT"] = np.uint8(1)
            group["type"], group["value"] = np.bytes_("complex matrix"), array
    return path


def assert_reads_alike(path: Path, arrays: dict[str, NDArray[Any]], shape: Shape = SMALL, **options: Any) -> None:
    """As the same arrays in an .npz, where nothing is in doubt."""
    _, expected = reading.read(write(path.with_name("sure.npz"), arrays), shape)
    _, found = reading.read(path, shape, **options)
    assert np.array_equal(found.downlink, expected.downlink)
    assert (found.uplink is None) == (expected.uplink is None)
    if found.uplink is not None and expected.uplink is not None:
        assert np.array_equal(found.uplink, expected.uplink)


@pytest.mark.parametrize("layout", OTHERS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("userblock", [0, 512, 4096])
def test_hdf5_without_marks_is_read_as_it_fits(layout: str, reverse: bool, userblock: int, tmp_path: Path) -> None:
    path = write_h5py(tmp_path / "x.mat", OTHERS[layout], reverse=reverse, userblock_size=userblock)
    assert_reads_alike(path, OTHERS[layout])
    assert_reads_alike(path, OTHERS[layout], axes="matlab" if reverse else "c")


@pytest.mark.parametrize("layout", OTHERS)
@pytest.mark.parametrize("writer", [write_octave, write_73])
def test_hdf5_of_known_writers_is_read_even_where_both_orders_fit(layout: str, writer: Any, tmp_path: Path) -> None:
    square = {key: array[:4] for key, array in OTHERS[layout].items()}
    if layout == "csinet":
        square = {"HT": np.random.default_rng(2).random((32, 32))}
    assert_reads_alike(writer(tmp_path / "x.mat", OTHERS[layout]), OTHERS[layout])
    assert_reads_alike(writer(tmp_path / "x.mat", square), square)


@given(
    layout=st.sampled_from(list(OTHERS)),
    count=st.integers(1, 4),
    shape=st.builds(Shape, st.integers(1, 3), st.integers(0, 1), st.integers(1, 4)),
    slots=st.integers(1, 4),
    reverse=st.booleans(),
)
def test_no_order_of_axes_is_guessed(layout: str, count: int, shape: Shape, slots: int, reverse: bool) -> None:
    """Whatever the sizes, a file without marks is read rightly or asked about."""
    arrays = LAYOUTS[layout].encode(channels(count, shape, slots=slots if layout == "npz" else 1), shape)
    with tempfile.TemporaryDirectory() as folder:
        path = write_h5py(Path(folder) / "x.mat", arrays, reverse=reverse)
        assert_reads_alike(path, arrays, shape, axes="matlab" if reverse else "c")
        reason = ""
        try:
            assert_reads_alike(path, arrays, shape)
        except InvalidInput as error:
            reason = str(error)
    assert not reason or "fits both orders of axes" in reason


SQUARE: dict[str, tuple[dict[str, NDArray[Any]], str]] = {
    "csinet": ({"HT": np.random.default_rng(2).random((32, 32))}, "HT: shape [32, 32]"),
    "dualnet-outdoor": ({"H_dl": DL[:4], "H_ul": UL[:4]}, "H_dl: shape [4, 4, 4]"),
    "npz": ({"downlink": normal(4, 4, 4, 4)}, "downlink: shape [4, 4, 4, 4]"),
    "one sample": ({"H_dl": DL[0], "H_ul": UL[0]}, "H_dl: shape [4, 4]"),
}


@pytest.mark.parametrize("case", SQUARE)
def test_hdf5_that_fits_in_both_orders_is_asked_about(case: str, tmp_path: Path) -> None:
    arrays, says = SQUARE[case]
    path = write_h5py(tmp_path / "x.mat", arrays)
    reason = refusal(path)
    assert reason.startswith(f"{says} fits both orders of axes")
    assert "axes=matlab" in reason
    assert "axes=c" in reason
    assert_reads_alike(path, arrays, axes="c")
    assert_reads_alike(write_h5py(path, arrays, reverse=True), arrays, axes="matlab")


def test_an_array_that_h5py_added_to_a_file_of_matlab(tmp_path: Path) -> None:
    """The mark is each array's own, not the file's."""
    scale = np.arange(1, 7.0)[:, None]
    path = write_73(tmp_path / "x.mat", {"HT": HT})
    with h5py.File(path, "a") as file:
        file["scale"] = scale
    assert_reads_alike(path, {"HT": HT, "scale": scale})
    square = write_73(tmp_path / "y.mat", {"H_dl": DL[:4]})
    with h5py.File(square, "a") as file:
        file["H_ul"] = UL[:4]
    assert refusal(square).startswith("H_ul: shape [4, 4, 4] fits both orders")


@pytest.mark.parametrize(
    ("arrays", "reverse", "axes", "says"),
    [
        ({"HT": HT[:, :30]}, False, "auto", "HT: shape [6, 30]; wanted [sample, 32] real numbers or [32, sample] real"),
        ({"HT": HT[:, :30]}, True, "auto", "HT: shape [30, 6]; wanted [sample, 32] real numbers or [32, sample] real"),
        ({"HT": HT}, False, "matlab", "HT: shape [6, 32]; wanted [32, sample] real numbers"),
        ({"HT": HT}, True, "c", "HT: shape [32, 6]; wanted [sample, 32] real numbers"),
        ({"H_dl": DL, "H_ul": UL[:, :3]}, False, "auto", "H_ul: shape [6, 3, 4]; wanted [sample, 4, 4] complex"),
        ({"H_dl": DL, "H_ul": UL.T}, False, "auto", "H_dl: shape [6, 4, 4]; wanted [4, 4, sample] complex"),
        (
            {"downlink": normal(6, 3, 4, 5)},
            True,
            "auto",
            "downlink: shape [5, 4, 3, 6]; wanted [sample, 4, 4, 4] complex numbers or [4, 4, 3, sample] complex",
        ),
    ],
)
def test_shapes_in_messages_are_those_of_the_file(
    arrays: dict[str, NDArray[Any]], reverse: bool, axes: reading.Axes, says: str, tmp_path: Path
) -> None:
    path = write_h5py(tmp_path / "x.mat", arrays, reverse=reverse)
    with pytest.raises(InvalidInput) as caught:
        reading.read(path, SMALL, axes)
    assert str(caught.value).startswith(f"x.mat: {says}")


def test_axes_of_the_user_go_before_marks(tmp_path: Path) -> None:
    """Who wrote with h5py and marked it for MATLAB without turning the axes may still say so."""
    path = write_h5py(tmp_path / "x.mat", {"HT": HT})
    with h5py.File(path, "a") as file:
        file["HT"].attrs["MATLAB_class"] = np.bytes_("single")
    assert refusal(path) == "HT: shape [32, 6]; wanted [sample, 32] real numbers"  # as MATLAB would show it
    assert_reads_alike(path, {"HT": HT}, axes="c")


@pytest.mark.parametrize("dtype", [">f8", "<f8", ">f4", "f2"])
@pytest.mark.parametrize("form", ["npz", "fortran npz", "mat", "h5py"])
def test_any_float_and_order_of_bytes(dtype: str, form: str, tmp_path: Path) -> None:
    values = HT.astype(dtype)
    values = np.asfortranarray(values) if form == "fortran npz" else values
    path = tmp_path / ("x.npz" if form.endswith("npz") else "x.mat")
    (write_h5py if form == "h5py" else write)(
        path, {"HT": values if form != "mat" or dtype != "f2" else values.astype("f4")}
    )
    assert_reads_alike(path, {"HT": HT.astype(dtype).astype(np.float32)})


@pytest.mark.parametrize("dtype", [">c16", ">c8", "<c16"])
@pytest.mark.parametrize("suffix", [".npz", ".mat"])
def test_any_complex_order_of_bytes(dtype: str, suffix: str, tmp_path: Path) -> None:
    arrays = {"H_dl": np.asfortranarray(DL.astype(dtype)), "H_ul": UL.astype(dtype)}
    path = (write if suffix == ".npz" else write_h5py)(tmp_path / f"x{suffix}", arrays)
    assert_reads_alike(path, {"H_dl": DL, "H_ul": UL})


@pytest.mark.parametrize("form", ["npz", "h5py", "reverse"])
def test_real_and_imaginary_parts_on_a_last_axis(form: str, tmp_path: Path) -> None:
    pairs = {key: np.stack([array.real, array.imag], -1) for key, array in (("H_dl", DL), ("H_ul", UL))}
    path = tmp_path / ("x.npz" if form == "npz" else "x.mat")
    write(path, pairs) if form == "npz" else write_h5py(path, pairs, reverse=form == "reverse")
    assert_reads_alike(path, {"H_dl": DL, "H_ul": UL})
    slots = np.stack([NPZ["downlink"].real, NPZ["downlink"].imag], -1)
    assert_reads_alike(write(tmp_path / "y.npz", {"downlink": slots}), {"downlink": NPZ["downlink"]})


def test_axes_that_their_writer_dropped(tmp_path: Path) -> None:
    """MATLAB's squeeze of one sample; a last axis of 1, which MATLAB never has."""
    one = write(tmp_path / "one.mat", {"H_dl": DL[0], "H_ul": UL[0]})
    assert_reads_alike(one, {"H_dl": DL[:1], "H_ul": UL[:1]})
    assert_reads_alike(write(tmp_path / "one.npz", {"HT": HT[0]}), {"HT": HT[:1]})
    assert_reads_alike(write_h5py(tmp_path / "one.mat", {"HT": HT[0]}), {"HT": HT[:1]})
    assert_reads_alike(
        write(tmp_path / "row.npz", {"HT": HT, "scale": np.arange(1, 7)}), {"HT": HT, "scale": np.arange(1, 7)[:, None]}
    )
    column = {"H_dl": DL[:, :, :1], "H_ul": UL[:, :, :1]}
    assert_reads_alike(
        write(tmp_path / "x.npz", {key: array[:, :, 0] for key, array in column.items()}), column, Shape(3, 1, 1)
    )


def test_variables_beside_those_of_the_layout(tmp_path: Path) -> None:
    """Also one that another layout would read, and one that cannot be read at all."""
    arrays = {"H_dl": DL, "H_ul": UL}
    path = write_h5py(tmp_path / "x.mat", {**arrays, "scale": np.ones(3), "uplink": HT})
    with h5py.File(path, "a") as file:
        file.create_group("#refs#")
        file["note"] = "text"
    assert_reads_alike(path, arrays)
    assert "keys ht; wanted HT (csinet)" in refusal(write(tmp_path / "y.mat", {"ht": HT}))


def test_values_that_lie_in_another_file(tmp_path: Path) -> None:
    """Nobody's hash would hold them."""
    write_h5py(tmp_path / "other.mat", {"HT": HT})
    path = tmp_path / "x.mat"
    with h5py.File(path, "w") as file:
        file["HT"] = h5py.ExternalLink("other.mat", "/HT")
    assert refusal(path) == "HT: its values lie in another file; wanted them in this one"
    with h5py.File(path, "w") as file:
        whole = h5py.VirtualLayout(HT.shape, "f4")
        whole[:] = h5py.VirtualSource(tmp_path / "other.mat", "HT", HT.shape)
        file.create_virtual_dataset("HT", whole)
    assert refusal(path) == "HT: its values lie in another file; wanted them in this one"


def test_an_empty_array_of_matlab(tmp_path: Path) -> None:
    path = write_73(tmp_path / "x.mat", {"HT": HT})
    with h5py.File(path, "a") as file:
        del file["HT"]
        file["HT"] = np.array([0, 32], np.uint64)
        file["HT"].attrs.update({"MATLAB_class": np.bytes_("double"), "MATLAB_empty": np.uint8(1)})
    assert refusal(path) == "HT: shape [0, 32]; wanted [sample, 32] real numbers"


@pytest.mark.parametrize("suffix", [".mat", ".npz"])
def test_too_large_for_memory_is_not_damage(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    if suffix == ".mat":
        with h5py.File(path, "w") as file:
            file.create_dataset("HT", (10**13, 32), "f8", chunks=(1, 32))
    else:
        with zipfile.ZipFile(path, "w") as archive, archive.open("HT.npy", "w") as entry:
            np.lib.format.write_array_header_2_0(entry, {"descr": "<f8", "fortran_order": False, "shape": (10**13, 32)})
    reason = refusal(path)
    assert reason.startswith(
        f"{path.stat().st_size:,} bytes, too large for the memory here: Unable to allocate 2.27 PiB"
    )
    assert ("(10000000000000, 32)" if suffix == ".mat" else "(320000000000000,)") in reason


# --- values out of line ---


def test_values_a_little_outside_are_clipped(tmp_path: Path) -> None:
    values = HT.astype(np.float64)
    values[2, 3], values[4, 5] = 1.0000001, -1e-7
    assert_reads_alike(write(tmp_path / "x.mat", {"HT": values}), {"HT": values.clip(0, 1)})
    values[4, 5] = 1.00001
    assert refusal(write(tmp_path / "x.mat", {"HT": values})).endswith(
        "to 1.00001; wanted [0, 1], or 1e-06 outside; first in sample 4"
    )
    values[2, 3] = np.nan
    assert refusal(write(tmp_path / "x.mat", {"HT": values})).endswith("all finite; first in sample 2")


@pytest.mark.parametrize("form", ["csinet", "scale", "npz", "uplink"])
def test_a_few_zero_samples_are_skipped(form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ht, rest = np.random.default_rng(4).random((40, 32)), np.delete(np.arange(40), [7, 20])
    images = normal(40, 2, 4, 4)
    arrays: dict[str, NDArray[Any]] = (
        {"HT": ht, "scale": np.ones((40, 1))}
        if form in ("csinet", "scale")
        else {"downlink": images, "uplink": images.copy()}
    )
    kept = {key: array[rest] for key, array in arrays.items()}
    if form == "csinet":
        ht[[7, 20]] = 0.5
    elif form == "scale":
        arrays["scale"][[7, 20]] = 0
    elif form == "npz":
        images[[7, 20], 1] = 0  # one slot of it is enough
    else:
        arrays["uplink"][7], images[20] = 0, 0  # in one of the links each
    path = write(tmp_path / "x.npz", arrays)
    assert reading.read(path, SMALL)[1].skipped == 2
    assert caplog.messages == ["x.npz: zero samples skipped: 2; 38 are left"]
    assert_reads_alike(path, kept)


def test_many_zero_samples_are_refused_by_number(tmp_path: Path) -> None:
    ht = np.random.default_rng(4).random((40, 32))
    ht[3:7] = 0.5
    assert reading.read(write(tmp_path / "x.mat", {"HT": ht}), SMALL)[1].skipped == 4
    ht[30] = 0.5
    assert refusal(write(tmp_path / "x.mat", {"HT": ht})) == (
        "HT: the channel of sample 3 is zero, 5 of 40 are; wanted some power in each, up to 10% are skipped"
    )


def with_value(array: NDArray[Any], value: complex) -> NDArray[Any]:
    changed = array.copy()
    changed[2, 3] = value
    return changed


ZERO = np.concatenate([DL[:3], 0 * DL[3:]])
MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "no key known": ({"H": DL}, "keys H; wanted HT (csinet); H_dl, H_ul (dualnet-outdoor); Hur_down_t1"),
    "no keys": ({}, "keys none; wanted HT"),
    "one link": ({"H_dl": DL}, "keys H_dl; wanted HT (csinet); H_dl, H_ul (dualnet-outdoor)"),
    "HF_all alone": ({"HF_all": normal(3, 500)}, "keys HF_all; wanted HT"),
    "HT 3-D": ({"HT": HT.reshape(6, 2, 16)}, "HT: shape [6, 2, 16]; wanted [sample, 32] real"),
    "HT size": ({"HT": HT[:, :30]}, "HT: shape [6, 30]; wanted [sample, 32] real"),
    "HT transposed": ({"HT": HT.T}, "HT: shape [32, 6]; wanted [sample, 32] real"),
    "HT complex": ({"HT": HT + 0j}, "HT: complex64; wanted [sample, 32] real"),
    "HT text": ({"HT": "hello"}, "HT: shape [1]; wanted [sample, 32] real"),
    "HT cell": ({"HT": np.array([[HT, 1]], dtype=object)}, "HT: shape [1, 2]; wanted [sample, 32] real"),
    "HT struct": ({"HT": {"a": HT}}, "HT: shape [1, 1]; wanted [sample, 32] real"),
    "HT sparse": ({"HT": scipy.sparse.csc_array(HT)}, "HT: shape []; wanted [sample, 32] real"),
    "HT empty": ({"HT": HT[:0]}, "HT: shape [0, 32]; wanted [sample, 32] real"),
    "HT NaN": ({"HT": with_value(HT, np.nan)}, "HT: NaN or infinite values; wanted [sample, 32] real numbers, all fin"),
    "HT above 1": ({"HT": with_value(HT, 1.5)}, "to 1.5; wanted [0, 1]"),
    "HT below 0": ({"HT": with_value(HT, -0.25)}, "HT: values from -0.25 to"),
    "HT zero": ({"HT": np.full((6, 32), 0.5)}, "HT: the channel of sample 0 is zero"),
    "scale size": ({"HT": HT, "scale": np.ones((1, 6))}, "scale: shape [1, 6]; wanted [sample, 1] real"),
    "scale length": ({"HT": HT, "scale": np.ones((5, 1))}, "HT, scale: 6 and 5 samples"),
    "scale of one": ({"HT": HT, "scale": np.ones((1, 1))}, "HT, scale: 6 and 1 samples"),
    "scale NaN": ({"HT": HT, "scale": np.full((6, 1), np.nan)}, "scale: NaN or infinite"),
    "scale complex": ({"HT": HT, "scale": np.full((6, 1), 1j)}, "scale: complex128; wanted [sample, 1] real"),
    "scale zero": ({"HT": HT, "scale": np.eye(6)[:, :1]}, "HT, scale: the channel of sample 1 is zero"),
    "H_dl 4-D": ({"H_dl": DL[:, None], "H_ul": UL}, "H_dl: shape [6, 1, 4, 4]; wanted [sample, 4, 4] complex"),
    "H_ul size": ({"H_dl": DL, "H_ul": UL[:, :, :3]}, "H_ul: shape [6, 4, 3]; wanted [sample, 4, 4] complex"),
    "H_dl real": ({"H_dl": DL.real, "H_ul": UL}, "H_dl: float32; wanted [sample, 4, 4] complex"),
    "H_ul infinite": ({"H_dl": DL, "H_ul": with_value(UL, np.inf)}, "H_ul: NaN or infinite"),
    "H_ul zero": ({"H_dl": DL, "H_ul": ZERO}, "H_ul: the channel of sample 3 is zero"),
    "links' lengths": ({"H_dl": DL, "H_ul": UL[:5]}, "H_dl, H_ul: 6 and 5 samples"),
    "indoor": ({"Hur_down_t1": DL, "Hur_up_t1": UL.real}, "Hur_up_t1: float32; wanted [sample, 4, 4] complex"),
}
MALFORMED_NPZ: dict[str, tuple[dict[str, Any], str]] = {
    "3-D": ({"downlink": DL}, "downlink: shape [6, 4, 4]; wanted [sample, 1, 4, 4] complex"),
    "size": ({"downlink": normal(6, 2, 4, 5)}, "downlink: shape [6, 2, 4, 5]; wanted [sample, 2, 4, 4] complex"),
    "no slots": ({"downlink": normal(6, 0, 4, 4)}, "downlink: shape [6, 0, 4, 4]; wanted [sample, 1, 4, 4] complex"),
    "real": ({"downlink": np.ones((6, 1, 4, 4))}, "downlink: float64; wanted [sample, 1, 4, 4] complex"),
    "too large": ({"downlink": np.full((6, 1, 4, 4), 1e99 + 0j)}, "downlink: NaN or infinite"),
    "slots": (
        {"downlink": normal(6, 1, 4, 4), "uplink": normal(6, 2, 4, 4)},
        "uplink: shape [6, 2, 4, 4]; wanted [sample, 1, 4, 4] complex",
    ),
    "lengths": ({"downlink": normal(6, 1, 4, 4), "uplink": normal(5, 1, 4, 4)}, "downlink, uplink: 6 and 5 samples"),
    "uplink alone": ({"uplink": normal(6, 1, 4, 4)}, "keys uplink; wanted HT (csinet)"),
    "zero": ({"downlink": np.stack([DL, 0 * DL], 1)}, "downlink: the channel of sample 0 is zero"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_mat(case: str, tmp_path: Path) -> None:
    arrays, says = MALFORMED[case]
    assert says in refusal(write(tmp_path / "bad.mat", arrays))


def plain(arrays: dict[str, Any]) -> bool:
    """Whether HDF5 has such arrays."""
    return all(isinstance(array, np.ndarray) and array.dtype.kind != "O" and array.size for array in arrays.values())


@pytest.mark.parametrize("case", [case for case, (arrays, _) in MALFORMED.items() if plain(arrays)])
def test_malformed_mat_of_version_73(case: str, tmp_path: Path) -> None:
    arrays, says = MALFORMED[case]
    assert says in refusal(write_73(tmp_path / "bad.mat", arrays))


@pytest.mark.parametrize("case", MALFORMED_NPZ)
def test_malformed_npz(case: str, tmp_path: Path) -> None:
    arrays, says = MALFORMED_NPZ[case]
    assert says in refusal(write(tmp_path / "bad.npz", arrays))


def test_hdf5_with_something_else_under_the_key(tmp_path: Path) -> None:
    for value, says in ((None, "HT: damaged, or no array"), ("text", "HT: shape []"), (3.0, "HT: shape []")):
        path = tmp_path / "bad.mat"
        with h5py.File(path, "w", userblock_size=512) as file:
            file.create_group("HT") if value is None else file.create_dataset("HT", data=value)
        assert says in refusal(path)


@pytest.mark.parametrize("suffix", [".mat", ".npz"])
@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0", b"Dear sir,\nhere is the data.\n" * 40, bytes(600)])
def test_no_data_file_at_all(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    assert refusal(path) == "not a readable .mat or .npz file"


def test_array_without_archive(tmp_path: Path) -> None:
    path, held = tmp_path / "bad.npz", io.BytesIO()
    np.save(held, normal(6, 1, 4, 4))
    path.write_bytes(held.getvalue())
    assert refusal(path) == "not a readable .mat or .npz file"


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none\.mat does not exist"):
        reading.read(tmp_path / "none.mat", SMALL)


def healthy(folder: Path) -> list[Path]:
    images = {"downlink": DL[:, None], "uplink": UL[:, None]}
    return [
        write(folder / "five.mat", {"H_dl": DL, "H_ul": UL}),
        write(folder / "seven.mat", {"HT": HT}, do_compression=True),
        write_73(folder / "seven3.mat", {"H_dl": DL, "H_ul": UL}),
        write(folder / "plain.npz", images),
        write(folder / "packed.npz", images, compressed=True),
        write_h5py(folder / "h5py.mat", images),
        write_octave(folder / "octave.mat", {"HT": HT}),
    ]


def test_truncated_anywhere(tmp_path: Path) -> None:
    for path in healthy(tmp_path):
        whole = path.read_bytes()
        for size in np.linspace(0, len(whole) - 1, 40).astype(int):
            path.write_bytes(whole[:size])
            refusal(path)


def test_a_damaged_byte(tmp_path: Path) -> None:
    """Either it does not matter, or the file is refused. (Plain v5 files are left out: there, scipy can crash.)"""
    for path in healthy(tmp_path):
        if path.name not in ("seven.mat", "plain.npz", "packed.npz"):
            continue
        whole, refused = path.read_bytes(), 0
        for position in np.linspace(0, len(whole) - 1, 150).astype(int):
            damaged = bytearray(whole)
            damaged[position] ^= 0x55
            path.write_bytes(damaged)
            with contextlib.suppress(InvalidInput):
                reading.read(path, SMALL)
                continue
            refused += 1
        assert refused > 100


class Trap:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("key", ["downlink", "uplink"])
def test_nothing_is_unpickled(key: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    trap = np.array([Trap(mark)], dtype=object)
    path = write(tmp_path / "bad.npz", {"downlink": DL[:, None], key: trap})
    assert "downlink" in refusal(path)
    assert not mark.exists()
    with np.load(path, allow_pickle=True) as file:
        file[key]
    assert mark.exists()  # it would have


# --- files as a world ---


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of data files."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("CSIEMU_DATA", str(folder))
    return folder


def numbered(path: Path, count: int, *, slots: int = 1, uplink: bool = True) -> NDArray[np.complex64]:
    """A file whose sample i has i + 1 as its first entry; its downlink."""
    downlink = normal(count, slots, 4, 4, seed=count)
    downlink[:, :, 0, 0] = np.arange(count)[:, None] + 1
    write(path, {"downlink": downlink, "uplink": -downlink} if uplink else {"downlink": downlink})
    return downlink


def world(text: str, **fields: Any) -> DataFile:
    extra = "".join(f",{name}={value}" for name, value in fields.items())
    parsed = Scenario.parse(f"file:{text},{SIZES}{extra}")
    assert isinstance(parsed, DataFile)
    return parsed


def rows(scenario: DataFile, split: Split, ues: range, *, frame: int = 0, seed: int = 7) -> list[int]:
    """Which samples of a `numbered` file the given UEs have."""
    ue = torch.tensor(ues)
    samples = Samples(seed, split, ue, torch.full_like(ue, frame))
    images = scenario.angular_delay(samples, Link.DOWNLINK, torch.arange(scenario.slots))
    return [round(value) - 1 for value in images[:, 0, 0, 0].real.tolist()]


@pytest.mark.parametrize("count", [10, 11, 19, 25, 64, 100, 1000])
def test_splits_of_one_file_are_disjoint_and_together_all(count: int, data: Path) -> None:
    numbered(data / "x.npz", count)
    scenario = world("file=x.npz")
    parts = [set(rows(scenario, split, range(2 * count))) for split in (Split.TRAIN, Split.VALIDATION, Split.TEST)]
    assert sum(map(len, parts)) == count
    assert set.union(*parts) == set(range(count))
    for part, share in zip(parts, (0.8, 0.1, 0.1), strict=True):
        assert len(part) == pytest.approx(share * count, abs=1)
    assert set(rows(scenario, Split.EMULATE, range(2 * count))) == parts[2]


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_too_few_samples_to_split(count: int, data: Path) -> None:
    numbered(data / "x.npz", count)
    with pytest.raises(InvalidInput, match=rf"x\.npz: {count} samples leave none for test"):
        world("file=x.npz").check_here()
    world("test=x.npz").check_here()


def test_each_split_may_have_its_own_file(data: Path) -> None:
    for name, count in (("a", 30), ("b", 7), ("c", 5)):
        numbered(data / f"{name}.npz", count)
    scenario = world("train=a.npz,validation=b.npz,test=c.npz")
    assert sorted(rows(scenario, Split.TRAIN, range(30))) == list(range(30))
    assert rows(scenario, Split.VALIDATION, range(7)) == list(range(7))
    assert rows(scenario, Split.TEST, range(5)) == rows(scenario, Split.EMULATE, range(5)) == list(range(5))
    mixed = world("file=a.npz,train=b.npz")
    assert sorted(rows(mixed, Split.TRAIN, range(7))) == list(range(7))
    assert rows(mixed, Split.VALIDATION, range(3)) == [24, 25, 26]
    assert rows(mixed, Split.TEST, range(3)) == [27, 28, 29]
    with pytest.raises(InvalidInput, match="no file for validation"):
        rows(world("train=a.npz,test=c.npz"), Split.VALIDATION, range(1))


def test_test_rows_come_in_order(data: Path) -> None:
    """Row ue + 1009 frame, from the start again after the last."""
    numbered(data / "x.npz", 70)
    scenario = world("test=x.npz")
    for frame in (0, 1, 5):
        expected = [(ue + 1009 * frame) % 70 for ue in range(90)]
        assert rows(scenario, Split.TEST, range(90), frame=frame) == expected
        assert rows(scenario, Split.EMULATE, range(90), frame=frame, seed=8) == expected


def test_every_pass_of_training_has_all_rows_in_its_own_order(data: Path) -> None:
    numbered(data / "x.npz", 60)
    scenario = world("train=x.npz,test=x.npz")
    found = rows(scenario, Split.TRAIN, range(180))
    passes = [found[:60], found[60:120], found[120:]]
    assert all(sorted(order) == list(range(60)) for order in passes)
    assert len({tuple(order) for order in [*passes, list(range(60))]}) == 4
    picked = [found[ue] for ue in range(50, 130, 7)]  # in any batch
    assert rows(scenario, Split.TRAIN, range(50, 130, 7)) == picked


def test_every_seed_has_its_own_orders(data: Path) -> None:
    numbered(data / "x.npz", 60)
    scenario = world("train=x.npz,test=x.npz")
    seeds = (0, 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1)
    orders = {tuple(rows(scenario, Split.TRAIN, range(60), seed=seed)) for seed in seeds}
    assert len(orders) == len(seeds)


def test_orders_are_the_same_everywhere(data: Path) -> None:
    """UE, gNB and trainings that are taken up again are other processes, on other machines."""
    numbered(data / "x.npz", 12)
    found = rows(world("train=x.npz,test=x.npz"), Split.TRAIN, range(24), seed=2**64 - 3)
    assert found[:12] == [9, 4, 5, 8, 2, 11, 1, 6, 3, 7, 0, 10]
    assert found[12:] == [4, 9, 11, 7, 1, 10, 6, 2, 0, 3, 8, 5]


def test_slots_and_links(data: Path, make_samples: MakeSamples) -> None:
    downlink = numbered(data / "x.npz", 20, slots=3)
    scenario, samples = world("test=x.npz", slots=3), make_samples(5)
    found = scenario.angular_delay(samples, Link.DOWNLINK, torch.tensor([0, 2]))
    assert np.array_equal(found.numpy(), downlink[:5, [0, 2]])
    assert np.array_equal(scenario.angular_delay(samples, Link.UPLINK, torch.arange(3)).numpy(), -downlink[:5])
    with pytest.raises(InvalidInput, match="slot 3 of a frame; the file has 3"):
        scenario.angular_delay(samples, Link.DOWNLINK, torch.arange(1, 4))
    with pytest.raises(InvalidInput, match=r"slots, delay_slots: 4 \+ 0; the file has 3 slots"):
        world("test=x.npz", slots=4).check_here()


def test_full_images_are_zero_where_the_file_has_nothing(data: Path, make_samples: MakeSamples) -> None:
    downlink = numbered(data / "x.npz", 20)
    full = world("test=x.npz").angular_delay(make_samples(5), Link.DOWNLINK, torch.arange(1), full=True).numpy()
    assert full.shape == (5, 1, 9, 4)
    assert np.array_equal(full[:, :, :3], downlink[:5, :, :3])
    assert np.array_equal(full[:, :, 8:], downlink[:5, :, 3:])
    assert not full[:, :, 3:8].any()


def test_file_without_uplink(data: Path, make_samples: MakeSamples) -> None:
    numbered(data / "x.npz", 20, uplink=False)
    numbered(data / "y.npz", 20)
    assert not world("file=x.npz").has_uplink
    assert world("file=y.npz").has_uplink
    with pytest.raises(InvalidInput, match="holds no uplink"):
        world("file=x.npz").angular_delay(make_samples(1), Link.UPLINK, torch.arange(1))


def test_public_file_as_a_world(data: Path, make_samples: MakeSamples) -> None:
    """As CsiNet's users have it: HT only, in [0, 1]."""
    parts = np.random.default_rng(3).random((20, 2048))
    scipy.io.savemat(data / "DATA_Htestin.mat", {"HT": parts})
    public = Scenario.parse("file:test=DATA_Htestin.mat")
    assert isinstance(public, DataFile)
    images = public.angular_delay(make_samples(20), Link.DOWNLINK, torch.arange(1))
    assert images.shape == (20, 1, 32, 32)
    assert complex(images[4, 0, 7, 30]) == pytest.approx(
        parts[4, 30 * 32 + 7] - 0.5 + 1j * (parts[4, 1024 + 30 * 32 + 7] - 0.5), abs=1e-6
    )


# --- HF_all, in a file of its own ---


@pytest.fixture(scope="module")
def public() -> dict[str, NDArray[Any]]:
    """HT of 40 samples, and HF_all in other units, [40, 32 * 125]."""
    arrays = indoor_pair()[2]
    return {"HT": arrays["HT"], "HF_all": 1e3 * arrays["HF_all"] * np.arange(1, 41)[:, None]}


def write_pair(data: Path, public: dict[str, NDArray[Any]]) -> str:
    """The public names; the scenario of both."""
    write(data / "DATA_Htestin.mat", {"HT": public["HT"]})
    write(data / "DATA_HtestFin_all.mat", {"HF_all": public["HF_all"]})
    return "file:test=DATA_Htestin.mat,frequency=DATA_HtestFin_all.mat"


def outcomes(text: str, error: NDArray[Any], split: Split = Split.TEST) -> Outcomes:
    """Of estimates that are the file's first images and an error [N, 1, 32, 32]."""
    ue = torch.arange(len(error))
    truth = DownlinkView(Scenario.parse(text), Samples(0, split, ue, torch.zeros_like(ue))).truth("angular-delay")
    return Outcomes.measure(truth.channel + torch.from_numpy(error), truth)


def test_hf_all_is_compared_as_public_evaluators_do(data: Path, public: dict[str, NDArray[Any]]) -> None:
    text, error = write_pair(data, public), 0.02 * normal(40, 1, 32, 32)
    found, kept_only = outcomes(text, error), outcomes("file:test=DATA_Htestin.mat,frequency=none", error)
    image = (LAYOUTS["csinet"].decode({"HT": public["HT"]}, PUBLIC).downlink + error)[:, 0].transpose(0, 2, 1)
    assert found.rho[:, 0] == pytest.approx(rho(image, public["HF_all"]).mean(axis=1), abs=1e-5)
    assert found.sgcs[:, 0] == pytest.approx((rho(image, public["HF_all"]) ** 2).mean(axis=1), abs=1e-5)
    assert np.array_equal(found.ratio, kept_only.ratio)  # the truncated domain is as it was
    assert (kept_only.floor < 1e-6).all()
    # what no multiple of the images explains of HF_all, whatever its units
    clean = (image - error[:, 0].transpose(0, 2, 1)).reshape(40, 32, 32)
    ours = np.fft.fft(clean, 257, axis=2)[:, :, :125].reshape(40, -1)
    best = (ours.conj() * public["HF_all"]).sum(1) / (np.abs(ours) ** 2).sum(1)
    left = (np.abs(public["HF_all"] - best[:, None] * ours) ** 2).sum(1) / (np.abs(public["HF_all"]) ** 2).sum(1)
    assert found.floor[:, 0] == pytest.approx(left, abs=1e-5)
    assert found.ratio_sf == pytest.approx(found.floor + (1 - found.floor) * found.ratio, rel=1e-5)


def test_hf_all_gives_nearly_the_floor_of_the_whole_band(data: Path, public: dict[str, NDArray[Any]]) -> None:
    found = outcomes(write_pair(data, public), np.zeros((40, 1, 32, 32), np.complex64))
    preset = Scenario.parse("cost2100-indoor-csinet")
    ue = torch.arange(40)
    truth = DownlinkView(preset, Samples(1, Split.TEST, ue, torch.zeros_like(ue))).truth("angular-delay")
    expected = Outcomes.measure(truth.channel, truth)
    assert 10 * np.log10(found.floor.mean() / expected.floor.mean()) == pytest.approx(0, abs=0.3)


def test_hf_all_of_any_writer_and_in_the_same_file(data: Path, public: dict[str, NDArray[Any]]) -> None:
    text, error = write_pair(data, public), 0.02 * normal(40, 1, 32, 32)
    expected = outcomes(text, error)
    write(data / "both.mat", public)
    write_h5py(data / "F 1.mat", {"HF_all": public["HF_all"]})
    write_73(data / "F7.mat", {"HF_all": public["HF_all"]})
    write(data / "F.npz", {"HF_all": public["HF_all"].astype(">c16")})
    for test, frequency in (("both", "both.mat"), *(("DATA_Htestin", f) for f in ("F 1.mat", "F7.mat", "F.npz"))):
        found = outcomes(f"file:test={test}.mat,frequency={frequency}", error)
        assert np.allclose(found.rho, expected.rho, atol=1e-6)
        assert np.allclose(found.floor, expected.floor, atol=1e-6)
    assert (outcomes("file:test=both.mat", error).floor < 1e-6).all()  # who does not name it is left in peace


def test_hf_all_is_that_of_the_samples_tested(data: Path, public: dict[str, NDArray[Any]]) -> None:
    text, nothing = write_pair(data, public), np.zeros((4, 1, 32, 32), np.complex64)
    shared = text.replace("test=", "file=")
    everyone = outcomes(text, np.zeros((40, 1, 32, 32), np.complex64))
    for split, first in ((Split.TEST, 36), (Split.EMULATE, 36), (Split.VALIDATION, 32)):  # rows of the same file
        assert np.array_equal(outcomes(shared, nothing, split).floor, everyone.floor[first : first + 4])
    write(data / "val.mat", {"HT": public["HT"][::-1]})
    assert (outcomes(f"{text},validation=val.mat", nothing, Split.VALIDATION).floor < 1e-6).all()
    zero = {key: array.copy() for key, array in public.items()}
    zero["HT"][5] = 0.5
    zero["HF_all"][7] = 0
    write_pair(data, zero)
    rest = np.delete(everyone.floor, [5, 7], axis=0)
    assert np.array_equal(outcomes(text, np.zeros((38, 1, 32, 32), np.complex64)).floor, rest)


@pytest.mark.parametrize(("folder", "place"), [("", "in"), ("", "out"), ("his data/", "in")])
@pytest.mark.parametrize("field", ["test", "file"])
def test_the_public_pair_is_found(
    folder: str, place: str, field: str, data: Path, public: dict[str, NDArray[Any]]
) -> None:
    (data / folder).mkdir(exist_ok=True)
    tested, beside = f"{folder}DATA_Htest{place}.mat", f"{folder}DATA_HtestF{place}_all.mat"
    write(data / tested, {"HT": public["HT"]})
    alone, nothing = f"file:{field}={tested}", np.zeros((4, 1, 32, 32), np.complex64)
    without, pinned = outcomes(alone, nothing), str(Scenario.parse(alone).pinned())
    write(data / beside, {"HF_all": public["HF_all"]})
    named = outcomes(f"{alone},frequency={beside}", nothing)
    assert (named.floor > 1e-3).all()
    assert np.array_equal(outcomes(alone, nothing).floor, named.floor)
    assert (
        Scenario.parse(alone).pinned() == Scenario.parse(f"{alone},frequency={beside}").pinned()
    )  # so that others look for it too
    for text in (f"{alone},frequency=none", pinned):  # who had no such file has none
        assert np.array_equal(outcomes(text, nothing).floor, without.floor)
        Scenario.parse(text).check_here()
    write(data / f"{folder}other.mat", {"HT": public["HT"]})
    assert (outcomes(f"file:{field}={folder}other.mat", nothing).floor < 1e-6).all()
    Scenario.parse(f"file:{field}={tested},subcarriers=256").check_here()  # for which HF_all is not made
    write(data / beside, {"HF_all": public["HF_all"][::-1]})
    with pytest.raises(InvalidInput, match="HF_all: HT explains"):
        Scenario.parse(alone).check_here()


def test_hf_all_that_does_not_belong(data: Path, public: dict[str, NDArray[Any]]) -> None:
    text = write_pair(data, public)
    Scenario.parse(text).check_here()
    pinned = Scenario.parse(text).pinned()
    turned = public["HF_all"].reshape(40, 32, 125).transpose(0, 2, 1).reshape(40, -1)
    names = r"^DATA_Htestin\.mat, DATA_HtestFin_all\.mat: "
    for arrays, says in (
        (
            {"HF_all": np.roll(public["HF_all"], 1, axis=0)},
            r"HF_all: HT explains \d+% of its power; wanted 50% or more",
        ),
        ({"HF_all": turned}, "HF_all: HT explains"),
        ({"HF_all": public["HF_all"][:30]}, "HT, HF_all: 40 and 30 samples; wanted as many"),
        ({"HF_all": public["HF_all"].T}, r"HF_all: shape \[4000, 40\]; wanted \[sample, 4000\] complex"),
        ({"HF_all": public["HF_all"].real}, "HF_all: float64; wanted"),
        ({"HF": public["HF_all"]}, "frequency: keys HF; wanted HF_all"),
    ):
        write(data / "DATA_HtestFin_all.mat", arrays)
        with pytest.raises(InvalidInput, match=names + says):
            Scenario.parse(text).check_here()
    with pytest.raises(Conflict, match="sha256"):
        pinned.check_here()
    np.savez(data / "x.npz", downlink=normal(20, 1, 32, 32))
    with pytest.raises(InvalidInput, match=r"x\.npz is of the npz layout; HF_all belongs to HT"):
        Scenario.parse(text.replace("DATA_Htestin.mat", "x.npz")).check_here()
    (data / "DATA_HtestFin_all.mat").unlink()
    with pytest.raises(NotFound, match=r"'DATA_HtestFin_all\.mat' is not in"):
        Scenario.parse(text).check_here()
    for field in ("subcarriers=256", "first_rows=31,last_rows=1"):
        with pytest.raises(InvalidInput, match=r"with HF_all they are 257, 0"):
            Scenario.parse(f"{text},{field}")
    with pytest.raises(InvalidInput, match="scenario axes: 'fortran' is not auto, matlab or c"):
        Scenario.parse(f"{text},axes=fortran")


# --- large HDF5 files stay where they are ---


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every file is; it is looked through by two samples. Filled with how many are read each time."""
    monkeypatch.setattr(reading, "WHOLE_BYTES", 0)
    monkeypatch.setattr(stored, "AT_ONCE", 2)
    read, counts = reading._Stored.read, list[int]()

    def counting(array: Any, samples: Any = None) -> Any:
        counts.append(-1 if samples is None else len(samples))
        return read(array, samples)

    monkeypatch.setattr(reading._Stored, "read", counting)
    return counts


def both(path: Path, shape: Shape = SMALL, frequency: Path | None = None) -> tuple[Channels, Any]:
    """A file's channels in memory, and those that stay in it."""
    found = reading.open_channels(path, shape, "auto", frequency)[1]
    assert isinstance(found, stored.StoredChannels)
    return reading.read(path, shape, "auto", frequency)[1], found


def assert_same(found: Channels, expected: Channels) -> None:
    for name in ("downlink", "uplink", "frequency", "kept"):
        mine, theirs = getattr(found, name), getattr(expected, name)
        assert (mine is None) == (theirs is None), name
        assert mine is None or np.array_equal(mine, theirs), name


@pytest.mark.parametrize("layout", OTHERS)
@pytest.mark.parametrize("writer", [write_73, write_h5py, write_octave])
def test_samples_are_read_when_they_are_needed(layout: str, writer: Any, tmp_path: Path, large: list[int]) -> None:
    given_ = channels(30, SMALL, slots=2 if layout == "npz" else 1)
    given_.downlink[[3, 17]] = 0
    with np.errstate(invalid="ignore"):
        arrays = LAYOUTS[layout].encode(given_, SMALL)
    if layout == "csinet":
        arrays["HT"][[3, 17]] = 0.5
    whole, found = both(writer(tmp_path / "large.mat", arrays))
    assert (len(found), found.slots, found.paired, found.skipped) == (28, whole.slots, whole.paired, 2)
    assert max(large) == 2
    for rows in ([0], [5, 6, 7], [27, 0, 3, 27, 16], []):
        large.clear()
        assert_same(found.take(np.array(rows, int)), whole.take(np.array(rows, int)))
        assert max(large) == max(1, len(set(rows)))


def test_a_large_pair_of_files(data: Path, public: dict[str, NDArray[Any]], large: list[int]) -> None:
    write_73(data / "DATA_Htestin.mat", {"HT": public["HT"]})
    write_h5py(data / "DATA_HtestFin_all.mat", {"HF_all": public["HF_all"]})
    text, error = "file:test=DATA_Htestin.mat", 0.02 * normal(40, 1, 32, 32)
    found = outcomes(text, error)
    assert -1 not in large
    reading.WHOLE_BYTES = 2**30
    world_module._load.cache_clear()
    expected = outcomes(text, error)
    assert -1 in large
    assert np.array_equal(found.measured, expected.measured)
    large.clear()
    reading.WHOLE_BYTES = 0
    write_h5py(data / "DATA_HtestFin_all.mat", {"HF_all": public["HF_all"][::-1]})
    with pytest.raises(InvalidInput, match="HF_all: HT explains"):
        Scenario.parse(text).check_here()


@pytest.mark.parametrize("case", [case for case, (arrays, _) in MALFORMED.items() if plain(arrays)])
def test_large_files_are_refused_as_others(case: str, tmp_path: Path, large: list[int]) -> None:
    arrays, says = MALFORMED[case]
    path = write_73(tmp_path / "bad.mat", arrays)
    found, expected = refusal(path, read=reading.open_channels), refusal(path)
    assert says in found
    assert re.findall("in sample .*", found) == re.findall("in sample .*", expected)


def test_spatial_channel_is_that_of_the_middle_subcarrier(data: Path, make_samples: MakeSamples) -> None:
    downlink = numbered(data / "x.npz", 20, slots=2)
    found = world("test=x.npz", slots=2).spatial(make_samples(5), Link.DOWNLINK, torch.arange(2)).numpy()
    full = np.zeros((5, 2, 9, 4), np.complex128)
    full[:, :, [0, 1, 2, 8]] = downlink[:5]
    spatial = np.fft.ifft(np.fft.ifftshift(np.fft.fft(full, axis=2), axes=3), axis=3)  # [N, slot, subcarrier, antenna]
    spatial /= np.sqrt((np.abs(spatial) ** 2).mean(axis=(1, 2, 3), keepdims=True))  # over frame, band and antennas
    assert np.abs(found - spatial[:, :, 4]).max() < 1e-5


@pytest.mark.parametrize("link", list(Link))
def test_spatial_channel_has_unit_power(link: Link, data: Path, make_samples: MakeSamples) -> None:
    images = 1e-4 * normal(4000, 1, 4, 4)
    np.savez(data / "x.npz", downlink=images, uplink=3 * images)
    power = world("test=x.npz").spatial(make_samples(4000), link, torch.arange(1)).abs().square().mean(0)
    assert (power - 1).abs().max() < 5 * 4000**-0.5


def test_text_reads_back(data: Path) -> None:
    numbered(data / "a-b_c.1.npz", 20)
    scenario = world("file=a-b_c.1.npz")
    assert Scenario.parse(str(scenario)) == scenario
    pinned = scenario.pinned()
    own = hashlib.sha256((data / "a-b_c.1.npz").read_bytes()).hexdigest()[:16]
    expected = hashlib.sha256(own.encode()).hexdigest()[:16]
    assert str(pinned) == f"{scenario},sha256={expected}"
    assert Scenario.parse(str(pinned)) == pinned
    assert pinned.pinned() == pinned
    pinned.check_here()
    scenario.check_here()
    assert Scenario.parse("multipath-p2").pinned() == Scenario.parse("multipath-p2")


def test_pinned_to_all_files(data: Path) -> None:
    for name in "abc":
        numbered(data / f"{name}.npz", 10 + ord(name))
    texts = ("train=a.npz,test=b.npz", "train=b.npz,test=a.npz", "train=a.npz,test=c.npz", "file=a.npz,test=b.npz")
    assert len({world(text).pinned().sha256 for text in texts}) == 3  # which split it is for is said anyway
    pinned = world("train=a.npz,test=b.npz").pinned()
    numbered(data / "a.npz", 12)
    with pytest.raises(Conflict, match="sha256"):
        pinned.check_here()


def test_a_changed_file_is_noticed(data: Path, make_samples: MakeSamples) -> None:
    numbered(data / "x.npz", 30)
    loose = world("test=x.npz")
    pinned = loose.pinned()
    before = pinned.angular_delay(make_samples(3), Link.DOWNLINK, torch.arange(1))
    changed = numbered(data / "x.npz", 31)
    os.utime(data / "x.npz", ns=(1, 1))  # file systems' clocks may tick slowly
    found = loose.pinned().sha256
    assert found != pinned.sha256
    for action in (
        pinned.check_here,
        lambda: pinned.angular_delay(make_samples(3), Link.DOWNLINK, torch.arange(1)),
    ):
        with pytest.raises(Conflict, match=f"sha256: {pinned.sha256}; the files here have {found}"):
            action()
    after = loose.angular_delay(make_samples(3), Link.DOWNLINK, torch.arange(1))
    assert np.array_equal(after.numpy(), changed[:3])
    assert not torch.equal(after, before)


@pytest.mark.parametrize("field", ["file", "train", "validation", "test"])
@pytest.mark.parametrize(
    "name",
    [
        *("../x.npz", "/etc/x.npz", "..", ".x.npz", "x.txt", "x", "x.npz\n", "a\\x.npz", "~.npz", " x.npz"),
        *("a/../x.npz", "a/../../x.npz", "a//x.npz", "a/./x.npz", "a/.x.npz", "./x.npz", "a/", "x.npz/", "a/ x.npz"),
        *("x\0.npz", "a\tb.npz", "x\u2028.npz", "\udcff.npz", "x" * 252 + ".npz", "é" * 126 + ".npz"),
    ],
)
def test_only_names_of_files_in_the_folder(field: str, name: str) -> None:
    with pytest.raises(InvalidInput, match=f"(?s)scenario {field}: .* is not the name of a .mat or .npz file"):
        Scenario.parse(f"file:{field}={name}")


@pytest.mark.parametrize("name", ["my data.npz", "été 室内.npz", "a/b c/x.npz", "a=b:c;%20#?.npz", "-x.npz", "(1).npz"])
def test_names_with_spaces_other_letters_and_folders(name: str, data: Path, make_samples: MakeSamples) -> None:
    (data / name).parent.mkdir(parents=True, exist_ok=True)
    downlink = numbered(data / name, 20)
    pinned = Scenario.parse(str(world(f"test={name}").pinned()))
    assert isinstance(pinned, DataFile)
    pinned.check_here()
    images = pinned.angular_delay(make_samples(3), Link.DOWNLINK, torch.arange(1))
    assert np.array_equal(images.numpy(), downlink[:3])


def test_a_comma_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match=r"scenario file: 'a,b\.npz' is not .* without comma"):
        DataFile(file="a,b.npz")
    for text in ("file=a,b.npz", "file=a.npz,b.npz,slots=1"):
        with pytest.raises(InvalidInput, match=r"field 'b\.npz' is unknown \(a comma always begins another field\)"):
            Scenario.parse(f"file:{text}")


@given(name=st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("/.,\\ =:"), max_size=30))
def test_any_name_that_is_taken_reads_back(name: str) -> None:
    with contextlib.suppress(InvalidInput):
        scenario = DataFile(file=f"{name}.mat", test="x.npz", axes="c")
        assert Scenario.parse(str(scenario)) == scenario
        assert not Path(scenario.file).is_absolute()
        assert ".." not in Path(scenario.file).parts


def test_links_stay_within_the_folder(data: Path, tmp_path: Path) -> None:
    numbered(tmp_path / "outside.npz", 20)
    numbered(data / "x.npz", 20)
    (data / "within.npz").symlink_to("x.npz")
    (data / "out.npz").symlink_to(tmp_path / "outside.npz")
    (data / "folder").symlink_to(tmp_path)
    world("file=within.npz").check_here()
    for name in ("out.npz", "folder/outside.npz"):
        for action in (world(f"file={name}").check_here, world(f"file={name}").pinned):
            with pytest.raises(InvalidInput, match=f"'{name}' is a link out of {data}, the folder CSIEMU_DATA"):
                action()


def test_the_folder_itself_may_be_a_link(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbered(data / "x.npz", 20)
    (tmp_path / "link").symlink_to(data)
    monkeypatch.setenv("CSIEMU_DATA", str(tmp_path / "link"))
    world("file=x.npz").check_here()


def test_file_that_is_not_here(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for action in (world("file=x.npz").check_here, world("file=x.npz").pinned):
        with pytest.raises(NotFound, match=rf"'x\.npz' is not in {data}, the folder CSIEMU_DATA"):
            action()
    monkeypatch.delenv("CSIEMU_DATA")
    monkeypatch.chdir(data.parent)
    numbered(data / "x.npz", 20)
    world("file=x.npz").check_here()  # without the variable: `data`


@pytest.mark.parametrize("text", ["file", "file-dualnet", "file:subcarriers=64"])
def test_no_file_named(text: str) -> None:
    for action in (Scenario.parse(text).check_here, Scenario.parse(text).pinned):
        with pytest.raises(InvalidInput, match="scenario file: empty"):
            action()


def test_malformed_file_is_named(data: Path) -> None:
    numbered(data / "x.npz", 20)
    with pytest.raises(
        CsiError, match=r"x\.npz: downlink: shape \[20, 1, 4, 4\]; wanted \[sample, 1, 32, 32\] complex"
    ):
        Scenario.parse("file:file=x.npz").check_here()
