"""One training loop for every scheme, on fresh samples of the world or on a fixed number of them, resumable.

A step's samples are the world's (seed, TRAIN, ue = step * batch + row, frame 0), or with a fixed number of frames those
of the epoch's own permutation of them: nothing but the step number decides what the next step sees, so that a resumed
run goes on as if it had never stopped.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from csiemu.training.graph import Captured
from csiemu.training.schemes import SchemeTraining, training_of
from shared.channels.downlink import DownlinkView
from shared.channels.streams import Samples, Split
from shared.channels.uplink import UplinkView
from shared.checkpoints import encoder_id
from shared.errors import CsiError, InvalidInput
from shared.fields import OneOf, Within, check_fields, differences
from shared.schemes import Scheme
from shared.schemes.layouts import choose_layout

PRECISIONS = ("fp32", "bf16")
STARTS = ("random", "principal", "linear")

STATE = "state.json"
"""Of a training's folder: what names the other files. A folder without it holds no state."""

CHUNK = 1000
"""Fixed training frames computed at once."""

PART_BYTES = 15 * 2**20
"""Bytes of tensors in one file of the state, as far as no single tensor is larger."""

RISEN_DB = 30.0
"""A training whose NMSE is so much worse than at its beginning will not come back."""


Measured = tuple[DownlinkView, Tensor, Tensor]
"""Downlink of training frames, its channels [N, T, M] or images [N, T, Q, M], and what `reconstruct` takes beside the
observation.
"""


class TrainingDiverged(CsiError):
    """The loss is not a number any more, or far from where it began."""


@dataclass(frozen=True)
class Recipe:
    """How a scheme is trained. The texts beside the fields are also the help of the options that replace them."""

    steps: Annotated[int, "Optimiser steps.", Within(0)] = 20_000
    batch: Annotated[int, "Frames a step.", Within(2)] = 512
    rate: Annotated[float, "Adam's learning rate at its highest; from there a cosine to the final one."] = 1e-3
    final_rate: Annotated[float, "Learning rate at the end."] = 1e-5
    warmup: Annotated[int, "Steps of linear rise to the highest learning rate.", Within(0)] = 200
    slope: Annotated[float, "Slope of the straight-through quantiser at the start, annealed geometrically."] = 1.0
    final_slope: Annotated[float, "Slope at the end."] = 10.0
    precision: Annotated[str, f"Matrix products: {' or '.join(PRECISIONS)}; else fp32.", OneOf(PRECISIONS)] = "fp32"
    frames: Annotated[int, "Training frames, seen once an epoch; 0 for fresh ones at every step.", Within(0)] = 0
    start: Annotated[str, f"Initial weights, if the scheme has them: {', '.join(STARTS)}.", OneOf(STARTS)] = "random"
    frozen_norms: Annotated[bool, "Batch normalisations keep the statistics that they have at the start."] = False
    stage: Annotated[str, "all, or a stage of the scheme's own."] = "all"
    compiled: Annotated[
        bool,
        "Fewer launches: torch.compile fuses networks of images (a minute or two, and it needs a C++ compiler), and on"
        " a GPU a step is one CUDA graph.",
    ] = False
    seed: Annotated[int, "Seed of the world and of the initial weights.", Within(0)] = 1

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("rate", "final_rate", "slope", "final_slope"):
            if not 0 < getattr(self, name) < math.inf:
                raise InvalidInput(f"{name}: {getattr(self, name)} is not a positive number")
        if 0 < self.frames < self.batch:
            raise InvalidInput(f"frames: {self.frames} is less than a batch of {self.batch}; 0 draws fresh ones")

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


class Rounds(Protocol):
    """What `csiemu.training.run` needs of a training: it goes on to a step, and can be stopped, saved and resumed."""

    recipe: Recipe
    sources: dict[str, str | None]
    device: torch.device
    step: int
    stopping: bool
    seconds: float
    history: list[dict[str, float]]

    def run(
        self,
        steps: int | None = None,
        *,
        report_every: int = 100,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        """Train up to step `steps`."""

    def stop(self) -> None:
        """Have `run` return after the step in hand."""

    def save(self, folder: Path) -> None:
        """Write the whole state to a folder."""

    def load(self, folder: Path) -> None:
        """Go on from a folder that `save` wrote."""


class Trainer:
    """A scheme in training. `freeze_encoder` trains the decoder alone, for UEs in the field. `sources` names what the
    training goes out from; a state that has others is refused.
    """

    def __init__(
        self,
        scheme: Scheme,
        recipe: Recipe,
        *,
        device: str = "cpu",
        freeze_encoder: bool = False,
        sources: dict[str, str | None] | None = None,
    ) -> None:
        scheme.check_scenario(scheme.scenario)
        self.device = torch.device(device)
        self.scheme = scheme.to(self.device).train()
        self.recipe = recipe
        self.freeze_encoder = freeze_encoder
        self.sources = sources or {}
        self.training = training_of(self.scheme, recipe.stage)
        # the device's own convolutions where it is no CPU: block layers are slower there (`csiemu bench layouts`)
        on_cpu = self.device.type == "cpu"
        choose_layout(self.scheme, rows=recipe.precision == "bf16" or not on_cpu, blocks=on_cpu)
        if recipe.frozen_norms:
            for module in scheme.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        if freeze_encoder:
            scheme.encoder.requires_grad_(False)
        trained = [parameter for parameter in scheme.parameters() if parameter.requires_grad]
        on_cuda = self.device.type == "cuda"
        self.captured: Captured | None = None
        rate: float | Tensor = recipe.rate
        if recipe.compiled and self.training.one_graph:
            self.training.compile("default")
            self.captured = Captured(self._captured_step, self.device)
            rate = torch.tensor(recipe.rate, device=self.device)  # a graph reads it anew in every replay
        elif recipe.compiled:
            self.training.compile("reduce-overhead" if on_cuda else "default")  # a graph of each network
        capturable = on_cuda and self.captured is not None
        self.optimizer = torch.optim.Adam(trained, lr=rate, fused=True, capturable=capturable)
        self.step = 0
        self.stopping = False
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []

    @cached_property
    def fixed(self) -> FixedFrames:
        """The recipe's fixed frames, made for the first step: what they hold may depend on weights that `load` brings.

        Raises:
            InvalidInput: the uplink's part in the scheme is learned.
        """
        return FixedFrames(self.training, self.recipe, self.device)

    def run(
        self,
        steps: int | None = None,
        *,
        report_every: int = 100,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        """Train up to step `steps` (default: all of the recipe).

        Raises:
            TrainingDiverged: the loss is NaN or infinite, or the NMSE is `RISEN_DB` above that of the first report.
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
                nmse = 10 * math.log10(max(error, 1e-30) / power)
                if self.history and nmse > (first := self.history[0]["nmse_db"]) + RISEN_DB:
                    raise TrainingDiverged(
                        f"training: NMSE has risen from {first:.1f} to {nmse:.1f} dB at step {self.step}; "
                        f"lower the learning rate ({self.recipe.rate:g})"
                    )
                now = time.perf_counter()
                self.seconds, started = self.seconds + now - started, now
                progress = Progress(self.step, loss / counted, nmse, self.seconds)
                self.history.append(dataclasses.asdict(progress))
                on_progress(progress)
                sums.zero_()
                counted = 0

    def stop(self) -> None:
        """Have `run` return after the step in hand, so that a saved state is one that an unbroken training has too."""
        self.stopping = True

    def _train_step(self) -> Tensor:
        """One optimiser step; [loss, numerator and denominator of the NMSE], float64."""
        recipe = self.recipe
        if not recipe.frames:
            rows = torch.arange(recipe.batch, device=self.device) + self.step * recipe.batch
            downlink, truth, side = measured(self.training, recipe.seed, rows)
        else:
            downlink, truth, side = self.fixed.at(self.step)
        rate, slope = recipe.rate_at(self.step), recipe.slope_at(self.step)
        self.step += 1
        if self.captured is not None and not side.requires_grad:  # else the uplink's part is learned
            inputs = {"rows": downlink.samples.ue, "truth": truth, "side": side}
            # filled in on the device: a copy would wait for it
            numbers = (torch.full((), number, device=self.device) for number in (rate, slope))
            return self.captured(**inputs, **dict(zip(("rate", "slope"), numbers, strict=True)))
        if recipe.compiled:
            torch.compiler.cudagraph_mark_step_begin()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return self._optimise(downlink, truth, side, slope)

    def _captured_step(self, *, rows: Tensor, truth: Tensor, side: Tensor, rate: Tensor, slope: Tensor) -> Tensor:
        """`_optimise` by nothing but tensors."""
        for group in self.optimizer.param_groups:
            group["lr"].copy_(rate)
        samples = _training_samples(self.recipe.seed, rows)
        return self._optimise(DownlinkView(self.scheme.scenario, samples, truth), truth, side, slope)

    def _optimise(self, downlink: DownlinkView, truth: Tensor, side: Tensor, slope: float | Tensor) -> Tensor:
        """A step on these frames, as `_train_step` returns it."""
        recipe, training = self.recipe, self.training
        observation = self.scheme.encoder.observe(downlink)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            estimate = training.reconstruct(observation, side, slope)
        loss = training.loss(estimate, truth)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        training.after_step()
        with torch.no_grad():
            return torch.stack([loss.detach(), *training.progress(estimate, truth)]).double()

    def save(self, folder: Path) -> None:
        """Write the whole state to a folder, in safetensors files of at most 16 MiB that state.json names.

        The state before it stays valid until state.json is replaced, in one move.
        """
        tensors = {f"model.{name}": value for name, value in self.scheme.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": value for name, value in state.items()}
        folder.mkdir(parents=True, exist_ok=True)
        before = set(folder.glob("*.safetensors"))
        parts = []
        for number, names in enumerate(_parts(tensors)):
            parts.append(f"step-{self.step}-part-{number}.safetensors")
            # copies, for ends may share a parameter, which the format refuses
            copies = {name: tensors[name].clone(memory_format=torch.contiguous_format) for name in names}
            save_file(copies, folder / f"{parts[-1]}.partial")
            (folder / f"{parts[-1]}.partial").replace(folder / parts[-1])
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
            "settings": self._settings(),
            "parts": parts,
        }
        partial = folder / "state.partial"
        partial.write_text(json.dumps(state))
        partial.replace(folder / STATE)
        for path in before - {folder / part for part in parts}:
            path.unlink()

    def load(self, folder: Path) -> None:
        """Go on from a folder that `save` wrote.

        Raises:
            InvalidInput: the state belongs to other settings, or files of it are missing.
        """
        header = json.loads((folder / STATE).read_text())
        ours, theirs = self._settings(), header["settings"]
        if ours != theirs:
            raise InvalidInput(f"resume: {folder} was made with other settings: {'; '.join(differences(ours, theirs))}")
        tensors: dict[str, Tensor] = {}
        for part in header["parts"]:
            if not (folder / part).exists():
                raise InvalidInput(f"resume: {folder} lacks {part}; remove the folder to begin anew")
            tensors |= load_file(folder / part, device=str(self.device))
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
            "scenario": str(self.scheme.scenario),
            "recipe": dataclasses.asdict(self.recipe),
            "frozen_encoder": encoder_id(self.scheme) if self.freeze_encoder else None,
            "sources": self.sources,
        }
        return json.loads(json.dumps(settings))


def saved_recipe(folder: Path) -> Recipe | None:
    """The recipe of the state in a folder; None if there is no state."""
    if not (path := folder / STATE).exists():
        return None
    return Recipe(**json.loads(path.read_text())["settings"]["recipe"])


class FixedFrames:
    """A fixed number of training frames on the training's device, in another order in each epoch."""

    def __init__(self, training: SchemeTraining, recipe: Recipe, device: torch.device) -> None:
        self.scenario = training.scheme.scenario
        self.recipe = recipe
        self.device = device
        rows = torch.arange(recipe.frames, device=device)
        parts = [measured(training, recipe.seed, part) for part in rows.split(CHUNK)]
        self.truth = torch.cat([truth for _, truth, _ in parts])
        self.side = torch.cat([side for _, _, side in parts])
        if self.side.requires_grad:
            name = training.scheme.name
            raise InvalidInput(f"frames: {recipe.frames}; the uplink's part in this {name} is learned: 0 only")
        self.epoch = -1
        self.order = torch.empty(0)

    def at(self, step: int) -> Measured:
        """What a step sees. What is left of an epoch for less than a batch is not used."""
        epoch, place = divmod(step, self.recipe.frames // self.recipe.batch)
        if epoch != self.epoch:
            # drawn on the CPU, so that every device sees the same order
            generator = torch.Generator().manual_seed(self.recipe.seed * 2**20 + epoch)
            self.order = torch.randperm(self.recipe.frames, generator=generator).to(self.device)
            self.epoch = epoch
        rows = self.order[place * self.recipe.batch :][: self.recipe.batch]
        truth = self.truth[rows]
        return DownlinkView(self.scenario, _training_samples(self.recipe.seed, rows), truth), truth, self.side[rows]


def measured(training: SchemeTraining, seed: int, rows: Tensor) -> Measured:
    """What training frames give."""
    scheme, samples = training.scheme, _training_samples(seed, rows)
    view = DownlinkView(scheme.scenario, samples)
    truth = view.channel() if scheme.domain == "spatial" else view.image()
    downlink = dataclasses.replace(view, known=truth)
    side = scheme.decoder.side_information(UplinkView(scheme.scenario, samples))
    return downlink, truth, training.precompute(scheme.encoder.observe(downlink), side)


def _training_samples(seed: int, rows: Tensor) -> Samples:
    return Samples(seed, Split.TRAIN, rows, torch.zeros_like(rows))


def _parts(tensors: dict[str, Tensor]) -> Iterator[list[str]]:
    """Names of tensors in groups of at most `PART_BYTES`, or of one."""
    names: list[str] = []
    size = 0
    for name, value in tensors.items():
        if names and size + value.nbytes > PART_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += value.nbytes
    yield names
