"""Figures of the HyperRNN paper: their grids, and the command at a budget of two steps."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from csiemu.experiments.hyperrnn import curves, figure_4, figure_5
from csiemu.training.run import build
from shared.channels.scenario import Scenario
from shared.checkpoints import CheckpointStore
from shared.schemes.pilots import PilotConfig


def test_grids_are_those_of_the_paper() -> None:
    of_4, of_5 = figure_4.FIGURE.points, figure_5.FIGURE.points
    learned = {point.curve for point in of_4 if point.trained}
    for reading in ("projected", "array"):
        assert {f"HyperRNN, {reading}, L_ul = {length}" for length in (1, 2, 4, 8)} <= learned
    assert "DL-DNN" in learned
    assert {point.x for point in of_4} == {5, 10, 15, 20, 25, 30}
    for point in of_4:
        world = Scenario.parse(point.design.scenario)
        assert (world.paths, world.fading_correlation, world.antennas, world.slots) == (8, 0.0, 64, 8)
        if point.design.scheme in ("hyperrnn", "dldnn", "pilot_lmmse", "hyperrnn_soft"):
            assert point.design.config.feedback_bits == point.x
    assert {point.x for point in of_5} == {2, 4, 8, 16}
    for point in of_5:
        world = Scenario.parse(point.design.scenario)
        assert (world.paths, world.fading_correlation) == (point.x, 0.99)
        assert point.design.config.downlink_pilots == 2
        assert point.design.config.feedback_bits in (0, 20)
    for points in (of_4, of_5):
        assert {point.design.scheme for point in points if not point.trained} == {
            "pilot_lmmse",
            "genie_lmmse",
            "uplink_only",
        }
        names = [(point.name(1), point.x) for point in points]
        assert len(set(names)) == len(names)


def test_soft_bits_are_counted_as_what_they_are() -> None:
    """B real numbers: no sign is taken on the way, and the report has 32 bits of each."""
    design = next(point.design for point in figure_4.FIGURE.points if point.curve.startswith("soft"))
    assert isinstance(design.config, PilotConfig)
    scheme = build(design, 1).eval()
    assert scheme.layout.bits == 32 * design.config.feedback_bits
    observation = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        sent = scheme.encoder(observation, 1.0)
        received = scheme.decoder.quantizer.decode(scheme.encoder.encode(observation))
    assert torch.equal(sent, received)
    assert ((sent > -1) & (sent < 1)).all()
    assert len(sent.unique()) > 5
    assert type(scheme.decoder).__name__ == "HyperRnnDecoder"


def test_what_is_missing_is_trained_and_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("csiemu.training.recipes.EPOCH", 16)
    monkeypatch.setattr(curves, "EPOCHS", 2)
    command = ["--batch", "8", "--ues", "24", "--reference-ues", "16", "--seeds", "1", "2", "--out", str(tmp_path)]
    command += ["--values", "5", "10", "--only", "HyperRNN, array, L_ul = 8", "DL-DNN", "genie"]
    monkeypatch.setattr(sys, "argv", ["figure_4.py", *command])
    curves.main(figure_4.FIGURE)
    printed = capsys.readouterr().out
    (folder,) = tmp_path.glob("*/figure_4")
    text = (folder / "table.md").read_text()
    assert (folder / "curves.png").stat().st_size > 10_000
    assert text in printed
    assert "Each training: 4 steps of 8 fresh frames" in text
    assert "Trained schemes: 24 frames" in text
    assert "References: 16 frames" in text
    store = CheckpointStore(folder.parent)
    assert len(store.names()) == 2 * (2 * 2 + 1)  # the genie has no say in B
    rows = {
        cells[1].strip(): cells[2:-1] for line in text.splitlines() if (cells := line.split("|"))[0] == "" and cells[1:]
    }
    assert set(rows) >= {"HyperRNN, array, L_ul = 8", "DL-DNN", "genie LMMSE, float32 pilots"}
    assert all("seeds ±" in cell for cell in rows["DL-DNN"])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/1/card.json")}
    curves.main(figure_4.FIGURE)  # nothing is missing
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/1/card.json")} == before


@pytest.mark.slow
def test_a_reduced_grid_has_the_papers_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """At a 200th of the authors' budget HyperRNN is below DL-DNN already, and both above what bounds them."""
    command = ["--share", "0.005", "--batch", "128", "--precision", "bf16", "--ues", "4000", "--reference-ues", "1000"]
    command += ["--values", "20", "--only", "HyperRNN, array, L_ul = 1", "DL-DNN", "genie", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["figure_4.py", *command, "--at-once", "2"])
    curves.main(figure_4.FIGURE)
    store = CheckpointStore(next(tmp_path.glob("share-*")))
    found = {}
    for name in store.names():
        row = curves.last_slot(store.load(name))
        found[name.split("-")[0]] = (row["ratio_of_sums_db"], row["ratio_of_sums_se_db"])
    (ours, error), (theirs, other) = found["hyperrnn"], found["dldnn"]
    assert ours < theirs - 3 * (error**2 + other**2) ** 0.5
    assert found["genie_lmmse"][0] < ours
