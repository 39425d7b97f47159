"""Places of results, checked before the work."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.writable import why_no_file, why_no_folder


def test_places_that_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.json").write_text("kept")
    before = (tmp_path / "old.json").stat().st_mtime_ns
    for file in (tmp_path / "new.json", tmp_path / "a" / "b" / "new.json", tmp_path / "old.json", Path("x.json")):
        assert why_no_file(file) is None
    assert why_no_file(Path("/dev/stdout")) is None
    for folder in (tmp_path, tmp_path / "a" / "b", Path("a")):
        assert why_no_folder(folder) is None
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]
    assert ((tmp_path / "old.json").read_text(), (tmp_path / "old.json").stat().st_mtime_ns) == ("kept", before)


def test_places_that_will_not(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert why_no_file(tmp_path) == "is a folder; wanted a file"
    for ask in (why_no_file, why_no_folder):
        assert ask(tmp_path / "file" / "x") == f"cannot be written: {tmp_path / 'file'} is not a folder"
        assert str(ask(Path("/proc/x/y"))).startswith("cannot be written: /proc: ")  # also for root
    assert str(why_no_folder(tmp_path / "file")).endswith("is not a folder")
    assert str(why_no_file(Path("/proc/version"))).startswith("cannot be written: ")
    assert str(why_no_file(tmp_path / ("x" * 300) / "y")).startswith("cannot be written: ")
