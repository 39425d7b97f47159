"""Where a training finds checkpoints, and where it writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from csiemu.training import job
from csiemu.training.job import TrainingJob
from shared.checkpoints import CheckpointStore, default_checkpoints, shipped_checkpoints
from shared.errors import InvalidInput, NotFound

Asked = dict[str, Any]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What the training would be called with."""
    found: Asked = {}
    monkeypatch.setattr(job, "train", lambda *names, **arguments: found.update(arguments))
    return found


@pytest.fixture
def package(small_store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoints that come with csiemu are small ones, in a source tree."""
    link = tmp_path / "shipped"
    link.symlink_to(small_store.root)
    monkeypatch.setattr(job, "shipped_checkpoints", lambda: link)
    return link


def run(**options: Any) -> None:
    TrainingJob("rnn", save_as="mine", **options).run(lambda progress: None)


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.delenv("CSIEMU_CHECKPOINTS", raising=False)
    assert default_checkpoints() == shipped_checkpoints() == TrainingJob("rnn").checkpoints
    assert shipped_checkpoints().resolve() == root / "checkpoints"
    monkeypatch.setenv("CSIEMU_CHECKPOINTS", "")
    assert default_checkpoints() == shipped_checkpoints()
    monkeypatch.setenv("CSIEMU_CHECKPOINTS", "/some/where")
    assert default_checkpoints() == Path("/some/where") == TrainingJob("rnn").checkpoints
    assert shipped_checkpoints().resolve() == root / "checkpoints"


def test_a_source_tree_is_written_to_and_an_installed_package_is_not(asked: Asked, package: Path) -> None:
    run(checkpoints=package)
    assert asked["store"].root == package
    root = package.resolve()
    package.unlink()
    package.mkdir()
    asked.clear()
    with pytest.raises(InvalidInput, match=r"belongs to the installed package.*--checkpoints or CSIEMU_CHECKPOINTS"):
        run(checkpoints=package)
    assert not asked
    run(checkpoints=root)
    assert asked["store"].root == root


def test_sources_of_the_folder_go_before_those_that_come_with_csiemu(
    asked: Asked, package: Path, small_store: CheckpointStore, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(small_store.root / "hyperrnn" / "3", folder / "rnn" / "1")  # to know it by
    card = json.loads((folder / "rnn" / "1" / "card.json").read_text()) | {"name": "rnn", "version": 1}
    (folder / "rnn" / "1" / "card.json").write_text(json.dumps(card))
    run(checkpoints=folder, start_from="rnn", frozen_from="dldnn", pilots_from="hyperrnn/2")
    assert asked["store"].root == folder
    names = {name: asked[name] and asked[name].card["name"] for name in asked if name.endswith("_from")}
    assert names == {
        "start_from": "rnn",
        "frozen_from": "dldnn",
        "pilots_from": "hyperrnn",
        "freeze_encoder_from": None,
    }
    assert asked["start_from"].card["scheme"] == "hyperrnn"
    assert asked["pilots_from"].card["version"] == 2


def test_a_source_that_is_nowhere(asked: Asked, package: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="'nonsense' is unknown; there are crnet, "):
        run(checkpoints=tmp_path / "mine", start_from="nonsense")
    assert not asked
