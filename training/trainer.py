"""One training loop for every scheme: fresh samples from the world at every step, resumable from one file.

A step's samples are the world's (seed, TRAIN, ue = step * batch + row, frame 0): nothing but the step number decides
what the next step sees, so that a resumed run goes on as if it had never stopped.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Samples, Split
from shared.channels.uplink import UplinkView
from shared.checkpoints import encoder_id
from shared.errors import CsiError, InvalidInput
from shared.metrics import Domain
from shared.schemes import Scheme

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TrainingDiverged(CsiError):
    """The loss is not a number any more."""


@dataclass(frozen=True)
class Recipe:
    """How a scheme is trained.

    Attributes:
        steps: optimiser steps.
        batch: frames a step.
        rate, final_rate: Adam's learning rate, cosine from one to the other after `warmup` steps of linear rise.
        slope, final_slope: of the straight-through quantiser, annealed geometrically.
        precision: of matrix products, `fp32` or `bf16` (parameters and optimiser stay fp32).
        seed: of the world and of the initial weights.
    """

    steps: int = 20_000
    batch: int = 512
    rate: float = 1e-3
    final_rate: float = 1e-5
    warmup: int = 200
    slope: float = 1.0
    final_slope: float = 10.0
    precision: str = "fp32"
    seed: int = 1

    def __post_init__(self) -> None:
        for name, low in (("steps", 0), ("batch", 2), ("warmup", 0), ("seed", 0)):
            if getattr(self, name) < low:
                raise InvalidInput(f"{name}: {getattr(self, name)} is less than {low}")
        for name in ("rate", "final_rate", "slope", "final_slope"):
            if not 0 < getattr(self, name) < math.inf:
                raise InvalidInput(f"{name}: {getattr(self, name)} is not a positive number")
        if self.precision not in PRECISIONS:
            raise InvalidInput(f"precision: '{self.precision}' is not one of {', '.join(PRECISIONS)}")

    def rate_at(self, step: int) -> float:
        """Learning rate of a step (0-based)."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.final_rate + (self.rate - self.final_rate) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def slope_at(self, step: int) -> float:
        """Quantiser slope of a step (0-based)."""
        return self.slope * (self.final_slope / self.slope) ** (step / max(1, self.steps))


@dataclass(frozen=True)
class Progress:
    """Averages since the last report of progress.

    Attributes:
        step: steps done.
        loss: what is minimised.
        nmse_db: NMSE in training, ratio of sums for channels on one subcarrier, mean of ratios for images [dB].
        seconds: training time so far, over all sessions [s].
    """

    step: int
    loss: float
    nmse_db: float
    seconds: float


class Trainer:
    """A scheme in training. `freeze_encoder` trains the decoder alone, for UEs in the field."""

    def __init__(
        self,
        scheme: Scheme,
        scenario: Scenario,
        recipe: Recipe,
        *,
        device: str = "cpu",
        freeze_encoder: bool = False,
    ) -> None:
        scheme.check_scenario(scenario)
        self.device = torch.device(device)
        self.scheme = scheme.to(self.device).train()
        self.scenario = scenario
        self.recipe = recipe
        self.freeze_encoder = freeze_encoder
        if freeze_encoder:
            scheme.encoder.requires_grad_(False)
        trained = [parameter for parameter in scheme.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=recipe.rate, fused=True)
        self.step = 0
        self.stopping = False  # set from elsewhere: `run` returns after the step in hand
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []

    def run(
        self,
        steps: int | None = None,
        *,
        report_every: int = 100,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        """Train up to step `steps` (default: all of the recipe).

        Raises:
            TrainingDiverged: the loss is NaN or infinite.
        """
        last = self.recipe.steps if steps is None else min(steps, self.recipe.steps)
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        counted, started = 0, time.perf_counter()
        while self.step < last and not self.stopping:
            sums += self._train_step()
            counted += 1
            if self.step % report_every == 0 or self.step == last or self.stopping:
                loss, error, power = sums.tolist()
                if not math.isfinite(loss):
                    raise TrainingDiverged(f"training: loss is {loss} at step {self.step}; lower the learning rate")
                now = time.perf_counter()
                self.seconds, started = self.seconds + now - started, now
                nmse = 10 * math.log10(max(error, 1e-30) / power)
                progress = Progress(self.step, loss / counted, nmse, self.seconds)
                self.history.append(dataclasses.asdict(progress))
                on_progress(progress)
                sums.zero_()
                counted = 0

    def _train_step(self) -> Tensor:
        """One optimiser step; [loss, numerator and denominator of the NMSE], float64."""
        recipe, scheme = self.recipe, self.scheme
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate_at(self.step)
        rows = torch.arange(recipe.batch, device=self.device) + self.step * recipe.batch
        samples = Samples(recipe.seed, Split.TRAIN, rows, torch.zeros_like(rows))
        downlink = Measured(DownlinkView(self.scenario, samples), scheme.domain)
        side = scheme.decoder.side_information(UplinkView(self.scenario, samples))
        observation = scheme.encoder.observe(downlink)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            estimate = scheme.reconstruct(observation, side, recipe.slope_at(self.step))
        loss = scheme.loss(estimate, downlink.truth)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        scheme.normalise()
        self.step += 1
        with torch.no_grad():
            return torch.stack([loss.detach(), *scheme.progress(estimate, downlink.truth)]).double()

    def save(self, path: Path) -> None:
        """Write the whole state to one safetensors file, replacing it in one move."""
        tensors = {f"model.{name}": value for name, value in self.scheme.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": value for name, value in state.items()}
        header = {"step": self.step, "seconds": self.seconds, "history": self.history, "settings": self._settings()}
        partial = path.with_suffix(".partial")
        save_file(
            {name: value.contiguous() for name, value in tensors.items()}, partial, {"trainer": json.dumps(header)}
        )
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a file that `save` wrote.

        Raises:
            InvalidInput: the file belongs to other settings.
        """
        with safe_open(path, "pt", device=str(self.device)) as file:
            header = json.loads(file.metadata()["trainer"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        ours, theirs = self._settings(), header["settings"]
        if ours != theirs:
            names = [name for name in ours if ours[name] != theirs.get(name)]
            raise InvalidInput(f"resume: {path} was made with other settings of {', '.join(names)}")
        self.scheme.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.step, self.seconds, self.history = header["step"], header["seconds"], header["history"]

    def _settings(self) -> dict[str, Any]:
        settings = {
            "scheme": self.scheme.name,
            "config": self.scheme.config.to_json(),
            "scenario": str(self.scenario),
            "recipe": dataclasses.asdict(self.recipe),
            "frozen_encoder": encoder_id(self.scheme) if self.freeze_encoder else None,
        }
        return json.loads(json.dumps(settings))


@dataclass(frozen=True)
class Measured:
    """The downlink with its channels computed once, for the observation and for the loss."""

    view: DownlinkView
    domain: Domain

    def __post_init__(self) -> None:
        truth = self.view.channel() if self.domain == "spatial" else self.view.image()
        object.__setattr__(self, "truth", truth)

    truth: Tensor = dataclasses.field(init=False)

    def pilots(self, pilots: Tensor) -> Tensor:
        """Received pilots [N, T, L_dl], as `DownlinkView.pilots`."""
        return self.view.receive(self.truth, pilots)

    def image(self, *, noisy: bool = False) -> Tensor:
        """Images [N, T, Q, M], as `DownlinkView.image`."""
        return self.view.image(noisy=noisy) if noisy else self.truth
