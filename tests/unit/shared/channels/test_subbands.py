"""Precoders of subbands, against the eigenvectors of their covariances."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Link, Scenario
from shared.channels.streams import Samples
from shared.channels.subbands import precoders
from shared.channels.transforms import to_spatial_frequency
from shared.channels.wideband import require_wideband
from shared.errors import InvalidInput

MakeSamples = Callable[..., Samples]
Complex = NDArray[np.complex128]

WORLD = "cost2100-indoor-csinet"


def dominant(channels: Complex) -> Complex:
    """Of channels [F, M], the eigenvector of their M x M covariance."""
    return np.linalg.eigh(channels.T @ channels.conj())[1][:, -1]


def normal(*shape: int, seed: int = 0) -> Complex:
    draw = np.random.default_rng(seed)
    return draw.normal(size=shape) + 1j * draw.normal(size=shape)


@pytest.mark.parametrize("antennas", [2, 4, 9])
def test_dominant_eigenvector_of_each_subband(antennas: int) -> None:
    channels, subband = normal(5, 12, antennas), np.repeat([0, 1, 2], [1, 4, 7])
    found = precoders(torch.from_numpy(channels).to(torch.complex64), torch.from_numpy(subband), 3).numpy()
    assert found.shape == (5, 3, antennas)
    assert np.abs(np.linalg.norm(found, axis=-1) - 1).max() < 1e-5
    for n in range(5):
        for s in range(3):
            assert abs(np.vdot(found[n, s], dominant(channels[n, subband == s]))) == pytest.approx(1, abs=1e-4)


def test_the_phase_is_that_of_the_middle_of_the_subband() -> None:
    """So a path's delay turns it from subband to subband, as it turns the channel."""
    frequency, steering = np.arange(35), np.exp(1j * np.arange(8))
    channels = np.exp(-0.3j * frequency)[:, None] * steering
    subband = torch.from_numpy(frequency // 5)
    found = precoders(torch.from_numpy(channels).to(torch.complex64), subband, 7).numpy()
    assert np.abs(found - channels[2::5] / 8**0.5).max() < 1e-5


def test_no_channel_no_precoder() -> None:
    assert precoders(torch.zeros(2, 6, 4, dtype=torch.complex64), torch.arange(6) // 2, 3).abs().max() == 0


def test_of_a_world_they_are_from_the_whole_band(make_samples: MakeSamples) -> None:
    world, samples = require_wideband(Scenario.parse(WORLD), ""), make_samples(3)
    found = DownlinkView(world, samples).precoders()
    slot = torch.zeros(1, dtype=torch.int64)
    full = to_spatial_frequency(world.angular_delay(samples, Link.DOWNLINK, slot, full=True))[:, 0, ::2].numpy()
    assert found.shape == (3, 1, 13, 32)
    for n in range(3):
        for s in range(13):
            mine = full[n, np.arange(0, 257, 2) * 13 // 257 == s].astype(complex)
            assert abs(np.vdot(found[n, 0, s].numpy(), dominant(mine))) == pytest.approx(1, abs=1e-3)


def test_noise_turns_them_away(make_samples: MakeSamples) -> None:
    def similarity(snr_db: float) -> float:
        view = DownlinkView(Scenario.parse(f"{WORLD}:snr_db={snr_db}"), make_samples(20))
        return float((view.precoders().conj() * view.precoders(noisy=True)).sum(-1).abs().square().mean())

    assert similarity(60) > 0.999
    assert 0.2 < similarity(-10) < similarity(10) < 0.999


def test_a_channel_of_one_subcarrier_has_none(make_samples: MakeSamples) -> None:
    with pytest.raises(InvalidInput, match="scenario: a precoder per subband needs a wideband world"):
        DownlinkView(Scenario.parse("multipath-p2"), make_samples(1)).precoders()
