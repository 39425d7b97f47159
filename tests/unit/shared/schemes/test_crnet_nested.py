"""The nested CRNet: reports of any length from one codeword, as long as their rates allow, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from csiemu.training.schemes import training_of
from shared.channels.downlink import DownlinkView
from shared.channels.streams import Samples
from shared.errors import InvalidInput
from shared.link.decoding import decode_frames
from shared.link.encoding import encode_frames
from shared.link.rate import Rate, Rates
from shared.metrics import energy
from shared.schemes import Scheme
from shared.schemes.crnet_nested import CrNetNested, NestedConfig

MakeScheme = Callable[..., Scheme]
MakeSamples = Callable[..., Samples]

SMALL = "cost2100-indoor-csinet:antennas=8,first_rows=8"


@pytest.fixture
def nested(make_scheme: MakeScheme, make_samples: MakeSamples) -> CrNetNested:
    """Nearly the best linear autoencoder of small images, not trained further: 32 entries of 4 bits."""
    scheme = make_scheme("crnet_nested", SMALL, perturbed=False, compression=4, entry_bits=4, rates=(64, 120))
    assert isinstance(scheme, CrNetNested)
    training_of(scheme).start("linear", DownlinkView(scheme.scenario, make_samples(600, seed=9)))
    return scheme.eval()


def test_more_bits_are_nearer_on_average(nested: CrNetNested, make_samples: MakeSamples) -> None:
    samples, nmse = make_samples(300), []
    truth = DownlinkView(nested.scenario, samples).image()
    assert nested.layout.describe() == "scale:1x8 length:1x7 codeword:0..105x1"
    for bits in (15, 20, 30, 45, 64, 90, 120):
        reports = encode_frames(nested, nested.scenario, samples, Rates.of(bits, 0, 300))
        assert (nested.layout.lengths(reports) == bits).all()
        estimate = decode_frames(nested, nested.scenario, samples, reports)
        nmse.append(float((energy(estimate - truth, axes=2) / energy(truth, axes=2)).mean()))
    assert nmse == sorted(nmse, reverse=True)
    assert nmse[-1] < 0.3 * nmse[0]


def test_reports_of_all_lengths_share_a_payload(nested: CrNetNested, make_samples: MakeSamples) -> None:
    """Each is as long as its own rate allows, and decodes as it would alone."""
    samples, bits = make_samples(5), torch.tensor([15, 16, 40, 119, 500])
    reports = encode_frames(nested, nested.scenario, samples, Rates(bits, torch.zeros_like(bits)))
    assert nested.layout.lengths(reports)[:, 0].tolist() == [15, 16, 40, 119, 120]
    payload = nested.layout.pack_bits(reports)
    assert len(payload) == -(-(15 + 16 + 40 + 119 + 120) // 8)
    received = nested.layout.unpack_bits(payload, 5).reshape(reports.shape)
    assert np.array_equal(received, reports)
    together = decode_frames(nested, nested.scenario, samples, received)
    for ue, most in enumerate(bits.tolist()):
        alone = make_samples(ues=[ue])
        sent = encode_frames(nested, nested.scenario, alone, Rates.of(most, 0, 1))
        torch.testing.assert_close(decode_frames(nested, nested.scenario, alone, sent)[0], together[ue])


def test_by_itself_a_report_has_all_of_its_bits(nested: CrNetNested, make_samples: MakeSamples) -> None:
    samples = make_samples(4)
    reports = encode_frames(nested, nested.scenario, samples)
    assert np.array_equal(reports, encode_frames(nested, nested.scenario, samples, nested.rates(Rate(), 4)))
    assert (nested.layout.lengths(reports) == nested.layout.bits).all()


def test_rates_between_the_fewest_and_the_most_bits(nested: CrNetNested) -> None:
    for bits in (15, 120):
        nested.check_rate(Rate(bits=bits))
        rates = nested.rates(Rate(bits=bits), 2)
        assert (rates.bits.tolist(), rates.step.tolist()) == ([bits] * 2, [0] * 2)
    for bits in (14, 121):
        with pytest.raises(InvalidInput, match=f"bits: {bits}; this crnet_nested takes 15 to 120 a report"):
            nested.check_rate(Rate(bits=bits))
    with pytest.raises(InvalidInput, match="crnet_nested has no steps to choose from; wanted bits alone"):
        nested.check_rate(Rate(step=3))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"entry_bits": 32, "allocation": "equal"}, "entry_bits: 32 is not 2 to 8"),
        ({"companding": 9.0}, "companding: 9.0; cells of a nested codeword are measured, wanted 0"),
        (
            {"quantised_training": False},
            "quantised_training: False; a codeword cut at random is quantised in training",
        ),
        ({"rates": ()}, "rates: []; wanted one or more numbers of bits, rising, 64 to 65536"),
        ({"rates": (64, 64)}, "rates: [64, 64]; wanted one or more numbers of bits, rising, 64 to 65536"),
        ({"rates": (63,)}, "rates: [63]; wanted one or more numbers of bits, rising, 64 to 65536"),
        ({"rates": (64, 65537)}, "rates: [64, 65537]; wanted one or more numbers of bits, rising, 64 to 65536"),
    ],
)
def test_configuration_names_what_it_refuses(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        NestedConfig(**config)
    assert str(refused.value) == message
