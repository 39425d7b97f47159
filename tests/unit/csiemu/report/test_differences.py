"""Differences of two runs, and whether their standard errors are true."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from csiemu.report.compare import Settings, run
from csiemu.report.differences import FEWEST_UES, Comparison, Difference, compare_runs
from csiemu.report.page import comparison_page
from csiemu.report.reading import Run, read_run
from gnb_server.monitor import Monitor
from gnb_server.sessions import Fleet, Lease, VersionFacts
from tests.unit.csiemu.report.making import SLOTS, MadeRun, conditions, totals_of

Ratios = NDArray[np.float64]


def run_of(ratios: Ratios, first_ue: int = 0, **fields: Any) -> Run:
    """A run of one fleet, [ues, frames, SLOTS], in memory."""
    fleet, monitor = Fleet(Lease("t", "rnn", conditions(**fields), first_ue, len(ratios)), "ab" * 8), Monitor()
    fleet.facts[1] = VersionFacts("ab" * 8, 20, "spatial")
    fleet.version[:] = 1
    by_slot, frames = totals_of(ratios)
    fleet.totals_of(1).sums[:, :-1], fleet.totals_of(1).sums[:, -1] = by_slot.swapaxes(0, 1), frames
    fleet.totals_of(1).lengths[20] = ratios.size
    monitor.watch(fleet)
    return Run("run", "run", monitor.figures(None, by_version=True)[0], [fleet], [], [], [], [], None)


def world(generator: np.random.Generator, ues: int, frames: int) -> Ratios:
    """What all decoders make of these channels: frames differ, their slots hardly do."""
    return np.repeat(generator.exponential(0.1, (ues, frames, 1)), SLOTS, axis=2) + 0.01


@pytest.mark.parametrize(
    ("second", "ues", "paired"),
    [
        ({}, 30, True),
        ({"seed": 1}, 30, False),
        ({"first_ue": 1000}, 30, False),
        ({"first_ue": 10}, 30, True),
        ({}, FEWEST_UES - 4, False),
    ],
)
def test_standard_errors_are_true(second: dict[str, Any], ues: int, paired: bool) -> None:
    """The spread of differences over many pairs of runs is what each of them says, on average. Where channels are
    shared and are taken for independent, less.
    """
    generator, found, said = np.random.default_rng(0), [], []
    shared = max(0, ues - second.get("first_ue", 0)) if not second.get("seed") else 0
    for _ in range(400):
        channels = world(generator, ues, 5)
        others = np.concatenate([channels[ues - shared :], world(generator, ues - shared, 5)])
        noise = generator.uniform(0.8, 1.2, (2, ues, 5, SLOTS))
        (pair,) = compare_runs(run_of(channels * noise[0]), run_of(others * noise[1], **second)).pairs
        assert pair.nmse is not None
        assert bool(pair.nmse.paired) == bool(pair.sgcs.paired) == paired
        found.append((pair.nmse.value, pair.sgcs.value))
        said.append((pair.nmse.standard_error, pair.sgcs.standard_error))
    spread, expected = np.std(found, axis=0), np.sqrt(np.square(np.array(said, float)).mean(axis=0))
    if shared and not paired:
        assert (spread < 0.5 * expected).all()
    else:
        assert spread == pytest.approx(expected, rel=0.12)


def test_the_same_run_twice() -> None:
    made = run_of(world(np.random.default_rng(1), 20, 3))
    comparison = compare_runs(made, made)
    (pair,) = comparison.pairs
    assert pair.nmse == pair.sgcs == Difference(0.0, 0.0, 20)
    assert (comparison.only_first, comparison.only_second, comparison.settings) == ([], [], {})


def test_frames_of_another_number() -> None:
    """One run stopped early: means are of what each has."""
    channels = world(np.random.default_rng(2), 20, 6)
    (pair,) = compare_runs(run_of(channels), run_of(channels[:, :2])).pairs
    assert pair.nmse is not None
    assert pair.nmse.value == pytest.approx(10 * math.log10(channels[:, :2].mean() / channels.mean()))
    assert 0 < (pair.nmse.standard_error or 0) < math.hypot(pair.first["nmse_se_db"], pair.second["nmse_se_db"])


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    """rnn/1 in both; dldnn/1 with dldnn/2; crnet/1 and /2 with crnet/3, which could be any; hyperrnn in one alone."""
    generator = np.random.default_rng(3)
    runs = [MadeRun(tmp_path / name) for name in ("a", "b")]
    for made, rnn, crnet, dldnn in zip(runs, (20, 24), ((1, 2), (3,)), (1, 2), strict=True):
        made.decoded(world(generator, 4, 3), bits=rnn)
        made.decoded(world(generator, 4, 3), "dldnn", dldnn, first_ue=10)
        for version in crnet:
            made.decoded(world(generator, 4, 3), "crnet", version, first_ue=20)
    runs[0].decoded(world(generator, 4, 3), "etype2", first_ue=30, domain="precoder")
    runs[1].decoded(world(generator, 4, 3), "etype2", first_ue=40, domain="precoder")
    runs[1].decoded(world(generator, 4, 3), "hyperrnn", first_ue=30)
    runs[1].store.keep_process(200.0, {"machine": {"processor": "Q", "cores": 2}, "settings": {"a": 2, "b": None}})
    return compare_runs(*(read_run(str(tmp_path / name)) for name in ("a", "b")))


def test_what_belongs_together(comparison: Comparison) -> None:
    pairs = {(pair.first["scheme"], pair.first["version"], pair.second["version"]): pair for pair in comparison.pairs}
    assert pairs.keys() == {("rnn", 1, 1), ("dldnn", 1, 2), ("etype2", 1, 1)}
    assert pairs["rnn", 1, 1].bits == 4
    assert pairs["etype2", 1, 1].nmse is None
    assert {(row["scheme"], row["version"]) for row in comparison.only_first} == {("crnet", 1), ("crnet", 2)}
    assert {(row["scheme"], row["version"]) for row in comparison.only_second} == {("crnet", 3), ("hyperrnn", 1)}
    assert comparison.settings == {
        "a": (1, 2),
        "machine: processor": ("P", "Q"),
        "machine: csiemu": ("1", None),
    }


def test_page(comparison: Comparison) -> None:
    page = comparison_page(comparison)
    (pair,) = (pair for pair in comparison.pairs if pair.first["scheme"] == "rnn")
    assert pair.nmse is not None
    assert f"{pair.nmse.value:+.2f} ± {pair.nmse.standard_error:.2f}" in page
    assert "machine: processor" in page
    assert "Only in the second: crnet/3" in page
    assert page.count("<svg") == 1


def test_command(comparison: Comparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, json_file = tmp_path / "new" / "page.html", tmp_path / "new" / "page.json"
    line = [str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(out), "--json", str(json_file)]
    run(Settings(_cli_parse_args=line))
    printed = capsys.readouterr().out
    assert "only in the second: hyperrnn/1, NMSE" in printed
    assert "machine: processor" in printed
    assert "domain of etype2: precoder per subband" in printed
    assert out.read_text() == comparison_page(comparison)
    assert '"only_first"' in json_file.read_text()
