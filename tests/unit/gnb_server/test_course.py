"""A run's figures over a sliding window, from snapshots whose sums are known."""

from __future__ import annotations

from typing import Any

import pytest

from gnb_server.course import course
from shared.metrics import COLUMNS


def row(
    scheme: str, reports: int, ratio: float, dropped: int = 0, version: int | None = 1, air: str | None = ""
) -> dict[str, Any]:
    """Of a monitor's snapshot: so many reports, the sum of whose ratios is known."""
    sums = dict.fromkeys(COLUMNS, float(reports)) | {"ratio": ratio}
    named = {"scheme": scheme, "version": version, "encoder_id": "ab" * 8, "preset": "multipath-p2", "air": air}
    return named | {"dropped": dropped, "reports": list(sums.values()), "frames": list(sums.values())}


SNAPSHOTS = [
    (100.0, [row("rnn", 0, 0.0)]),
    (101.0, [row("rnn", 10, 1.0)]),
    (102.0, [row("rnn", 20, 1.1), row("dldnn", 4, 4.0)]),
    (110.0, [row("rnn", 20, 1.1), row("dldnn", 4, 4.0), row("rnn", 0, 0.0, dropped=16, version=None)]),
]


def test_a_window_is_what_came_in_during_it() -> None:
    found = course(SNAPSHOTS, window_s=1.0)
    assert found["times"] == [101.0, 102.0, 110.0]
    assert found["reports_per_s"] == [10.0, 14.0, 0.0]
    assert found["dropped_per_s"] == [0.0, 0.0, 2.0]
    dldnn, rnn = found["series"]
    assert (rnn["scheme"], rnn["version"], rnn["preset"]) == ("rnn", 1, "multipath-p2")
    assert rnn["nmse_db"] == [pytest.approx(-10.0), pytest.approx(-20.0), None]
    assert dldnn["nmse_db"] == [None, pytest.approx(0.0), None]
    assert dldnn["reports"] == [None, 4, None]


def test_a_longer_window_slides() -> None:
    (_, rnn) = course(SNAPSHOTS, window_s=2.0)["series"]
    assert rnn["reports"] == [10, 20, None]


def test_only_what_was_later() -> None:
    found = course(SNAPSHOTS, window_s=1.0, since=101.0)
    assert found["times"] == [102.0, 110.0]
    assert [series["reports"] for series in found["series"]] == [[4, None], [10, None]]


@pytest.mark.parametrize("snapshots", [[], SNAPSHOTS[:1]])
def test_a_run_that_has_just_begun(snapshots: Any) -> None:
    assert course(snapshots, window_s=1.0) == {"times": [], "reports_per_s": [], "dropped_per_s": [], "series": []}


def test_airs_are_apart() -> None:
    snapshots = [
        (100.0, [row("rnn", 10, 1.0)]),
        (101.0, [row("rnn", 14, 1.4), row("rnn", 6, 6.0, air="loss=1.0"), row("rnn", 3, 0.03, air=None)]),
    ]
    found = course(snapshots, window_s=1.0)["series"]
    assert {series["air"]: (series["reports"], series["nmse_db"]) for series in found} == {
        "": ([4], [pytest.approx(-10)]),
        "loss=1.0": ([6], [pytest.approx(0)]),
        None: ([3], [pytest.approx(-20)]),
    }


def test_nothing_is_said_where_another_process_tells_other_airs_apart() -> None:
    """Else all that came before over the air that is told apart now would count as new."""
    snapshots = [
        (100.0, [row("rnn", 10, 1.0, air=None), row("dldnn", 4, 4.0)]),
        (101.0, [row("rnn", 6, 0.6, air=None), row("rnn", 8, 8.0, air="loss=1.0"), row("dldnn", 8, 8.0)]),
    ]
    found = course(snapshots, window_s=1.0)
    assert [series["scheme"] for series in found["series"]] == ["dldnn"]
    assert found["reports_per_s"] == [4.0]
