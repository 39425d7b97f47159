"""What a guard decides, and the roll-outs of a run in memory."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnb_server.additions import Increment
from gnb_server.comparison import Comparison, Difference
from gnb_server.rollouts import RATIO, Guard, Mode, Rollout, Rollouts
from gnb_server.sessions import Lease
from shared.channels.scenario import Scenario
from shared.conditions import RunConditions
from shared.errors import InvalidInput, NotFound
from shared.link.air import Air
from shared.metrics import COLUMNS

DB = st.floats(0, 100)
GUARDS = st.builds(Guard, DB, st.none() | DB, st.floats(0, 100), st.integers(2, 10**9))
FRAMES = st.integers(0, 10**9)
DIFFERENCES = st.builds(Difference, FRAMES, FRAMES, st.none(), st.none(), st.floats(-300, 300), st.floats(0, 300))


def state(guard: Guard, found: Difference) -> str:
    return guard.verdict(found)[0]


@given(guard=GUARDS, found=DIFFERENCES)
def test_nothing_is_decided_on_too_few_frames(guard: Guard, found: Difference) -> None:
    if min(found.frames_new, found.frames_old) < guard.frames:
        assert guard.verdict(found) == ("running", "")
    assert guard.verdict(Difference(10**9, 10**9)) == ("running", "")


@given(guard=GUARDS, difference=st.floats(-300, 300), worse=st.floats(0, 300), error=st.floats(0, 300))
def test_verdicts_follow_the_difference(guard: Guard, difference: float, worse: float, error: float) -> None:
    """One is reached at most; who is worse is not promoted where the better one was not, and aborted where it was."""
    order = ["promoted", "running", "aborted"]
    found = [Difference(10**9, 10**9, None, None, each, error) for each in (difference, difference + worse)]
    better, other = (order.index(state(guard, each)) for each in found)
    assert better <= other
    assert state(guard, found[0]) != "aborted" or difference > guard.worse_db
    assert state(guard, found[0]) != "promoted" or (guard.better_db is not None and difference < -guard.better_db)


@given(guard=GUARDS, difference=st.floats(-300, 300), error=st.floats(0, 300), more=st.floats(0, 300))
def test_who_is_less_sure_decides_no_more(guard: Guard, difference: float, error: float, more: float) -> None:
    sure, unsure = (Difference(10**9, 10**9, None, None, difference, e) for e in (error, error + more))
    assert state(guard, unsure) in ("running", state(guard, sure))


@pytest.mark.parametrize(
    ("difference", "error", "decided", "reason"),
    [
        (0.51, 0.1, "aborted", "guard: +0.51 ± 0.10 dB, worse than 0.2 dB by 3 standard errors"),
        (0.49, 0.1, "running", ""),
        (-0.11, 0.0, "promoted", "guard: -0.11 ± 0.00 dB, better than 0.1 dB by 3 standard errors"),
        (-0.39, 0.1, "running", ""),
        (-0.41, 0.1, "promoted", "guard: -0.41 ± 0.10 dB, better than 0.1 dB by 3 standard errors"),
    ],
)
def test_a_verdict_gives_its_figures(difference: float, error: float, decided: str, reason: str) -> None:
    guard = Guard(worse_db=0.2, better_db=0.1, standard_errors=3, frames=10)
    assert guard.verdict(Difference(10, 10, None, None, difference, error)) == (decided, reason)


@pytest.mark.parametrize("seed", range(5))
def test_versions_that_are_alike_are_left_to_people(seed: int) -> None:
    """Although the guard looks after every ten frames."""
    rng, comparison, guard = np.random.default_rng(seed), Comparison(paired=False), Guard(frames=50)
    for _ in range(100):
        for new in (True, False):
            comparison.add("", new=new, ratios=rng.gamma(4.0, 0.025, 10))
        assert state(guard, comparison.difference()) == "running"


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("worse_db", -0.1, r"\[0, 100\] dB"),
        ("worse_db", math.nan, r"\[0, 100\] dB"),
        ("better_db", 101, r"\[0, 100\] dB"),
        ("standard_errors", math.inf, r"\[0, 100\]"),
        ("frames", 1, r"\[2, 10\^9\]"),
    ],
)
def test_guards_that_cannot_be(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^guard\.{field}: {value} is not in {allowed}$"):
        Guard(**{field: value})


# --- the roll-outs of a run ---

SCENARIO = Scenario.parse("multipath-p2:slots=2")


def rollout(number: int = 1, mode: Mode = "canary", model: str = "rnn", guard: Guard | None = None) -> Rollout:
    comparison = Comparison(paired=mode == "shadow")
    return Rollout(number, model, 2, 1, mode, 0.1, guard, "who", 5.0, comparison)


def lease(seed: int = 0, delay: int = 0, model: str = "rnn") -> Lease:
    return Lease("t", model, RunConditions(SCENARIO, seed, Air(delay=delay)), 0, 4)


def increment(version: int, ratios: list[float], frames: int | None = None) -> Increment:
    means = np.zeros((len(ratios), len(COLUMNS)))
    means[:, RATIO] = ratios
    rows = np.arange(len(ratios))
    sums, lengths = np.ones((1, len(ratios), len(COLUMNS))), np.full((1, len(ratios)), 20)
    return Increment(version, rows, range(1, 2), sums, means[:frames], 1.0, lengths)


def test_frames_of_a_canary_are_compared_by_condition() -> None:
    """Whatever their seeds; those of other versions or models, and parts of frames, are in no comparison."""
    rollouts, running = Rollouts(), rollout()
    rollouts.put(running)
    for version, ratios in ((2, [0.1, 0.2]), (1, [0.3, 0.5, 0.4]), (3, [9.0])):
        rollouts.observe(lease(seed=version), [increment(version, ratios)], [])
    rollouts.observe(lease(), [increment(2, [7.0, 7.0], frames=0)], [])
    rollouts.observe(lease(model="dldnn"), [increment(2, [8.0])], [])
    rollouts.observe(lease(delay=1), [increment(2, [0.5])], [])
    arms = list(running.comparison.arms.values())
    assert [sums.tolist() for sums in arms] == [
        [[2, pytest.approx(0.3), pytest.approx(0.05)], [3, pytest.approx(1.2), pytest.approx(0.5)]],
        [[1, 0.5, 0.25], [0, 0, 0]],
    ]


def test_frames_of_a_shadow_come_in_pairs() -> None:
    rollouts, running = Rollouts(), rollout(mode="shadow")
    rollouts.put(running)
    pairs = [(np.array([0.1, 0.3]), np.array([0.2, 0.4]))]
    rollouts.observe(lease(), [increment(1, [0.2, 0.4])], pairs)
    assert running.comparison.difference().frames_old == 2
    assert running.comparison.products == pytest.approx(0.14)


def test_what_has_ended_takes_no_frames_and_no_failures() -> None:
    rollouts, running = Rollouts(), rollout()
    running.state = "aborted"
    rollouts.put(running)
    rollouts.observe(lease(), [increment(2, [0.1, 0.2])], [])
    rollouts.fail("rnn", 2, "shapes")
    assert (running.comparison.arms, running.failure) == ({}, "")
    assert rollouts.running("rnn") is None
    rollouts.put(rollout(2))
    for model, version in (("rnn", 1), ("dldnn", 2)):
        rollouts.fail(model, version, "shapes")
    assert rollouts.get(2).failure == ""
    rollouts.fail("rnn", 2, "shapes")
    assert rollouts.get(2).failure == "shapes"


def test_changes_are_told_once() -> None:
    rollouts = Rollouts()
    rollouts.put(rollout(1))
    rollouts.put(rollout(2, model="dldnn"))
    assert rollouts.changed() == []
    rollouts.observe(lease(), [increment(2, [0.1, 0.2])], [])
    [(found, content)] = rollouts.changed()
    assert (found.number, content["comparison"]["arms"]) == (1, found.comparison.to_json()["arms"])
    assert rollouts.changed() == []


def test_unknown_roll_outs() -> None:
    rollouts = Rollouts()
    with pytest.raises(NotFound, match=r"^rollout: 3 is unknown; there are none$"):
        rollouts.get(3)
    for number in (2, 1):
        rollouts.put(rollout(number, model=f"m{number}"))
    with pytest.raises(NotFound, match=r"^rollout: 3 is unknown; there are 1, 2$"):
        rollouts.get(3)


@pytest.mark.parametrize("guard", [None, Guard(0.5, None, 2.0, 7)])
def test_roll_outs_outlive_the_process(guard: Guard | None) -> None:
    before = rollout(guard=guard)
    before.comparison.add("a", new=True, ratios=np.array([0.1, 0.25]))
    before.failure = "shapes"
    again = Rollout.from_store(json.loads(json.dumps(before.to_store())))
    assert again.to_store() == before.to_store()
    assert again.guard == guard
    assert again.to_json()["figures"] == before.to_json()["figures"]
