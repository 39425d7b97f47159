"""Channel generation: samples per second of CPU time on one core, beside named peers.

An image is the kept delay rows of one downlink channel, a pair those of both links. Peers: the public MATLAB code of
COST 2100 in Octave, a constant that was measured once (its licence keeps it out of here), and stock Sionna in this run,
`UMi` and `UMa` objects with `cir_to_ofdm_channel` at two carriers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from csiemu.benchmarks import OnProgress, medians, rate
from shared.channels.scenario import SPEED_OF_LIGHT, Link, Scenario
from shared.channels.streams import Samples, Split
from shared.channels.tr38901 import Tr38901
from shared.channels.wideband import Wideband, require_wideband
from shared.machine import machine

OCTAVE_SECONDS = (0.3, 0.7)
"""Seconds a sample of the public code (cost2100 3.1): measured on such a machine when its reference data were made."""

PRESETS = (
    "cost2100-indoor-csinet",
    "cost2100-outdoor-csinet",
    "cost2100-indoor",
    "cost2100-outdoor",
    "cost2100-outdoor-nlos",
    "cost2100-indoor-5g1-5g3",
    "tr38901-umi-nlos",
    "tr38901-uma-nlos",
)

STOCK_BATCH = 32


def measure(
    presets: list[str], samples: int, seconds: float, rounds: int, on_progress: OnProgress = lambda done, of: None
) -> dict[str, Any]:
    """All figures: medians over `rounds` interleaved rounds of `seconds` of CPU time each.

    Args:
        samples: frames made in one call.
    """
    worlds = {preset: require_wideband(Scenario.parse(preset), "the benchmark", "presets") for preset in presets}
    for world in worlds.values():
        world.check_here()
    contenders = {
        (preset, name): partial(rate, work, count, seconds)
        for preset, world in worlds.items()
        for name, work, count in _contenders(world, samples)
    }
    results: dict[str, dict[str, Any]] = {preset: {} for preset in presets}
    for (preset, name), found in medians(contenders, rounds, on_progress).items():
        results[preset][f"{name}_per_cpu_s"] = found
    for row in results.values():
        if "stock_sionna_pairs_per_cpu_s" in row:
            row["pairs_to_stock_sionna"] = row["pairs_per_cpu_s"] / row["stock_sionna_pairs_per_cpu_s"]
        else:
            row["samples_to_octave"] = [row["samples_per_cpu_s"] * seconds for seconds in OCTAVE_SECONDS]
    settings = {"samples_a_call": samples, "seconds": seconds, "rounds": rounds, "threads": 1, "precision": "fp32"}
    return {"settings": settings, "machine": machine(), "octave_seconds": OCTAVE_SECONDS, "presets": results}


def _contenders(world: Wideband, samples: int) -> Iterator[tuple[str, Callable[[], object], int]]:
    """Name, one call's work and the samples it makes; every call makes new ones."""
    slots, made = torch.arange(world.slots), iter(range(10**9))

    def fresh(count: int) -> Samples:
        ue = torch.arange(count) + next(made) * count
        return Samples(0, Split.TRAIN, ue, torch.zeros_like(ue))

    def pair(count: int) -> None:
        frames = fresh(count)
        for link in Link:
            world.angular_delay(frames, link, slots)

    yield "samples", lambda: world.angular_delay(fresh(samples), Link.DOWNLINK, slots), samples
    yield "pairs", lambda: pair(samples), samples
    yield "single_pairs", lambda: pair(1), 1
    if isinstance(world, Tr38901):
        yield "stock_sionna_pairs", _stock_sionna(world), STOCK_BATCH


def _stock_sionna(world: Tr38901) -> Callable[[], object]:
    """One batch of both links as Sionna's users make it."""
    from sionna.phy.channel import cir_to_ofdm_channel, gen_single_sector_topology  # an extra
    from sionna.phy.channel.tr38901 import PanelArray, UMa, UMi

    frequencies = (torch.arange(world.subcarriers) - (world.subcarriers - 1) / 2) * world.subcarrier_hz
    channels = []
    for ghz in (world.uplink_ghz, world.downlink_ghz):
        spacing = world.spacing_m * ghz * 1e9 / SPEED_OF_LIGHT
        panel = partial(
            PanelArray, 1, polarization="single", polarization_type="V", antenna_pattern="omni", device="cpu"
        )
        gnb = panel(world.antennas, element_horizontal_spacing=spacing, carrier_frequency=ghz * 1e9)
        ue = panel(1, carrier_frequency=ghz * 1e9)
        model = UMi if world.model == "umi" else UMa
        channels.append(model(ghz * 1e9, "low", ue, gnb, "downlink", device="cpu"))

    def work() -> None:
        topology = gen_single_sector_topology(STOCK_BATCH, 1, world.model, device="cpu")
        for channel in channels:
            channel.set_topology(*topology, los=False)
            a, tau = channel(1, world.subcarrier_hz)
            cir_to_ofdm_channel(frequencies, a, tau)

    return work
