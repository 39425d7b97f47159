from __future__ import annotations

import dataclasses
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from shared.channels import synthesis
from shared.channels.cost2100 import Cost2100, scene, world
from shared.channels.cost2100 import paths as paths_module
from shared.channels.cost2100.parameters import ENVIRONMENTS, SPEED_OF_LIGHT, Environment, Spread
from shared.channels.scenario import PRESETS, Link, Scenario
from shared.channels.streams import Purpose, Samples, Split
from shared.channels.synthesis import Paths
from shared.channels.transforms import to_spatial_frequency
from shared.errors import InvalidInput

MakeSamples = Callable[..., Samples]
ONE = torch.arange(1)
COST2100 = [name for name, preset in PRESETS.items() if isinstance(preset, Cost2100)]
WORLDS = [
    "cost2100-indoor-csinet",
    "cost2100-outdoor-csinet:slots=2,antennas=16",
    "cost2100-indoor-5g1-5g3:environment=fixed,cell=3",
    "cost2100-outdoor-nlos:environment=fixed,subcarriers=65,antennas=8",
]

link = pytest.mark.parametrize("link", list(Link))
name = pytest.mark.parametrize("name", WORLDS)
environment = pytest.mark.parametrize("environment", ENVIRONMENTS)


def cost2100(text: str) -> Cost2100:
    scenario = Scenario.parse(text)
    assert isinstance(scenario, Cost2100)
    return scenario


def own_cells(scenario: Cost2100, samples: Samples) -> scene.Scene:
    place = scene.Place(scenario.ue_nearest, scenario.ue_farthest)
    return scene.own_cells(ENVIRONMENTS[scenario.propagation], place, samples)


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Largest error of a frame, relative to its norm."""
    return float(((ours - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)).max())


def everything(scenario: Cost2100, samples: Samples) -> list[Tensor]:
    slots = torch.arange(scenario.slots)
    return [
        channels
        for link in Link
        for channels in (scenario.angular_delay(samples, link, slots), scenario.spatial(samples, link, slots))
    ]


# the contract of the world


@name
def test_same_channels_in_any_batch_and_order(make_samples: MakeSamples, name: str) -> None:
    scenario, samples = cost2100(name), make_samples(20, frame=3)
    whole = everything(scenario, samples)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    for rows in (order[:12], order[12:17], *order[17:].split(1)):
        for ours, theirs in zip(everything(scenario, samples.take(rows)), whole, strict=True):
            assert relative(ours, theirs[rows]) <= 1e-5


@name
def test_many_frames_are_drawn_in_parts(make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    scenario, samples = cost2100(name), make_samples(10)
    whole = everything(scenario, samples)
    monkeypatch.setattr(world, "_CLUSTERS", {"cpu": 40})
    monkeypatch.setattr(world, "_PATHS", {"cpu": 1000})
    monkeypatch.setattr(world, "_FEW", {"cpu": 400})
    monkeypatch.setattr(synthesis, "_POLES", {"cpu": 1})
    for ours, theirs in zip(everything(scenario, samples), whole, strict=True):
        assert relative(ours, theirs) <= 1e-5


OTHER_PROCESS = """
import sys
import numpy as np, torch
from shared.channels.scenario import Link, Scenario
from shared.channels.streams import Samples, Split

torch.set_num_threads(1)
for place, text in enumerate(sys.argv[2:]):
    world, rows = Scenario.parse(text), {}
    for ues in ([9, 8], [7], [6, 5, 4, 3], [0, 2, 1]):
        ue = torch.tensor(ues)
        samples = Samples(2**40 + 5, Split.EMULATE, ue, ue * 3)
        both = [world.angular_delay(samples, link, torch.arange(world.slots)) for link in Link]
        rows |= dict(zip(ues, torch.cat(both, -1)))
    np.save(f"{sys.argv[1]}/{place}.npy", torch.stack([rows[n] for n in range(10)]).numpy())
"""


def test_another_process_draws_the_same_world(root: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, str(tmp_path), *WORLDS],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=True,
    )
    ue = torch.arange(10)
    samples = Samples(2**40 + 5, Split.EMULATE, ue, ue * 3)
    for place, text in enumerate(WORLDS):
        scenario = cost2100(text)
        both = [scenario.angular_delay(samples, link, torch.arange(scenario.slots)) for link in Link]
        theirs = torch.from_numpy(np.load(tmp_path / f"{place}.npy"))
        assert relative(torch.cat(both, -1), theirs) <= 1e-5, text


@link
@name
def test_splits_seeds_ues_and_frames_differ(make_samples: MakeSamples, name: str, link: Link) -> None:
    scenario = cost2100(name)
    populations = [
        *(make_samples(6, split=split) for split in Split),
        *(make_samples(6, seed=seed) for seed in (8, 7 + 2**32)),
        make_samples(6, frame=1),
        make_samples(ues=list(range(6, 12))),
    ]
    images = torch.cat([scenario.angular_delay(samples, link, ONE).flatten(1) for samples in populations])
    unit = torch.nn.functional.normalize(images, dim=1)
    alike = (unit @ unit.mH).abs() - 2 * torch.eye(len(unit))
    assert float(alike.max()) < 1 - 1e-5


@pytest.mark.parametrize("environment", ["per_sample", "fixed"])
@pytest.mark.parametrize(
    ("purpose", "kept", "changed"),
    [
        (Purpose.DOWNLINK_PHASE, Link.UPLINK, Link.DOWNLINK),
        (Purpose.UPLINK_PHASE, Link.DOWNLINK, Link.UPLINK),
    ],
)
def test_the_wall(
    make_samples: MakeSamples,
    monkeypatch: pytest.MonkeyPatch,
    environment: str,
    purpose: Purpose,
    kept: Link,
    changed: Link,
) -> None:
    """Redrawn phases of one link leave the other as it is, bit for bit, and its own large-scale features too."""
    scenario, samples = cost2100(f"cost2100-indoor-5g1-5g3:environment={environment}"), make_samples(12)

    def draw(link: Link) -> tuple[Tensor, Tensor, Paths]:
        of = samples, link, torch.arange(2)
        return scenario.angular_delay(*of), scenario.spatial(*of), scenario.paths(samples, link)

    before = {link: draw(link) for link in Link}
    six_uniforms = Samples.six_uniforms

    def redrawn(self: Samples, drawn: Purpose, index: Tensor) -> Tensor:
        if drawn == purpose:
            return six_uniforms(Samples(self.seed + 1, self.split, self.ue, self.frame), drawn, index)
        return six_uniforms(self, drawn, index)

    monkeypatch.setattr(Samples, "six_uniforms", redrawn)
    image, spatial, _ = draw(kept)
    assert torch.equal(image, before[kept][0])
    assert torch.equal(spatial, before[kept][1])
    image, spatial, paths = draw(changed)
    for ours, theirs in ((image, before[changed][0]), (spatial, before[changed][1])):
        assert ((ours - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)).min() > 0.1
    for field in ("amplitude", "delay", "cosine", "radial_speed"):
        assert torch.equal(getattr(paths, field), getattr(before[changed][2], field))


# partial reciprocity


def visibility(border: Tensor, wavelength: float, transition: float) -> Tensor:
    """Amplitude gain of a visibility region, as the model has it."""
    return 0.5 - torch.atan(2 * math.sqrt(2) * border.double() / math.sqrt(wavelength * transition)) / math.pi


@pytest.mark.parametrize("angle", ["arrival", "departure"])
@pytest.mark.parametrize("text", ["cost2100-indoor-5g1-5g3", "cost2100-outdoor", "cost2100-outdoor-nlos"])
def test_links_share_all_but_the_phases(make_samples: MakeSamples, text: str, angle: str) -> None:
    """Amplitudes up to the factors of the carrier: free space, and the gain of a visibility region."""
    scenario = cost2100(text)
    scenario = dataclasses.replace(scenario, array_angle=angle)
    samples = make_samples(100)
    up, down = (scenario.paths(samples, link) for link in (Link.UPLINK, Link.DOWNLINK))
    for field in ("delay", "cosine", "radial_speed"):
        assert torch.equal(getattr(up, field), getattr(down, field)), field
    propagation = ENVIRONMENTS[scenario.propagation]
    seen = own_cells(scenario, samples)
    lengths = [SPEED_OF_LIGHT / (ghz * 1e9) for ghz in (scenario.uplink_ghz, scenario.downlink_ghz)]
    gains = [length * visibility(seen.border, length, propagation.vr_transition) for length in lengths]
    factor = torch.where(seen.there, gains[0] / gains[1], 0.0).repeat(1, propagation.components)
    components = down.amplitude[:, :-1].double() * factor
    torch.testing.assert_close(up.amplitude[:, :-1].double(), components, rtol=1e-4, atol=1e-12)
    sight = [paths.amplitude[:, -1:] / paths.amplitude[:, :-1].norm(dim=1, keepdim=True) for paths in (up, down)]
    torch.testing.assert_close(*sight, rtol=1e-5, atol=0)
    assert bool((sight[0] > 0).all()) == (text == "cost2100-outdoor")


@link
def test_a_coherent_line_of_sight_has_the_power_of_the_other_paths_sum(make_samples: MakeSamples, link: Link) -> None:
    """K |sum of h_i exp(-j 2 pi f_c tau_i)|^2, in the mean the incoherent K sum of |h_i|^2; all else is the same."""
    scenario, samples = cost2100("cost2100-outdoor-csinet"), make_samples(2000)
    assert scenario.los_power == "coherent"
    coherent = scenario.paths(samples, link)
    incoherent = dataclasses.replace(scenario, los_power="incoherent").paths(samples, link)
    for field in ("phase", "delay", "cosine", "radial_speed"):
        assert torch.equal(getattr(coherent, field), getattr(incoherent, field)), field
    assert torch.equal(coherent.amplitude[:, :-1], incoherent.amplitude[:, :-1])
    ratio = (coherent.amplitude[:, -1] / incoherent.amplitude[:, -1]).double().square()
    to_carrier = 2 * math.pi * scenario.bandwidth_mhz * 0.5e6 * coherent.delay[:, :-1].double()
    gains = torch.polar(coherent.amplitude[:, :-1].double(), coherent.phase[:, :-1] - to_carrier)
    known = gains.sum(1).abs().square() / gains.abs().square().sum(1)
    torch.testing.assert_close(ratio, known, rtol=1e-2, atol=1e-5)
    assert stats.kstest(ratio.numpy(), "expon").statistic < 1.95 * len(ratio) ** -0.5


def test_coherent_lines_of_sight_of_the_links_are_their_own(make_samples: MakeSamples) -> None:
    """The phases are independent, and so are the sums; an uplink says nothing of the downlink's."""
    scenario, samples = cost2100("cost2100-outdoor-csinet"), make_samples(2000)
    of_both = []
    for link in Link:
        amplitude = scenario.paths(samples, link).amplitude
        of_both.append(amplitude[:, -1] / amplitude[:, :-1].norm(dim=1))
    incoherent = dataclasses.replace(scenario, los_power="incoherent").paths(samples, Link.DOWNLINK).amplitude
    factor = incoherent[:, -1] / incoherent[:, :-1].norm(dim=1)  # the root of K, which they share
    assert abs(stats.spearmanr(*(of / factor for of in of_both)).statistic) < 4 * len(samples) ** -0.5


def test_phases_of_the_links_are_independent_and_uniform(make_samples: MakeSamples) -> None:
    scenario, samples = cost2100("cost2100-indoor-5g1-5g3"), make_samples(1500)
    paths = {link: scenario.paths(samples, link) for link in Link}
    there = paths[Link.UPLINK].amplitude > 0
    up, down = (paths[link].phase[there].double().numpy() for link in Link)
    for phase in (up, down, (up - down) % (2 * math.pi)):
        assert stats.kstest(phase / (2 * math.pi), "uniform").statistic < 1.95 * len(phase) ** -0.5


def test_the_line_of_sights_phase_is_that_of_its_length(make_samples: MakeSamples) -> None:
    scenario, samples = cost2100("cost2100-outdoor-csinet"), make_samples(50)
    seen = own_cells(scenario, samples)
    distance = torch.hypot(seen.x.double(), seen.y.double())[:, 0]
    for link, centre in ((Link.UPLINK, 0.265e9), (Link.DOWNLINK, 0.285e9)):
        paths = scenario.paths(samples, link)
        turns = distance / SPEED_OF_LIGHT * (centre - 10e6) + paths.phase[:, -1].double() / (2 * math.pi)
        assert (turns - turns.round()).abs().max() < 1e-3
        torch.testing.assert_close(paths.delay[:, -1].double(), distance / SPEED_OF_LIGHT, rtol=1e-6, atol=0)


def test_the_line_of_sight_ends_at_its_distance(make_samples: MakeSamples) -> None:
    scenario, samples = cost2100("cost2100-outdoor:ue_farthest=330"), make_samples(300)
    seen, amplitude = own_cells(scenario, samples), scenario.paths(samples, Link.DOWNLINK).amplitude[:, -1]
    near = torch.hypot(seen.x, seen.y)[:, 0] <= 350
    assert 0.3 < float(near.float().mean()) < 0.9
    assert torch.equal(amplitude > 0, near)


# where things are


def normal(values: Tensor, mean: float, deviation: float) -> None:
    """Values come from that normal distribution, or are all the mean if its deviation is 0."""
    flat = values.flatten().double()
    if not deviation:
        torch.testing.assert_close(flat, torch.full_like(flat, mean), rtol=1e-3, atol=1e-3)
        return
    assert stats.kstest(((flat - mean) / deviation).numpy(), "norm").statistic < 1.95 * len(flat) ** -0.5


def log_normal(values: Tensor, spread: Spread) -> None:
    normal(10 * (values.double() / spread.mu).log10(), 0, spread.sigma_db)


def offset_of(text: str) -> tuple[float, float]:
    return (10.0, 10.0) if text.startswith("indoor") else (0.0, 0.0)


@dataclass(frozen=True)
class Placed:
    """Clusters of N frames and, of the far ones, what is where, [K] each."""

    held: paths_module.Clusters
    seen: scene.Scene
    bs: tuple[float, float]
    far: Tensor
    towards: Tensor
    r: Tensor
    r_ue: Tensor
    twin: Tensor


def place(environment: str, samples: Samples) -> Placed:
    propagation, bs = ENVIRONMENTS[environment], offset_of(environment)
    limit = 10 if propagation.cell_radius < 100 else 200
    seen = scene.own_cells(propagation, scene.Place(0, limit), samples)
    held = paths_module.clusters(propagation, seen, bs)
    far = seen.there.clone()
    far[:, : scene.LOCAL] = False
    towards = torch.atan2(seen.reference_y - bs[1], seen.reference_x - bs[0])[far]
    r = torch.hypot(held.bs.x - bs[0], held.bs.y - bs[1])[far]
    r_ue = torch.hypot(held.ue.x - seen.reference_x, held.ue.y - seen.reference_y)[far]
    return Placed(held, seen, bs, far, towards, r, r_ue, held.link_delay[far] > 0)


@environment
def test_far_clusters_are_placed_as_published(make_samples: MakeSamples, environment: str) -> None:
    of, held = ENVIRONMENTS[environment], (it := place(environment, make_samples(1500))).held
    far, twin = it.far, it.twin
    n = int(far.sum())
    assert float(it.r.max()) <= of.cell_radius * (1 + 1e-5)
    assert stats.kstest((it.r / of.cell_radius).double().numpy(), "uniform").statistic < 1.95 * n**-0.5
    turns = []
    for side, x, y, rows in (
        (held.bs, it.bs[0], it.bs[1], torch.ones_like(twin)),
        (held.ue, it.seen.reference_x[far], it.seen.reference_y[far], twin),
    ):
        direction = torch.atan2(side.y[far] - y, side.x[far] - x)
        turn = (direction - it.towards)[rows].double()
        mean = torch.polar(torch.ones_like(turn), turn).mean()
        wanted = math.exp(-(math.radians(39) ** 2) / 2)
        assert abs(complex(mean) - wanted * np.exp(1j * math.radians(43))) < 4 * n**-0.5
        turns.append(turn)
        # the components' first axis points back to where the cluster is seen from
        for part, wanted_part in ((side.cosine, -direction.cos()), (side.sine, -direction.sin())):
            torch.testing.assert_close(part[far][rows], wanted_part[rows], rtol=0, atol=2e-3)
    both = (turns[0][twin] - 0.75).sin() * (turns[1] - 0.75).sin()
    assert abs(float(both.mean())) < 4 * float(both.std()) * n**-0.5
    assert abs(float(twin.float().mean()) - (1 - of.single_bounce)) < 4 * (0.25 / n) ** 0.5
    delay = (held.link_delay[far][twin].double() - of.link_delay_min) / of.link_delay_mean
    assert stats.kstest(delay.numpy(), "expon").statistic < 1.95 * len(delay) ** -0.5
    for mine, theirs in ((getattr(held.bs, f), getattr(held.ue, f)) for f in held.bs.__dataclass_fields__):
        assert torch.equal(mine[far][~twin], theirs[far][~twin])


@environment
def test_far_clusters_have_the_published_size(make_samples: MakeSamples, environment: str) -> None:
    of, held = ENVIRONMENTS[environment], (it := place(environment, make_samples(1500))).held
    far, twin = it.far, it.twin
    delay = held.bs.along[far] * 3 / (SPEED_OF_LIGHT / 2)
    azimuth_bs = (2 * (3 * held.bs.across[far] / it.r).atan()).rad2deg()
    azimuth_ue = (2 * (3 * held.ue.across[far] / it.r_ue).atan()).rad2deg()[twin]
    log_normal(delay, of.delay_spread)
    log_normal(azimuth_bs, of.azimuth_bs)
    # the references of indoor twins are near the clusters at times: the distance has lost digits
    log_normal(azimuth_ue, of.azimuth_ue)
    log_normal((2 * (3 * held.bs.up[far] / it.r).atan()).rad2deg(), of.elevation_bs)
    log_normal((2 * (3 * held.ue.up[far] / it.r_ue).atan()).rad2deg()[twin], of.elevation_ue)
    torch.testing.assert_close(held.ue.across[far], held.bs.across[far], rtol=1e-4, atol=0)
    assert torch.equal(held.ue.along, held.bs.along)
    logs = torch.stack([delay[twin].log(), azimuth_bs[twin].log(), azimuth_ue.log()]).double()
    wanted = torch.full((3, 3), 0.9 if of.correlations else 0.0).double().fill_diagonal_(1)
    assert (torch.corrcoef(logs) - wanted).abs().max() < 4 * int(twin.sum()) ** -0.5


@environment
def test_local_clusters_are_about_their_ends(make_samples: MakeSamples, environment: str) -> None:
    of, it = ENVIRONMENTS[environment], place(environment, make_samples(1500))
    held, shadow = it.held, it.held.attenuation
    for column, (x, y) in enumerate(
        ((torch.tensor(it.bs[0]), torch.tensor(it.bs[1])), (it.seen.x[:, 0], it.seen.y[:, 0]))
    ):
        for side in (held.bs, held.ue):
            assert bool((side.x[:, column] == x).all())
            assert bool((side.y[:, column] == y).all())
            assert torch.equal(side.across[:, column], side.along[:, column])
            torch.testing.assert_close(side.up[:, column] * 20, side.along[:, column])
        log_normal(held.bs.along[:, column] * 6 / SPEED_OF_LIGHT, of.delay_spread)
        log_normal(shadow[:, column], Spread(1, of.shadow_db))
        assert float(held.link_delay[:, column].abs().max()) == 0
    assert bool(it.seen.there[:, 1].all())
    assert bool((it.seen.there[:, 0] == of.bs_local).all())


@environment
@pytest.mark.parametrize("cutoff", [None, 3e-7])
def test_attenuation_of_far_clusters(
    make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch, environment: str, cutoff: float | None
) -> None:
    if cutoff:
        monkeypatch.setitem(ENVIRONMENTS, environment, dataclasses.replace(ENVIRONMENTS[environment], cutoff=cutoff))
    of, it = ENVIRONMENTS[environment], place(environment, make_samples(1500))
    held, seen = it.held, it.seen
    length = torch.hypot(held.bs.x - it.bs[0], held.bs.y - it.bs[1]) + torch.hypot(
        held.ue.x - seen.x, held.ue.y - seen.y
    )
    direct = torch.hypot(seen.x - it.bs[0], seen.y - it.bs[1]).double() / SPEED_OF_LIGHT
    excess = length.double() / SPEED_OF_LIGHT + held.link_delay - direct
    late = (of.cutoff - direct).expand_as(excess)
    wanted = torch.maximum(*((-of.attenuation_per_us * 1e6 * time).exp() for time in (excess, late)))
    shadow = (held.attenuation.double() / wanted)[it.far]
    log_normal(shadow, Spread(1, of.shadow_db))
    cut = float((excess > late)[it.far].double().mean())
    assert cut > 0.03 if cutoff or of.cutoff < 1e-2 else cut == 0
    if of.shadow_db:
        logs = torch.stack([shadow.log(), held.bs.along[it.far].double().log()])
        between = -0.1 if environment == "semi-urban-300mhz-nlos" else 0.0
        assert abs(float(torch.corrcoef(logs)[0, 1]) - between) < 4 * len(shadow) ** -0.5


@dataclass(frozen=True)
class Recorded:
    """Paths, and their spans (BS, UE) of all clusters."""

    paths: Paths
    bs: Any
    ue: Any


def recorded(scenario: Cost2100, samples: Samples, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """Paths and both ends of their components, [N, C, components] there."""
    spans: list[Any] = []
    span = paths_module._span

    def record(*given: Any) -> Any:
        drawn = span(*given)
        spans.append(type(drawn)(*(values.permute(1, 2, 0) for values in (drawn.x, drawn.y, drawn.length))))
        return drawn

    with monkeypatch.context() as patch:
        patch.setattr(paths_module, "_span", record)
        return Recorded(scenario.paths(samples, Link.DOWNLINK), *spans)


def by_path(values: Tensor) -> Tensor:
    """[N, C, components] in the order of paths."""
    return values.transpose(1, 2).flatten(1)


@environment
def test_components_of_clusters(make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    """Normal about the centre along the cluster's axes, the same offsets at both ends; the paths' powers and delays."""
    of, samples = ENVIRONMENTS[environment], make_samples(300)
    it = place(environment, samples)
    limit = 10 if of.cell_radius < 100 else 200
    scenario = Cost2100(propagation=environment, bs_x=it.bs[0], bs_y=it.bs[1], ue_farthest=limit)
    drawn = recorded(scenario, samples, monkeypatch)
    offsets = []
    for side, span, x, y in (
        (it.held.bs, drawn.bs, *it.bs),
        (it.held.ue, drawn.ue, it.seen.x[..., None], it.seen.y[..., None]),
    ):
        dx, dy = span.x + x - side.x[..., None], span.y + y - side.y[..., None]
        along = dx * side.cosine[..., None] + dy * side.sine[..., None]
        across = dy * side.cosine[..., None] - dx * side.sine[..., None]
        up = (span.length.double() ** 2 - span.x.double() ** 2 - span.y.double() ** 2).clamp(min=0).sqrt()
        offsets.append([along / side.along[..., None], across / side.across[..., None], up / side.up[..., None]])
    exact = it.held.bs.along[it.far] > 0.05  # elsewhere the subtraction has lost the offsets' digits
    for ours, theirs in zip(*([part[it.far] for part in side[:2]] for side in offsets), strict=True):
        assert (ours - theirs)[exact].abs().median() < 1e-2
        normal(ours[exact], 0, 1)
    here = offsets[1][0][:, 1], offsets[1][1][:, 1]
    for part in here:
        normal(part, 0, 1)
    halves = offsets[1][2][:, 1].flatten().numpy()
    assert stats.kstest(halves, "halfnorm").statistic < 1.95 * len(halves) ** -0.5
    if environment.startswith("semi"):
        halves = offsets[0][2][it.far].flatten().numpy()
        assert stats.kstest(halves, "halfnorm").statistic < 1.95 * len(halves) ** -0.5
    # delays and angles
    delay = (drawn.bs.length.double() + drawn.ue.length.double()) / SPEED_OF_LIGHT + it.held.link_delay[..., None]
    torch.testing.assert_close(drawn.paths.delay[:, :-1].double(), by_path(delay), rtol=1e-5, atol=0)
    cosine = drawn.bs.x / torch.hypot(drawn.bs.x, drawn.bs.y)
    torch.testing.assert_close(drawn.paths.cosine[:, :-1], by_path(cosine))
    arrival = dataclasses.replace(scenario, array_angle="arrival").paths(samples, Link.DOWNLINK).cosine
    torch.testing.assert_close(arrival[:, :-1], by_path(drawn.ue.x / torch.hypot(drawn.ue.x, drawn.ue.y)))
    torch.testing.assert_close(arrival[:, -1], -drawn.paths.cosine[:, -1])
    # powers
    power = drawn.paths.amplitude[:, :-1].double().square().unflatten(1, (of.components, -1))
    wavelength = SPEED_OF_LIGHT / 5.3e9
    direct = torch.hypot(it.seen.x - it.bs[0], it.seen.y - it.bs[1]).double()
    gain = visibility(it.seen.border, wavelength, of.vr_transition).square() * it.held.attenuation.double()
    wanted = torch.where(it.seen.there, gain, 0.0) * (wavelength / (4 * math.pi * direct)) ** 2
    torch.testing.assert_close(power.sum(1), wanted, rtol=1e-3, atol=0)
    first = (power[:, 0] / power.sum(1))[it.far].numpy()
    assert stats.kstest(first, stats.beta(1, of.components - 1).cdf).statistic < 1.95 * len(first) ** -0.5


@pytest.mark.parametrize("limits", [(0.0, 10.0), (4.0, 12.0)])
@pytest.mark.parametrize("kind", ["own", "shared"])
def test_ues_are_uniform_over_their_place(make_samples: MakeSamples, limits: tuple[float, float], kind: str) -> None:
    """In a shared cell, among the UEs that see something, which in this one are nearly all."""
    propagation, samples = ENVIRONMENTS["indoor-hall-5ghz"], make_samples(3000)
    spot = scene.Place(*limits)
    own = scene.own_cells(propagation, spot, samples)
    seen = own if kind == "own" else scene.shared_cell(propagation, spot, samples, busy_cell())
    for axis in (seen.x, seen.y):
        values = axis[:, 0].double().numpy()
        share = (np.abs(values) - limits[0]) / (limits[1] - limits[0])
        assert stats.kstest(share, "uniform").statistic < 1.95 * 3000**-0.5
        assert abs(np.sign(values).mean()) < 4 * 3000**-0.5
    turns = (seen.heading[:, 0] / (2 * math.pi)).double().numpy()
    assert stats.kstest(turns, "uniform").statistic < 1.95 * 3000**-0.5
    assert np.abs(np.corrcoef([seen.x[:, 0], seen.y[:, 0], turns]) - np.eye(3)).max() < 4 * 3000**-0.5


def busy_cell() -> int:
    """Number of an indoor cell with many visibility regions."""
    propagation = ENVIRONMENTS["indoor-hall-5ghz"]
    sizes = [len(scene._cell(propagation, cell, torch.device("cpu")).position) for cell in range(20)]
    return sizes.index(max(sizes))


# visibility regions that share a cluster


@pytest.mark.parametrize(
    ("border", "there", "head", "least", "left"),
    [
        ([3.0, 1.0, 2.0], [1, 1, 1], [0, 1, 2], [3.0, 1.0, 2.0], [1, 1, 1]),
        ([3.0, 1.0, 2.0], [1, 1, 1], [0, 0, 2], [1.0, None, 2.0], [1, 0, 1]),
        ([1.0, 3.0, 2.0], [1, 1, 1], [0, 0, 0], [1.0, None, None], [1, 0, 0]),
        ([3.0, 1.0, -2.0], [1, 1, 0], [0, 0, 0], [1.0, None, None], [1, 0, 0]),
    ],
    ids=["none", "the later is stronger", "three", "padding does not count"],
)
def test_the_strongest_of_shared_regions_counts_once(
    border: list[float], there: list[int], head: list[int], least: list[float | None], left: list[int]
) -> None:
    ours, stays = scene.merge(torch.tensor([border]), torch.tensor([there]).bool(), torch.tensor([head]))
    assert stays.int().tolist() == [left]
    for value, wanted in zip(ours[0].tolist(), least, strict=True):
        assert wanted is None or value == wanted


def naive_cells(of: Environment, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(visible regions, visible clusters) of UEs in cells made as the published code makes them; 0 visible: again."""
    regions: list[int] = []
    clusters: list[int] = []
    while len(regions) < count:
        n = round(max(1, rng.poisson(of.far_clusters)) * (of.cell_radius / (of.vr_radius - of.vr_transition)) ** 2)
        seen = rng.binomial(n, (of.vr_radius / of.cell_radius) ** 2)
        if seen:
            sizes = 1 + rng.poisson(of.shared_vrs, n)
            cluster = np.repeat(np.arange(n), sizes)[:n]
            regions.append(seen)
            clusters.append(len(np.unique(cluster[rng.choice(n, seen, replace=False)])))
    return np.array(regions), np.array(clusters)


def test_regions_share_clusters_as_in_whole_cells(make_samples: MakeSamples) -> None:
    """About 0.2 pairs a frame indoors."""
    of, count = ENVIRONMENTS["indoor-hall-5ghz"], 6000
    samples = make_samples(count)
    regions, clusters = naive_cells(of, count, np.random.default_rng(5))
    seen = scene.visible_count(of, samples)[1].numpy()
    left = scene.own_cells(of, scene.Place(0, 10), samples).there[:, scene.LOCAL :].sum(1).numpy()
    for ours, theirs in ((seen, regions), (left, clusters), (seen - left, regions - clusters)):
        error = math.sqrt((ours.var() + theirs.var()) / count)
        assert abs(ours.mean() - theirs.mean()) < 4 * error
    assert stats.ks_2samp(seen, regions).statistic < 1.95 * (2 / count) ** 0.5
    assert (seen - left).mean() == pytest.approx(0.19, abs=0.04)


@environment
def test_references_of_clusters(make_samples: MakeSamples, environment: str) -> None:
    """The reference is the region seen itself, or indoors mostly another of the cluster, anywhere in the cell."""
    of, samples = ENVIRONMENTS[environment], make_samples(1500)
    seen = scene.own_cells(of, scene.Place(0, 10), samples)
    far = seen.there.clone()
    far[:, : scene.LOCAL] = False
    gap = torch.hypot(seen.reference_x - seen.x, seen.reference_y - seen.y)
    own = (gap - (seen.border + of.vr_radius - of.vr_transition)).abs() < 1e-3 * of.vr_radius
    chance = 1 / (1 + of.shared_vrs)  # 1 of a region's cluster of s, s weighted by s
    merged = 0.04 if of.shared_vrs else 0  # the strongest region's border, another's position
    assert abs(float(own[far].double().mean()) - chance) < merged + 4 * int(far.sum()) ** -0.5
    inside = (gap[far] / of.vr_radius).square()[own[far]].double().numpy()
    if not of.shared_vrs:
        assert stats.kstest(inside, "uniform").statistic < 1.95 * len(inside) ** -0.5
    else:
        elsewhere = far & ~own
        radius = torch.hypot(seen.reference_x, seen.reference_y)[elsewhere].double() / of.cell_radius
        assert stats.kstest(radius.square().numpy(), "uniform").statistic < 1.95 * len(radius) ** -0.5 + 0.01


# one cell for all


def test_ues_at_one_place_see_the_same_clusters(make_samples: MakeSamples) -> None:
    """Four squares of 0.2 m, at (+-5, +-5) m."""
    of, samples = ENVIRONMENTS["indoor-hall-5ghz"], make_samples(60)
    seen, other = (scene.shared_cell(of, scene.Place(4.9, 5.1), samples, busy_cell() + k) for k in (0, 100))

    def clusters(of_cell: scene.Scene) -> list[set[float]]:
        """By the number that decides on their distance."""
        far = of_cell.there[:, scene.LOCAL :]
        numbers = of_cell.numbers[2][1, :, scene.LOCAL :]
        return [set(row[there].tolist()) for row, there in zip(numbers, far, strict=True)]

    ours, theirs = clusters(seen), clusters(other)
    corner = [(bool(x > 0), bool(y > 0)) for x, y in zip(seen.x, seen.y, strict=True)]
    same: list[float] = []
    apart: list[float] = []
    for i, j in itertools.combinations(range(60), 2):
        share = len(ours[i] & ours[j]) / len(ours[i] | ours[j])
        (same if corner[i] == corner[j] else apart).append(share)
    assert np.mean(same) > 0.8
    assert np.mean(apart) < 0.2
    assert not set().union(*ours) & set().union(*theirs)


@pytest.mark.parametrize("text", ["cost2100-indoor", "cost2100-outdoor"])
def test_a_fixed_cell_is_the_same_for_all(make_samples: MakeSamples, text: str) -> None:
    """A cluster has its place, its components and their |g| for every UE, seed, split and frame that sees it."""
    of = ENVIRONMENTS[cost2100(text).propagation]
    spot = scene.Place(0, 10)
    drawn: dict[float, Tensor] = {}
    for samples in (make_samples(30), make_samples(30, seed=8, split=Split.TRAIN, frame=4)):
        seen = scene.shared_cell(of, spot, samples, 5)
        held = paths_module.clusters(of, seen, (0.0, 0.0))
        scatter = seen.source.draw(Purpose.SCATTERER, 2)
        for row, column in seen.there.nonzero().tolist():
            if column == 1:
                continue  # the one about the UE
            key = float(seen.numbers[2][1, row, column])
            sides = [
                getattr(side, f)[row, column] for side in (held.bs, held.ue) for f in ("x", "y", "along", "across")
            ]
            features = torch.stack([*sides, held.link_delay[row, column], *scatter[:, 1, row, column]])
            first = drawn.setdefault(key, features)
            torch.testing.assert_close(features, first, rtol=1e-5, atol=1e-5)
    assert len(drawn) > 3
    for values in scene.shared_cell(of, spot, make_samples(30), 5).numbers:
        assert values[:, :, 1].unique(dim=1).shape[1] == 30  # the cluster about each UE is its own


@pytest.mark.parametrize("cell", range(3))
@pytest.mark.parametrize("text", ["cost2100-indoor-csinet", "cost2100-outdoor"])
def test_everybody_sees_a_cluster(make_samples: MakeSamples, text: str, cell: int) -> None:
    scenario = cost2100(f"{text}:environment=fixed,cell={cell}")
    of = ENVIRONMENTS[scenario.propagation]
    power = scenario.paths(make_samples(400), Link.DOWNLINK).amplitude[:, :-1].unflatten(1, (of.components, -1))
    far = power.square().sum(1)[:, scene.LOCAL :] > 0
    assert int(far.sum(1).min()) >= 1


def test_statistics_over_many_cells_are_those_of_own_cells(make_samples: MakeSamples) -> None:
    scenario, cells, ues = cost2100("cost2100-indoor-csinet"), 60, 40

    def quantities(scenario: Cost2100, samples: Samples) -> Tensor:
        paths = scenario.paths(samples, Link.DOWNLINK)
        power = paths.amplitude.double().square()
        total = power.sum(1)
        clusters = power[:, :-1].unflatten(1, (3, -1)).sum(1)
        share, delay = power / total[:, None], paths.delay.double()
        spread = (share * (delay - (share * delay).sum(1, keepdim=True)).square()).sum(1).sqrt()
        far = clusters[:, scene.LOCAL :]
        first = (share * paths.cosine).sum(1)
        return torch.stack([(far > 0).sum(1), far.sum(1) / total, spread * 1e9, 10 * total.log10(), first], dim=1)

    own = quantities(scenario, make_samples(2000))
    of_cell = []
    for cell in range(cells):
        fixed = dataclasses.replace(scenario, environment="fixed", cell=cell)
        of_cell.append(quantities(fixed, make_samples(ues=list(range(cell * ues, (cell + 1) * ues)))))
    means = torch.stack([values.mean(0) for values in of_cell])
    error = (own.var(0) / len(own) + means.var(0) / cells).sqrt()
    assert ((means.mean(0) - own.mean(0)).abs() < 4 * error).all()
    deviation = torch.cat(of_cell).std(0) / own.std(0)
    assert (deviation - 1).abs().max() < 0.2


def test_phases_of_a_fixed_cell_are_not_those_of_all_ues(make_samples: MakeSamples) -> None:
    """UEs are many wavelengths apart: the mean of their channels is nothing, in a fixed cell too."""
    scenario = cost2100("cost2100-indoor:environment=fixed")
    mean = scenario.spatial(make_samples(2000), Link.DOWNLINK, ONE).mean(0)
    assert float(mean.abs().square().mean()) < 0.01


# slots and Doppler


@link
@name
def test_a_slot_is_the_same_whichever_are_drawn_with_it(make_samples: MakeSamples, name: str, link: Link) -> None:
    scenario, samples = cost2100(f"{name}{',' if ':' in name else ':'}speed_kmh=120"), make_samples(6)
    run = torch.arange(20)
    whole = scenario.angular_delay(samples, link, run), scenario.spatial(samples, link, run)
    for slots in ([0], [7], [3, 19]):
        some = torch.tensor(slots)
        assert relative(scenario.angular_delay(samples, link, some), whole[0][:, slots]) < 1e-5
        assert relative(scenario.spatial(samples, link, some), whole[1][:, slots]) < 1e-5
    assert ((whole[1][:, 19] - whole[1][:, 0]).norm(dim=1) / whole[1][:, 0].norm(dim=1)).min() > 0.02


@link
@name
def test_nothing_changes_at_rest(make_samples: MakeSamples, name: str, link: Link) -> None:
    scenario = cost2100(f"{name}{',' if ':' in name else ':'}speed_kmh=0")
    slots = torch.tensor([0, 1, 900])
    for channels in (scenario.angular_delay, scenario.spatial):
        still = channels(make_samples(4), link, slots)
        torch.testing.assert_close(still, still[:, :1].expand_as(still), rtol=0, atol=0)


@pytest.mark.parametrize("text", ["cost2100-indoor-csinet", "cost2100-outdoor", "cost2100-outdoor-nlos"])
def test_radial_speed_is_that_of_a_ue_moved_by_hand(
    make_samples: MakeSamples, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Paths whose components lie ahead get shorter, by a millimetre at most for each that the UE moves."""
    scenario, samples, step = cost2100(text), make_samples(40), 1e-3
    drawn, seen = recorded(scenario, samples, monkeypatch), own_cells(scenario, samples)
    heading = seen.heading.double()
    x, y, length = (values.double() for values in (drawn.ue.x, drawn.ue.y, drawn.ue.length))
    moved_x, moved_y = (part[..., None] * step for part in (heading.cos(), heading.sin()))
    flat = (x.square() + y.square()).sqrt()
    up = (length.square() - flat.square()).clamp(min=0)
    before = (flat.square() + up).sqrt()
    after = ((x - moved_x).square() + (y - moved_y).square() + up).sqrt()
    far = by_path(before > 0.5)
    radial_speed = by_path((before - after) / step)
    assert (drawn.paths.radial_speed[:, :-1].double() - radial_speed).abs()[far].max() < 5e-3
    bx, by = seen.x.double() - scenario.bs_x, seen.y.double() - scenario.bs_y
    moved = torch.hypot(bx + heading.cos() * step, by + heading.sin() * step)
    sight = (torch.hypot(bx, by) - moved) / step
    torch.testing.assert_close(drawn.paths.radial_speed[:, -1:].double(), sight, rtol=0, atol=1e-3)
    assert float(drawn.paths.radial_speed.abs().max()) <= 1 + 1e-5


@link
@pytest.mark.parametrize("text", ["cost2100-indoor-5g1-5g3", "cost2100-outdoor:speed_kmh=50"])
def test_slots_are_paths_that_have_become_shorter(make_samples: MakeSamples, text: str, link: Link) -> None:
    """At the band's centre, in complex128; the array is one in metres, half a wavelength of the downlink apart."""
    scenario, samples, slots = cost2100(text), make_samples(5), torch.tensor([0, 1, 30])
    paths = scenario.paths(samples, link)
    centre = (scenario.uplink_ghz if link is Link.UPLINK else scenario.downlink_ghz) * 1e9
    shorter = scenario.speed_kmh / 3.6 * slots.double() * 1e-3 * paths.radial_speed.double()[..., None]
    turn = paths.phase.double() - 2 * math.pi * scenario.bandwidth_mhz * 0.5e6 * paths.delay.double()
    turn = turn[..., None] + 2 * math.pi * centre / SPEED_OF_LIGHT * shorter  # [N, L, S]
    metres = 0.5 * SPEED_OF_LIGHT / (scenario.downlink_ghz * 1e9)
    array = 2 * math.pi * metres * centre / SPEED_OF_LIGHT * torch.arange(32)
    waves = torch.polar(torch.ones(()).double(), turn[..., None] - paths.cosine.double()[..., None, None] * array)
    h = (paths.amplitude.double()[..., None, None] * waves).sum(1)
    h /= paths.amplitude.double().norm(dim=1)[:, None, None]
    assert relative(scenario.spatial(samples, link, slots).to(h.dtype), h) < 1e-4


# images


@link
@name
def test_spatial_is_the_middle_of_the_band(make_samples: MakeSamples, name: str, link: Link) -> None:
    scenario = dataclasses.replace(cost2100(name), subcarriers=129, first_rows=32, last_rows=0)
    samples, slots = make_samples(6), torch.tensor([0, 3])
    band = to_spatial_frequency(scenario.angular_delay(samples, link, slots, full=True))
    power = scenario.paths(samples, link).amplitude.norm(dim=1)
    assert relative(scenario.spatial(samples, link, slots) * power[:, None, None], band[:, :, 64]) < 2e-4


@link
@name
def test_kept_rows_are_those_of_the_full_image(make_samples: MakeSamples, name: str, link: Link) -> None:
    scenario, samples = dataclasses.replace(cost2100(name), first_rows=9, last_rows=4), make_samples(6)
    full = scenario.angular_delay(samples, link, ONE, full=True)
    assert full.shape == (6, 1, scenario.subcarriers, scenario.antennas)
    kept = scenario.angular_delay(samples, link, ONE)
    assert kept.shape == (6, 1, 13, scenario.antennas)
    assert relative(kept, torch.cat([full[:, :, :9], full[:, :, -4:]], dim=2)) < 1e-5
    assert kept.dtype == torch.complex64


@link
@name
@pytest.mark.parametrize("subcarriers", [65, 1024])  # fewer than paths, and more
def test_whole_band_is_that_of_all_rows(make_samples: MakeSamples, name: str, link: Link, subcarriers: int) -> None:
    scenario, samples = dataclasses.replace(cost2100(name), subcarriers=subcarriers), make_samples(6)
    image, energy, at = scenario.whole_band(samples, link, slots := torch.tensor([0, 3]))
    assert torch.equal(image, scenario.angular_delay(samples, link, slots))
    full = scenario.angular_delay(samples, link, slots, full=True)
    assert relative(energy, full.abs().square().sum((2, 3))) < 1e-4
    assert relative(at, torch.fft.fft(full, dim=2)[:, :, scenario.compared()]) < 1e-4


@pytest.mark.parametrize(
    ("text", "link"), [("cost2100-indoor-5g1-5g3", Link.UPLINK), ("cost2100-outdoor-csinet", Link.DOWNLINK)]
)
def test_power(make_samples: MakeSamples, text: str, link: Link) -> None:
    """Spatial channels: 1 per antenna. Images: M^2 times that of the paths, on average over the phases."""
    count = 600
    scenario, samples = dataclasses.replace(cost2100(text), subcarriers=65, antennas=8), make_samples(count)
    h = scenario.spatial(samples, link, ONE)
    assert abs(float(h.abs().square().mean()) - 1) < 5 * count**-0.5
    image = scenario.angular_delay(samples, link, ONE, full=True).abs().square().sum((1, 2, 3))
    paths = scenario.paths(samples, link).amplitude.square().sum(1)
    assert abs(float((image / paths).mean()) / scenario.antennas**2 - 1) < 5 * count**-0.5


@name
def test_no_frames(make_samples: MakeSamples, name: str) -> None:
    scenario, nobody = cost2100(name), make_samples(0)
    assert scenario.spatial(nobody, Link.UPLINK, ONE).shape == (0, 1, scenario.antennas)
    assert scenario.angular_delay(nobody, Link.UPLINK, ONE).shape == (0, 1, 32, scenario.antennas)


# text and errors


@pytest.mark.parametrize("preset", COST2100)
@pytest.mark.parametrize(
    "changes",
    [
        "",
        "slots=4,environment=fixed,cell=17",
        "propagation=semi-urban-300mhz-nlos,ue_nearest=1.5,ue_farthest=300.0",
        "array_angle=departure,spacing=0.25,first_rows=3,last_rows=3",
    ],
)
def test_text_form_round_trip(preset: str, changes: str) -> None:
    scenario = cost2100(f"{preset}:{changes}")
    assert Scenario.parse(str(scenario)) == scenario
    if not changes:
        assert str(scenario) == preset


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ("ue_nearest=10", "scenario ue_nearest, ue_farthest: 10.0, 10.0"),
        ("ue_nearest=11", "scenario ue_nearest, ue_farthest: 11.0, 10.0"),
        (
            "ue_farthest=19.3",
            r"scenario ue_nearest, ue_farthest: 0.0, 19.3; .* <= 19.3 m, the cell of indoor-hall-5ghz",
        ),
        (
            "propagation=rural",
            "scenario propagation: 'rural' is not indoor-hall-5ghz, semi-urban-300mhz-los or semi-urban-300mhz-nlos",
        ),
        ("array_angle=both", "scenario array_angle: 'both' is not departure or arrival"),
        ("environment=", "scenario environment: '' is not per_sample or fixed"),
        ("first_rows=1000,last_rows=25", r"first_rows, last_rows: 1000 \+ 25; wanted 1 to 1024"),
        ("first_rows=0", r"first_rows, last_rows: 0 \+ 0"),
        ("subcarriers=1", "scenario subcarriers: 1 is not in"),
        ("bandwidth_mhz=0", "scenario bandwidth_mhz: 0.0 is not in"),
        ("cell=-1", "scenario cell: -1 is not in"),
        ("cell=2.5", "scenario cell: '2.5' is not a number"),
        ("spacing=nan", "scenario spacing: nan is not in"),
        ("speed_kmh=-1", "scenario speed_kmh: -1.0 is not in"),
        ("bs_x=1001", "scenario bs_x: 1001.0 is not in"),
        ("rho=0.5", "field 'rho' is unknown; fields are antennas, slots, snr_db, subcarriers"),
    ],
)
def test_bad_fields_are_refused_by_name(changes: str, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        Scenario.parse(f"cost2100-indoor:{changes}")


def test_presets_are_those_of_the_papers() -> None:
    indoor, outdoor = cost2100("cost2100-indoor-csinet"), cost2100("cost2100-outdoor-csinet")
    for scenario in (indoor, outdoor):
        assert (scenario.subcarriers, scenario.bandwidth_mhz, scenario.antennas) == (257, 20, 32)
        assert (scenario.first_rows, scenario.last_rows, scenario.array_angle) == (32, 0, "arrival")
        assert scenario.subcarrier_hz == pytest.approx(20e6 / 256)
    assert (indoor.bs_x, indoor.bs_y, indoor.ue_nearest, indoor.ue_farthest) == (10, 10, 0, 10)
    assert (outdoor.bs_x, outdoor.bs_y, outdoor.ue_nearest, outdoor.ue_farthest) == (0, 0, 80, 200)
    assert (indoor.downlink_ghz, outdoor.downlink_ghz) == (5.3, 0.285)
    assert [name for name in COST2100 if cost2100(name).los_power == "coherent"] == ["cost2100-outdoor-csinet"]
    for text in set(COST2100) - {"cost2100-indoor-csinet", "cost2100-outdoor-csinet"}:
        scenario = cost2100(text)
        assert (scenario.subcarriers, scenario.array_angle, scenario.bs_x, scenario.bs_y) == (1024, "departure", 0, 0)
    pair = cost2100("cost2100-indoor-5g1-5g3")
    assert (pair.uplink_ghz, pair.downlink_ghz) == (5.1, 5.3)
