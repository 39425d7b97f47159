"""Figures 3 and 4 and the protocol of DualNet-MP, at a size that takes seconds."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from csiemu.experiments.dualnet_mp import arms, figure_3, figure_4, measures, protocol
from csiemu.experiments.grid import Arm, Budget, main
from csiemu.training.run import build
from shared.checkpoints import CheckpointStore
from shared.metrics import Outcomes


@pytest.mark.parametrize(("made", "known"), [(figure_3.METHODS, 16), (figure_4.ARMS, 12)])
def test_arms_of_a_figure_have_names_and_stages_of_their_own(made: list[Arm], known: int) -> None:
    assert len({arm.name for arm in made}) == known
    for arm in made:
        assert arm.frozen_from is not None
        assert Budget(1.0, {}, 5).recipe(arm).stage == "phase"
        assert Budget(1.0, {}, 5).recipe(arm.frozen_from).stage == "magnitude"
        assert Budget(1.0, {}, 5).recipe(arm).steps == 1000 * 250


def test_methods_send_as_many_phase_bits() -> None:
    """1.25 and 0.625 bits a phase entry (section IV.A, footnote 4); MDPQ as the paper lists it has fewer."""
    for compression, wanted in ((8, 1280), (16, 640)):
        for method in ("smape", "mdpp", "mse0", "mdpq"):
            arm = arms.phase((), "indoor", arms.magnitude((), "indoor"), **arms.equal_bits(method, compression))
            bits = build(arm.design, 1).layout.bits - 8 - 256 * 8
            assert bits == wanted if method != "mdpq" else bits < wanted


def test_magnitudes_outdoors_are_trained_more_slowly() -> None:
    """They explode at the recipe's rate; another one can be asked for all the same."""
    rates = [Budget(1.0, {}, 5000).recipe(arms.magnitude((), world)).rate for world in ("indoor", "outdoor")]
    assert rates == [3e-4, 1e-4]
    assert Budget(1.0, {"rate": 5e-5}, 5000).recipe(arms.magnitude((), "outdoor")).rate == 5e-5


def test_released_configuration_sends_as_many_phase_bits_as_the_released_code() -> None:
    """3.0 bits a phase entry at 1/8 and 2.0 at 1/16, beside perfect magnitudes."""
    found = [build(arm.design, 1).layout.bits - 8 - 1024 * 32 for arm in figure_3.RELEASED]
    assert found == [3072, 3072, 2048, 2048]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    world = "cost2100-indoor-5g1-5g3:antennas=8,first_rows=8,last_rows=8"
    monkeypatch.setitem(arms.SCENARIOS, "indoor", world)
    monkeypatch.setattr(protocol, "FRAMES", 400)
    monkeypatch.setattr(protocol, "UES", 64)
    monkeypatch.setattr("csiemu.training.schemes.SchemeTraining.measured_frames", 256)


@pytest.mark.usefixtures("small")
def test_protocol_compares_what_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(only: str) -> list[list[str]]:
        monkeypatch.setattr(sys, "argv", ["protocol", "--epochs", "1", "--out", str(tmp_path), "--only", only])
        protocol.main()
        text = (tmp_path / "table.md").read_text()
        assert text in capsys.readouterr().out
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]

    rows = run("smape-8-0-25-seed-1")
    assert [row[0] for row in rows if " to " in row[-1]] == [
        "SMAPE, C-CNN, SSQ",
        "CNN",
        "DNN",
        "SMAPE without combining network",
        "with uplink",
    ]
    again = run("magnitude-indoor-none-seed-1")
    assert [row for row in again if row[0] in ("SMAPE, C-CNN, SSQ", "CNN", "DNN")] == [
        row for row in rows if row[0] in ("SMAPE, C-CNN, SSQ", "CNN", "DNN")
    ]
    assert [row[0] for row in again].count("without") == 1
    assert [row[0] for row in run("magnitude-indoor-32-none-seed-1")].count("without") == 2


@pytest.mark.usefixtures("small")
def test_table_has_the_published_average_beside_eq_16(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arm = arms.phase(
        ("as released",), "indoor", None, -19.8, epochs=400, magnitude_quantizer="perfect", layers="released"
    )
    options = ["--share", "0.0025", "--frames", "400", "--ues", "64", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["figure", *options])
    main("Figure 9: tiny", ("method",), [arm], measures.FIGURES)
    folder = tmp_path / "share-0.0025-frames-400"
    lines = (folder / "figure-9" / "table.md").read_text().splitlines()
    head, row = ([cell.strip() for cell in line.strip("|").split("|")] for line in (lines[4], lines[-1]))
    cells = dict(zip(head, row, strict=True))
    assert cells["feedback bits"] == f"{8 + 128 * 32 + 128 + 32:,}"
    assert cells["paper (dB)"] == "-19.80"
    found = measures.outcomes(CheckpointStore(folder).load(arm.name))
    assert float(cells["eq. 16 (dB)"]) == pytest.approx(10 * np.log10(found.ratio_sf.mean()), abs=0.01)
    average = measures.authors_decibels(found).mean()
    assert float(cells["released code's average (dB)"]) == pytest.approx(average, abs=0.01)


def test_released_average_of_known_norms() -> None:
    """||H|| = 3, ||e|| = 1 and r = 1: 20 log10(2 / 4); without a remainder, 20 log10(1 / 3)."""
    found = Outcomes.of(np.array([[1.0, 1.0], [9.0, 9.0], [10.0, 9.0], [1.0, 1.0], [1.0, 1.0]]))
    assert measures.authors_decibels(found) == pytest.approx([-6.0206, -9.5424], abs=1e-4)


def test_intervals_hold_the_difference_as_often_as_they_say() -> None:
    """Pairs of UEs whose errors differ by 1 dB on average, more or less each."""
    draw, held = np.random.default_rng(1), 0
    for _ in range(60):
        reference = draw.lognormal(size=200)
        low, high = protocol.interval(reference * 10**0.1 * draw.uniform(0.8, 1.2, size=200), reference)
        held += low <= 1.0 <= high
    assert held >= 50
    same = protocol.interval(reference, reference)
    assert same == (0.0, 0.0)


def test_arms_are_compared_over_the_seeds_that_both_have() -> None:
    """Seed 2 is 10 dB harder; an arm that lacks it is not better for it."""
    ones = np.ones(50)
    found = {"first": {1: ones, 2: 10 * ones}, "half": {1: 2 * ones}, "other": {3: ones}}
    rows = protocol.table(found, dict.fromkeys(found, 8))[2:]
    assert rows == [
        "| first | 8 | 0.00, 10.00 | +0.00 | +0.00 to +0.00 |",
        "| half | 8 | 3.01 | +3.01 | +3.01 to +3.01 |",
        "| other | 8 | 0.00 |  |  |",
    ]
