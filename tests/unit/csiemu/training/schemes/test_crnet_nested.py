"""Training of the nested CRNet: rates in turn, decibels, a start that is measured, and that it learns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from csiemu.training.schemes import training_of
from csiemu.training.schemes.crnet_nested import NestedTraining
from csiemu.training.trainer import Recipe, Trainer
from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Samples
from shared.link.decoding import decode_frames
from shared.link.encoding import encode_frames
from shared.link.rate import Rates
from shared.schemes import Scheme, scheme_class

MakeScheme = Callable[..., Scheme]
MakeSamples = Callable[..., Samples]

SMALL = "cost2100-indoor-csinet:antennas=8,first_rows=8"
RATES = (64, 100, 160)


def nested_training(make_scheme: MakeScheme, make_samples: MakeSamples, start: str = "linear") -> NestedTraining:
    training = training_of(make_scheme("crnet_nested", SMALL, perturbed=False, compression=4, rates=RATES))
    assert isinstance(training, NestedTraining)
    training.start(start, DownlinkView(training.scheme.scenario, make_samples(600, seed=9)))
    training.scheme.eval()
    return training


def test_frames_have_the_rates_in_turn(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    """What training sees of a frame is what the gNB decodes of its report at that rate."""
    training, samples = nested_training(make_scheme, make_samples), make_samples(7)
    scheme = training.scheme
    with torch.no_grad():
        observation = scheme.encoder.observe(DownlinkView(scheme.scenario, samples))
        found = training.reconstruct(observation, torch.zeros(0), 1.0)
    bits = torch.tensor(RATES)[torch.arange(7) % 3]
    reports = encode_frames(scheme, scheme.scenario, samples, Rates(bits, torch.zeros_like(bits)))
    assert scheme.layout.lengths(reports)[:, 0].tolist() == bits.tolist()
    wanted = decode_frames(scheme, scheme.scenario, samples, reports)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_loss_is_the_mean_over_rates_of_logarithms(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    training = nested_training(make_scheme, make_samples)
    truth = torch.ones(5, 1, 8, 8, dtype=torch.complex64)
    amplitude = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])  # rates 0, 1, 2, 0, 1
    loss = training.loss(truth * (1 + 1j * amplitude[:, None, None, None]), truth)
    means = torch.tensor([(0.01 + 0.16) / 2, (0.04 + 0.25) / 2, 0.09])
    torch.testing.assert_close(loss, means.log().mean())
    torch.testing.assert_close(training.loss(1.5 * truth[:2], truth[:2]), torch.tensor(0.25).log())


@torch.no_grad()
def test_a_turn_orders_entries_by_their_use_and_leaves_the_networks_as_they_are(
    make_scheme: MakeScheme, make_samples: MakeSamples
) -> None:
    """Effects of entries on the image become orthogonal, and what the turn says of them is measured then."""
    scheme = make_scheme("crnet_nested", SMALL, compression=8, rates=RATES)  # weights at random
    training = training_of(scheme)
    assert isinstance(training, NestedTraining)
    images = training.scaled(DownlinkView(scheme.scenario, make_samples(300, seed=9)))
    before = scheme.decoder.network(scheme.encoder.network(images))
    importance = training.turn(images)
    codewords = training.codewords(images)
    torch.testing.assert_close(scheme.decoder.network(codewords), before, rtol=0, atol=1e-4)
    torch.testing.assert_close(codewords.T.cov(), torch.eye(16), rtol=0, atol=1e-3)
    effects = training.effects(images[:128], codewords[:128], torch.ones(16))
    assert importance.tolist() == sorted(importance.tolist(), reverse=True)
    assert importance[0] > 5 * importance[-1]
    torch.testing.assert_close(effects.diag(), importance, rtol=0.1, atol=0)
    assert (effects - effects.diag().diag()).abs().max() < 0.05 * importance[0]


@pytest.mark.parametrize("start", ["linear", "principal"])
def test_quantiser_is_measured_at_the_start(make_scheme: MakeScheme, make_samples: MakeSamples, start: str) -> None:
    quantizer = nested_training(make_scheme, make_samples, start).scheme.encoder.quantizer
    assert (quantizer.deviation > 0).all()
    assert quantizer.order[0] == 0  # the strongest component
    assert len(quantizer.order.unique()) > 10


def test_a_decoder_learns_to_do_with_less(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    """On frames of its training; the UEs' encoder is as it was."""
    scheme = nested_training(make_scheme, make_samples).scheme
    encoder = {name: value.clone() for name, value in scheme.encoder.state_dict().items()}
    recipe = Recipe(steps=60, batch=60, rate=1e-3, warmup=5, frames=120, frozen_norms=True)
    trainer = Trainer(scheme, recipe, freeze_encoder=True)
    trainer.run(report_every=20)
    assert trainer.history[-1]["loss"] < trainer.history[0]["loss"] - 0.05
    assert all(torch.equal(value, encoder[name]) for name, value in scheme.encoder.state_dict().items())
    kind = scheme_class("crnet_nested")
    gnb = kind(Scenario.parse(SMALL), scheme.config, ("decoder",))
    gnb.decoder.load_state_dict(scheme.decoder.state_dict())
