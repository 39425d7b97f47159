from __future__ import annotations

import numpy as np
import pytest
import torch

from csiemu.experiments.monitoring import CASES, CONTROL, LONG, Row, counted, first_alarm, harmed, share, text
from gnb_server.monitoring.indicators import NAMES, WINDOW
from gnb_server.monitoring.windows import Windows
from shared.channels.scenario import Scenario
from tests.unit.conftest import MakeScheme

J = len(NAMES)
USUAL = np.tile([[0.0], [1.0], [1000.0]], J)


def values(frames: int, shift: float = 0.0) -> np.ndarray:
    """Of which all but `norm` are as usual."""
    found = np.random.default_rng(0).normal(0, 1, (J, frames))
    found[NAMES.index("norm")] += shift
    found[NAMES.index("target"), np.arange(frames) % 5 > 0] = np.nan
    return found


def test_windows_are_counted() -> None:
    """Of 1,000 frames: five windows of `norm`, four of `target`, and four rows in which both end."""
    found = counted(USUAL, WINDOW, values(1000, 5.0))
    assert found[NAMES.index("norm")].tolist() == [5, 5]
    assert found[NAMES.index("target")].tolist()[1] == 4
    assert found[-1].tolist() == [4, 4]
    assert share([found, counted(USUAL, WINDOW, values(1000))])[NAMES.index("norm")] == 0.5
    assert counted(USUAL, LONG, values(1000, 5.0))[-1].tolist() == [1, 1]


@pytest.mark.parametrize(("before", "expected"), [(1, 198), (150, 49), (199, 0)])
def test_an_alarm_comes_with_the_end_of_its_window(before: int, expected: int) -> None:
    """A change so great that one bad frame in a window is enough."""
    healthy, bad = values(before), values(1000, 1000.0)
    assert first_alarm(Windows(USUAL, 1e-3), healthy, bad) == expected


def test_no_alarm() -> None:
    assert first_alarm(Windows(USUAL, 1e-9), values(100), values(900)) is None


def test_harm_is_the_decoders_alone(make_scheme: MakeScheme) -> None:
    scheme = make_scheme("hyperrnn", "multipath-p2:antennas=8")
    other = harmed(scheme, 0.1)
    pairs = zip(scheme.encoder.parameters(), other.encoder.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    pairs = zip(scheme.decoder.parameters(), other.decoder.parameters(), strict=True)
    assert not all(torch.equal(mine, theirs) for mine, theirs in pairs)


def test_cases_are_of_scenarios_that_there_are() -> None:
    for cases in CASES.values():
        assert cases[0] == CONTROL
        for case in cases:
            assert not case.scenario or Scenario.parse(case.scenario)


def test_table() -> None:
    detected = np.array([*np.linspace(0, 1, J), 1.0])
    detected[1] = np.nan
    rows = {"nothing": Row(-9.0, -9.1, detected, 0.5, [], 2), "all": Row(1.0, -9.1, detected, 1.0, [100, 200], 2)}
    lines = text({"crnet": rows}, 2, 1000).splitlines()
    assert "`csiemu experiment monitoring --only crnet --seeds 2 --frames 1000`" in lines[2]
    first, second = lines[8:10]
    assert first.startswith("| `crnet` | nothing | -9.00, -9.10 | 0% | - |")
    assert first.endswith("| 100% | 100% | 50% | - (0/2) |")
    assert second.endswith("| 150 (2/2) |")
