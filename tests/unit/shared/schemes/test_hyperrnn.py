from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from csiemu.training.schemes import training_of
from shared.channels.downlink import DownlinkView
from shared.channels.streams import Samples
from shared.channels.uplink import UplinkView
from shared.schemes import Scheme
from shared.schemes.hyperrnn import EstimatorRnn

MakeScheme = Callable[..., Scheme]
MakeSamples = Callable[..., Samples]

SMALL = "multipath-p2:antennas=6,slots=4"
READINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "array": ("hyperrnn", {}),
    "beams": ("hyperrnn", {"beam_power": True}),
    "projected": ("hyperrnn", {"uplink_reading": "projected", "uplink_pilots": 3}),
    "rnn": ("rnn", {"uplink_reading": "none"}),
}
readings = pytest.mark.parametrize("reading", READINGS)


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def build(make_scheme: MakeScheme, reading: str, scenario: str = SMALL) -> Scheme:
    name, config = READINGS[reading]
    return make_scheme(name, scenario, feedback_bits=7, **config)


def inputs(scheme: Scheme, samples: Samples) -> tuple[Tensor, Tensor]:
    """Signs [N, T, B] and side information of the frames."""
    observation = scheme.encoder.observe(DownlinkView(scheme.scenario, samples))
    return scheme.encoder(observation, 1.0), scheme.decoder.side_information(UplinkView(scheme.scenario, samples))


def step_by_step(scheme: Scheme, bits: Tensor, side: Tensor) -> Tensor:
    state, estimates = scheme.decoder.initial_state(len(bits)), []
    for t in range(bits.shape[1]):
        fields = {"signs": (bits[:, t] > 0).long()}
        estimate, state = scheme.decoder.step(fields, side[:, t], state)
        estimates.append(estimate)
    return torch.stack(estimates, dim=1)


@readings
@torch.no_grad()
def test_steps_equal_the_whole_frame(make_scheme: MakeScheme, make_samples: MakeSamples, reading: str) -> None:
    scheme = build(make_scheme, reading)
    bits, side = inputs(scheme, make_samples(9))
    whole = scheme.decoder(bits, side)
    assert whole.shape == (9, 4, 6)
    assert whole.dtype == torch.complex64
    torch.testing.assert_close(step_by_step(scheme, bits, side), whole, rtol=1e-5, atol=1e-5)


@readings
@torch.no_grad()
def test_training_path_equals_what_is_sent(make_scheme: MakeScheme, make_samples: MakeSamples, reading: str) -> None:
    """`reconstruct`, whatever the slope, is the decoder after the encoder's integers."""
    scheme, samples = build(make_scheme, reading), make_samples(9)
    observation = scheme.encoder.observe(DownlinkView(scheme.scenario, samples))
    side = scheme.decoder.side_information(UplinkView(scheme.scenario, samples))
    fields = scheme.encoder.encode(observation)
    assert fields["signs"].shape == (9, 4, 7)
    assert set(fields["signs"].unique().tolist()) == {0, 1}
    sent = step_by_step(scheme, fields["signs"] * 2.0 - 1, side)
    torch.testing.assert_close(training_of(scheme).reconstruct(observation, side, 3.0), sent, rtol=1e-5, atol=1e-5)


@readings
def test_gradient_reaches_every_parameter(make_scheme: MakeScheme, make_samples: MakeSamples, reading: str) -> None:
    scheme, samples = build(make_scheme, reading), make_samples(9)
    observation = scheme.encoder.observe(DownlinkView(scheme.scenario, samples))
    side = scheme.decoder.side_information(UplinkView(scheme.scenario, samples))
    training_of(scheme).reconstruct(observation, side, 1.0).abs().square().sum().backward()
    for name, parameter in scheme.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_sizes_of_section_v(make_scheme: MakeScheme) -> None:
    scheme = make_scheme("hyperrnn", "multipath-p2", feedback_bits=20)
    assert shapes(scheme.encoder) == {
        "pilots.parts": (2, 64, 2),
        "dnn.0.weight": (1024, 4),
        "dnn.0.bias": (1024,),
        "dnn.2.weight": (512, 1024),
        "dnn.2.bias": (512,),
        "dnn.4.weight": (256, 512),
        "dnn.4.bias": (256,),
        "dnn.6.weight": (20, 256),
        "dnn.6.bias": (20,),
    }
    assert [type(layer) for layer in scheme.encoder.dnn][1::2] == [nn.ReLU] * 3
    assert shapes(scheme.decoder) == {
        "estimator.input.weight": (256, 20),
        "estimator.input.bias": (256,),
        "estimator.recurrence.weight": (256, 256),
        "estimator.output.weight": (128, 256),
        "estimator.output.bias": (128,),
        "hypernetwork.input.weight": (1024, 128),
        "hypernetwork.input.bias": (1024,),
        "hypernetwork.recurrence.weight": (1024, 1024),
        "hypernetwork.output.weight": (20 + 2 * 256, 1024),
        "hypernetwork.output.bias": (20 + 2 * 256,),
    }


def test_rnn_is_the_estimator_alone(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    scheme = make_scheme("rnn", "multipath-p2", uplink_reading="none")
    assert {name.split(".")[0] for name in shapes(scheme.decoder)} == {"estimator"}
    side = scheme.decoder.side_information(UplinkView(scheme.scenario, make_samples(3)))
    assert side.shape == (3, 8, 0)


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({}, 2 * 6),
        ({"uplink_pilots": 3}, 2 * 6 * 3),
        ({"beam_power": True}, 2 * 6 + 2 * 6),
        ({"beam_power": True, "uplink_pilots": 3}, 2 * 6 * 3 + 2 * 6),
        ({"uplink_reading": "projected"}, 2),
        ({"uplink_reading": "projected", "uplink_pilots": 8}, 2 * 8),
    ],
)
def test_input_size_of_every_reading(
    make_scheme: MakeScheme, make_samples: MakeSamples, config: dict[str, Any], size: int
) -> None:
    scheme = make_scheme("hyperrnn", SMALL, **config)
    side = scheme.decoder.side_information(UplinkView(scheme.scenario, make_samples(3)))
    assert side.shape == (3, 4, size)
    assert scheme.decoder.hypernetwork.input.in_features == size


def test_side_information_of_the_array(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    scheme = make_scheme("hyperrnn", SMALL, uplink_pilots=2)
    view = UplinkView(scheme.scenario, make_samples(3))
    received = view.array_pilots(2).reshape(3, 4, 12)
    expected = torch.cat([received.real, received.imag], dim=-1)
    assert torch.equal(scheme.decoder.side_information(view), expected)


def test_side_information_of_projected_pilots(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    scheme = make_scheme("hyperrnn", SMALL, uplink_reading="projected", uplink_pilots=3)
    view = UplinkView(scheme.scenario, make_samples(3))
    received = view.projected_pilots(scheme.decoder.uplink.pilots())
    assert received.shape == (3, 4, 3)
    assert torch.equal(scheme.decoder.side_information(view), torch.cat([received.real, received.imag], dim=-1))


@torch.no_grad()
def test_beam_powers_are_those_of_orthogonal_beams(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    """Magnitudes of the mean pilot in 6 DFT beams: of the slot, then root mean power over the slots so far."""
    scheme = make_scheme("hyperrnn", SMALL, beam_power=True, uplink_pilots=2)
    view = UplinkView(scheme.scenario, make_samples(3))
    beams = np.exp(-2j * np.pi * np.outer(np.arange(6), np.arange(6)) / 6) / 6**0.5
    power = np.abs(view.array_pilots(2).mean(-1).numpy() @ beams) ** 2
    mean = np.stack([power[:, : t + 1].mean(axis=1) for t in range(4)], axis=1)
    features = scheme.decoder.side_information(view)[..., -12:].numpy()
    np.testing.assert_allclose(features, np.sqrt(np.concatenate([power, mean], axis=-1)), rtol=1e-4, atol=1e-5)


@readings
@torch.no_grad()
def test_side_information_is_causal(make_scheme: MakeScheme, make_samples: MakeSamples, reading: str) -> None:
    """The slots of a shorter frame of the same world are not changed by what comes after them."""
    scheme = build(make_scheme, reading)
    longer = dataclasses.replace(scheme.scenario, slots=9)
    side, later = (scheme.decoder.side_information(UplinkView(w, make_samples(4))) for w in (scheme.scenario, longer))
    assert later.shape[1] == 9
    torch.testing.assert_close(side, later[:, :4])


@readings
@torch.no_grad()
def test_estimates_depend_on_the_past_of_the_frame_only(
    make_scheme: MakeScheme, make_samples: MakeSamples, reading: str
) -> None:
    scheme = build(make_scheme, reading)
    bits, side = inputs(scheme, make_samples(5))
    before = scheme.decoder(bits, side)
    changed = bits.clone()
    changed[:, 1] *= -1
    after = scheme.decoder(changed, side)
    torch.testing.assert_close(after[:, 0], before[:, 0])
    assert ((after - before)[:, 1:].abs().amax(-1) > 1e-5).all()
    if side.shape[-1]:
        moved = side.clone()
        moved[:, 1] += 1
        after = scheme.decoder(bits, moved)
        torch.testing.assert_close(after[:, 0], before[:, 0])
        assert ((after - before)[:, 1:].abs().amax(-1) > 1e-6).all()


@readings
@torch.no_grad()
def test_frames_start_from_zero_states(make_scheme: MakeScheme, make_samples: MakeSamples, reading: str) -> None:
    scheme = build(make_scheme, reading)
    state = scheme.decoder.initial_state(5)
    sizes = {"estimator": (5, 256)} | ({"hypernetwork": (5, 1024)} if reading != "rnn" else {})
    assert {name: tuple(value.shape) for name, value in state.items()} == sizes
    assert all(not value.any() for value in state.values())
    bits, side = inputs(scheme, make_samples(5))
    fields = {"signs": (bits[:, 0] > 0).long()}
    _, after = scheme.decoder.step(fields, side[:, 0], state)
    assert {name: tuple(value.shape) for name, value in after.items()} == sizes
    assert all(value.any() for value in after.values())
    assert all(not value.any() for value in state.values())


@torch.no_grad()
def test_omega_scales_the_columns_of_the_three_matrices() -> None:
    """Eqs. (4), (5) with W_A diag(omega_A), W_B diag(omega_B), W_C diag(omega_C)."""
    torch.manual_seed(0)
    estimator = EstimatorRnn(5, 6).double()
    bits = torch.randn(4, 5, dtype=torch.float64).sign()
    omega = torch.randn(4, 5 + 2 * 256, dtype=torch.float64)
    state = torch.rand(4, 256, dtype=torch.float64)
    estimates, states = estimator.step(bits, omega, state)
    w_a, b_a = estimator.input.weight, estimator.input.bias
    w_b, b_b = estimator.output.weight, estimator.output.bias
    w_c = estimator.recurrence.weight
    for row in range(4):
        omega_a, omega_b, omega_c = omega[row, :5], omega[row, 5:261], omega[row, 261:]
        new = torch.relu(w_a @ torch.diag(omega_a) @ bits[row] + b_a + w_c @ torch.diag(omega_c) @ state[row])
        torch.testing.assert_close(states[row], new)
        torch.testing.assert_close(estimates[row], w_b @ torch.diag(omega_b) @ new + b_b)


@torch.no_grad()
def test_no_omega_is_omega_of_ones() -> None:
    torch.manual_seed(0)
    estimator = EstimatorRnn(5, 6)
    bits, state = torch.randn(4, 5).sign(), torch.rand(4, 256)
    for ours, ones in zip(
        estimator.step(bits, None, state), estimator.step(bits, torch.ones(4, 517), state), strict=True
    ):
        torch.testing.assert_close(ours, ones)


@torch.no_grad()
def test_hypernetwork_is_equation_6(make_scheme: MakeScheme) -> None:
    net = build(make_scheme, "array").decoder.hypernetwork
    side, state = torch.randn(3, 12), torch.rand(3, 1024)
    omega, new = net.step(side, state)
    expected = torch.relu(side @ net.input.weight.T + net.input.bias + state @ net.recurrence.weight.T)
    torch.testing.assert_close(new, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(omega, expected @ net.output.weight.T + net.output.bias, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_training_starts_with_scales_near_one(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    scheme = make_scheme("hyperrnn", SMALL, perturbed=False)
    omega = scheme.decoder.hypernetwork(scheme.decoder.side_information(UplinkView(scheme.scenario, make_samples(9))))
    assert omega.shape == (9, 4, 20 + 512)
    assert (omega - 1).abs().max() < 0.2
    assert (omega != 1).any()


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("hyperrnn", {"feedback_bits": 3}),
        ("hyperrnn", {"feedback_bits": 33, "uplink_pilots": 2, "downlink_pilots": 5, "beam_power": True}),
        ("hyperrnn", {"feedback_bits": 9, "uplink_pilots": 6, "uplink_reading": "projected"}),
        ("rnn", {"feedback_bits": 1, "downlink_pilots": 1, "uplink_reading": "none"}),
    ],
)
@pytest.mark.parametrize(
    "scenario", ["multipath-p8:antennas=5,slots=3,paths=3", "multipath-p2:antennas=9,slots=1,paths=1"]
)
def test_other_sizes(
    make_scheme: MakeScheme,
    make_samples: MakeSamples,
    over_the_wire: Callable[[Scheme, Samples], tuple[bytes, Tensor]],
    name: str,
    config: dict[str, Any],
    scenario: str,
) -> None:
    scheme = make_scheme(name, scenario, **config)
    world, pilots = scheme.scenario, config.get("downlink_pilots", 2)
    assert scheme.encoder.observe(DownlinkView(world, make_samples(3))).shape == (3, world.slots, 2 * pilots)
    payload, estimates = over_the_wire(scheme, make_samples(3))
    assert len(payload) == -(-3 * world.slots * config["feedback_bits"] // 8)
    assert estimates.shape == (3, world.slots, world.antennas)
    assert estimates.isfinite().all()
    assert estimates.flatten(0, 1).std(0).min() > 0 or world.slots == 1
