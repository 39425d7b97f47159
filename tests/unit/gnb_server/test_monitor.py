"""Windows that hold some, all and none of the reports, by a clock that stands where the test puts it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from gnb_server.aging import no_reports
from gnb_server.monitor import BUCKET_S, LONGEST_WINDOW_S, Monitor, ue_row
from gnb_server.sessions import Fleet, Lease, VersionFacts
from shared.channels.scenario import Scenario
from shared.conditions import RunConditions
from shared.link.air import Fates
from shared.link.rate import Lengths
from shared.metrics import COLUMNS, MEASURED, Outcomes
from shared.rate_watch import RateWatch
from tests.unit.gnb_server.sending import Clock

SLOTS, BITS, ENCODER = 2, 20, "ab" * 8


def outcomes(ratio: float, frames: int) -> Outcomes:
    """[frames, SLOTS] of one ratio."""
    measured = np.ones((len(MEASURED), frames, SLOTS))
    measured[0] = ratio
    measured[3:] = 0.5
    return Outcomes.of(measured)


class Run:
    """A monitored fleet whose chunks come when the clock says; each is one frame of all its UEs."""

    def __init__(self, ues: int = 4) -> None:
        self.clock = Clock()
        self.monitor = Monitor(self.clock)
        conditions = RunConditions(Scenario.parse(f"multipath-p2:slots={SLOTS}"))
        self.fleet = Fleet(Lease("t", "rnn", conditions, 0, ues), ENCODER)
        self.fleet.facts[1] = VersionFacts(ENCODER, BITS, "spatial")
        self.monitor.watch(self.fleet)
        self.ues = ues

    def chunk(self, ratio: float, latency_ms: float = 5.0, bits: int = BITS) -> None:
        found = outcomes(ratio, self.ues)
        sums = np.concatenate([found.moments().sum(axis=0), found.frame_moments().sum(axis=0)[None]])
        totals = self.fleet.totals_of(1)
        totals.sums[:, :-1] += found.moments()
        totals.sums[:, -1] += found.frame_moments()
        totals.wire_bytes += 3.0
        totals.feedback_bits += bits
        totals.lengths.update(lengths := Lengths({bits: self.ues * SLOTS}))
        self.fleet.version[:] = 1
        wire_bytes, delays = 3.0 * self.ues * SLOTS, {"queue_ms": latency_ms / 5, "ages_ms": {1: 10 * latency_ms}}
        aged = np.array([self.ues, 8 * self.ues, 16 * ratio * self.ues, 4 * self.ues])
        totals.aged += aged
        self.monitor.add(
            self.fleet.lease, ENCODER, 1, sums, wire_bytes, lengths, Fates(), latency_ms, 1, **delays, aged=aged
        )

    def row(self, window_s: float | None) -> dict[str, Any]:
        rows, overall = self.monitor.figures(window_s)
        assert len(rows) == 1
        assert overall["reports"] == rows[0]["reports"]
        for name in ("latency_ms", "queue_ms", "age_ms"):
            assert overall[name] == rows[0][name]
        return rows[0]


@pytest.fixture
def run() -> Run:
    """A chunk of -10 dB at 1000 s, one of -20 dB at 1100 s; it is 1104 s."""
    made = Run()
    made.chunk(0.1, latency_ms=100.0)
    made.clock.now = 1100.0
    made.chunk(0.01)
    made.clock.now = 1104.0
    return made


def test_a_window_that_holds_all(run: Run) -> None:
    for window in (None, 105.0, 600.0):
        row = run.row(window)
        assert row["reports"] == 16
        assert row["nmse_db"] == pytest.approx(10 * np.log10(0.055))
        assert row["frames"] == 8
        assert row["wire_bytes_total"] == 48.0
        assert row["latency_ms"]["mean"] == pytest.approx(52.5)
        assert row["reports_per_s"] == pytest.approx(16 / 104)


def test_a_window_that_holds_some(run: Run) -> None:
    row = run.row(10.0)
    assert row["reports"] == 8
    assert row["nmse_db"] == pytest.approx(-20)
    assert [slot["reports"] for slot in row["by_slot"]] == [4, 4]
    assert row["wire_bytes_total"] == 24.0
    assert row["latency_ms"]["mean"] == pytest.approx(5.0)
    assert row["reports_per_s"] == pytest.approx(8 / 4)
    assert row["saturated_scales"] == 2  # since the gNB started, whatever the window
    assert row["decoder_versions"] == {"1": 16}  # since the run's start


def test_a_window_that_holds_none(run: Run) -> None:
    row = run.row(3.0)
    assert (row["reports"], row["nmse_db"], row["wire_bytes"], row["reports_per_s"]) == (0, None, None, 0)
    assert row["latency_ms"] == {"mean": None, "p50": None, "p99": None}
    assert run.row(None)["reports"] == 16


def test_the_window_moves_on_without_new_reports(run: Run) -> None:
    assert run.row(10.0)["reports"] == 8
    run.clock.now = 1111.0
    assert run.row(10.0)["reports"] == 0


def test_buckets_older_than_the_longest_window_are_dropped(run: Run) -> None:
    run.clock.now = 1000.0 + LONGEST_WINDOW_S + 1
    run.chunk(0.01)
    assert run.row(LONGEST_WINDOW_S)["reports"] == 16
    assert run.row(None)["reports"] == 24
    group = next(iter(run.monitor._groups.values()))
    assert [bucket.started for bucket in group.buckets] == [1100.0, run.clock.now]


def test_what_comes_within_a_bucket_is_kept_together(run: Run) -> None:
    for _ in range(1000):
        run.clock.now += BUCKET_S / 1000
        run.chunk(0.01)
    assert len(next(iter(run.monitor._groups.values())).buckets) <= 4


def kept(run: Run, ages: dict[int, float]) -> list[dict[str, Any]]:
    """Rows of the store, by sequence and how long ago they came."""
    measured = {"error": 0.1, "power": 1.0, "total": 1.0, "sgcs": 0.5, "rho": 0.6, "feedback_bits": BITS}
    return [
        {"sequence": s, "version": 1, "received_at": run.clock.now - age, "latency_ms": 5.0, **measured}
        for s, age in ages.items()
    ]


@pytest.mark.parametrize(("window", "reports", "frames"), [(20.0, 4, 2), (10.0, 3, 1), (5.0, 1, 0), (1.0, 0, 0)])
def test_the_window_of_one_ue(run: Run, window: float, reports: int, frames: int) -> None:
    rows = kept(run, {0: 12.0, 1: 9.0, 2: 8.0, 3: 2.0})
    row = ue_row(run.fleet, 0, rows, window, run.clock)
    assert (row["reports"], row["frames"]) == (reports, frames)
    assert row["nmse_db"] == (pytest.approx(-10) if reports else None)


def test_one_ue_in_total(run: Run) -> None:
    row = ue_row(run.fleet, 0, [], None, run.clock)
    assert (row["reports"], row["frames"], row["wire_bytes"]) == (4, 2, 3.0)


def test_fleets_that_have_detached_are_one_sum() -> None:
    """The figures are those of before; what is held does not grow with the number of such fleets."""
    run = Run()
    run.chunk(0.1)
    run.fleet.status = "attached"
    for number in range(20):
        other = Fleet(Lease(f"other {number}", "rnn", run.fleet.lease.conditions, 0, run.ues), ENCODER)
        other.facts, other.totals, other.version = run.fleet.facts, run.fleet.totals, run.fleet.version
        run.monitor.watch(other)
    before = run.monitor.figures(None)
    for number in range(20):
        run.monitor.fold(run.monitor._fleets[f"other {number}"])
        rows, overall = run.monitor.figures(None)
        assert (rows, overall) == before
    assert before[1]["reports"] == 21 * 8
    assert (before[1]["ues"], before[1]["ues_attached"]) == (21 * 4, 4)
    assert list(run.monitor._fleets) == ["t"]
    assert len(run.monitor._detached) == 1
    assert run.monitor.figures(None, "another")[1]["ues"] == 0


def test_rows_keep_their_places(run: Run) -> None:
    """Whoever detaches first."""
    conditions = run.fleet.lease.conditions
    fleets = [run.fleet]
    for seed in (3, 1, 2):
        lease = dataclasses.replace(
            run.fleet.lease, token=f"{seed}", conditions=dataclasses.replace(conditions, seed=seed)
        )
        fleets.append(Fleet(lease, ENCODER))
        fleets[-1].facts = run.fleet.facts
        run.monitor.watch(fleets[-1])
    for fleet in (fleets[3], fleets[0], fleets[1]):
        run.monitor.fold(fleet)
        assert [row["seed"] for row in run.monitor.figures(None)[0]] == [0, 3, 1, 2]


def test_buckets_of_conditions_that_nobody_has_any_more_are_dropped(run: Run) -> None:
    first = next(iter(run.monitor._groups.values()))
    lease = dataclasses.replace(run.fleet.lease, conditions=dataclasses.replace(run.fleet.lease.conditions, seed=7))
    run.clock.now += LONGEST_WINDOW_S + 1
    sums, rest = np.zeros((SLOTS + 1, len(COLUMNS))), {"queue_ms": 1.0, "ages_ms": {}, "aged": no_reports()}
    run.monitor.add(lease, ENCODER, 1, sums, 3.0, Lengths(), Fates(), 5.0, 0, **rest)
    assert not first.buckets
    assert len(run.monitor._in_order) == 1


def test_feedback_bits_are_a_distribution(run: Run) -> None:
    run.clock.now += 5
    run.chunk(0.1, bits=BITS + 100)
    row, recent = run.row(None), run.row(3.0)
    assert row["feedback_bits"] == pytest.approx(BITS + 100 / 3)
    assert [row[f"feedback_bits_{name}"] for name in ("p5", "p95", "most")] == [BITS, BITS + 100, BITS + 100]
    assert row["feedback_bits_total"] == 24 * BITS + 800
    assert [kept["reports"] for kept in row["feedback_bits_histogram"]] == [16, 8]
    assert recent["feedback_bits"] == recent["feedback_bits_p5"] == BITS + 100


def test_delays_and_aged_figures_of_all_and_of_a_window(run: Run) -> None:
    """Ages are those of the second slot alone: what is not said of the first does not count."""
    whole, recent = run.row(None), run.row(10.0)
    assert (whole["queue_ms"]["mean"], recent["queue_ms"]["mean"]) == (pytest.approx(10.5), pytest.approx(1.0))
    assert (whole["age_ms"]["mean"], recent["age_ms"]["mean"]) == (pytest.approx(525), pytest.approx(50))
    assert (whole["aged_reports"], recent["aged_reports"]) == (8, 4)
    assert whole["aged_nmse_db"] == pytest.approx(10 * np.log10(0.11))
    assert recent["aged_nmse_db"] == pytest.approx(10 * np.log10(0.02))
    assert whole["aged_sgcs"] == pytest.approx(0.5)
    none = run.row(3.0)
    assert (none["aged_reports"], none["aged_nmse_db"], none["aged_sgcs"]) == (0, None, None)


def with_rate(run: Run, token: str, per_s: float | None, held: bool | None, ues: int = 4) -> None:
    """Another fleet of the same conditions, with a stream."""
    fleet = Fleet(Lease(token, "rnn", run.fleet.lease.conditions, 100, ues), ENCODER)
    fleet.facts, fleet.status = run.fleet.facts, "attached"
    fleet.version[:] = 1
    if per_s is not None:
        fleet.offered_per_s, fleet.watch = per_s, RateWatch(ues * per_s, ues, run.clock)
        fleet.watch.held = held
    run.monitor.watch(fleet)


@pytest.mark.parametrize(
    ("fleets", "offered", "held"),
    [
        ([], None, None),
        ([(None, None)], None, None),
        ([(20.0, None)], 80.0, None),
        ([(20.0, True), (None, None), (5.0, None)], 100.0, True),
        ([(20.0, True), (5.0, False), (5.0, True)], 120.0, False),
    ],
)
def test_what_is_asked_for_is_that_of_fleets_with_a_stream(
    run: Run, fleets: list[tuple[float | None, bool | None]], offered: float | None, held: bool | None
) -> None:
    for number, (per_s, is_held) in enumerate(fleets):
        with_rate(run, f"other {number}", per_s, is_held)
    row, overall = run.row(None), run.monitor.figures(None)[1]
    assert (row["offered_reports_per_s"], row["rate_held"]) == (offered, held)
    assert (overall["offered_reports_per_s"], overall["rate_held"]) == (offered, held)
    for fleet in list(run.monitor._fleets.values()):
        fleet.status = "gone"
    assert (run.row(None)["offered_reports_per_s"], run.row(None)["rate_held"]) == (None, None)
