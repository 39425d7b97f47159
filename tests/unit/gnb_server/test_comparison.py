"""Differences of two versions and their standard errors, beside numpy and the bootstrap on frames that were drawn."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from gnb_server.comparison import Comparison, Difference

Frames = NDArray[np.float64]


def drawn(frames: int, mean_db: float, seed: int) -> Frames:
    """Mean ratios of frames, spread as those of channels are."""
    return np.asarray(10 ** (mean_db / 10) * np.random.default_rng(seed).gamma(4.0, 1 / 4, frames))


def db(ratio: float) -> float:
    return float(10 * np.log10(ratio))


def paired(new: Frames, old: Frames, parts: int = 1) -> Comparison:
    found = Comparison(paired=True)
    for index in np.array_split(np.arange(len(new)), parts):
        found.add_pairs(new[index], old[index])
    return found


def stratified(arms: dict[str, tuple[Frames, Frames]]) -> Comparison:
    """Of new and old frames by condition."""
    found = Comparison(paired=False)
    for conditions, both in arms.items():
        for new, ratios in zip((True, False), both, strict=True):
            found.add(conditions, new=new, ratios=ratios)
    return found


def test_paired_frames_beside_numpy() -> None:
    old = drawn(500, -10.0, seed=1)
    new = old * drawn(500, -0.3, seed=2) ** 0.2
    found = paired(new, old, parts=7).difference()
    residuals = new / new.mean() - old / old.mean()  # of the logarithm of the ratio, to the first order
    expected = 10 / np.log(10) * residuals.std(ddof=1) / np.sqrt(500)
    assert (found.frames_new, found.frames_old) == (500, 500)
    assert (found.nmse_db_new, found.nmse_db_old) == (pytest.approx(db(new.mean())), pytest.approx(db(old.mean())))
    assert found.difference_db == pytest.approx(db(new.mean() / old.mean()))
    assert found.standard_error_db == pytest.approx(expected)


def test_paired_frames_beside_the_bootstrap() -> None:
    """What both have in common, most of the spread here, cancels."""
    old = drawn(400, -10.0, seed=3)
    new = old * (1 + 0.05 * np.random.default_rng(4).standard_normal(400))
    found = paired(new, old).difference()
    picked = np.random.default_rng(5).integers(400, size=(4000, 400))
    spread = (10 * np.log10(new[picked].mean(axis=1) / old[picked].mean(axis=1))).std()
    apart = stratified({"": (new, old)}).difference()
    assert found.standard_error_db == pytest.approx(spread, rel=0.1)
    assert apart.standard_error_db is not None
    assert found.standard_error_db is not None
    assert found.standard_error_db < apart.standard_error_db / 5


def test_conditions_beside_numpy_and_the_bootstrap() -> None:
    """An easy condition that the new version sees more of does not pass for a better decoder."""
    easy, hard = (drawn(900, -20.0, seed=6), drawn(300, -20.5, seed=7)), (drawn(100, -3.0, 8), drawn(1200, -3.5, 9))
    found = stratified({"easy": easy, "hard": hard}).difference()
    weights = np.array([len(new) * len(old) / (len(new) + len(old)) for new, old in (easy, hard)])
    weights /= weights.sum()
    new, old = (sum(w * arms[row].mean() for w, arms in zip(weights, (easy, hard), strict=True)) for row in (0, 1))
    assert found.difference_db == pytest.approx(db(new / old))
    assert (found.nmse_db_new, found.nmse_db_old) == (pytest.approx(db(new)), pytest.approx(db(old)))
    assert (found.frames_new, found.frames_old) == (1000, 1500)
    assert db(np.concatenate([easy[0], hard[0]]).mean() / np.concatenate([easy[1], hard[1]]).mean()) < -4
    assert found.difference_db == pytest.approx(0.5, abs=0.6)
    rng = np.random.default_rng(10)
    means = [[[rng.choice(a, len(a)).mean() for _ in range(2000)] for a in arms] for arms in (easy, hard)]
    new_means, old_means = np.einsum("c,ca...->a...", weights, np.array(means))
    assert found.standard_error_db == pytest.approx((10 * np.log10(new_means / old_means)).std(), rel=0.1)


def test_a_condition_that_one_version_has_hardly_seen_hardly_counts() -> None:
    """Two frames of it that are alike by chance have no spread."""
    alike = np.full(2, 10**-0.2)
    common = drawn(400, -10.0, seed=11), drawn(400, -10.0, seed=12)
    found = stratified({"common": common, "rare": (alike, drawn(4000, -3.0, seed=13))}).difference()
    assert found.difference_db is not None
    assert found.standard_error_db is not None
    assert abs(found.difference_db) < 3 * found.standard_error_db


@pytest.mark.parametrize("other", [0, 1])
def test_what_one_version_alone_has_seen_is_not_compared(other: int) -> None:
    lone = {"lone": (drawn(5000, -30.0, seed=14), drawn(other, -30.0, seed=15))}
    assert stratified(lone).difference() == Difference(0, 0)
    common = {"common": (drawn(3, -10.0, seed=16), drawn(4, -10.0, seed=17))}
    assert stratified(common | lone).difference() == stratified(common).difference()
    assert stratified(common).difference().frames_new == 3


def test_frames_without_errors_are_a_difference_of_numbers() -> None:
    """A perfect estimate has no logarithm."""
    found = paired(np.zeros(5), np.zeros(5)).difference()
    assert (found.difference_db, found.standard_error_db) == (0.0, 0.0)


@pytest.mark.parametrize("kept", [paired, lambda new, old: stratified({"a": (new, old), "b": (old[:9], new[:9])})])
def test_comparisons_outlive_the_process(kept: Callable[[Frames, Frames], Comparison]) -> None:
    """And go on as if nothing had been."""
    before = kept(drawn(50, -10.0, seed=18), drawn(50, -9.0, seed=19))
    again = Comparison.from_json(json.loads(json.dumps(before.to_json())))
    assert again.difference() == before.difference()
    for found in (before, again):
        found.add_pairs(drawn(9, -10.0, seed=20), drawn(9, -9.0, seed=21))
    assert again.difference() == before.difference()
    assert again.to_json() == before.to_json()
