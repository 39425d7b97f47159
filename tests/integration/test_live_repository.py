"""Checkpoints that come and go while the gNB runs: shown as they are, and nothing that is loaded takes notice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.checkpoints import CheckpointStore


@pytest.fixture
def root(tmp_path: Path, small_store: CheckpointStore) -> Path:
    """rnn/1 and hyperrnn/1..3, to change."""
    for name in ("rnn", "hyperrnn"):
        shutil.copytree(small_store.root / name, tmp_path / "store" / name)
    return tmp_path / "store"


@pytest.fixture
def gnb(start_gnb: Callable[..., Any], root: Path, small_store: CheckpointStore) -> Any:
    """Its UEs have their encoders from elsewhere."""
    found = start_gnb(checkpoints=root)
    found.checkpoints = small_store.root
    return found


def rows(gnb: Any) -> dict[str, tuple[str, str]]:
    """State and reason by name/version."""
    status, answer = gnb.call("/v2/repository/index", {})
    assert status == 200
    return {f"{row['name']}/{row['version']}": (row["state"], row["reason"]) for row in answer}


def load(gnb: Any, name: str, version: int) -> tuple[int, Any]:
    return gnb.call(f"/v2/repository/models/{name}/load", {"parameters": {"version": version}})


def ues_are_served(gnb: Any, scheme: str = "rnn") -> None:
    assert gnb.run_ues(scheme=scheme, ues=1, slots=8).counts.acked == 8


def test_a_version_that_is_copied_in(gnb: Any, root: Path, small_store: CheckpointStore) -> None:
    """File by file: said to be incomplete until it is complete, then loaded as if it had always been there."""
    ues_are_served(gnb)
    before = rows(gnb)
    whole, half = small_store.root / "dldnn" / "1", root / "dldnn" / "1"
    half.mkdir(parents=True)
    decoder = (whole / "decoder.safetensors").read_bytes()

    def state(says: str) -> None:
        found = rows(gnb)
        assert found.pop("dldnn/1")[0] == "UNAVAILABLE"
        assert says in rows(gnb)["dldnn/1"][1]
        assert found == before

    state("has no card.json")
    for length in (20, None):
        (half / "card.json").write_bytes((whole / "card.json").read_bytes()[:length])
        state("card.json cannot be read" if length else "decoder.safetensors is missing")
        assert load(gnb, "dldnn", 1)[0] == 422
    for length in (0, 1000, len(decoder) - 1):
        (half / "decoder.safetensors").write_bytes(decoder[:length])
        state("decoder.safetensors has not the sha256 that the card says")
        assert load(gnb, "dldnn", 1)[0] == 422
    ues_are_served(gnb)
    (half / "decoder.safetensors").write_bytes(decoder)
    state("encoder.safetensors is missing: UEs cannot fetch it")
    (half / "encoder.safetensors").write_bytes((whole / "encoder.safetensors").read_bytes()[:-1])
    state("encoder.safetensors has not the sha256 that the card says")
    (half / "encoder.safetensors").write_bytes((whole / "encoder.safetensors").read_bytes())
    state("not loaded")
    assert load(gnb, "dldnn", 1)[0] == 200
    assert rows(gnb) == {**before, "dldnn/1": ("READY", "serves new frames")}
    ues_are_served(gnb, "dldnn")


def test_files_of_what_is_loaded_that_go(gnb: Any, root: Path) -> None:
    ues_are_served(gnb)
    (root / "rnn" / "1" / "decoder.safetensors").write_bytes(b"nonsense")
    assert rows(gnb)["rnn/1"][1].startswith("serves new frames; on disk: decoder.safetensors has not the sha256")
    assert load(gnb, "rnn", 1)[0] == 422
    ues_are_served(gnb)
    shutil.rmtree(root / "rnn")
    assert rows(gnb)["rnn/1"] == ("READY", "serves new frames; on disk: has gone")
    status, answer = load(gnb, "rnn", 1)
    assert (status, "'rnn' is unknown" in answer["error"]) == (404, True)
    ues_are_served(gnb)
    assert gnb.call("/v2/models/rnn/ready")[0] == gnb.call("/v2/models/rnn/versions/1/ready")[0] == 200
    assert gnb.call("/v1/nmse?scheme=rnn")[1]["schemes"][0]["reports"] == 24
    assert gnb.call("/v2/repository/models/rnn/unload", {})[0] == 200
    assert "rnn/1" not in rows(gnb)
    assert gnb.call("/v2/models/rnn/ready")[0] == 404


def test_a_damaged_version_does_not_keep_ues_from_a_sound_one(gnb: Any, root: Path) -> None:
    """hyperrnn/1 would be loaded for them; hyperrnn/2 decodes for the same encoder."""
    (root / "hyperrnn" / "1" / "decoder.safetensors").write_bytes(b"half of it")
    ues_are_served(gnb, "hyperrnn")
    assert {key for key, (state, _) in rows(gnb).items() if state == "READY"} == {"hyperrnn/2"}


def test_a_card_that_disagrees_with_its_folder(gnb: Any, root: Path) -> None:
    shutil.copytree(root / "hyperrnn" / "3", root / "hyperrnn" / "9")
    shutil.copytree(root / "rnn" / "1", root / "mine" / "1")
    for place, says in (("hyperrnn/9", "is that of hyperrnn/3"), ("mine/1", "is that of rnn/1")):
        state, reason = rows(gnb)[place]
        assert (state, says in reason) == ("UNAVAILABLE", True)
        status, answer = load(gnb, *place.split("/"))
        assert (status, says in answer["error"]) == (422, True)
