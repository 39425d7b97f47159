from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from csiemu.training.schemes import training_of
from shared.channels.downlink import DownlinkView
from shared.channels.streams import Samples
from shared.channels.uplink import UplinkView
from shared.schemes import Scheme

MakeScheme = Callable[..., Scheme]
MakeSamples = Callable[..., Samples]

SMALL = "multipath-p2:antennas=6,slots=4"
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "dldnn": ("dldnn", {"uplink_reading": "none"}),
    "array": ("hyperdnn", {}),
    "projected": ("hyperdnn", {"uplink_reading": "projected", "uplink_pilots": 3}),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def build(make_scheme: MakeScheme, kind: str, scenario: str = SMALL) -> Scheme:
    name, config = KINDS[kind]
    return make_scheme(name, scenario, feedback_bits=7, **config)


def inputs(scheme: Scheme, samples: Samples) -> tuple[Tensor, Tensor]:
    observation = scheme.encoder.observe(DownlinkView(scheme.scenario, samples))
    return scheme.encoder(observation, 1.0), scheme.decoder.side_information(UplinkView(scheme.scenario, samples))


@kinds
@torch.no_grad()
def test_steps_equal_the_whole_frame(make_scheme: MakeScheme, make_samples: MakeSamples, kind: str) -> None:
    scheme = build(make_scheme, kind)
    bits, side = inputs(scheme, make_samples(9))
    whole = scheme.decoder(bits, side)
    assert whole.shape == (9, 4, 6)
    assert scheme.decoder.initial_state(9) == {}
    for t in range(4):
        estimate, state = scheme.decoder.step({"signs": (bits[:, t] > 0).long()}, side[:, t], {})
        assert state == {}
        torch.testing.assert_close(estimate, whole[:, t], rtol=1e-5, atol=1e-5)


@kinds
@torch.no_grad()
def test_slots_are_decoded_without_memory(make_scheme: MakeScheme, make_samples: MakeSamples, kind: str) -> None:
    scheme = build(make_scheme, kind)
    bits, side = inputs(scheme, make_samples(5))
    before = scheme.decoder(bits, side)
    changed, moved = bits.clone(), side.clone()
    changed[:, 1] *= -1
    moved[:, 1] += 1
    after = scheme.decoder(changed, moved)
    others = [0, 2, 3]
    torch.testing.assert_close(after[:, others], before[:, others])
    assert ((after - before)[:, 1].abs().amax(-1) > 1e-5).all()


@torch.no_grad()
def test_uplink_changes_the_estimate_of_hyperdnn(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    scheme = build(make_scheme, "array")
    bits, side = inputs(scheme, make_samples(5))
    change = scheme.decoder(bits, side + 1) - scheme.decoder(bits, side)
    assert (change.abs().amax(-1) > 1e-5).all()


def test_sizes_of_the_baseline(make_scheme: MakeScheme) -> None:
    scheme = make_scheme("dldnn", "multipath-p2", feedback_bits=20, uplink_reading="none")
    decoder = scheme.decoder
    assert [(layer.in_features, layer.out_features) for layer in decoder.layers] == [
        (20, 1024),
        (1024, 512),
        (512, 512),
        (512, 128),
    ]
    assert [norm.num_features for norm in decoder.norms] == [1024, 512, 512]
    assert decoder.hypernetwork is None
    widths = [(4, 1024), (1024, 512), (512, 256), (256, 20)]
    assert [(layer.in_features, layer.out_features) for layer in scheme.encoder.dnn[::2]] == widths


def test_hypernetwork_of_hyperdnn_scales_every_input(make_scheme: MakeScheme) -> None:
    net = make_scheme("hyperdnn", "multipath-p2", feedback_bits=20).decoder.hypernetwork
    assert net.recurrence is None
    assert (net.input.in_features, net.output.out_features) == (128, 20 + 1024 + 512 + 512)


@torch.no_grad()
def test_columns_are_scaled_in_every_layer(make_scheme: MakeScheme) -> None:
    """Written out with W diag(omega), for one report."""
    scheme = build(make_scheme, "array").double()
    decoder = scheme.decoder
    side = torch.randn(1, 12, dtype=torch.float64)
    bits = torch.randn(1, 7, dtype=torch.float64).sign()
    omega = decoder.hypernetwork(side)[0]
    values, start = bits[0], 0
    for layer, norm in zip(decoder.layers, [*decoder.norms, None], strict=True):
        scale = torch.diag(omega[start : start + layer.in_features])
        start += layer.in_features
        values = layer.weight @ scale @ values + layer.bias
        if norm is not None:
            centred = (values - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
            values = torch.relu(centred * norm.weight + norm.bias)
    assert start == len(omega)
    expected = torch.complex(values[:6], values[6:])
    torch.testing.assert_close(decoder(bits, side)[0], expected.to(torch.complex64), rtol=1e-5, atol=1e-6)


@kinds
def test_gradient_reaches_every_parameter(make_scheme: MakeScheme, make_samples: MakeSamples, kind: str) -> None:
    scheme, samples = build(make_scheme, kind), make_samples(9)
    observation = scheme.encoder.observe(DownlinkView(scheme.scenario, samples))
    side = scheme.decoder.side_information(UplinkView(scheme.scenario, samples))
    training_of(scheme).reconstruct(observation, side, 1.0).abs().square().sum().backward()
    for name, parameter in scheme.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("dldnn", {"feedback_bits": 3, "downlink_pilots": 1, "uplink_reading": "none"}),
        ("dldnn", {"feedback_bits": 40, "downlink_pilots": 5, "uplink_reading": "none"}),
        ("hyperdnn", {"feedback_bits": 9, "uplink_pilots": 2, "beam_power": True}),
        ("hyperdnn", {"feedback_bits": 9, "uplink_pilots": 6, "uplink_reading": "projected"}),
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
    world = scheme.scenario
    payload, estimates = over_the_wire(scheme, make_samples(3))
    assert len(payload) == -(-3 * world.slots * config["feedback_bits"] // 8)
    assert estimates.shape == (3, world.slots, world.antennas)
    assert estimates.isfinite().all()
