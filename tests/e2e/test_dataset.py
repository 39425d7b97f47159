"""`csiemu dataset generate` and `inspect`: killed and taken up again, refusals, what the files hold."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from e2e_tools import wait_for

from csiemu import cli
from csiemu.dataset import generate, inspect
from shared.channels.files import reading
from shared.channels.files.layouts import LAYOUTS, Shape
from shared.channels.scenario import Link, Scenario
from shared.channels.streams import Samples, Split
from shared.channels.wideband import Wideband

PRESET = "cost2100-indoor-csinet"
SMALL = f"{PRESET}:antennas=8,first_rows=8,subcarriers=32"
Run = Callable[..., tuple[int, str, str]]


def flags(options: dict[str, Any]) -> list[str]:
    """As on the command line."""
    return [f"--{key.replace('_', '-')}" + ("" if value is True else f"={value}") for key, value in options.items()]


@pytest.fixture
def csiemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`csiemu dataset COMMAND [ARGUMENTS] --options`: exit code, stdout, stderr. The jobs are done without workers."""

    def work(jobs: list[Any], workers: int) -> Iterator[int]:
        for job in jobs:
            generate.make_shard(*job)
            yield job[2]

    monkeypatch.setattr(generate, "_work", work)
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: object, **options: object) -> tuple[int, str, str]:
        line = ["csiemu", "dataset", name, *map(str, arguments), *flags(options)]
        monkeypatch.setattr(sys, "argv", line)
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        code = caught.value.code
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    return run


def made(csiemu: Run, out: str, **options: object) -> dict[str, Any]:
    """The arrays of a file made in the current folder."""
    code, printed, errors = csiemu("generate", out=out, **{"preset": PRESET, "count": 30, **options})
    assert (code, errors) == (0, "")
    assert out in printed
    if out.endswith(".npz"):
        return dict(np.load(out))
    return {key: value for key, value in scipy.io.loadmat(out).items() if not key.startswith("__")}


def assert_is_of(path: Path, preset: str, seed: int, count: int) -> None:
    """The .mat file of layout csinet holds the first samples of the split `train`."""
    world = Scenario.parse(preset)
    assert isinstance(world, Wideband)
    _, found = reading.read(path, Shape(world.first_rows, world.last_rows, world.antennas))
    ue = torch.arange(count)
    samples = Samples(seed, Split.TRAIN, ue, torch.zeros_like(ue))
    expected = world.angular_delay(samples, Link.DOWNLINK, torch.arange(1)).numpy()
    largest = np.abs(expected).max(axis=(2, 3), keepdims=True)
    assert (np.abs(found.downlink - expected) / largest).max() < 1e-4


def test_mat_and_its_sidecar(csiemu: Run, tmp_path: Path) -> None:
    arrays = made(csiemu, "sub/x.mat", seed=9, split="train", frequency=True, first=0)
    assert_is_of(tmp_path / "sub" / "x.mat", PRESET, seed=9, count=30)
    assert {key: (value.shape, value.dtype.name) for key, value in arrays.items()} == {
        "HF_all": ((30, 4000), "complex64"),
        "HT": ((30, 2048), "float32"),
        "scale": ((30, 1), "float32"),
    }
    world, ue = Scenario.parse(PRESET), torch.arange(30)
    assert isinstance(world, Wideband)
    samples = Samples(9, Split.TRAIN, ue, torch.zeros_like(ue))
    full = world.angular_delay(samples, Link.DOWNLINK, torch.arange(1), full=True)[:, 0].numpy()
    frequency = np.fft.fft(full, axis=1)[:, :125].transpose(0, 2, 1).reshape(30, -1) / arrays["scale"]
    assert np.abs(arrays["HF_all"] - frequency).max() < 1e-4 * np.abs(frequency).max()
    sidecar = json.loads((tmp_path / "sub" / "x.json").read_text())
    decibels = sidecar.pop("scale_db")
    assert decibels["least"] == pytest.approx(20 * np.log10(arrays["scale"].min()), abs=1e-4)
    assert decibels["largest"] == pytest.approx(20 * np.log10(arrays["scale"].max()), abs=1e-4)
    assert sidecar.pop("made_by").startswith("csi-feedback-emulator ")
    assert sidecar == {
        "format": 1,
        "file": "x.mat",
        "scenario": PRESET,
        "layout": "csinet",
        "frequency": True,
        "seed": 9,
        "split": "train",
        "first": 0,
        "count": 30,
        "shard": 2000,
        "arrays": {
            "HF_all": {"shape": [30, 4000], "dtype": "complex64"},
            "HT": {"shape": [30, 2048], "dtype": "float32"},
            "scale": {"shape": [30, 1], "dtype": "float32"},
        },
    }
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == ["x.json", "x.mat"]


def test_npz_holds_all_slots_of_both_links(csiemu: Run, tmp_path: Path) -> None:
    preset = f"{SMALL},slots=3"
    arrays = made(csiemu, "x.npz", preset=preset, count=10, shard=4, split="test")
    world = Scenario.parse(preset)
    assert isinstance(world, Wideband)
    ue = torch.arange(10)
    samples = Samples(0, Split.TEST, ue, torch.zeros_like(ue))
    for key, link in (("downlink", Link.DOWNLINK), ("uplink", Link.UPLINK)):
        expected = world.angular_delay(samples, link, torch.arange(3)).numpy()
        assert arrays[key].shape == (10, 3, 8, 8)
        assert np.abs(arrays[key] - expected).max() < 1e-5 * np.abs(expected).max()
    assert json.loads((tmp_path / "x.json").read_text())["scale_db"] is None


@pytest.mark.parametrize("layout", ["dualnet-outdoor", "dualnet-indoor"])
def test_dualnet_files(layout: str, csiemu: Run, tmp_path: Path) -> None:
    preset = f"{SMALL},first_rows=5,last_rows=3"
    arrays = made(csiemu, "x.mat", preset=preset, count=10, layout=layout)
    same = made(csiemu, "y.npz", preset=preset, count=10)
    assert set(arrays) == set(LAYOUTS[layout].keys)
    found, channels = reading.read(tmp_path / "x.mat", Shape(5, 3, 8))
    assert found.name == layout
    assert np.array_equal(channels.downlink, same["downlink"])
    assert channels.uplink is not None
    assert np.array_equal(channels.uplink, same["uplink"])


def test_first_goes_on_with_the_numbering(csiemu: Run) -> None:
    one = made(csiemu, "one.npz", count=60, shard=30)
    two = [made(csiemu, f"two-{first}.npz", first=first, shard=30) for first in (0, 30)]
    for key, whole in one.items():
        assert np.array_equal(np.concatenate([part[key] for part in two]), whole)


def test_what_changes_the_samples(csiemu: Run) -> None:
    settings: list[dict[str, object]] = [{}, {"seed": 1}, {"seed": 2**64 - 1}, {"first": 12}]
    settings += [{"split": split} for split in ("validation", "test", "emulate")]
    files = [made(csiemu, f"{i}.npz", preset=SMALL, count=12, **chosen) for i, chosen in enumerate(settings)]
    samples = np.concatenate([file["downlink"].reshape(12, -1) for file in files])
    unit = samples / np.linalg.norm(samples, axis=1, keepdims=True)
    assert len(np.unique(unit.round(3), axis=0)) == len(samples)  # no sample is in two files
    again = made(csiemu, "again.npz", preset=SMALL, count=12, split="train", seed=0)
    assert all(np.array_equal(again[key], files[0][key]) for key in again)


def test_other_settings_on_top_of_begun_parts(csiemu: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(jobs: list[Any], workers: int) -> Iterator[int]:
        generate.make_shard(*jobs[0])
        yield jobs[0][2]
        raise KeyboardInterrupt

    common: dict[str, object] = {"preset": SMALL, "out": "x.mat", "count": 30, "shard": 10}
    with monkeypatch.context() as patch:
        patch.setattr(generate, "_work", stopped)
        assert csiemu("generate", **common)[0] == 130
    for change in ({"seed": 1}, {"count": 31}, {"shard": 11}, {"split": "test"}, {"first": 1}, {"preset": PRESET}):
        code, _, errors = csiemu("generate", **{**common, **change})
        assert code == 2
        assert "was begun with other settings" in errors
    assert list(shards_in(tmp_path / "x.mat.parts")) == ["000000"]
    assert csiemu("generate", **common, workers=3)[0] == 0
    undisturbed = made(csiemu, "y.mat", preset=SMALL, shard=10)
    assert np.array_equal(scipy.io.loadmat("x.mat")["HT"], undisturbed["HT"])
    assert (tmp_path / "x.mat").read_bytes() == (tmp_path / "y.mat").read_bytes()


def test_nothing_is_overwritten(csiemu: Run, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("precious")
    code, _, errors = csiemu("generate", preset=SMALL, count=1, out="x.npz")
    assert (code, errors) == (2, "csiemu: out: x.json exists; remove it first\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json"]
    made(csiemu, "y.npz", preset=SMALL)
    code, _, errors = csiemu("generate", preset=SMALL, count=1, out="y.mat")
    assert (code, errors) == (2, "csiemu: out: y.json exists; remove it first\n")
    before = (tmp_path / "y.json").read_text()
    code, _, errors = csiemu("inspect", "y.npz", json="y.json")
    assert (code, "y.json is the file's sidecar" in errors) == (2, True)
    assert (tmp_path / "y.json").read_text() == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"preset": "moon"}, "scenario: 'moon' is unknown; presets are cost2100-indoor"),
        ({"preset": "multipath-p2"}, "preset: a data file needs a wideband world"),
        ({"preset": f"{PRESET}:colour=3"}, "field 'colour' is unknown"),
        ({"preset": f"{PRESET}:subcarriers=16"}, "first_rows, last_rows: 32 + 0; wanted 1 to 16"),
        ({"preset": "file:file=absent.mat"}, "'absent.mat' is not in"),
        ({"out": "x.csv"}, "out: 'x.csv' ends in neither .mat nor .npz"),
        ({"out": "x"}, "out: 'x' ends in neither"),
        ({"layout": "npz"}, "layout: npz does not go into a .mat file"),
        ({"layout": "csinet", "out": "x.npz"}, "layout: csinet does not go into a .npz file"),
        ({"layout": "dualnet-indoor", "out": "x.npz"}, "layout: dualnet-indoor does not go"),
        ({"layout": "crnet"}, "layout: 'crnet': Input should be 'csinet', 'dualnet-outdoor'"),
        ({"frequency": True, "out": "x.npz"}, "frequency: the npz layout has no HF_all"),
        ({"frequency": True, "layout": "dualnet-outdoor"}, "frequency: the dualnet-outdoor layout has no HF_all"),
        ({"frequency": True, "preset": SMALL}, "frequency: 32 subcarriers; users of HF_all take it to be of 257"),
        ({"preset": f"{SMALL},slots=2"}, "slots: 2; the csinet layout has 1"),
        ({"count": 0}, "count: '0': Input should be greater than or equal to 1"),
        ({"count": "many"}, "count: 'many'"),
        ({"count": 10**8}, "a .mat file takes 262136 samples of HT"),
        ({"first": 2**32 - 1, "count": 2}, "first, count: 4294967295 + 2 is beyond sample 2^32 - 1"),
        ({"seed": -1}, "seed: '-1'"),
        ({"seed": 2**64}, "seed: '18446744073709551616'"),
        ({"split": "cell"}, "split: 'cell'"),
        ({"workers": 0}, "workers: '0'"),
    ],
)
def test_refused_with_one_line(options: dict[str, object], says: str, csiemu: Run, tmp_path: Path) -> None:
    code, printed, errors = csiemu("generate", **{"preset": PRESET, "count": 3, "out": "x.mat", **options})
    assert (code, printed) == (2, "")
    assert errors.startswith("csiemu: ")
    assert errors.count("\n") == 1
    assert says in errors
    assert not list(tmp_path.iterdir())


# --- killed and taken up again, in processes of their own ---

WHOLE: dict[str, object] = {"preset": PRESET, "count": 400, "shard": 2, "seed": 4, "frequency": True}


def command(out: Path, workers: int) -> list[str]:
    options = {**WHOLE, "workers": workers, "out": out}
    return [sys.executable, "-m", "csiemu", "dataset", "generate", *flags(options)]


def shards_in(parts: Path) -> dict[str, int]:
    """What is there, and since when."""
    return {path.name: path.stat().st_mtime_ns for path in parts.glob("[0-9]*[0-9]")}


def children(pid: int) -> int:
    return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def broken(out: Path, how: signal.Signals, *, workers: int, shards: int) -> tuple[int, str]:
    """Start it, stop it once that many shards are there (0: when its workers start); exit code and stderr, when all
    its processes are gone."""
    parts = out.with_name(out.name + ".parts")
    with subprocess.Popen(
        command(out, workers),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell has its background ignore it
    ) as process:
        wait_for(lambda: process.poll() is not None or len(shards_in(parts)) >= shards)
        wait_for(lambda: process.poll() is not None or children(process.pid) > workers)  # and a tracker of resources
        time.sleep(0.3)
        if how is signal.SIGINT:
            os.killpg(process.pid, how)  # as a terminal does
        else:
            process.kill()
        errors = process.communicate(timeout=60)[1]  # until the last worker has closed the pipe
    assert sorted(path.name for path in out.parent.iterdir()) == [parts.name]
    assert shards <= len(shards_in(parts)) < 200
    return process.returncode, errors


def test_killed_twice_and_the_same_command_again(csiemu: Run, tmp_path: Path) -> None:
    """Byte-identical to an undisturbed run, whatever the number of workers."""
    made(csiemu, "whole/x.mat", **WHOLE)
    whole, again = tmp_path / "whole" / "x.mat", tmp_path / "again" / "x.mat"
    parts = again.with_name("x.mat.parts")
    assert broken(again, signal.SIGINT, workers=2, shards=0) == (130, "")
    first = shards_in(parts)
    assert broken(again, signal.SIGKILL, workers=1, shards=len(first) + 2)[0] == -signal.SIGKILL
    second = shards_in(parts)
    assert first.items() < second.items()  # what was done was not done again
    (parts / "000199.partial").mkdir(exist_ok=True)  # one that was being written
    finished = subprocess.run(command(again, 1), check=True, capture_output=True, text=True)
    assert "400 samples of cost2100-indoor-csinet" in finished.stdout
    assert again.read_bytes() == whole.read_bytes()
    assert again.with_suffix(".json").read_text() == whole.with_suffix(".json").read_text()
    assert sorted(path.name for path in again.parent.iterdir()) == ["x.json", "x.mat"]


# --- inspect ---


def assert_picture(path: Path) -> None:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.endswith(b"IEND\xaeB`\x82")
    assert len(content) > 20_000
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    assert min(width, height) > 500


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take seconds."""
    monkeypatch.setattr(inspect, "draw", lambda *_: None)


def test_inspect(csiemu: Run, tmp_path: Path) -> None:
    made(csiemu, "x.mat", preset=SMALL, count=40, seed=2)
    code, printed, errors = csiemu("inspect", "x.mat", json="found.json", plot="look.png")
    assert (code, errors) == (0, "")
    found = json.loads((tmp_path / "found.json").read_text())
    image = reading.read(tmp_path / "x.mat", Shape(8, 0, 8))[1].downlink[:, 0].astype(np.complex128)
    power = (np.abs(image) ** 2).reshape(40, -1)
    decibels = 10 * np.log10(power.sum(axis=1))
    share = power / power.sum(axis=1, keepdims=True)
    strongest = -np.sort(-share, axis=1)
    flat = image.reshape(40, -1) / np.linalg.norm(image.reshape(40, -1), axis=1, keepdims=True)
    assert {name: found.pop(name) for name in ("file", "layout", "made_from")} == {
        "file": "x.mat",
        "layout": "csinet",
        "made_from": SMALL.replace("antennas=8,first_rows=8,subcarriers=32", "antennas=8,subcarriers=32,first_rows=8"),
    }
    assert found == pytest.approx(
        {
            "samples": 40,
            "zero_samples_skipped": 0,
            "slots": 1,
            "delay_rows": 8,
            "angles": 8,
            "power_db_mean": decibels.mean(),
            "power_db_sd": decibels.std(),
            "effective_entries": (1 / (share**2).sum(axis=1)).mean(),
            "mean_delay_row": (share.reshape(40, 8, 8).sum(axis=2) @ np.arange(8)).mean(),
            "entries_for_90_percent": np.median((strongest.cumsum(axis=1) < 0.9).sum(axis=1) + 1),
            "strongest_entry_share": strongest[:, 0].mean(),
            "correlation_of_neighbours": np.abs((flat[:-1].conj() * flat[1:]).sum(axis=1)).mean(),
        },
        rel=1e-4,
    )
    for name in found:
        assert name in printed
    assert "drawn: look.png" in printed
    assert_picture(tmp_path / "look.png")


def test_inspect_both_links(csiemu: Run, tmp_path: Path) -> None:
    made(csiemu, "x.npz", preset=f"{SMALL},slots=2,first_rows=5,last_rows=3", count=20)
    code, printed, _ = csiemu("inspect", "x.npz", json="found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert code == 0
    assert (found["layout"], found["slots"], found["delay_rows"]) == ("npz", 2, 8)
    assert "uplink_magnitude_correlation_of_others" in printed
    assert found["uplink_magnitude_correlation"] > found["uplink_magnitude_correlation_of_others"] > 0
    assert 0 < found["uplink_correlation"] < 1
    assert_picture(tmp_path / "x.png")


@pytest.mark.usefixtures("no_pictures")
def test_inspect_a_file_of_others(csiemu: Run, tmp_path: Path) -> None:
    """No sidecar, or a JSON file that is none: the sizes are the options'."""
    parts = np.random.default_rng(0).random((1, 2 * 6 * 5))
    scipy.io.savemat(tmp_path / "DATA_Htestin.mat", {"HT": parts})
    for sidecar in (None, "[1, 2]", "not JSON", '{"scenario": "a desert"}'):
        if sidecar is not None:
            (tmp_path / "DATA_Htestin.json").write_text(sidecar)
        options = {"first_rows": 4, "last_rows": 2, "antennas": 5, "json": "found.json"}
        assert csiemu("inspect", "DATA_Htestin.mat", **options)[0] == 0
        found = json.loads((tmp_path / "found.json").read_text())
        assert (found["samples"], found["delay_rows"], found["made_from"]) == (1, 6, None)
        assert found["correlation_of_neighbours"] is None


def test_inspect_samples_of_one_largest_magnitude(csiemu: Run, tmp_path: Path) -> None:
    """As in the public files, but for rounding."""
    draw = np.random.default_rng(0)
    image = draw.normal(size=(50, 64)) + 1j * draw.normal(size=(50, 64))
    image *= 0.5 / np.abs(image).max(axis=1, keepdims=True)
    parts = np.concatenate([image.real, image.imag], axis=1).astype(np.float32) + np.float32(0.5)
    scipy.io.savemat(tmp_path / "DATA_Htestin.mat", {"HT": parts})
    code, _, errors = csiemu("inspect", "DATA_Htestin.mat", first_rows=8, last_rows=0, antennas=8, plot="look.png")
    assert (code, errors) == (0, "")
    assert (tmp_path / "look.png").stat().st_size > 1000


def test_inspect_malformed_files(csiemu: Run, tmp_path: Path) -> None:
    images = np.ones((3, 32, 32), np.complex64)
    scipy.io.savemat(tmp_path / "nan.mat", {"H_dl": images, "H_ul": images * np.nan})
    scipy.io.savemat(tmp_path / "size.mat", {"HT": np.ones((3, 2000))})
    (tmp_path / "text.mat").write_text("text\n" * 300)
    (tmp_path / "empty.npz").touch()
    for name, says in (
        (
            "nan.mat",
            "nan.mat: H_ul: NaN or infinite values; wanted [sample, 32, 32] complex numbers, all finite;"
            " first in sample 0",
        ),
        ("size.mat", "size.mat: HT: shape [3, 2000]; wanted [sample, 2048] real numbers"),
        ("text.mat", "text.mat: not a readable .mat or .npz file"),
        ("empty.npz", "empty.npz: not a readable .mat or .npz file"),
        ("absent.mat", "data file: absent.mat does not exist"),
    ):
        code, printed, errors = csiemu("inspect", name)
        assert (code, printed, errors) == (2, "", f"csiemu: {says}\n")
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.usefixtures("no_pictures")
def test_inspect_hdf5_of_another_writer(csiemu: Run, tmp_path: Path) -> None:
    """As many samples as it has numbers: only its writer knows which are which."""
    parts = np.random.default_rng(0).random((60, 2 * 6 * 5))
    with h5py.File(tmp_path / "x.mat", "w") as file:
        file["HT"] = parts
    options = {"first_rows": 6, "antennas": 5, "json": "found.json"}
    code, printed, errors = csiemu("inspect", "x.mat", **options)
    assert (code, printed, errors.count("\n")) == (2, "", 1)
    assert errors.startswith("csiemu: x.mat: HT: shape [60, 60] fits both orders of axes")
    found = []
    for axes in ("c", "matlab"):
        assert csiemu("inspect", "x.mat", axes=axes, **options)[0] == 0
        found.append(json.loads((tmp_path / "found.json").read_text())["power_db_mean"])
    for power, samples in zip(found, (parts, parts.T), strict=True):
        assert power == pytest.approx((10 * np.log10(((samples - 0.5) ** 2).sum(axis=1))).mean(), rel=1e-4)
    code, _, errors = csiemu("inspect", "x.mat", axes="fortran", **options)
    assert (code, "axes: 'fortran': Input should be 'auto', 'matlab' or 'c'" in errors) == (2, True)


@pytest.mark.usefixtures("no_pictures")
def test_inspect_counts_zero_samples(csiemu: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = np.random.default_rng(0).random((20, 2 * 6 * 5))
    parts[3] = 0.5
    scipy.io.savemat(tmp_path / "x.mat", {"HT": parts})
    assert csiemu("inspect", "x.mat", first_rows=6, antennas=5, json="found.json")[0] == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["samples"], found["zero_samples_skipped"]) == (19, 1)
    assert "x.mat: zero samples skipped: 1; 19 are left" in caplog.messages


@pytest.mark.usefixtures("no_pictures")
def test_a_file_of_ours_as_a_world_again(csiemu: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into another layout: the samples of the split, pinned to the file's hash."""
    first = made(csiemu, "x.npz", preset=f"{SMALL},first_rows=4,last_rows=4", count=20)
    monkeypatch.setenv("CSIEMU_DATA", str(tmp_path))
    preset = "file:antennas=8,subcarriers=32,first_rows=4,last_rows=4,test=x.npz"
    arrays = made(csiemu, "y.mat", preset=preset, split="test", count=20, layout="dualnet-indoor")
    assert np.array_equal(np.roll(arrays["Hur_down_t1"], -4, axis=1), first["downlink"][:, 0])
    assert json.loads((tmp_path / "y.json").read_text())["scenario"] == str(Scenario.parse(preset).pinned())
    code, printed, _ = csiemu("inspect", "y.mat")
    assert (code, "sha256=" in printed) == (0, True)
