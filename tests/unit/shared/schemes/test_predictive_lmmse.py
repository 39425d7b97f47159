from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from csiemu.training.schemes import training_of
from shared.channels.downlink import DownlinkView
from shared.channels.streams import Samples, Split
from shared.channels.uplink import UplinkView
from shared.errors import InvalidInput
from shared.link.air import Air, Fate, Policy
from shared.link.decoding import Received, decode_frames, decode_received_frames
from shared.link.encoding import encode_frames
from shared.metrics import Outcomes
from shared.schemes import Scheme
from shared.schemes.base import to_real

MakeScheme = Callable[..., Scheme]
MakeSamples = Callable[..., Samples]
OverTheWire = Callable[[Scheme, Samples], tuple[bytes, Tensor]]

SCENARIO = "multipath-p2:antennas=8,slots=5"


def calibrated(
    make_scheme: MakeScheme, make_samples: MakeSamples, name: str = "predictive_lmmse", **config: float
) -> Scheme:
    scheme = make_scheme(name, SCENARIO, perturbed=False, **config)
    training_of(scheme).calibrate(DownlinkView(scheme.scenario, make_samples(2000, split=Split.TRAIN)))
    return scheme


def nmse(estimates: Tensor, scheme: Scheme, samples: Samples) -> Tensor:
    """Ratio of sums of each slot."""
    outcomes = Outcomes.measure(estimates, DownlinkView(scheme.scenario, samples).truth("spatial"))
    return torch.from_numpy(outcomes.error.sum(0) / outcomes.power.sum(0))


@pytest.mark.parametrize("bits", [8, 10, 12, 16, 24])
def test_a_report_has_the_bits_that_were_asked_for(
    make_scheme: MakeScheme, make_samples: MakeSamples, over_the_wire: OverTheWire, bits: int
) -> None:
    scheme = calibrated(make_scheme, make_samples, feedback_bits=bits)
    assert scheme.layout.bits == bits
    payload, estimates = over_the_wire(scheme, make_samples(5))
    assert len(payload) == -(-5 * 5 * bits // 8)
    assert estimates.shape == (5, 5, 8)


def test_at_the_same_bits_it_is_ahead_of_what_does_not_predict(
    make_scheme: MakeScheme, make_samples: MakeSamples, over_the_wire: OverTheWire
) -> None:
    samples, found = make_samples(600), {}
    for name in ("pilot_lmmse", "predictive_lmmse"):
        scheme = calibrated(make_scheme, make_samples, name, feedback_bits=8)
        found[name] = nmse(over_the_wire(scheme, samples)[1], scheme, samples)
    torch.testing.assert_close(*(of[0] for of in found.values()), rtol=0.02, atol=0)  # the first slot has no past
    assert (found["predictive_lmmse"][2:] < 0.85 * found["pilot_lmmse"][2:]).all()


def test_a_wrong_report_spoils_no_other_frame_and_less_and_less_of_its_own(
    make_scheme: MakeScheme, make_samples: MakeSamples
) -> None:
    """Without a leak it would not get better until the frame ends."""
    samples, off = make_samples(200), {}
    for memory in (0.5, 1.0):
        scheme = calibrated(make_scheme, make_samples, memory=memory)
        reports = encode_frames(scheme, scheme.scenario, samples)
        wrong = reports.copy()
        wrong[:100, 0] ^= 1
        good, bad = (decode_frames(scheme, scheme.scenario, samples, of) for of in (reports, wrong))
        assert torch.equal(good[100:], bad[100:])
        off[memory] = (good - bad)[:100].abs().square().sum((0, 2))
    assert (off[0.5][1:].diff() < 0).all()
    assert off[0.5][-1] < 0.3 * off[0.5][0]
    assert off[1.0][-1] > off[1.0][0]


def test_bits_do_not_depend_on_the_company(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    scheme, samples = calibrated(make_scheme, make_samples), make_samples(45)
    together = encode_frames(scheme, scheme.scenario, samples)
    for rows in (torch.arange(1), torch.arange(3, 10), torch.arange(7, 42), torch.arange(45).flip(0)):
        alone = encode_frames(scheme, scheme.scenario, samples.take(rows))
        np.testing.assert_array_equal(alone, together[rows.numpy()])


def test_rows_of_different_slots_are_decoded_in_one_batch(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    scheme, samples = calibrated(make_scheme, make_samples), make_samples(2)
    layout, decoder = scheme.layout, scheme.decoder
    reports = encode_frames(scheme, scheme.scenario, samples)
    side = decoder.side_information(UplinkView(scheme.scenario, samples))
    whole = decode_frames(scheme, scheme.scenario, samples, reports)

    def step(rows: list[int], slots: list[int], state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        fields = {name: torch.from_numpy(of) for name, of in layout.fields_of(reports[rows, slots]).items()}
        return decoder.step(fields, side[rows, slots], state)

    with torch.no_grad():
        _, one = step([0], [0], decoder.initial_state(1))
        both = {name: torch.cat([of, decoder.initial_state(1)[name]]) for name, of in one.items()}
        found, _ = step([0, 1], [1, 0], both)
    torch.testing.assert_close(found, torch.stack([whole[0, 1], whole[1, 0]]), rtol=1e-4, atol=1e-5)


def test_error_of_each_slots_table_counts_as_noise(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    scheme = calibrated(make_scheme, make_samples, feedback_bits=8)
    noise = scheme.decoder.quantisation_noise(torch.tensor([[1], [3], [5]]))
    distortion = scheme.encoder.quantizer.distortion
    assert (distortion[0] > 2 * distortion[2]).all()
    of_pilots = distortion[:, :2] + distortion[:, 2:]  # real and imaginary part
    torch.testing.assert_close(noise[0, 0], of_pilots[0])
    torch.testing.assert_close(noise[1, :3], of_pilots[:3].flip(0))
    torch.testing.assert_close(noise[2], of_pilots.flip(0))


def test_path_of_training_is_the_link_with_fine_tables(
    make_scheme: MakeScheme, make_samples: MakeSamples, over_the_wire: OverTheWire
) -> None:
    scheme, samples = calibrated(make_scheme, make_samples, feedback_bits=48), make_samples(20)
    scheme.decoder.quantizer.distortion.zero_()
    observation = scheme.encoder.observe(DownlinkView(scheme.scenario, samples))
    side = scheme.decoder.side_information(UplinkView(scheme.scenario, samples))
    estimates = training_of(scheme).reconstruct(observation, side, 1.0)
    off = over_the_wire(scheme, samples)[1] - estimates
    assert off.abs().square().sum() < 1e-2 * estimates.abs().square().sum()
    assert to_real(off).isfinite().all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"feedback_bits": 3}, "feedback_bits: 3; predictive_lmmse takes 4 to 48 for 2 pilots"),
        ({"memory": 1.5}, "memory: 1.5"),
    ],
)
def test_refused(make_scheme: MakeScheme, config: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make_scheme("predictive_lmmse", SCENARIO, **config)


def test_a_prediction_stands_for_a_lost_report(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    """Better than to go on as if the slot had never been: by one report late, all that follow are misunderstood."""
    scheme, samples = calibrated(make_scheme, make_samples, feedback_bits=20), make_samples(400)
    sent = encode_frames(scheme, scheme.scenario, samples)
    fates = np.zeros(sent.shape[:2], np.uint8)
    fates[:, 1] = Fate.LOST
    errors = {}
    for policy in get_args(Policy):
        air, received = Air(loss=0.1, policy=policy), Received(sent, fates)
        estimates = decode_received_frames(scheme, scheme.scenario, samples, received, air)
        errors[policy] = nmse(estimates, scheme, samples)
    assert (errors["predict"][1:] < 0.9 * errors["last"][1:]).all()
