"""From a design to a checkpoint: train (or go on training), evaluate, write the card."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from csiemu.training.complexity import complexity
from csiemu.training.recipes import Design
from csiemu.training.schemes import SchemeTraining, training_of
from csiemu.training.trainer import STATE, Progress, Recipe, Rounds, Trainer
from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Samples, Split
from shared.checkpoints import Checkpoint, CheckpointStore, parameter_counts
from shared.conditions import RunConditions
from shared.errors import InvalidInput
from shared.link.decoding import make_probe, probed_frames
from shared.link.encoding import encode_frames
from shared.link.evaluation import change_in_bf16, evaluate
from shared.link.precision import CHANGE
from shared.schemes import Scheme, scheme_class
from shared.stopping import stopping

MOST_COMPARED = 1000
"""UEs whose reports are decoded in both precisions, for the card."""

OnStage = Callable[[str, int, int | None], None]
"""Is told what is being done, how much of it is done and of how much (None: that is not known)."""


def build(design: Design, seed: int, pilots_from: Checkpoint | None = None) -> Scheme:
    """A scheme with the initial weights that `seed` gives, and the downlink pilots of another one if asked."""
    torch.manual_seed(seed)
    scheme = scheme_class(design.scheme)(Scenario.parse(design.scenario).pinned(), design.config)
    if pilots_from is not None:
        name = "pilots.parts"
        scheme.encoder.load_state_dict({name: pilots_from.scheme.encoder.state_dict()[name]}, strict=False)
    return scheme


def train(
    name: str,
    version: int,
    design: Design,
    recipe: Recipe,
    *,
    store: CheckpointStore,
    state: Path,
    device: str = "cpu",
    freeze_encoder_from: Checkpoint | None = None,
    start_from: Checkpoint | None = None,
    frozen_from: Checkpoint | None = None,
    pilots_from: Checkpoint | None = None,
    save_every: int = 500,
    report_every: int = 50,
    evaluation_ues: int = 5000,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_stage: OnStage = lambda stage, done, of: None,
    on_ready: Callable[[Rounds], None] = lambda trainer: None,
) -> Checkpoint:
    """Train a design and write it as `name`/`version`.

    Args:
        state: folder of the training's resumable state; if there is one in it, training goes on from it.
        freeze_encoder_from: train a decoder for the encoder of this checkpoint, which stays as it is.
        start_from: begin with all weights of this checkpoint instead of random ones; its quantiser may be another. With
            no steps they are only quantised anew, and the card's account of their training stays.
        frozen_from: take over from this checkpoint the parts that the recipe's stage does not train.
        pilots_from: begin with the downlink pilots of this checkpoint; references keep them.
        on_stage: is told of what goes before and after the steps.
        on_ready: is given the trainer, with its saved state if there is one, before the steps; it may set a recipe of
            other steps.

    Raises:
        Conflict: the version exists. InvalidInput: design and frozen encoder do not fit, or settings changed in resume.
    """
    store.new_folder(name, version)
    scheme = build(design, recipe.seed, pilots_from)
    if recipe.start != "random" and not (state / STATE).exists():
        with _stage("start", on_stage):
            starting = training_of(scheme)
            starting.start(recipe.start, _training_frames(starting, recipe.seed))
    if start_from is not None:
        _copy("start_from", start_from, start_from.scheme, scheme)
        with _stage("quantisers of the start", on_stage):  # they may have other bits
            calibrate(training_of(scheme.eval()), recipe.seed)
    if frozen_from is not None:
        _copy_frozen(frozen_from, scheme, recipe.stage)
    if freeze_encoder_from is not None:
        _copy("freeze_encoder_from", freeze_encoder_from, freeze_encoder_from.scheme.encoder, scheme.encoder)
    sources = {
        "frozen_encoder_from": freeze_encoder_from,
        "started_from": start_from,
        "frozen_from": frozen_from,
        "pilots_from": pilots_from,
    }
    training: dict[str, Any] = {"trained": False}
    if scheme.trainable and recipe.steps > 0:
        named = {field: _named(source) for field, source in sources.items()}
        trainer = training_of(scheme, recipe.stage).rounds(recipe, named) or Trainer(
            scheme, recipe, device=device, freeze_encoder=freeze_encoder_from is not None, sources=named
        )
        if (state / STATE).exists():
            trainer.load(state)
        on_ready(trainer)
        with stopping(trainer.stop):
            while trainer.step < trainer.recipe.steps:
                target = (trainer.step // save_every + 1) * save_every
                try:
                    trainer.run(target, report_every=report_every, on_progress=on_progress)
                except KeyboardInterrupt:  # of `on_progress`, between two steps
                    trainer.stop()
                trainer.save(state)
                if trainer.stopping:
                    raise KeyboardInterrupt
        training = _budget(trainer)
        training |= trainer.sources
        before = start_from or frozen_from
        training["before"] = before.card["training"] if before is not None else None
    elif start_from is not None:  # the same weights, another quantiser
        training = start_from.card["training"]
    weights = scheme.cpu().state_dict()
    scheme = build(design, recipe.seed)  # one that is not compiled
    scheme.load_state_dict(weights)
    last = training_of(scheme.eval(), recipe.stage)
    tuned = start_from is not None and recipe.steps > 0 and getattr(design.config, "quantised_training", False)
    if freeze_encoder_from is None and not tuned:  # a quantiser that the networks were tuned to stays as it is
        with _stage("quantisers", on_stage):
            calibrate(last, recipe.seed)
    cost = {part: dataclasses.asdict(found) for part, found in complexity(scheme).items()}
    account = {"training": training, "parameters": parameter_counts(scheme), "complexity": cost}
    checkpoint = store.save(name, version, scheme, account)
    return measure(checkpoint, store, evaluation_ues, lambda done: on_stage("evaluation", done, evaluation_ues))


@contextlib.contextmanager
def _stage(name: str, on_stage: OnStage) -> Iterator[None]:
    """One that does not say how far it is."""
    on_stage(name, 0, None)
    yield
    on_stage(name, 1, 1)


def _named(source: Checkpoint | None) -> str | None:
    return None if source is None else f"{source.name}/{source.version}"


def _copy(field: str, source: Checkpoint, weights: nn.Module, into: nn.Module) -> None:
    """Copy weights of a checkpoint; buffers as far as both have them. Raises InvalidInput, naming `field`, if the
    parameters do not fit.
    """
    parameters = {name for module in (weights, into) for name, _ in module.named_parameters()}
    try:
        found = into.load_state_dict(weights.state_dict(), strict=False)
    except RuntimeError as error:
        reason = str(error)
    else:
        strangers = parameters.intersection([*found.missing_keys, *found.unexpected_keys])
        reason = f"not in both: {', '.join(sorted(strangers))}" if strangers else ""
    if reason:
        what = "encoder" if field == "freeze_encoder_from" else "scheme"
        raise InvalidInput(f"{field}: {what} of {source.name} does not fit: {reason}")


def _copy_frozen(source: Checkpoint, into: Scheme, stage: str) -> None:
    """Copy the modules (`encoder.magnitude`) that `stage` does not train. Raises InvalidInput."""
    training_of(into, stage)  # which freezes the others

    def module(name: str) -> str:
        return ".".join(name.split(".")[:2])

    trained = {module(name) for name, parameter in into.named_parameters() if parameter.requires_grad}
    frozen = {name: value for name, value in into.state_dict().items() if module(name) not in trained}
    theirs = source.scheme.state_dict()
    wrong = [name for name, value in frozen.items() if name not in theirs or theirs[name].shape != value.shape]
    if all(parameter.requires_grad for parameter in into.parameters()):
        raise InvalidInput(f"frozen_from: stage '{stage}' trains everything")
    if wrong:
        raise InvalidInput(f"frozen_from: {', '.join(wrong)} of {source.name} not as here")
    into.load_state_dict({name: theirs[name] for name in frozen}, strict=False)


def calibrate(training: SchemeTraining, seed: int) -> None:
    """Set what is measured of a scheme, as its quantisers' ranges, by channels of the training split."""
    training.calibrate(_training_frames(training, seed))


def _training_frames(training: SchemeTraining, seed: int) -> DownlinkView:
    ue = torch.arange(training.measured_frames)
    return DownlinkView(training.scheme.scenario, Samples(seed, Split.TRAIN, ue, torch.zeros_like(ue)))


def measure(
    checkpoint: Checkpoint,
    store: CheckpointStore,
    ues: int,
    on_progress: Callable[[int], None] = lambda frames: None,
) -> Checkpoint:
    """Evaluate a checkpoint as stored, and write its reference figures and its probe to its card; `on_progress` is told
    how many frames are done.
    """
    scheme, scenario = checkpoint.scheme, checkpoint.scenario
    reference = evaluate(scheme, RunConditions(scenario), ues=ues, on_progress=on_progress)
    probe = make_probe(scheme, encode_frames(scheme, scenario, probed_frames()))
    change = change_in_bf16(scheme, RunConditions(scenario), min(ues, MOST_COMPARED))
    return store.annotate(checkpoint, {"evaluation": reference, "probe": probe, CHANGE: change})


def _budget(trainer: Rounds) -> dict[str, Any]:
    """The card's account of a training: recipe, budget, machine and learning curve (at most 100 points)."""
    stride = -(-len(trainer.history) // 100)
    curve = trainer.history[stride - 1 :: stride]
    machine = torch.cuda.get_device_name() if trainer.device.type == "cuda" else f"{platform.machine()} CPU, 1 thread"
    return {
        "trained": True,
        "recipe": dataclasses.asdict(trainer.recipe),
        "frames_seen": trainer.step * trainer.recipe.batch,
        "seconds": round(trainer.seconds),
        "machine": machine,
        "torch": torch.__version__,
        "curve": [{k: round(v, 4) for k, v in point.items() if k in ("step", "nmse_db")} for point in curve],
    }
