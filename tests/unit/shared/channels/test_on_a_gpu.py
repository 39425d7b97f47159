"""Channels on a (simulated) GPU are those of the CPU."""

from __future__ import annotations

import pytest
import torch

from shared.channels.scenario import Link, Scenario
from shared.channels.streams import Samples, Split
from shared.channels.wideband import Wideband
from tests.unit.simulated_gpu import Gpu

WORLDS = (
    "multipath-p2",
    "cost2100-indoor-csinet",
    "cost2100-indoor-5g1-5g3:environment=fixed",
    "cost2100-outdoor:slots=3",
    "cost2100-outdoor-nlos",
    "tr38901-umi-nlos:slots=2",
)


def samples(device: torch.device) -> Samples:
    ue = torch.arange(7, device=device)
    return Samples(3, Split.TEST, ue, ue * 2)


@pytest.mark.parametrize("link", Link)
@pytest.mark.parametrize("name", WORLDS)
def test_channels(gpu: Gpu, name: str, link: Link) -> None:
    world = Scenario.parse(name)
    kinds = ["spatial", "angular_delay"] if isinstance(world, Wideband) else ["spatial"]
    for kind in kinds:
        wanted = getattr(world, kind)(samples(torch.device("cpu")), link, torch.arange(world.slots))
        with gpu:
            ours = getattr(world, kind)(samples(gpu.device), link, torch.arange(world.slots, device=gpu.device))
            assert ours.device == gpu.device
            ours = ours.cpu()
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_a_mixture_of_devices_fails(gpu: Gpu) -> None:
    with gpu, pytest.raises(RuntimeError, match="of the CPU beside"):
        torch.ones(2, device=gpu.device) + torch.ones(2)
