from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from csiemu.training.schemes import training_of
from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Samples, Split
from shared.channels.uplink import UplinkView
from shared.errors import InvalidInput
from shared.metrics import Outcomes
from shared.schemes import Scheme
from shared.schemes.base import to_complex, to_real

MakeScheme = Callable[..., Scheme]
MakeSamples = Callable[..., Samples]
OverTheWire = Callable[[Scheme, Samples], tuple[bytes, Tensor]]

SCENARIO = "multipath-p2:antennas=8,slots=3"


def calibrated(make_scheme: MakeScheme, make_samples: MakeSamples, bits: int, **config: Any) -> Scheme:
    scheme = make_scheme("pilot_lmmse", SCENARIO, perturbed=False, feedback_bits=bits, **config)
    training_of(scheme).calibrate(DownlinkView(scheme.scenario, make_samples(400, split=Split.TRAIN)))
    return scheme


def ratio_of_sums(estimates: Tensor, scheme: Scheme, samples: Samples) -> Tensor:
    """Of each slot."""
    outcomes = Outcomes.measure(estimates, DownlinkView(scheme.scenario, samples).truth("spatial"))
    return torch.from_numpy(outcomes.error.sum(0) / outcomes.power.sum(0))


@pytest.mark.parametrize("bits", [8, 10, 20, 23, 24])
def test_a_report_has_the_bits_that_were_asked_for(
    make_scheme: MakeScheme, make_samples: MakeSamples, over_the_wire: OverTheWire, bits: int
) -> None:
    scheme = calibrated(make_scheme, make_samples, bits)
    assert scheme.layout.bits == bits
    payload, estimates = over_the_wire(scheme, make_samples(5))
    assert len(payload) == -(-5 * 3 * bits // 8)
    assert estimates.shape == (5, 3, 8)


def test_more_bits_come_nearer_to_the_float_reference(
    make_scheme: MakeScheme, make_samples: MakeSamples, over_the_wire: OverTheWire
) -> None:
    samples, errors = make_samples(300), []
    for bits in (4, 8, 12, 20, 32):
        scheme = calibrated(make_scheme, make_samples, bits)
        errors.append(ratio_of_sums(over_the_wire(scheme, samples)[1], scheme, samples)[-1].item())
    assert all(more < less for less, more in itertools.pairwise(errors[:4]))
    reference = make_scheme("angle_lmmse", SCENARIO, feedback_bits=0)
    reference.encoder.pilots.load_state_dict(scheme.encoder.pilots.state_dict())
    wanted = ratio_of_sums(over_the_wire(reference, samples)[1], reference, samples)[-1].item()
    assert errors[-1] == pytest.approx(wanted, rel=0.03)  # few values make tables of 256 levels


def test_error_of_the_tables_counts_as_noise(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    """Rough tables say less: the estimate is nearer to zero than without that."""
    scheme, samples = calibrated(make_scheme, make_samples, 4), make_samples(50)
    received = to_real(DownlinkView(scheme.scenario, samples).pilots(scheme.encoder.pilots()))
    side = scheme.decoder.side_information(UplinkView(scheme.scenario, samples))
    with torch.no_grad():
        counted = scheme.decoder(received, side).abs().square().sum()
        scheme.decoder.quantizer.distortion.zero_()
        not_counted = scheme.decoder(received, side).abs().square().sum()
    assert counted < 0.9 * not_counted


def test_path_of_training_is_the_link_with_fine_tables(
    make_scheme: MakeScheme, make_samples: MakeSamples, over_the_wire: OverTheWire
) -> None:
    scheme, samples = calibrated(make_scheme, make_samples, 48), make_samples(20)
    scheme.decoder.quantizer.distortion.zero_()
    observation = scheme.encoder.observe(DownlinkView(scheme.scenario, samples))
    side = scheme.decoder.side_information(UplinkView(scheme.scenario, samples))
    estimates = training_of(scheme).reconstruct(observation, side, 1.0)
    difference = (over_the_wire(scheme, samples)[1] - estimates).abs().square().sum() / estimates.abs().square().sum()
    assert difference < 1e-3


def test_pilots_are_one_for_both_ends_and_trained(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    scheme, samples = make_scheme("pilot_lmmse", SCENARIO), make_samples(40)
    pilots = scheme.encoder.pilots.parts
    assert scheme.decoder.pilots.parts is pilots
    downlink = DownlinkView(scheme.scenario, samples)
    side = scheme.decoder.side_information(UplinkView(scheme.scenario, samples))
    training = training_of(scheme)

    def loss() -> Tensor:
        return training.loss(training.reconstruct(scheme.encoder.observe(downlink), side, 1.0), downlink.channel())

    before = loss()
    before.backward()
    with torch.no_grad():
        pilots -= 0.1 * pilots.grad / pilots.grad.norm()
    training.after_step()
    assert loss() < before
    torch.testing.assert_close(pilots.square().sum((0, 1)), torch.ones(2))


def test_tables_are_one_for_both_ends(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    scheme = calibrated(make_scheme, make_samples, 20)
    ours, theirs = scheme.encoder.quantizer.state_dict(), scheme.decoder.quantizer.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (ours["distortion"] > 0).all()
    other = make_scheme("pilot_lmmse", SCENARIO)
    other.encoder.load_state_dict(scheme.encoder.state_dict())  # a decoder for UEs in the field
    training_of(other)
    assert torch.equal(other.decoder.quantizer.levels, ours["levels"])


@pytest.mark.parametrize(
    ("bits", "pilots", "message"),
    [
        (3, 2, "feedback_bits: 3; pilot_lmmse takes 4 to 48 for 2 pilots"),
        (49, 2, "feedback_bits: 49; pilot_lmmse takes 4 to 48 for 2 pilots"),
        (20, 11, "feedback_bits: 20; pilot_lmmse takes 22 to 264 for 11 pilots"),
    ],
)
def test_bits_that_no_tables_share_are_refused(make_scheme: MakeScheme, bits: int, pilots: int, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make_scheme("pilot_lmmse", SCENARIO, feedback_bits=bits, downlink_pilots=pilots)


def test_it_is_of_the_world_that_it_was_built_for(make_scheme: MakeScheme) -> None:
    with pytest.raises(InvalidInput, match="scenario: pilot_lmmse needs a multipath world"):
        make_scheme("pilot_lmmse", "cost2100-indoor-csinet")
    scheme = make_scheme("pilot_lmmse", SCENARIO)
    scheme.check_scenario(Scenario.parse(SCENARIO))
    with pytest.raises(InvalidInput, match=r"scenario snr_db: 0\.0; this pilot_lmmse was built for 10\.0"):
        scheme.check_scenario(Scenario.parse(f"{SCENARIO},snr_db=0"))


def test_decoded_windows_hold_the_newest_slot_first(make_scheme: MakeScheme) -> None:
    decoder = make_scheme("pilot_lmmse", SCENARIO).decoder
    state = decoder.initial_state(1)
    for slot in range(1, 4):
        state = decoder.receive(torch.full((1, 4), float(slot)), state)
    assert state["received"].tolist() == [[3.0] * 4 + [2.0] * 4 + [1.0] * 4]
    assert state["slots"].tolist() == [[3]]
    received = to_complex(torch.randn(2, 3, 4))
    side = torch.rand(2, 3, 2) - 0.5
    whole = decoder.frame_amplitudes(to_real(received), side)
    state = decoder.initial_state(2)
    for t in range(3):
        state = decoder.receive(to_real(received[:, t]), state)
        torch.testing.assert_close(decoder.fading(state, side[:, t]), whole[:, t])


def test_what_is_predicted_is_lmmse_of_what_came(make_scheme: MakeScheme) -> None:
    """Of three slots the second is lost: the third is as far from the first as a slot twice as long."""
    three, two = (
        make_scheme("pilot_lmmse", f"multipath-p2:antennas=8,slots={slots},fading_correlation={correlation}").decoder
        for slots, correlation in ((3, 0.9), (2, 0.81))
    )
    two.load_state_dict(three.state_dict())
    received, side = torch.randn(5, 2, 4), torch.rand(5, 2) - 0.5
    with torch.no_grad():
        state = three.receive(received[:, 0], three.initial_state(5))
        before = three.channel(three.fading(state, side), side)
        found, state = three.predicted(side, state)
        torch.testing.assert_close(found, 0.9 * before)
        found = three.fading(three.receive(received[:, 1], state), side)
        state = two.receive(received[:, 1], two.receive(received[:, 0], two.initial_state(5)))
        torch.testing.assert_close(found, two.fading(state, side))
        assert not three.predicted(side, three.initial_state(5))[0].any()
