from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor

from shared.channels import compiled
from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Link, Scenario
from shared.channels.streams import Samples
from shared.channels.uplink import UplinkView
from shared.errors import InvalidInput
from shared.metrics import Outcomes
from shared.schemes import Scheme, angles
from shared.schemes.angles import estimate_angles
from shared.schemes.base import to_complex

MakeScheme = Callable[..., Scheme]
MakeSamples = Callable[..., Samples]
OverTheWire = Callable[[Scheme, Samples], tuple[bytes, Tensor]]

CONFIGS: dict[str, dict[str, Any]] = {
    "genie_lmmse": {"feedback_bits": 0, "uplink_reading": "genie"},
    "angle_lmmse": {"feedback_bits": 0},
    "uplink_only": {"feedback_bits": 0},
}


def direct_lmmse(world: Scenario, sine: NDArray[Any], pilots: NDArray[Any], received: NDArray[Any]) -> NDArray[Any]:
    """E[h_t | y_0 .. y_t] of one frame for every t, from the covariances of the stacked channels and pilots.

    Args:
        sine: [P]. pilots: [M, L]. received: [T, L].
    """
    wavelength = 299_792_458.0 / (world.downlink_ghz * 1e9)
    phase = 2j * np.pi * world.spacing_m / wavelength * np.outer(np.arange(world.antennas), sine)
    spatial = np.exp(phase) @ np.exp(phase).conj().T / world.paths
    estimates = []
    for t in range(world.slots):
        lags = np.abs(np.subtract.outer(np.arange(t + 1), np.arange(t + 1)))
        channel = np.kron(np.float64(world.correlation(Link.DOWNLINK)) ** lags, spatial)
        measured = np.kron(np.eye(t + 1), pilots.conj().T)  # y* = X^H h + n*
        covariance = measured @ channel @ measured.conj().T
        covariance += np.eye(len(covariance)) * 10 ** (-world.snr_db / 10)
        gain = channel[-world.antennas :] @ measured.conj().T @ np.linalg.inv(covariance)
        estimates.append(gain @ received[: t + 1].conj().reshape(-1))
    return np.stack(estimates)


@pytest.mark.parametrize(
    "scenario",
    [
        "multipath-p2:antennas=8,slots=4",
        "multipath-p2:antennas=8,slots=3,fading_correlation=0",
        "multipath-p8:antennas=6,slots=3,paths=5,fading_correlation=-0.6,snr_db=0",
        "multipath-30kmh:antennas=8,slots=3,slot_ms=1,snr_db=20",
    ],
)
def test_genie_is_the_lmmse_estimate(
    make_scheme: MakeScheme, make_samples: MakeSamples, over_the_wire: OverTheWire, scenario: str
) -> None:
    scheme, samples = make_scheme("genie_lmmse", scenario, downlink_pilots=3, **CONFIGS["genie_lmmse"]), make_samples(6)
    world, pilots = scheme.scenario, scheme.encoder.pilots()
    received = DownlinkView(world, samples).pilots(pilots)
    sine = UplinkView(world, samples).path_sines()
    _, estimates = over_the_wire(scheme, samples)
    for row in range(6):
        expected = direct_lmmse(world, *(value.numpy().astype(complex) for value in (sine[row], pilots, received[row])))
        assert np.abs(estimates[row].numpy() - expected).max() < 2e-4


def test_angles_make_the_order_of_the_references(
    make_scheme: MakeScheme, make_samples: MakeSamples, over_the_wire: OverTheWire
) -> None:
    """Given angles beat estimated ones, these beat an all-zero estimate, and the uplink alone is worse than that."""
    samples = make_samples(150)
    nmse = {}
    for name, config in CONFIGS.items():
        scheme = make_scheme(name, "multipath-p2:antennas=16,slots=3", seed=5, **config)
        truth = DownlinkView(scheme.scenario, samples).truth("spatial")
        outcomes = Outcomes.measure(over_the_wire(scheme, samples)[1], truth)
        nmse[name] = float(outcomes.error.sum() / outcomes.power.sum())
    assert nmse["genie_lmmse"] < 1.02 * nmse["angle_lmmse"]
    assert nmse["genie_lmmse"] < 0.3
    assert nmse["angle_lmmse"] < 0.5
    assert nmse["uplink_only"] > 1.2


def test_more_slots_make_the_genie_better(
    make_scheme: MakeScheme, make_samples: MakeSamples, over_the_wire: OverTheWire
) -> None:
    scheme, samples = make_scheme("genie_lmmse", "multipath-p2:antennas=8", **CONFIGS["genie_lmmse"]), make_samples(200)
    truth = DownlinkView(scheme.scenario, samples).truth("spatial")
    outcomes = Outcomes.measure(over_the_wire(scheme, samples)[1], truth)
    by_slot = outcomes.error.mean(0)
    assert by_slot[7] < 0.6 * by_slot[0]


def test_state_counts_the_slots_of_the_frame(make_scheme: MakeScheme) -> None:
    scheme = make_scheme("genie_lmmse", "multipath-p2:antennas=4,slots=3", **CONFIGS["genie_lmmse"])
    state = scheme.decoder.initial_state(2)
    assert all(not value.any() for value in state.values())
    side = torch.full((2, 2), 0.1)
    for t in range(3):
        observation = torch.full((2, 4), float(t + 1))
        _, state = scheme.decoder.step(scheme.encoder.encode(observation), side, state)
        assert state["slots"].tolist() == [[t + 1]] * 2
    assert state["received"].tolist() == [[3.0] * 4 + [2.0] * 4 + [1.0] * 4] * 2


def worst_sine_errors(samples: Samples) -> Tensor:
    """[frames, T] of the frames whose two paths are at least 0.1 apart, at 40 dB, fading afresh in each slot."""
    world = Scenario.parse("multipath-p2:antennas=32,slots=3,snr_db=40,fading_correlation=0")
    view = UplinkView(world, samples)
    truth = view.path_sines().sort(-1).values
    found = estimate_angles(world, view.array_pilots(1)[..., 0])
    assert found.shape == (len(samples), 3, 2)
    apart = truth[:, 1] - truth[:, 0] >= 0.1
    assert apart.sum() >= len(samples) // 2
    return (found.sort(-1).values - truth[:, None]).abs().amax(-1)[apart]


def test_angles_are_found_at_high_snr(make_samples: MakeSamples) -> None:
    error = worst_sine_errors(make_samples(60))
    assert (error[:, -1] < 0.002).float().mean() > 0.9
    assert (error.median(0).values < 0.0005).all()


def test_angles_are_found_in_every_frame(make_samples: MakeSamples) -> None:
    assert worst_sine_errors(make_samples(60))[:, -1].max() < 0.002


@pytest.mark.parametrize("paths", [1, 3])
def test_angles_of_other_numbers_of_paths(make_samples: MakeSamples, paths: int) -> None:
    world = Scenario.parse(
        f"multipath-p2:antennas=32,slots=2,snr_db=40,fading_correlation=0,paths={paths},angle_deg=60"
    )
    view = UplinkView(world, make_samples(30))
    truth = view.path_sines().sort(-1).values
    found = estimate_angles(world, view.array_pilots(1)[..., 0])[:, -1].sort(-1).values
    apart = (truth.diff(dim=1) >= 0.2).all(1)
    assert apart.sum() >= 5
    assert (found - truth).abs()[apart].median() < 0.001


@pytest.mark.parametrize("world", ["multipath-p2", "multipath-p2:paths=1,snr_db=0", "multipath-p2:paths=3,antennas=7"])
def test_without_compiled_loops_the_angles_are_the_same(
    make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch, world: str
) -> None:
    scenario = Scenario.parse(world)
    received = UplinkView(scenario, make_samples(angles._AT_ONCE + 1)).array_pilots(1)[..., 0]
    ours = estimate_angles(scenario, received)
    monkeypatch.setattr(compiled, "for_device", lambda device: None)
    torch.testing.assert_close(estimate_angles(scenario, received), ours, rtol=0, atol=1e-7)


def test_angles_of_a_slot_come_from_the_slots_so_far(make_samples: MakeSamples) -> None:
    world = Scenario.parse("multipath-p2:antennas=8,slots=3")
    received = UplinkView(world, make_samples(5)).array_pilots(1)[..., 0]
    changed = received.clone()
    changed[:, 2] = torch.randn(5, 8, dtype=torch.complex64) * 10
    before, after = estimate_angles(world, received), estimate_angles(world, changed)
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.equal(before[:, 2], after[:, 2])


def test_estimated_angles_stay_near_the_sector(make_samples: MakeSamples) -> None:
    world = Scenario.parse("multipath-p2:antennas=8,slots=1,angle_deg=20,snr_db=-20")
    found = estimate_angles(world, UplinkView(world, make_samples(50)).array_pilots(1)[..., 0])
    assert found.abs().max() < math.sin(math.radians(20)) + 0.002


def test_uplink_only_moves_the_uplink_to_the_downlink_carrier(
    make_scheme: MakeScheme, make_samples: MakeSamples, over_the_wire: OverTheWire
) -> None:
    """Without noise and with fading that stands still, against the same amplitudes at 3.1 GHz; and at one carrier."""
    for downlink_ghz in (3.0, 3.1):
        text = f"multipath-p2:antennas=32,slots=2,snr_db=60,downlink_ghz={downlink_ghz}"
        scheme, samples = make_scheme("uplink_only", text, **CONFIGS["uplink_only"]), make_samples(60)
        world = scheme.scenario
        payload, estimates = over_the_wire(scheme, samples)
        assert payload == b""
        view = UplinkView(world, samples)
        sine, uplink = view.path_sines().double().numpy(), view.channel().numpy()
        element = np.arange(32)[:, None]

        def vectors(ghz: float, angles: NDArray[Any] = sine, element: NDArray[Any] = element) -> NDArray[Any]:
            return np.exp(2j * np.pi * 0.05 * ghz * 1e9 / 299_792_458.0 * element * angles[:, None, :])

        expected = vectors(downlink_ghz) @ np.linalg.pinv(vectors(3.0)) @ uplink.transpose(0, 2, 1)
        apart = np.abs(sine[:, 0] - sine[:, 1]) >= 0.1
        error = np.abs(estimates.numpy() - expected.transpose(0, 2, 1))[apart] ** 2
        assert error.sum() < 0.01 * (np.abs(expected[apart]) ** 2).sum()


FLOATS = hnp.arrays(np.float32, (3, 4), elements=st.floats(width=32))


@given(FLOATS)
def test_float_payload_is_bit_exact(make_scheme: MakeScheme, values: NDArray[np.float32]) -> None:
    scheme = make_scheme("genie_lmmse", "multipath-p2:antennas=4,slots=2", **CONFIGS["genie_lmmse"])
    fields = {name: field.numpy() for name, field in scheme.encoder.encode(torch.from_numpy(values)).items()}
    payload = scheme.layout.pack(fields, 3)
    assert payload == values.astype(">f4").tobytes()
    received = scheme.layout.unpack(payload, 3)
    assert received["samples"].astype(np.uint32).view(np.float32).tobytes() == values.tobytes()
    if not np.isfinite(values).all():
        return
    scheme.check_fields(received)
    integers = {name: torch.from_numpy(field) for name, field in received.items()}
    _, state = scheme.decoder.step(integers, torch.zeros(3, 2), scheme.decoder.initial_state(3))
    assert state["received"][:, :4].contiguous().numpy().tobytes() == values.tobytes()


@pytest.mark.parametrize("name", ["genie_lmmse", "angle_lmmse"])
@pytest.mark.parametrize("word", [0x7FC00000, 0xFFC00001, 0x7F800001, 0x7F800000, 0xFF800000])
def test_payload_that_is_no_finite_number_is_refused(make_scheme: MakeScheme, name: str, word: int) -> None:
    scheme = make_scheme(name, "multipath-p2:antennas=4,slots=2", **CONFIGS[name])
    samples = np.zeros((3, 4), np.int64)
    scheme.check_fields({"samples": samples})
    samples[1, 2] = word
    with pytest.raises(InvalidInput, match="payload samples: NaN or infinite; wanted finite float32 values"):
        scheme.check_fields({"samples": samples})


@pytest.mark.parametrize("word", [0x00000000, 0x80000000, 0x00000001, 0x7F7FFFFF, 0xFF7FFFFF])
def test_finite_payload_is_accepted(make_scheme: MakeScheme, word: int) -> None:
    scheme = make_scheme("genie_lmmse", "multipath-p2:antennas=4,slots=2", **CONFIGS["genie_lmmse"])
    scheme.check_fields({"samples": np.full((3, 4), word, np.int64)})


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_to_train(make_scheme: MakeScheme, name: str) -> None:
    scheme = make_scheme(name, "multipath-p2:antennas=4,slots=2", **CONFIGS[name])
    assert not scheme.trainable
    assert not [parameter for parameter in scheme.parameters() if parameter.requires_grad]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    ("scenario", "downlink_pilots", "uplink_pilots"),
    [("multipath-p8:antennas=5,slots=3,paths=3", 4, 2), ("multipath-p2:antennas=3,slots=1,paths=1", 1, 3)],
)
def test_other_sizes(
    make_scheme: MakeScheme,
    make_samples: MakeSamples,
    over_the_wire: OverTheWire,
    name: str,
    scenario: str,
    downlink_pilots: int,
    uplink_pilots: int,
) -> None:
    sizes = {"downlink_pilots": downlink_pilots, "uplink_pilots": uplink_pilots}
    scheme = make_scheme(name, scenario, **CONFIGS[name], **sizes)
    world = scheme.scenario
    payload, estimates = over_the_wire(scheme, make_samples(3))
    bits = 0 if name == "uplink_only" else 64 * downlink_pilots
    assert scheme.layout.bits == bits
    assert len(payload) == 3 * world.slots * bits // 8
    assert estimates.shape == (3, world.slots, world.antennas)
    assert estimates.isfinite().all()


def test_encoder_sends_what_it_received(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    scheme, samples = make_scheme("genie_lmmse", "multipath-p2:antennas=4", **CONFIGS["genie_lmmse"]), make_samples(3)
    view = DownlinkView(scheme.scenario, samples)
    observation = scheme.encoder.observe(view)
    assert torch.equal(to_complex(observation), view.pilots(scheme.encoder.pilots()))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_reference_is_of_the_world_that_it_was_built_for(make_scheme: MakeScheme, name: str) -> None:
    """Its bound would not be one in another."""
    scheme = make_scheme(name, "multipath-p2:antennas=4,slots=2", **CONFIGS[name])
    scheme.check_scenario(Scenario.parse("multipath-p2:antennas=4,slots=2"))
    for change in ("snr_db=0", "fading_correlation=0.5", "paths=3"):
        with pytest.raises(InvalidInput, match=rf"scenario {change.split('=')[0]}: .*; this {name} was built for"):
            scheme.check_scenario(Scenario.parse(f"multipath-p2:antennas=4,slots=2,{change}"))
