from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnb_server.latency import EDGES_MS, LatencyHistogram

LATENCIES = st.lists(st.floats(0.02, 1e5), min_size=1, max_size=200)


def histogram(latencies: list[float]) -> LatencyHistogram:
    made = LatencyHistogram()
    for latency in latencies:
        made.add(latency)
    return made


@given(LATENCIES)
def test_figures_are_those_of_the_latencies_to_a_bucket(latencies: list[float]) -> None:
    figures = histogram(latencies).figures()
    assert figures["mean"] == pytest.approx(np.mean(latencies))
    width = EDGES_MS[1] / EDGES_MS[0]
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        exact = float(np.quantile(latencies, share, method="inverted_cdf"))
        assert exact / width <= figures[name] <= exact * width  # type: ignore[operator]  # there are some


@given(LATENCIES, LATENCIES)
def test_merged_is_together(first: list[float], second: list[float]) -> None:
    merged = histogram(first)
    merged.merge(histogram(second))
    together = histogram(first + second)
    assert merged.count == together.count == len(first) + len(second)
    assert merged.figures() == pytest.approx(together.figures())


@pytest.mark.parametrize("latency", [0.0, 1e-9, 1e9])
def test_what_is_beyond_the_buckets_counts_in_the_last(latency: float) -> None:
    figures = histogram([latency]).figures()
    assert EDGES_MS[0] <= figures["p50"] <= EDGES_MS[-1]
    assert figures["mean"] == latency


def test_none_of_none() -> None:
    assert LatencyHistogram().figures() == {"mean": None, "p50": None, "p99": None}


def test_many_of_one_latency_count_as_many() -> None:
    made = LatencyHistogram()
    made.add(10.0, 1000)
    made.add(1.0, 10)
    assert made.count == 1010
    assert made.figures()["p50"] == pytest.approx(10.0, rel=0.06)
