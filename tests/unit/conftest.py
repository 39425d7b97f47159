"""Fixtures of the unit tests: rows of the world, schemes with weights that are not the initial ones, a decoded run."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from torch import Tensor, nn

from shared.channels import synthesis
from shared.channels.cost2100 import world
from shared.channels.scenario import Scenario
from shared.channels.streams import Samples, Split
from shared.link.decoding import decode_frames
from shared.link.encoding import encode_frames
from shared.schemes import Scheme, scheme_class
from tests.unit.simulated_gpu import Gpu

hypothesis.settings.register_profile(
    "unit",
    deadline=None,
    max_examples=50,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("unit")

MakeSamples = Callable[..., Samples]
MakeScheme = Callable[..., Scheme]


@pytest.fixture(scope="session", autouse=True)
def single_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def make_samples() -> MakeSamples:
    """Rows ue = 0..count-1 (or those given) of one frame."""

    def make(
        count: int = 8,
        *,
        seed: int = 7,
        split: Split = Split.TEST,
        frame: int = 0,
        ues: list[int] | None = None,
    ) -> Samples:
        ue = torch.arange(count) if ues is None else torch.tensor(ues)
        return Samples(seed, split, ue, torch.full_like(ue, frame))

    return make


@pytest.fixture(scope="session")
def make_scheme() -> MakeScheme:
    """A scheme in evaluation mode; `perturbed` moves biases, scaling factors and batch statistics off 1 and 0."""

    def make(name: str, scenario: str, *, seed: int = 3, perturbed: bool = True, **config: Any) -> Scheme:
        torch.manual_seed(seed)
        kind = scheme_class(name)
        scheme = kind(Scenario.parse(scenario), kind.config_class(**config)).eval()
        if perturbed and scheme.trainable:
            _perturb(scheme)
        return scheme

    return make


@torch.no_grad()
def _perturb(scheme: Scheme) -> None:
    for module in scheme.modules():
        if isinstance(module, nn.Linear):
            module.weight += torch.randn_like(module.weight) * 0.3 * module.weight.shape[1] ** -0.5
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean = torch.randn_like(module.running_mean) * 0.2
            module.running_var = torch.rand_like(module.running_var) + 0.5
            module.bias += torch.randn_like(module.bias) * 0.2


@pytest.fixture(scope="session")
def over_the_wire() -> Callable[[Scheme, Samples], tuple[bytes, Tensor]]:
    """Encode whole frames, pack, unpack, decode: the payload and the estimates [N, T, M]."""

    def run(scheme: Scheme, samples: Samples) -> tuple[bytes, Tensor]:
        world, reports = scheme.scenario, len(samples) * scheme.scenario.slots
        sent = encode_frames(scheme, world, samples)
        payload = scheme.layout.pack_bits(sent)
        received = scheme.layout.unpack_bits(payload, reports).reshape(sent.shape)
        return payload, decode_frames(scheme, world, samples, received)

    return run


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """A simulated one; where our code or torch's has to know what it is, it is CUDA."""
    for sizes in (synthesis._POLES, world._CLUSTERS, world._PATHS, world._FEW):
        monkeypatch.setitem(sizes, Gpu.device.type, sizes["cuda"])
    optimizer = importlib.import_module("torch.optim.optimizer")
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: ["cpu", Gpu.device.type])
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    return Gpu()
