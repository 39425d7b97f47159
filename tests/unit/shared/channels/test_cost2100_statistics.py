"""COST 2100: statistics of ours against those of the published code (tests/data/README.md).

Differences of means and of standard deviations are measured in standard errors of both sides together: 4 are allowed.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from shared.channels.cost2100 import Cost2100, scene
from shared.channels.cost2100 import paths as paths_module
from shared.channels.cost2100.parameters import ENVIRONMENTS, SPEED_OF_LIGHT
from shared.channels.scenario import Link, Scenario
from shared.channels.streams import Samples, Split
from tests.unit.truncation import truncation_floor_db, truncation_loss

REFERENCE = json.loads((Path(__file__).parents[3] / "data" / "cost2100_reference.json").read_text())
COUNT = 2000
ONE = torch.arange(1)
CSINET = ("indoor-csinet", "outdoor-csinet")
ANGLES = ("arrival", "departure")

place = pytest.mark.parametrize("place", CSINET)
array_angle = pytest.mark.parametrize("angle", ANGLES)


def cost2100(text: str) -> Cost2100:
    """The world, its line of sight by the rule of the version that the reference ran."""
    world = Scenario.parse(f"cost2100-{text}")
    assert isinstance(world, Cost2100)
    return dataclasses.replace(world, los_power="incoherent")


def samples_of(count: int) -> Samples:
    ue = torch.arange(count)
    return Samples(7, Split.TEST, ue, torch.zeros_like(ue))


def circular_deviation(share: Tensor, angle: Tensor) -> Tensor:
    """[N] degrees: sqrt(-2 ln R) of directions [N, L] with the given shares of the power."""
    mean = torch.complex((share * angle.cos()).sum(1), (share * angle.sin()).sum(1))
    return (-2 * mean.abs().log()).sqrt().rad2deg()


def path_statistics(world: Cost2100, samples: Samples, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The quantities of the reference, [N] float64 each."""
    parts = [_path_statistics(world, samples.take(rows), monkeypatch) for rows in torch.arange(len(samples)).split(500)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _path_statistics(world: Cost2100, samples: Samples, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    environment = ENVIRONMENTS[world.propagation]
    spans: list[Any] = []
    span = paths_module._span

    def recorded(*given: Any) -> Any:  # for the azimuths: `Paths` has only their cosines
        spans.append(span(*given))
        return spans[-1]

    with monkeypatch.context() as patch:
        patch.setattr(paths_module, "_span", recorded)
        paths = world.paths(samples, Link.DOWNLINK)
    seen = scene.own_cells(environment, scene.Place(world.ue_nearest, world.ue_farthest), samples)
    x, y = seen.x.double() - world.bs_x, seen.y.double() - world.bs_y
    distance = torch.hypot(x, y)
    power = paths.amplitude.double().square()
    total = power.sum(1)
    share = power / total[:, None]
    mean = (share * paths.delay.double()).sum(1, keepdim=True)
    spread = (share * (paths.delay.double() - mean).square()).sum(1).sqrt()
    azimuths = [
        torch.cat([torch.atan2(of.y, of.x).transpose(0, 1).flatten(1).double(), torch.atan2(sign * y, sign * x)], dim=1)
        for of, sign in zip(spans, (1, -1), strict=True)
    ]
    clusters = power[:, :-1].unflatten(1, (environment.components, -1)).sum(1)
    gain = SPEED_OF_LIGHT / (world.downlink_ghz * 1e9) / (4 * math.pi * distance[:, 0])
    return {
        "bs_ue_distance_m": distance[:, 0],
        "rms_delay_spread_ns": spread * 1e9,
        "mean_excess_delay_ns_over_los": (mean - distance / SPEED_OF_LIGHT)[:, 0] * 1e9,
        "azimuth_spread_bs_aod_deg": circular_deviation(share, azimuths[0]),
        "azimuth_spread_ms_aoa_deg": circular_deviation(share, azimuths[1]),
        "visible_far_clusters": (clusters[:, 2:] > 0).sum(1).double(),
        "pathloss_amplitude_db": 20 * gain.log10(),
        "total_power_db": 10 * total.log10(),
        "total_power_over_pathloss2": total / gain.square(),
        "power_fraction_far_clusters": clusters[:, 2:].sum(1) / total,
        "power_fraction_bs_local": clusters[:, 0] / total,
        "power_fraction_ms_local": clusters[:, 1] / total,
        "power_fraction_los": share[:, -1],
        "k_factor_db": 10 * (power[:, -1] / power[:, :-1].sum(1)).log10(),
    }


def compare(name: str, ours: Tensor, reference: tuple[float, float], count: int) -> None:
    """Mean and standard deviation of ours against those of `count` reference samples.

    A power ratio's tail is too heavy for its standard deviation to be compared: that in dB is.
    """
    ours = ours.double()
    mean, deviation = reference
    error = math.sqrt(deviation**2 / count + float(ours.var()) / len(ours))
    assert abs(float(ours.mean()) - mean) <= 4 * error + 1e-9, (name, "mean", float(ours.mean()), mean, error)
    if name == "total_power_over_pathloss2":
        return
    variance, fourth = float(ours.var()), float((ours - ours.mean()).pow(4).mean())
    error = math.sqrt((fourth - variance**2) / (4 * variance) * (1 / len(ours) + 1 / count)) if variance else 0.0
    assert abs(float(ours.std()) - deviation) <= 4 * error + 1e-9, (name, "sd", float(ours.std()), deviation, error)


def compare_paths(name: str, ours: dict[str, Tensor], quantities: set[str] | None = None) -> None:
    reference = REFERENCE["paths"][name]
    for quantity, known in reference["mean_sd"].items():
        if quantities is None or quantity in quantities:
            compare(quantity, ours[quantity], known, reference["samples"])


@pytest.mark.parametrize("name", ["indoor-csinet", "outdoor-csinet", "outdoor", "outdoor-nlos"])
def test_paths_are_those_of_the_published_code(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    count = COUNT if name in CSINET else COUNT // 2  # of the others there are 200 reference samples
    compare_paths(name, path_statistics(cost2100(name), samples_of(count), monkeypatch))


def test_paths_with_the_base_station_in_the_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference moved BS and UEs by (10, 10) m, but not the disc of the visibility regions; first, so do we.

    Where those lie decides how far the clusters are, so that our preset agrees in the rest only.
    """
    drop = scene._drop
    with monkeypatch.context() as patch:
        patch.setattr(scene, "_drop", lambda *given: tuple(map(torch.add, drop(*given), (10, 10, 0))))
        moved = path_statistics(cost2100("indoor:bs_x=10,bs_y=10"), samples_of(COUNT), monkeypatch)
    compare_paths("indoor", moved)
    centred = path_statistics(cost2100("indoor"), samples_of(COUNT), monkeypatch)
    rest = {"bs_ue_distance_m", "azimuth_spread_bs_aod_deg", "visible_far_clusters", "pathloss_amplitude_db"}
    compare_paths("indoor", centred, rest | {"total_power_db", "rms_delay_spread_ns"})
    assert float(centred["power_fraction_far_clusters"].mean()) == pytest.approx(0.078, abs=0.006)


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("indoor-csinet", {"attenuation_per_us": 12}),
    ("indoor-csinet", {"far_clusters": 4.3}),
    ("indoor-csinet", {"link_delay_min": 0.0}),
    ("outdoor-csinet", {"shadow_db": 0.0}),
]


@pytest.mark.parametrize(("name", "change"), WRONG, ids=[f"{name}-{next(iter(change))}" for name, change in WRONG])
def test_a_wrong_model_would_be_noticed(monkeypatch: pytest.MonkeyPatch, name: str, change: dict[str, Any]) -> None:
    """The comparison refuses each of these parameters."""
    world = cost2100(name)
    changed = dataclasses.replace(ENVIRONMENTS[world.propagation], **change)
    monkeypatch.setitem(ENVIRONMENTS, world.propagation, changed)
    ours = path_statistics(world, samples_of(COUNT), monkeypatch)
    with pytest.raises(AssertionError):
        compare_paths(name, ours)


@dataclass(frozen=True)
class Images:
    """[N] energies of the kept rows, [N, 32, 32] their normalised power, [N] x of the UE."""

    energy: Tensor
    share: Tensor
    x: Tensor


@functools.cache
def images(place: str, angle: str) -> Images:
    world, samples = cost2100(f"{place}:array_angle={angle}"), samples_of(COUNT)
    power = world.angular_delay(samples, Link.DOWNLINK, ONE)[:, 0].abs().square().double()
    energy = power.sum((1, 2))
    drop = scene.Place(world.ue_nearest, world.ue_farthest)
    x = scene.own_cells(ENVIRONMENTS[world.propagation], drop, samples).x[:, 0]
    return Images(energy, power / energy[:, None, None], x)


@functools.cache
def loss(place: str, angle: str) -> tuple[Tensor, float]:
    """Share of the energy that truncation cuts off, [N], and the floor that it sets [dB]."""
    world = cost2100(f"{place}:array_angle={angle}")
    full = world.angular_delay(samples_of(400), Link.DOWNLINK, ONE, full=True)[:, 0]
    return truncation_loss(full, 32), truncation_floor_db(full, 32)


def variation(a: Tensor, b: Tensor) -> float:
    """Total variation distance of two distributions."""
    return float((a - b).abs().sum()) / 2


def mirrored(image: Tensor) -> Tensor:
    """With the opposite cosines: bin 16 is cosine 0, bin 0 is +1 and -1."""
    return torch.cat([image[..., :1], image[..., 1:].flip(-1)], dim=-1)


def apart(share: Tensor, count: int) -> float:
    """Largest total variation between the mean map of `count` of ours and that of the rest, and 10 %."""
    parts = [share[i : i + count] for i in range(0, len(share) - count + 1, count)]
    return 1.1 * max(variation(part.mean(0), (share.sum(0) - part.sum(0)) / (len(share) - count)) for part in parts)


@place
@array_angle
def test_images_are_those_of_the_published_code(place: str, angle: str) -> None:
    ours, reference = images(place, angle), REFERENCE["images"][place][angle]
    share = ours.share.flatten(1)
    taken = share.sort(descending=True, dim=1).values.cumsum(1)
    quantities = {f"taps_for_{percent}pct": (taken < percent / 100).sum(1) + 1.0 for percent in (50, 90, 99)} | {
        "energy_fraction_first32_delay": 1 - loss(place, angle)[0],
        "participation_ratio_taps": 1 / share.square().sum(1),
    }
    for name, known in reference["mean_sd"].items():
        compare(name, quantities[name], known, reference["samples"])
    # the reference samples were made with a unitary DFT over the antennas
    compare("power", 10 * ours.energy.log10() - 10 * math.log10(32), reference["power_db"], reference["maps_samples"])


@place
@array_angle
def test_profiles_are_those_of_the_published_code(place: str, angle: str) -> None:
    mean, reference = images(place, angle).share.mean(0), REFERENCE["images"][place][angle]
    delay, angles = (torch.tensor(reference[f"{name}_profile"]).double() for name in ("delay", "angle"))
    assert variation(mean.sum(1), delay) <= 0.05
    assert variation(mean.sum(0), angles) <= 0.06
    assert variation(mean.sum(1).roll(1), delay) > 0.05
    assert variation(mean.sum(0).roll(16), angles) > 0.25  # as without the shift


@place
@array_angle
def test_mean_map_is_that_of_the_reference_samples(place: str, angle: str) -> None:
    """As near to the 400 reference samples as 400 of ours are to the rest of ours."""
    ours, reference = images(place, angle), REFERENCE["images"][place][angle]
    mean, known = ours.share.mean(0), torch.tensor(reference["map"]).double()
    near = apart(ours.share, reference["maps_samples"])
    assert near < {"indoor-csinet": 0.11, "outdoor-csinet": 0.2}[place]
    assert variation(mean, known) <= near
    assert variation(mean.T, known) > 0.7
    assert min(variation(mean.roll(1, axis), known) for axis in (0, 1)) > near
    if place == "indoor-csinet":
        assert variation(mirrored(mean), known) > 0.3


@array_angle
def test_angles_have_the_right_sign_outdoors(angle: str) -> None:
    """Images of the UEs with x < 0 mirrored: of all, the mean is symmetric, since the BS stands at the origin."""
    ours, reference = images("outdoor-csinet", angle), REFERENCE["images"]["outdoor-csinet"][angle]
    folded = torch.where((ours.x < 0)[:, None, None], mirrored(ours.share), ours.share)
    known = torch.tensor(reference["folded_map"]).double()
    near = apart(folded, reference["maps_samples"])
    assert near < 0.18
    assert variation(folded.mean(0), known) <= near
    assert variation(mirrored(folded.mean(0)), known) > 0.3


@pytest.mark.parametrize(
    ("place", "angle", "floor"),
    [("indoor-csinet", "arrival", -14.6), ("outdoor-csinet", "arrival", -14.2), ("indoor", "departure", -11.7)],
)
def test_truncation_floors(place: str, angle: str, floor: float) -> None:
    lost, ours = loss(place, angle)
    error = 10 / math.log(10) * float(lost.std() / lost.mean()) * len(lost) ** -0.5
    assert abs(ours - floor) < 0.05 + 3 * error


def test_the_coherent_line_of_sight_brings_the_public_datas_power() -> None:
    """Of images whose largest magnitude is 0.5, as the public data are: what is gained by the older version's rule."""
    power = {}
    for rule, known in REFERENCE["public"]["power_ratio"].items():
        world = dataclasses.replace(cost2100("outdoor-csinet"), los_power=rule)
        image = world.angular_delay(samples_of(COUNT), Link.DOWNLINK, ONE)[:, 0].abs().square()
        power[rule] = (image.sum((1, 2)) / (4 * image.amax((1, 2)))).double(), known
    (coherent, with_it), (incoherent, without) = power["coherent"], power["incoherent"]
    ratio = float(coherent.mean() / incoherent.mean())
    error = float((coherent / coherent.mean() - incoherent / incoherent.mean()).std()) * COUNT**-0.5
    rounding = 0.005 / without + 0.005 / with_it
    assert abs(ratio - with_it / without) < rounding + 3 * error
    assert ratio > 1 + 3 * error


def correlation(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Mean over frames of the normalised inner product's magnitude, and its standard error."""
    a, b = a.flatten(1), b.flatten(1)
    each = (a.conj() * b).sum(1).abs() / (a.norm(dim=1) * b.norm(dim=1))
    return float(each.mean()), float(each.std()) * len(each) ** -0.5


def test_uplink_and_downlink_are_partly_reciprocal() -> None:
    """Magnitudes alike, far more than those of unrelated UEs; the matrices themselves are not."""
    world, samples = cost2100("indoor-5g1-5g3"), samples_of(COUNT)
    uplink, downlink = (world.angular_delay(samples, link, ONE)[:, 0] for link in Link)
    for case, (mean, error), wanted in (
        ("a pair", correlation(uplink.abs(), downlink.abs()), 0.79),
        ("unrelated UEs", correlation(uplink[1:].abs(), downlink[:-1].abs()), 0.315),
        ("a pair's matrices", correlation(uplink, downlink), 0.39),
        ("unrelated UEs' matrices", correlation(uplink[1:], downlink[:-1]), 0.11),
    ):
        assert abs(mean - wanted) < 0.01 + 3 * error, (case, mean, error)
