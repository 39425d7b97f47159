"""What is measured after a loss, and when a decoder counts as recovered."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from csiemu.experiments import after_a_loss
from csiemu.experiments.after_a_loss import Course, measured
from shared.channels.streams import Split
from shared.checkpoints import CheckpointStore
from shared.conditions import RunConditions
from shared.errors import InvalidInput
from shared.link.evaluation import outcomes, over_the_link


@pytest.mark.parametrize(
    ("difference", "slots"),
    [([2, 2, 0.4, 0.4], 1), ([2, 2, 0.6, 0.4], 2), ([2, 2, 0.4, 0.6], None), ([0, 0, -1, -1], 1)],
)
def test_recovered_is_who_stays_within(difference: list[float], slots: int | None) -> None:
    course = Course(np.zeros(4), np.array(difference, float), np.zeros(4))
    assert course.slots_until(range(2)) == slots


def test_errors_of_differences_are_by_pairs() -> None:
    """UEs whose channels are more or less easy, all of them worse by 3 dB, more or less."""
    generator = np.random.default_rng(0)
    easy, worse = generator.gamma(1.0, size=(4000, 1)), generator.normal(2.0, 0.1, (4000, 1))
    course = Course.of(easy * worse, easy)
    assert course.difference_db == pytest.approx(10 * np.log10(2), abs=0.05)
    assert course.standard_error_db == pytest.approx(4.343 * 0.1 / 2 * np.sqrt(2 / 4000), rel=0.1)


def test_only_what_follows_a_loss_is_changed(small_store: CheckpointStore) -> None:
    checkpoint, ues = small_store.load("hyperrnn"), 20
    found = measured(checkpoint, ues, 3)
    conditions = RunConditions(checkpoint.scenario)
    samples = conditions.samples(Split.TEST, torch.arange(ues), 0)
    whole = outcomes(checkpoint.scheme, conditions, samples, over_the_link(checkpoint.scheme, conditions, samples))
    assert found.undisturbed_db == pytest.approx(10 * np.log10(whole.ratio.mean(axis=0)))
    choices = [f"{policy}, {state}" for policy in ("last", "blind", "predict") for state in ("continue", "reset")]
    assert set(found.courses) == {(range(2, 2 + n), label) for n in (1, 3) for label in choices}
    for (lost, label), course in found.courses.items():
        assert course.difference_db[: lost.start] == pytest.approx(0)
        assert (course.difference_db[lost.start :] != 0).all(), label
    alike = [found.courses[range(2, 3), f"{policy}, reset"].nmse_db[3:] for policy in ("last", "blind", "predict")]
    assert alike[0] == pytest.approx(alike[1])
    assert alike[0] == pytest.approx(alike[2])
    with pytest.raises(InvalidInput, match=r"slot: 6; wanted 1\.\.5 of 8"):
        measured(checkpoint, ues, 6)


def test_what_is_written(small_store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ["after-a-loss", "--checkpoints", str(small_store.root), "--only", "rnn,genie_lmmse", "--ues", "8"]
    monkeypatch.setattr(sys, "argv", [*line, "--out", str(tmp_path)])
    after_a_loss.main()
    text = (tmp_path / "after-a-loss.md").read_text()
    assert text.count("| `rnn/1` |") == 6
    assert text.count("| `genie_lmmse/1` |") == 4
    assert text.count("\n## ") == 4
    assert (tmp_path / "after-a-loss.png").stat().st_size > 1000
