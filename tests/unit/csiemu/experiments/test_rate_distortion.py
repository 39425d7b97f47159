from __future__ import annotations

import csv
import dataclasses
import math
import sys
from pathlib import Path

import pytest
import torch

from csiemu.experiments.rate_distortion import __main__ as rate_distortion
from csiemu.experiments.rate_distortion import coders, measuring
from csiemu.experiments.rate_distortion.bound import of_a_mixture, reverse_water_filling
from csiemu.experiments.rate_distortion.report import GAUSSIAN, MIXTURE
from csiemu.experiments.rate_distortion.worlds import WORLDS, World
from shared.channels.scenario import Scenario
from shared.checkpoints import CheckpointStore
from shared.conditions import RunConditions
from shared.link.evaluation import evaluate
from tests.conftest import IMAGES


def test_water_fills_the_strong_components_alone() -> None:
    variances = torch.tensor([4.0, 1.0, 0.0], dtype=torch.float64)
    assert reverse_water_filling(variances, 0) == (1.0, 1)
    assert reverse_water_filling(variances, 1) == pytest.approx((3 / 5, 1))  # 4 / 2 and the 1 that gets no bits
    share, active = reverse_water_filling(variances, 4)  # level 1/2: 3 bits and 1
    assert (share, active) == pytest.approx((1 / 5, 2))


def test_a_bit_a_component_is_worth_three_decibels() -> None:
    share, active = reverse_water_filling(torch.ones(8, dtype=torch.float64), 24)
    assert active == 8
    assert 10 * math.log10(share) == pytest.approx(-30 * math.log10(2))


def test_a_mixture_of_one_kind_is_a_gaussian() -> None:
    variances = torch.tensor([[4.0, 1.0, 0.5]], dtype=torch.float64)
    one, nothing = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for bits in (1, 3, 7):
        wanted = reverse_water_filling(variances[0], bits)[0]
        assert of_a_mixture(variances, nothing, one, bits) == pytest.approx(wanted)
    assert of_a_mixture(variances, 4.5 * one, one, 3) == pytest.approx((4.5 + 5.5 * wanted_at(variances, 3)) / 10)
    two = of_a_mixture(variances.repeat(2, 1), nothing.repeat(2), one.repeat(2) / 2, 4)
    assert two == pytest.approx(wanted_at(variances, 3))  # a bit goes to the label


def wanted_at(variances: torch.Tensor, bits: float) -> float:
    return reverse_water_filling(variances[0], bits)[0]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> World:
    """The world of the small store's images in place of all, measured with little."""
    monkeypatch.setattr("csiemu.training.schemes.transform.TransformTraining.measured_frames", 256)
    monkeypatch.setattr(measuring, "SECONDS", 0.001)
    rates = (40, 100)
    monkeypatch.setattr(coders, "RATES", rates)
    monkeypatch.setattr(rate_distortion, "RATES", rates)
    monkeypatch.setattr(rate_distortion, "BOUND_BITS", rates)
    world = dataclasses.replace(WORLDS["indoor"], scenario=IMAGES)
    monkeypatch.setattr(rate_distortion, "WORLDS", {"small": world})
    return world


def test_all_that_runs_on_a_scenario_is_measured_and_written(
    small: World, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    line = [
        "rate_distortion",
        f"--out={tmp_path}",
        "--ues=32",
        f"--checkpoints={small_store.root}",
        f"--state={tmp_path / 'state'}",
    ]
    monkeypatch.setattr(sys, "argv", line)
    rate_distortion.main()
    with (tmp_path / "rate-distortion-small.csv").open() as file:
        rows = list(csv.DictReader(file))
    measured = {row["name"]: row for row in rows if row["kind"] == "measured"}
    networks = [name for name in measured if not name.startswith(("transform", "Type I", "eType II", "gmtc"))]
    assert networks == ["crnet/1"]  # the store's others are for other worlds
    *steps, capped = (measured[name] for name in measured if name.startswith("gmtc"))
    assert (capped["name"], capped["series"]) == ("gmtc/1, at most 100", "gmtc, at most")
    assert 80 < float(capped["bits"]) <= 100
    assert all(float(row["bits"]) <= 110 and int(row["bits_p5"]) < int(row["bits_p95"]) for row in steps)
    state = tmp_path / "state" / "small-32.jsonl"
    points = state.read_text()
    assert len(points.splitlines()) == len(measured)
    before = (tmp_path / "rate-distortion-small.csv").read_text()
    rate_distortion.main()
    assert (state.read_text(), (tmp_path / "rate-distortion-small.csv").read_text()) == (points, before)
    assert measured["transform, 40"]["bits"] == "40"
    assert float(measured["transform, 100"]["nmse_db"]) < float(measured["transform, 40"]["nmse_db"])
    assert {row["series"] for row in rows if row["kind"] == "published"} == {"QCRNet", "CsiCoGen"}
    assert {row["series"] for row in rows if row["kind"] == "bound"} == {GAUSSIAN, MIXTURE}
    for row in (row for row in rows if row["series"] == GAUSSIAN):
        assert float(row["nmse_db"]) < float(measured[f"transform, {row['bits']}"]["nmse_db"])
    scheme = small_store.load("crnet").scheme
    card = evaluate(scheme, RunConditions(Scenario.parse(IMAGES)), ues=32)
    assert float(measured["crnet/1"]["nmse_db"]) == pytest.approx(card["nmse_db"], abs=1e-3)
    assert float(measured["crnet/1"]["nmse_2se_db"]) == pytest.approx(2 * card["nmse_se_db"], rel=1e-3)
    text = (tmp_path / "rate-distortion-small.md").read_text()
    assert "--scenario small --ues 32" in text
    assert text.count("\n| crnet/1 | ") == 1
    assert (tmp_path / "rate-distortion-small.png").stat().st_size > 10_000
