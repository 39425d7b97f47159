from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidInput
from shared.link.rate import CLASSES, Lengths, Rate, Rates, summarise_lengths


@given(st.dictionaries(st.integers(0, 70_000), st.integers(1, 50), min_size=1, max_size=100))
def test_figures_are_those_of_all_reports(lengths: dict[int, int]) -> None:
    every = np.repeat(list(lengths), list(lengths.values()))
    found = summarise_lengths(Lengths(lengths))
    assert found["feedback_bits"] == pytest.approx(every.mean())
    assert found["feedback_bits_total"] == every.sum()
    assert found["feedback_bits_most"] == every.max()
    for name, percent in (("p5", 5), ("p95", 95)):
        assert found[f"feedback_bits_{name}"] == np.percentile(every, percent, method="inverted_cdf")
    classes = found["feedback_bits_histogram"]
    assert len(classes) <= CLASSES
    for part in classes:
        assert part["reports"] == ((every >= part["least"]) & (every <= part["most"])).sum() > 0
    assert sum(part["reports"] for part in classes) == len(every)


def test_no_reports_have_no_lengths() -> None:
    found = summarise_lengths(Lengths())
    assert found["feedback_bits"] is found["feedback_bits_p5"] is found["feedback_bits_most"] is None
    assert found["feedback_bits_total"] == 0
    assert found["feedback_bits_histogram"] == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bits": 0}, r"bits: 0 is not in \[1, 65536\]"),
        ({"step": -1}, r"step: -1 is not in \[0, 65536\]"),
        ({"target_nmse_db": 1.0}, r"target_nmse_db: 1.0 is not in \[-60, 0\]"),
    ],
)
def test_rates_out_of_range_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Rate(**values)  # type: ignore[arg-type]  # each has its own type


def test_rates_of_some_reports() -> None:
    some = Rates.of(100, 7, 3)[1:]
    assert (some.bits.tolist(), some.step.tolist()) == ([100, 100], [7, 7])
