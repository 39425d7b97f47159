from __future__ import annotations

import numpy as np
import pytest
import torch

from gnb_server.monitoring.indicators import INDICATORS, NAMES, Codes, Decoded, Directions, measure, uplink_agreement
from gnb_server.monitoring.references import Calibration, Reference, frame_means
from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Samples, Split
from shared.link.payload import Field, PayloadLayout

LAYOUT = PayloadLayout((Field("scale", 1, 8), Field("code", 3, 2)))


def decoded(reports: int, seed: int = 0, *, rank: int = 3) -> Decoded:
    """Images of 4 x 8 in a subspace that all seeds share, and codes that are mostly 0."""
    basis = np.random.default_rng(9).normal(size=(rank, 32))
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(reports, rank)) + 1j * generator.normal(size=(reports, rank))
    fields = {
        "scale": generator.integers(10, 200, (reports, 1)),
        "code": generator.binomial(1, 0.1, (reports, 3)),
    }
    nothing = np.full(reports, np.nan)
    estimates = (weights @ basis).reshape(reports, 4, 8).astype(np.complex64)
    return Decoded(estimates, fields, np.full(reports, 14), np.zeros(reports, bool), nothing, nothing)


def value(values: np.ndarray, name: str) -> np.ndarray:
    return values[NAMES.index(name)]


@pytest.fixture
def reference() -> Reference:
    return Reference.of(LAYOUT, "angular-delay", Calibration(decoded(600), 2))


def test_values_are_what_they_say(reference: Reference) -> None:
    found = decoded(4)
    found.estimates[0] = 0
    found.estimates[0, 1, 2] = 10  # power 100 at one angle and delay
    found.estimates[1] = 0.5j  # spread over all 32
    found.fields["scale"][3] = 255
    values = reference.measure(found)
    assert value(values, "norm")[:2] == pytest.approx([20, 10 * np.log10(8)], abs=1e-4)
    assert value(values, "spread")[:2] == pytest.approx([0, 10 * np.log10(32)], abs=1e-4)
    assert value(values, "saturated").tolist() == [0, 0, 0, 1]
    assert value(values, "bits").tolist() == [14] * 4
    assert np.isnan(value(values, "target")).all()


def test_novelty_is_one_on_average_and_larger_elsewhere(reference: Reference) -> None:
    same, other = decoded(500, 1), decoded(500, 2, rank=32)
    usual = 10 ** (value(reference.measure(same), "novelty") / 10)
    assert usual.mean() == pytest.approx(3 / 32, rel=0.3)  # of 32 dimensions it uses 3
    assert value(reference.measure(other), "novelty").min() > value(reference.measure(same), "novelty").max()


def test_novelty_takes_no_notice_of_phase_and_norm(reference: Reference) -> None:
    found = decoded(20, 3)
    turned = Decoded(found.estimates * np.complex64(3j), *list(vars(found).values())[1:])
    for name in ("novelty", "spread"):
        expected = value(reference.measure(found), name)
        np.testing.assert_allclose(value(reference.measure(turned), name), expected, atol=0.05)


def test_rare_codes() -> None:
    fields = decoded(1000).fields
    codes = Codes.of(LAYOUT, fields)
    often, rarely = ({"scale": fields["scale"][:1], "code": np.full((1, 3), code)} for code in (0, 3))
    assert codes.of_reports(LAYOUT, rarely) > codes.of_reports(LAYOUT, often) + 5
    none = Codes.of(PayloadLayout(()), {})
    assert np.isnan(none.of_reports(PayloadLayout(()), {})).all()


def test_nothing_of_erased_reports_counts_but_that_they_are(reference: Reference) -> None:
    found = decoded(6)
    found.erased[[0, 1, 2]] = True
    found.estimates[[0, 1, 2]] = 0
    values = frame_means(reference.measure(found), 2)
    assert value(values, "erased").tolist() == [1, 0.5, 0]
    assert np.isnan(value(values, "norm")).tolist() == [True, False, False]
    assert value(values, "norm")[1] == pytest.approx(value(reference.measure(found), "norm")[3])


def test_reference_is_of_other_frames_than_it_is_fitted_to(reference: Reference) -> None:
    means, spread, counts = reference.usual
    assert counts[NAMES.index("norm")] == 200  # of 300 frames
    assert spread[NAMES.index("bits")] == 0
    assert np.isnan(means[NAMES.index("target")])
    novelty = frame_means(reference.measure(decoded(400, 5)), 2)[NAMES.index("novelty")]
    at = NAMES.index("novelty")
    assert abs(novelty.mean() - means[at]) < 4 * spread[at] * (1 / 200 + 1 / 200) ** 0.5


@pytest.mark.parametrize("world", ["multipath-p2:antennas=16", "cost2100-indoor-5g1-5g3:antennas=16,slots=2"])
def test_uplink_agrees_with_the_channel_of_its_frame_alone(world: str) -> None:
    """Perfect estimates as a stand-in: of the same frames, and of others."""
    scenario = Scenario.parse(world)
    domain = "spatial" if world.startswith("multipath") else "angular-delay"
    samples = Samples(1, Split.TEST, torch.arange(40), torch.zeros(40, dtype=torch.int64))
    channels = DownlinkView(scenario, samples).truth(domain).channel[:, -1]
    same = uplink_agreement(domain, scenario, samples, channels)
    other = uplink_agreement(domain, scenario, samples, channels.roll(1, dims=0))
    assert same.shape == (40,)
    assert (same >= 0).all()
    assert (same <= 1 + 1e-6).all()
    assert same.mean() > other.mean() + 0.2


def test_directions_of_few_estimates() -> None:
    """Fewer than they have dimensions, or directions are kept."""
    few = torch.from_numpy(decoded(5).estimates)
    assert torch.isfinite(Directions.of(few).distance(few)).all()
    assert measure(Directions.of(few), Codes({}), LAYOUT, "angular-delay", decoded(5)).shape == (len(NAMES), 5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("spread", "the power of the estimates is spread over 2.00 angles and delays (usually 1.00)"),
        ("codes", "the rarity of the payload's codes is 3.010 bit a code (usually 0.000 bit a code)"),
        ("bits", "a report has 3.0 bits (usually 0.0 bits)"),
        ("erased", "301 % of the reports were lost or could not be read (usually 0 %)"),
    ],
)
def test_what_people_are_told(name: str, said: str) -> None:
    assert INDICATORS[NAMES.index(name)].said(3.0103, 0.0) == said
