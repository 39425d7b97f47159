"""Steps as one CUDA graph: what is recorded and replayed, the same path without CUDA, and that nothing holds it up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from csiemu.training.graph import WARM_UP, Captured
from csiemu.training.trainer import Recipe, Trainer, measured
from shared.channels.scenario import Scenario
from shared.schemes import scheme_class
from tests.unit import simulated_gpu
from tests.unit.simulated_gpu import Gpu

IMAGES = "cost2100-indoor-csinet:antennas=8,first_rows=8"
PILOTS = "multipath-p2:antennas=16"
SCHEMES = [
    ("hyperrnn", PILOTS, {}),
    ("rnn", PILOTS, {"uplink_reading": "none"}),
    ("dldnn", PILOTS, {"uplink_reading": "none"}),
    ("pilot_lmmse", PILOTS, {}),
    ("predictive_lmmse", PILOTS, {}),
    ("hyperrnn_angles", PILOTS, {}),
    ("crnet", IMAGES, {}),
    ("crnet", IMAGES, {"quantised_training": True}),
    ("csinet", IMAGES, {}),
]


def trainer_of(name: str, world: str, config: dict[str, Any], device: str = "cpu", **recipe: Any) -> Trainer:
    torch.manual_seed(0)
    kind = scheme_class(name)
    recipe = {"steps": 4, "batch": 4, "warmup": 0, "rate": 1e-4, **recipe}
    return Trainer(kind(Scenario.parse(world), kind.config_class(**config)), Recipe(**recipe), device=device)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of CUDA, in order."""
    asked: list[str] = []

    class Stream:
        def wait_stream(self, other: Any) -> None:
            asked.append("wait")

    class Graph:
        def replay(self) -> None:
            asked.append("replay")

    @contextlib.contextmanager
    def stream(of: Any) -> Iterator[None]:
        asked.append("beside")
        yield

    @contextlib.contextmanager
    def graph(of: Any) -> Iterator[None]:
        asked.append("record")
        yield

    for name, value in (("Stream", Stream), ("CUDAGraph", Graph), ("stream", stream), ("graph", graph)):
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    return asked


def test_on_cuda_it_is_recorded_once_and_replayed(cuda: list[str]) -> None:
    calls: list[dict[str, Tensor]] = []

    def function(**inputs: Tensor) -> Tensor:
        calls.append(inputs)
        return inputs["a"] + inputs["b"]

    captured = Captured(function, torch.device("cuda"))
    for call in range(WARM_UP + 4):
        cuda.clear()
        captured(a=torch.tensor([float(call)]), b=torch.tensor([1.0]))
        if call < WARM_UP:
            assert cuda == ["wait", "beside", "wait"]
        else:
            assert cuda == (["record"] if call == WARM_UP else []) + ["replay"]
    assert len(calls) == WARM_UP + 1
    addresses = {tuple(inputs[name].data_ptr() for name in ("a", "b")) for inputs in calls}
    assert len(addresses) == 1  # what a replay reads
    assert calls[0]["a"].tolist() == [float(WARM_UP + 3)]  # was filled with the last call's


def test_elsewhere_it_is_the_function_on_the_same_buffers() -> None:
    seen: list[int] = []

    def function(*, a: Tensor) -> Tensor:
        seen.append(a.data_ptr())
        return a * 2

    captured, given = Captured(function, torch.device("cpu")), [torch.randn(3) for _ in range(WARM_UP + 3)]
    assert all(torch.equal(captured(a=value), value * 2) for value in given)
    assert len(set(seen)) == 1
    assert seen[0] != given[0].data_ptr()  # the caller's own stay the caller's
    with pytest.raises(RuntimeError):
        captured(a=torch.randn(4))


@pytest.mark.parametrize("frames", [0, 12])
@pytest.mark.parametrize(("name", "world", "config"), [case for case in SCHEMES if case[1] == PILOTS])
def test_training_by_it_is_the_plain_one(name: str, world: str, config: dict[str, Any], frames: int) -> None:
    """Up to the rounding of rate and slope to float32; pilots keep their power."""
    found = []
    for compiled in (False, True):
        trainer = trainer_of(name, world, config, compiled=compiled, frames=frames)
        assert (trainer.captured is not None) == compiled
        trainer.run(report_every=1)
        found.append([report["loss"] for report in trainer.history])
        torch.testing.assert_close(trainer.scheme.encoder.pilots.parts.square().sum((0, 1)), torch.ones(2))
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_a_learned_part_of_the_uplink_is_trained_step_by_step() -> None:
    """Its pilots are of what would be an input of the graph."""
    trainer = trainer_of("hyperrnn", PILOTS, {"uplink_reading": "projected"}, compiled=True)
    before = trainer.scheme.decoder.uplink.pilots.parts.clone()
    trainer.run()
    assert not torch.equal(trainer.scheme.decoder.uplink.pilots.parts, before)


def test_it_goes_on_from_a_saved_state(tmp_path: Any) -> None:
    whole = trainer_of("rnn", PILOTS, {"uplink_reading": "none"}, compiled=True)
    whole.run()
    first = trainer_of("rnn", PILOTS, {"uplink_reading": "none"}, compiled=True)
    first.run(3)
    first.save(tmp_path)
    second = trainer_of("rnn", PILOTS, {"uplink_reading": "none"}, compiled=True)
    second.load(tmp_path)
    second.run()
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(whole.scheme.state_dict().values(), second.scheme.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(("name", "world", "config"), SCHEMES)
def test_nothing_in_a_step_waits_for_the_gpu(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, name: str, world: str, config: dict[str, Any]
) -> None:
    """What CUDA refuses while a graph is recorded: numbers read on the host, and copies from it."""
    held_up: list[str] = []
    run: Callable[..., Any] = simulated_gpu._run

    def watched(func: Any, args: Any, kwargs: Any) -> Any:
        call = str(func).removeprefix("aten.")
        given = [value for value in args if isinstance(value, Tensor)]
        ours = [isinstance(value, simulated_gpu.OnGpu) for value in given]
        reads = call.startswith(("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "unique"))
        copies = call.startswith(("copy_", "_to_copy")) and len(set(ours)) > 1
        if (reads and any(ours)) or copies:
            held_up.append(call)
        return run(func, args, kwargs)

    with gpu:
        trainer = trainer_of(name, world, config, gpu.device.type)
        trainer.run(2)
        downlink, truth, side = measured(trainer.training, 1, torch.arange(4, device=trainer.device))
        monkeypatch.setattr(simulated_gpu, "_run", watched)
        for group in trainer.optimizer.param_groups:
            group["lr"] = torch.full((), 1e-3, device=gpu.device.type)
        rate, slope = (torch.full((), number, device=gpu.device.type) for number in (1e-3, 2.0))
        trainer._captured_step(rows=downlink.samples.ue, truth=truth, side=side, rate=rate, slope=slope)
        step = list(held_up)
        torch.full((2,), 1.0, device=gpu.device.type)[0].item()
    assert step == []
    assert held_up != []  # it is seen
