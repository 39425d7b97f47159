from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from shared.channels import multipath
from shared.channels.downlink import DownlinkView
from shared.channels.multipath import Multipath
from shared.channels.scenario import Scenario
from shared.channels.streams import Purpose, Samples, Split
from shared.channels.uplink import UplinkView

MakeSamples = Callable[..., Samples]
LINKS: dict[str, type[UplinkView] | type[DownlinkView]] = {"uplink": UplinkView, "downlink": DownlinkView}
FADING = {"uplink": Purpose.UPLINK_FADING, "downlink": Purpose.DOWNLINK_FADING}

link = pytest.mark.parametrize("link", LINKS)


def correlation(a: Tensor, b: Tensor) -> complex:
    """E[a b*] over all entries, of unit-power values."""
    return complex((a * b.conj()).mean())


@link
def test_splits_never_share_a_sample(make_samples: MakeSamples, link: str) -> None:
    world = Scenario.parse("multipath-p2:antennas=4,slots=2")
    channels = {split: LINKS[link](world, make_samples(64, split=split)).channel().flatten(1) for split in Split}
    for a, b in itertools.combinations(Split, 2):
        distance = (channels[a][:, None] - channels[b]).abs().square().sum(-1)
        assert distance.min() > 1e-6, (a, b)


@link
@pytest.mark.parametrize(
    "name", ["multipath-p2", "multipath-p8", "multipath-30kmh", "multipath-p2:paths=1,fading_correlation=-0.5"]
)
def test_unit_power_at_every_antenna_and_slot(make_samples: MakeSamples, link: str, name: str) -> None:
    world = Scenario.parse(f"{name}{',' if ':' in name else ':'}antennas=4,slots=3")
    count = 10_000
    power = LINKS[link](world, make_samples(count)).channel().abs().square().mean(0)
    assert power.shape == (3, 4)
    assert (power - 1).abs().max() < 5 * count**-0.5


@link
@pytest.mark.parametrize("rho", [0.99, 0.6, 0.0, -0.5])
def test_lag_correlation_is_that_of_ar1(make_samples: MakeSamples, link: str, rho: float) -> None:
    samples, paths = make_samples(10_000), 2
    beta = multipath.fading(samples, FADING[link], rho, torch.arange(4), paths)
    tolerance = 5 * (len(samples) * paths) ** -0.5
    for t, lag in [(0, 0), (3, 0), (0, 1), (2, 1), (1, 2), (0, 3)]:
        assert abs(correlation(beta[:, t + lag], beta[:, t]) - rho**lag) < tolerance
    assert abs(correlation(beta[:, 2, 0], beta[:, 2, 1])) < tolerance


def test_fading_follows_the_recursion(make_samples: MakeSamples) -> None:
    samples, rho = make_samples(5), 0.7
    beta = multipath.fading(samples, Purpose.UPLINK_FADING, rho, torch.arange(6), 3)
    innovation = samples.complex_normal(Purpose.UPLINK_FADING, torch.arange(6), 3)
    expected = [innovation[:, 0]]
    for t in range(1, 6):
        expected.append(rho * expected[-1] + math.sqrt(1 - rho**2) * innovation[:, t])
    torch.testing.assert_close(beta, torch.stack(expected, dim=1))


@link
def test_computed_rho_of_each_link_is_that_of_its_fading(make_samples: MakeSamples, link: str) -> None:
    """30 km/h and 2 ms: 0.744 at 3.0 GHz (FIELD.md); J0(2.1) = 0.167 at 6.0 GHz."""
    world = Scenario.parse("multipath-30kmh:antennas=1,slots=2,slot_ms=2,downlink_ghz=6,paths=1")
    h = LINKS[link](world, make_samples(20_000)).channel()[..., 0]
    expected = {"uplink": 0.7441, "downlink": 0.1692}[link]
    assert abs(correlation(h[:, 1], h[:, 0]) - expected) < 5 * len(h) ** -0.5


@link
def test_fading_of_rho_one_stands_still(make_samples: MakeSamples, link: str) -> None:
    h = LINKS[link](Scenario.parse("multipath-p2:antennas=4,fading_correlation=1"), make_samples(4)).channel()
    torch.testing.assert_close(h, h[:, :1].expand_as(h))


@pytest.mark.parametrize("rho", ["0", "0.99", "none"])
@pytest.mark.parametrize("delay", [1, 2, 11])
def test_delayed_channel_goes_on_with_the_same_frame(make_samples: MakeSamples, rho: str, delay: int) -> None:
    samples = make_samples(6)
    world = Scenario.parse(f"multipath-p2:antennas=4,slots=5,fading_correlation={rho}")
    longer = Scenario.parse(f"multipath-p2:antennas=4,slots={5 + delay},fading_correlation={rho}")
    delayed = DownlinkView(world, samples).channel(delay)
    assert delayed.shape == (6, 5, 4)
    torch.testing.assert_close(delayed, DownlinkView(longer, samples).channel()[:, delay:])
    if delay < world.slots:
        torch.testing.assert_close(delayed[:, :-delay], DownlinkView(world, samples).channel()[:, delay:])


@link
def test_slots_do_not_depend_on_how_many_a_frame_has(make_samples: MakeSamples, link: str) -> None:
    short, long = (Scenario.parse(f"multipath-p2:antennas=4,slots={slots}") for slots in (3, 8))
    view, longer = LINKS[link](short, make_samples(5)), LINKS[link](long, make_samples(5))
    torch.testing.assert_close(view.channel(), longer.channel()[:, :3])


def test_links_share_angles_and_gains(make_samples: MakeSamples) -> None:
    """Each link's channels lie in the span of the steering vectors of the same angles at its own carrier.

    The amplitudes have the same mean power, 1/P, on every path of both links.
    """
    world, samples = Scenario.parse("multipath-p2:antennas=32,slots=4,fading_correlation=0"), make_samples(3000)
    sine = UplinkView(world, samples).path_sines()
    apart = (sine[:, 0] - sine[:, 1]).abs() > 0.1
    for view, carrier, other in ((UplinkView, 3.0, 3.1), (DownlinkView, 3.1, 3.0)):
        h = view(world, samples).channel()[apart].transpose(1, 2)  # [N, M, T]

        def fit(ghz: float, channels: Tensor = h) -> tuple[Tensor, Tensor]:
            vectors = multipath.steering(world, ghz, sine[apart])
            amplitudes = torch.linalg.solve(vectors.mH @ vectors, vectors.mH @ channels)
            rest = channels - vectors @ amplitudes
            return amplitudes, rest.abs().square().sum() / channels.abs().square().sum()

        amplitudes, rest = fit(carrier)
        assert rest < 1e-9
        assert fit(other)[1] > 1e-3
        power = amplitudes.abs().square().mean((0, 2))
        assert (power - 0.5).abs().max() < 5 * 0.5 * (4 * len(h)) ** -0.5
    assert world.gain == pytest.approx(0.5**0.5)


def test_fading_of_the_links_is_independent(make_samples: MakeSamples) -> None:
    world = Scenario.parse("multipath-p2:antennas=1,slots=2,downlink_ghz=3.0")
    samples = make_samples(10_000)
    up, down = UplinkView(world, samples).channel(), DownlinkView(world, samples).channel()
    for t, s in itertools.product(range(2), range(2)):
        assert abs(correlation(up[:, t], down[:, s])) < 5 * len(samples) ** -0.5


def test_angles_are_uniform_in_the_sector(make_samples: MakeSamples) -> None:
    world = Scenario.parse("multipath-p2:angle_deg=40,paths=3")
    sine = multipath.path_sines(world, make_samples(5000))
    angle = torch.rad2deg(torch.asin(sine)).double().numpy()
    assert angle.shape == (5000, 3)
    assert -40.001 < angle.min() < -39.9
    assert 39.9 < angle.max() < 40.001
    assert kstest(angle.flatten(), "uniform", args=(-40, 80)).statistic < 1.95 / angle.size**0.5
    assert np.abs(np.corrcoef(angle.T) - np.eye(3)).max() < 0.07


def test_angles_hold_for_a_frame_only(make_samples: MakeSamples) -> None:
    world = Scenario.parse("multipath-p2")
    first, second = (multipath.path_sines(world, make_samples(6, frame=frame)) for frame in (0, 1))
    assert (first - second).abs().min() > 1e-4


@pytest.mark.parametrize(("carrier", "spacing"), [(3.0, 0.05), (3.1, 0.05), (5.0, 0.03)])
def test_steering_is_that_of_one_physical_array(carrier: float, spacing: float) -> None:
    world = Multipath(antennas=64, spacing_m=spacing)
    sine = np.sin(np.deg2rad([[-29.0, 0.0, 12.5], [30.0, -1.0, 5.0]]))
    wavelength = 299_792_458.0 / (carrier * 1e9)
    expected = np.exp(2j * np.pi * spacing / wavelength * np.arange(64)[:, None] * sine[:, None, :])
    vectors = multipath.steering(world, carrier, torch.from_numpy(sine).float())
    assert vectors.shape == (2, 64, 3)
    assert np.abs(vectors.numpy() - expected).max() < 1e-4


def test_steering_of_the_two_carriers_differs() -> None:
    """At the last of 64 elements the phases are 2 pi 63 * 0.05 * 0.1e9 / c * 0.5 = 3.30 rad apart."""
    world, sine = Multipath(), torch.tensor([0.5])
    up, down = (multipath.steering(world, ghz, sine)[-1, 0] for ghz in (world.uplink_ghz, world.downlink_ghz))
    assert float((down * up.conj()).angle()) % (2 * math.pi) == pytest.approx(3.301, abs=2e-3)


@pytest.mark.parametrize("snr_db", [-3, 10, 20])
def test_noise_power_of_every_reading(make_samples: MakeSamples, snr_db: float) -> None:
    world = Scenario.parse(f"multipath-p2:antennas=6,slots=4,snr_db={snr_db}")
    samples = make_samples(1500)
    up, down = UplinkView(world, samples), DownlinkView(world, samples)
    pilots = torch.nn.functional.normalize(torch.randn(6, 3, dtype=torch.complex64), dim=0)
    noises = {
        "array": up.array_pilots(3) - up.channel()[..., None],
        "projected": up.projected_pilots(pilots) - up.channel().conj() @ pilots,
        "downlink": down.pilots(pilots) - down.channel().conj() @ pilots,
    }
    assert noises["array"].shape == (1500, 4, 6, 3)
    assert noises["projected"].shape == noises["downlink"].shape == (1500, 4, 3)
    for name, noise in noises.items():
        unit = noise.flatten(1) * 10 ** (snr_db / 20)
        assert abs(float(unit.abs().square().mean()) - 1) < 5 * unit.numel() ** -0.5, name
        between = (unit.mH @ unit / len(unit) - torch.eye(unit.shape[1])).abs()
        assert between.max() < 6 * len(unit) ** -0.5, name
    assert abs(correlation(noises["projected"], noises["downlink"])) < 5 * 10 ** (-snr_db / 10) * 18_000**-0.5


@pytest.mark.parametrize("view", [UplinkView, DownlinkView])
def test_pilots_are_received_as_h_hermitian_x(
    make_samples: MakeSamples, view: type[UplinkView] | type[DownlinkView]
) -> None:
    """At 150 dB what is left is eqs. (1) and (2) without noise."""
    world = Scenario.parse("multipath-p2:antennas=6,slots=2,snr_db=150")
    link = view(world, make_samples(3))
    pilots = torch.randn(6, 4, dtype=torch.complex64)
    received = link.projected_pilots(pilots) if isinstance(link, UplinkView) else link.pilots(pilots)
    expected = np.einsum("ntm,ml->ntl", link.channel().numpy().conj(), pilots.numpy())
    assert np.abs(received.numpy() - expected).max() < 1e-5


def test_pilots_can_be_received_through_channels_at_hand(make_samples: MakeSamples) -> None:
    link = DownlinkView(Scenario.parse("multipath-p2:antennas=6"), make_samples(3))
    pilots = torch.randn(6, 2, dtype=torch.complex64)
    known = DownlinkView(link.scenario, link.samples, link.channel())
    assert torch.equal(known.pilots(pilots), link.pilots(pilots))


def test_batch_equals_one_ue_at_a_time(make_samples: MakeSamples) -> None:
    world = Scenario.parse("multipath-p8:antennas=8,slots=3,fading_correlation=0.9")
    pilots = torch.randn(8, 2, dtype=torch.complex64)

    def everything(samples: Samples) -> list[Tensor]:
        up, down = UplinkView(world, samples), DownlinkView(world, samples)
        return [
            up.channel(),
            up.array_pilots(2),
            up.projected_pilots(pilots),
            up.path_sines(),
            down.channel(),
            down.channel(3),
            down.pilots(pilots),
        ]

    batch = everything(make_samples(ues=[3, 9, 4, 4000]))
    for row, ue in enumerate((3, 9, 4, 4000)):
        for whole, single in zip(batch, everything(make_samples(ues=[ue])), strict=True):
            torch.testing.assert_close(single[0], whole[row], rtol=1e-5, atol=1e-5)
