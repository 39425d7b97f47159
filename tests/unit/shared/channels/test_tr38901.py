from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from shared.channels import synthesis, tr38901
from shared.channels.scenario import PRESETS, SPEED_OF_LIGHT, Link, Scenario
from shared.channels.streams import Purpose, Samples
from shared.channels.tr38901 import Tr38901
from shared.channels.transforms import to_angular_delay, to_spatial_frequency
from shared.errors import InvalidInput
from tests.unit.truncation import truncate, truncation_floor_db

MakeSamples = Callable[..., Samples]
ONE = torch.arange(1)
UMI = Tr38901()
SMALL = Tr38901(antennas=8, subcarriers=65, first_rows=12, last_rows=4)

needs_sionna = pytest.mark.usefixtures("sionna")
link = pytest.mark.parametrize("link", list(Link))
model = pytest.mark.parametrize("name", ["tr38901-umi-nlos", "tr38901-uma-nlos"])


@pytest.fixture(scope="module")
def sionna() -> Any:
    return pytest.importorskip("sionna.phy")


def forget() -> None:
    """Rays are drawn anew."""
    tr38901._kept_rays.cache_clear()


def pair(world: Tr38901, samples: Samples) -> tuple[Tensor, Tensor]:
    """Uplink and downlink images of slot 0, [N, Q, M] each."""
    uplink, downlink = (world.angular_delay(samples, link, ONE)[:, 0] for link in Link)
    return uplink, downlink


def correlation(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Mean over frames of the normalised correlation |<a, b>| / (|a| |b|), and its standard error."""
    a, b = a.flatten(1), b.flatten(1)
    each = (a.conj() * b).sum(1).abs() / (a.norm(dim=1) * b.norm(dim=1))
    return float(each.mean()), float(each.std()) * len(each) ** -0.5


def by_sionna(world: Tr38901, samples: Samples, link: Link, slots: int) -> Tensor:
    """Full images [N, S, N_f, M] by Sionna's own coefficients and OFDM channel, with our rays and phases."""
    from sionna.phy.channel import cir_to_ofdm_channel
    from sionna.phy.channel.tr38901 import ChannelCoefficientsGenerator, PanelArray, Topology

    carrier = (world.uplink_ghz if link is Link.UPLINK else world.downlink_ghz) * 1e9
    wavelength, place = SPEED_OF_LIGHT / carrier, {"precision": "double", "device": "cpu"}
    scenario, lsp, rays = tr38901.sionna_rays(world, samples)
    purpose = Purpose.UPLINK_PHASE if link is Link.UPLINK else Purpose.DOWNLINK_PHASE
    columns, rows = world.positions if world.panel else (world.antennas, 1)
    drawn = samples.uniform(purpose, 2 * rays.aod[0].numel()).double() * 2 * math.pi
    rays.phases = torch.zeros(*rays.aod.shape, 4, dtype=torch.float64)
    for number, initial in enumerate(drawn.chunk(2, dim=1)):
        rays.phases[..., number] = initial.reshape(rays.aod.shape)
        # Sionna's array is centred, ours begins at the origin
        across, down = ((count - 1) / 2 * world.spacing_m * 2 * math.pi / wavelength for count in (columns, rows))
        rays.phases[..., number] += across * rays.zod.sin() * rays.aod.sin() - down * rays.zod.cos()
    rays.powers = rays.powers / rays.powers.sum(-1, keepdim=True)
    still = torch.zeros(len(samples), 1, 3, dtype=torch.float64)
    topology = Topology(
        tr38901.drop(world, samples)[1][:, None],
        "rx",
        *(angle.deg2rad() for angle in (scenario.los_aoa, scenario.los_aod, scenario.los_zoa, scenario.los_zod)),
        scenario.los,
        scenario.distance_3d,
        still,
        still,
    )
    spacing = world.spacing_m / wavelength
    polarised = ("dual", "cross") if world.panel else ("single", "V")
    spacings = {"element_vertical_spacing": spacing, "element_horizontal_spacing": spacing}
    array = PanelArray(rows, columns, *polarised, "omni", carrier, **spacings, **place)
    element = PanelArray(1, 1, "single", "V", "omni", carrier, **place)
    generator = ChannelCoefficientsGenerator(carrier, array, element, subclustering=True, **place)
    spread = scenario.get_param("cDS") * 1e-9
    h, delays = generator(slots, 1e3 / world.slot_ms, lsp.k_factor, rays, topology, spread)
    frequencies = torch.linspace(-0.5, 0.5, world.subcarriers, dtype=torch.float64) * world.bandwidth_mhz * 1e6
    channel = cir_to_ofdm_channel(frequencies, h.permute(0, 2, 4, 1, 5, 3, 6), delays.permute(0, 2, 1, 3))
    return to_angular_delay(channel[:, 0, 0, 0].permute(0, 2, 3, 1))


@needs_sionna
@link
@pytest.mark.parametrize("array", ["array=line,antennas=16", "array=8x2", "array=4x4"])
@model
def test_is_what_sionna_makes_of_the_same_rays_and_phases(
    make_samples: MakeSamples, name: str, array: str, link: Link
) -> None:
    world = Scenario.parse(f"{name}:subcarriers=128,{array}")
    assert isinstance(world, Tr38901)
    samples, slots = make_samples(12), torch.arange(4)
    theirs = by_sionna(world, samples, link, len(slots))
    ours = world.angular_delay(samples, link, slots, full=True)
    error = (ours - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)
    assert error.max() < 1e-4
    kept = world.angular_delay(samples, link, slots)
    wanted = truncate(theirs, world.first_rows, world.last_rows)
    assert ((kept - wanted).flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1)).max() < 1e-4


@needs_sionna
@model
def test_rays_are_those_of_sionnas_own_generators(
    make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from sionna.phy.channel.tr38901 import lsp as lsp_module
    from sionna.phy.channel.tr38901 import rays as rays_module

    world, samples = PRESETS[name], make_samples(20)
    assert isinstance(world, Tr38901)
    scenario, our_lsp, our_rays = tr38901.sionna_rays(world, samples)
    count = 7 + scenario.num_clusters_max * (10 + 5 * scenario.rays_per_cluster)
    numbers = tr38901._Numbers(samples, count)
    order = [2, 3, 4, 0, 1, 6, 5]  # ours are drawn in the standard's order SF, K, DS, ..., theirs are sorted into it
    monkeypatch.setattr(lsp_module, "normal", lambda shape, **_: numbers.normal(shape)[..., order])
    monkeypatch.setattr(rays_module, "normal", lambda shape, **_: numbers.normal(shape))
    monkeypatch.setattr(rays_module, "rand", lambda shape, **_: numbers.uniform(shape))
    monkeypatch.setattr(rays_module, "randint", lambda low, high, shape, **_: (1 + numbers.sign(shape)) / 2)
    lsp_generator, rays_generator = lsp_module.LSPGenerator(scenario), rays_module.RaysGenerator(scenario)
    lsp_generator.topology_updated_callback()
    rays_generator.topology_updated_callback()
    lsp = lsp_generator()
    rays = rays_generator(lsp)
    for field in ("ds", "asd", "asa", "sf", "k_factor", "zsa", "zsd"):
        torch.testing.assert_close(getattr(our_lsp, field), getattr(lsp, field), rtol=1e-12, atol=0, msg=field)
    for field in ("delays", "powers", "aoa", "aod", "zoa", "zod", "xpr"):
        torch.testing.assert_close(getattr(our_rays, field), getattr(rays, field), rtol=1e-12, atol=0, msg=field)


@needs_sionna
def test_large_scale_parameters_are_those_of_the_table(make_samples: MakeSamples) -> None:
    count = 4000
    _, lsp, rays = tr38901.sionna_rays(UMI, make_samples(count))
    spread, arrival = lsp.ds.log10().flatten(), lsp.asa.log10().flatten()
    # UMi NLOS of Table 7.5-6 (v19) at 2 GHz
    mean, deviation = -0.22 * math.log10(3) - 6.87, 0.19 * math.log10(3) + 0.22
    assert abs(spread.mean() - mean) < 4 * deviation * count**-0.5
    assert abs(spread.std() / deviation - 1) < 4 * (2 * count) ** -0.5
    assert abs(torch.corrcoef(torch.stack([spread, arrival]))[0, 1] - 0.4) < 4 * (1 - 0.4**2) * count**-0.5
    assert rays.delays.shape == (count, 1, 1, 19)


@needs_sionna
def test_ues_fill_the_ring(make_samples: MakeSamples) -> None:
    count = 4000
    place, velocity = tr38901.drop(UMI, make_samples(count))
    distance = place[:, :2].norm(dim=1)
    share = (distance**2 - UMI.nearest_m**2) / (UMI.radius_m**2 - UMI.nearest_m**2)
    assert share.min() >= 0
    assert share.max() <= 1
    assert abs(share.mean() - 0.5) < 4 * (12 * count) ** -0.5
    torch.testing.assert_close(velocity.norm(dim=1), torch.full_like(distance, UMI.speed_kmh / 3.6))
    for vectors in (place, velocity):
        assert (vectors[:, :2] / vectors[:, :2].norm(dim=1, keepdim=True)).mean(0).abs().max() < 4 * (2 * count) ** -0.5


@needs_sionna
def test_uplink_and_downlink_are_partly_reciprocal(make_samples: MakeSamples) -> None:
    uplink, downlink = pair(UMI, make_samples(300))
    cases = {  # stock Sionna, its own numbers: 0.770 +- 0.004, 0.147 +- 0.005, 0.372 +- 0.009
        "magnitudes of a pair": (correlation(uplink.abs(), downlink.abs()), 0.77, 0.01),
        "a pair": (correlation(uplink, downlink), 0.145, 0.01),
        "magnitudes of unrelated UEs": (correlation(uplink[1:].abs(), downlink[:-1].abs()), 0.38, 0.02),
    }
    for case, ((mean, error), wanted, known_to) in cases.items():
        assert abs(mean - wanted) < known_to + 3 * error, (case, mean, error)


@needs_sionna
def test_the_kept_rows_hold_nearly_all(make_samples: MakeSamples) -> None:
    images = UMI.angular_delay(make_samples(100), Link.DOWNLINK, ONE, full=True)
    floors = {last: truncation_floor_db(images, 32 - last, last) for last in (0, 6, 16)}
    assert floors[6] < -18.5
    assert floors[6] < min(floors[0], floors[16])


@needs_sionna
def test_same_numbers_in_any_batch_and_order(make_samples: MakeSamples) -> None:
    samples = make_samples(40)
    whole = tr38901.rays(SMALL, samples)
    images = SMALL.angular_delay(samples, Link.DOWNLINK, ONE)
    forget()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    for rows in (*order[:36].split(9), *order[36:].split(1)):
        part = samples.take(rows)
        assert torch.equal(tr38901.rays(SMALL, part), whole[:, rows])
        torch.testing.assert_close(SMALL.angular_delay(part, Link.DOWNLINK, ONE), images[rows], rtol=0, atol=1e-5)


@needs_sionna
def test_many_frames_are_drawn_in_parts(make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = make_samples(20)
    whole = tr38901.rays(SMALL, samples)
    images = SMALL.angular_delay(samples, Link.UPLINK, torch.arange(3))
    forget()
    monkeypatch.setattr(tr38901, "_AT_ONCE", 7)
    monkeypatch.setattr(synthesis, "_POLES", {"cpu": 8})
    assert torch.equal(tr38901.rays(SMALL, samples), whole)
    again = SMALL.angular_delay(samples, Link.UPLINK, torch.arange(3))
    torch.testing.assert_close(again, images, rtol=0, atol=1e-5)


DIGEST = """
import hashlib, torch
torch.set_num_threads(1)
from shared.channels import tr38901
from shared.channels.scenario import Link, Scenario
from shared.channels.streams import Samples, Split
ue = torch.arange(5)
samples = Samples(7, Split.TEST, ue, torch.zeros_like(ue))
world = Scenario.parse("{world}")
parts = [tr38901.rays(world, samples), torch.view_as_real(world.angular_delay(samples, Link.UPLINK, torch.arange(2)))]
print(*(hashlib.sha256(part.numpy().tobytes()).hexdigest() for part in parts))
"""


@needs_sionna
def test_same_bits_in_another_process(make_samples: MakeSamples, root: Path) -> None:
    samples = make_samples(5)
    images = torch.view_as_real(SMALL.angular_delay(samples, Link.UPLINK, torch.arange(2)))
    ours = [hashlib.sha256(part.numpy().tobytes()).hexdigest() for part in (tr38901.rays(SMALL, samples), images)]
    code = DIGEST.format(world=SMALL)
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ours


@needs_sionna
def test_seed_split_ue_and_frame_are_all_in_the_key(make_samples: MakeSamples) -> None:
    base = tr38901.rays(SMALL, make_samples(1))
    others = [
        make_samples(1, seed=8),
        make_samples(1, seed=7 + 2**32),
        make_samples(1, split=0),
        make_samples(1, frame=1),
        make_samples(ues=[1]),
    ]
    for other in others:
        assert not torch.equal(tr38901.rays(SMALL, other), base)


@needs_sionna
def test_the_wall(make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = make_samples(6)
    uplink, downlink = pair(SMALL, samples)
    drawn = Samples.uniform

    def redrawn(self: Samples, purpose: Purpose, count: int) -> Tensor:
        if purpose.name.startswith("DOWNLINK"):
            return drawn(Samples(self.seed + 1, self.split, self.ue, self.frame), purpose, count)
        return drawn(self, purpose, count)

    monkeypatch.setattr(Samples, "uniform", redrawn)
    forget()
    uplink_again, downlink_again = pair(SMALL, samples)
    forget()
    assert torch.equal(uplink_again, uplink)
    assert (downlink_again - downlink).flatten(1).norm(dim=1).min() > 0.1


@needs_sionna
@link
def test_slots_go_on_with_the_same_process(make_samples: MakeSamples, link: Link) -> None:
    samples = make_samples(5)
    run = SMALL.angular_delay(samples, link, torch.arange(12))
    spatial = SMALL.spatial(samples, link, torch.arange(12))
    for slot in (0, 3, 11):
        alone = torch.tensor([slot])
        torch.testing.assert_close(SMALL.angular_delay(samples, link, alone)[:, 0], run[:, slot], rtol=0, atol=1e-5)
        torch.testing.assert_close(SMALL.spatial(samples, link, alone)[:, 0], spatial[:, slot], rtol=0, atol=1e-5)
    assert (run[:, 11] - run[:, 0]).abs().max() > 0.01
    still = Tr38901(**{**SMALL.__dict__, "speed_kmh": 0.0}).spatial(samples, link, torch.tensor([0, 500]))
    torch.testing.assert_close(still[:, 1], still[:, 0], rtol=0, atol=0)


@needs_sionna
@link
def test_spatial_is_the_middle_of_the_band(make_samples: MakeSamples, link: Link) -> None:
    samples, slots = make_samples(5), torch.tensor([0, 2])
    band = to_spatial_frequency(SMALL.angular_delay(samples, link, slots, full=True))
    torch.testing.assert_close(SMALL.spatial(samples, link, slots), band[:, :, 32], rtol=0, atol=2e-4)


@needs_sionna
@link
@model
def test_unit_power_in_every_frame_and_on_average(make_samples: MakeSamples, name: str, link: Link) -> None:
    world = Scenario.parse(f"{name}:antennas=4")
    assert isinstance(world, Tr38901)
    samples = make_samples(2000)
    power = world.paths(samples, link).amplitude.square().sum(1)
    torch.testing.assert_close(power, torch.ones_like(power), rtol=0, atol=1e-5)
    mean = world.spatial(samples, link, ONE).abs().square().mean((0, 1))
    assert (mean - 1).abs().max() < 5 * 2000**-0.5


@needs_sionna
def test_no_frames(make_samples: MakeSamples) -> None:
    nobody = make_samples(0)
    assert SMALL.spatial(nobody, Link.UPLINK, ONE).shape == (0, 1, 8)
    assert SMALL.angular_delay(nobody, Link.UPLINK, ONE).shape == (0, 1, 16, 8)


@needs_sionna
def test_generators_of_others_are_left_alone(make_samples: MakeSamples) -> None:
    from sionna.phy import config

    forget()
    before = torch.get_rng_state(), config.torch_rng("cpu").get_state()
    pair(SMALL, make_samples(3))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(config.torch_rng("cpu").get_state(), before[1])


@needs_sionna
def test_importing_sionna_does_not_reseed_torch(root: Path) -> None:
    code = (
        "import torch; torch.manual_seed(5); before = torch.get_rng_state()\n"
        "import sys; from shared.channels import tr38901\n"
        "assert 'sionna' not in sys.modules\n"
        "tr38901._import_sionna(tr38901.Tr38901())\n"
        "assert 'sionna' in sys.modules and torch.equal(before, torch.get_rng_state())"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


def test_without_sionna_the_error_says_what_to_install(
    make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget()
    for name in ("sionna", *(name for name in sys.modules if name.startswith("sionna."))):
        monkeypatch.setitem(sys.modules, name, None)
    world = Scenario.parse("tr38901-umi-nlos:antennas=8")
    for asked in (world.check_here, lambda: world.spatial(make_samples(2), Link.DOWNLINK, ONE)):
        with pytest.raises(
            InvalidInput, match=r"tr38901-umi-nlos:antennas=8 .*pip install csi-feedback-emulator\[sionna\]"
        ):
            asked()


@needs_sionna
def test_another_way_of_drawing_is_noticed(make_samples: MakeSamples) -> None:
    numbers = tr38901._Numbers(make_samples(2), 10)
    numbers.normal((2, 1, 9))
    with pytest.raises(RuntimeError, match="1 numbers"):
        numbers.check_used_up()
    with pytest.raises(RuntimeError):
        numbers.uniform((2, 1, 9))


@pytest.mark.parametrize(
    "text",
    ["tr38901-umi-nlos", "tr38901-uma-nlos", "tr38901-uma-nlos:slots=4,gnb_m=30.0", "tr38901-umi-nlos:radius_m=90.0"],
)
def test_text_form_round_trip(text: str) -> None:
    assert str(Scenario.parse(text)) == text


@pytest.mark.parametrize("change", ["model=rma", "radius_m=10", "nearest_m=300", "ue_m=1", "last_rows=1000"])
def test_bad_fields_are_refused(change: str) -> None:
    with pytest.raises(InvalidInput):
        Scenario.parse(f"tr38901-umi-nlos:{change}")


@needs_sionna
def test_power_of_a_panel_is_1_for_each_antenna(make_samples: MakeSamples) -> None:
    samples, slots = make_samples(200), torch.arange(2)
    panel = Scenario.parse("tr38901-umi-nlos:array=8x2,slots=2")
    spatial = panel.spatial(samples, Link.DOWNLINK, slots)
    assert spatial.shape == (200, 2, 32)
    assert float(spatial.abs().square().mean()) == pytest.approx(1, abs=0.1)
    by_polarisation = spatial.unflatten(2, (2, 16)).abs().square().mean((0, 1, 3))
    assert by_polarisation.tolist() == pytest.approx([1, 1], abs=0.15)


@needs_sionna
def test_polarisations_of_a_panel_have_in_common_what_is_upright(make_samples: MakeSamples) -> None:
    """At 45 degrees to either side of the UE's: correlation (1 - m) / (1 + m), m the mean of 1 / kappa."""
    samples = make_samples(1000)
    world = Scenario.parse("tr38901-umi-nlos:array=8x2")
    assert isinstance(world, Tr38901)
    one, other = world.spatial(samples, Link.DOWNLINK, ONE)[:, 0].unflatten(1, (2, 16)).unbind(1)
    found = float((one.conj() * other).mean().real / (one.abs().square().mean() * other.abs().square().mean()).sqrt())
    crossed = float(tr38901.rays(world, samples)[5].square().mean())
    assert 0.15 < crossed < 0.3  # of 8 dB, 3 dB around it (Table 7.5-6)
    assert found == pytest.approx((1 - crossed) / (1 + crossed), abs=0.05)


@pytest.mark.parametrize("text", ["array=8x2,antennas=16", "array=4x4,antennas=64"])
def test_a_panel_of_other_antennas_is_refused(text: str) -> None:
    array, antennas = (part.partition("=")[2] for part in text.split(","))
    with pytest.raises(InvalidInput, match=f"scenario array, antennas: {array}, {antennas}; wanted 32 antennas"):
        Scenario.parse(f"tr38901-umi-nlos:{text}")
