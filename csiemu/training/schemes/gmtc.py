"""Training of mixtures of transforms: kinds by hard expectation maximisation on code lengths, then the tables."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import avg_pool2d

from csiemu.training.schemes import trains
from csiemu.training.schemes.images import ImageEstimatorTraining
from csiemu.training.trainer import STATE, Progress, Recipe
from shared.channels.downlink import DownlinkView
from shared.channels.streams import Samples, Split
from shared.errors import InvalidInput
from shared.fields import differences
from shared.metrics import energy
from shared.schemes.gmtc import (
    CLASS_PARTS,
    CLASSES,
    MAGNITUDES,
    PARTS,
    ROUNDING,
    SIZES,
    STEP_INDICES,
    STEPS,
    Gmtc,
    MixtureCode,
    step_size,
)

CHUNK = 1024
"""Frames whose images are held at once."""

BASIS_CHUNKS = 32
"""The basis of all kinds is that of the first so many."""

POOLED = 2
"""Magnitudes are averaged over so many rows and columns before kinds are first guessed."""

GUESSES = 12
"""Rounds of k-means that guess them."""

SHARED_FRAMES = 60
"""The covariance of all kinds counts in each as if it were of so many frames more."""

ERROR_STEPS = (96, 112, 128, 144)
"""At which the errors of what is sent are measured: what is expected of a report has to hold at any."""

EXPECTED_SYMBOLS = 200
"""The Laplace law counts in a table as if it were of so many symbols seen."""


@trains(Gmtc)
class GmtcTraining(ImageEstimatorTraining):
    """Training of a mixture of transforms: its kinds are a `MixtureTrainer`'s, its tables are measured."""

    scheme: Gmtc

    def rounds(self, recipe: Recipe, sources: dict[str, str | None]) -> MixtureTrainer:
        return MixtureTrainer(self.scheme, recipe, sources)

    @torch.no_grad()
    def calibrate(self, downlink: DownlinkView) -> None:
        """Set the tables by what the encoder sends of the given channels, and give the gNB its copy."""
        encoder, decoder = self.scheme.encoder, self.scheme.decoder
        tables, expected, config = encoder.code.tables, laplace_tables(), self.scheme.config
        for kind, probabilities in enumerate(expected):
            tables.set(kind, probabilities)
        tables.set(STEP_INDICES, step_table(config.step))
        seen = [EXPECTED_SYMBOLS * probabilities for probabilities in expected]
        errors, missed, images_of = SentErrors(), torch.zeros(config.mixtures), torch.zeros(config.mixtures)
        for part in downlink.parts(CHUNK):
            images = scaled_images(self.scheme, part)
            room, finest = (torch.full((len(images),), limit) for limit in (config.code_bits, config.step))
            labels, steps, coefficients = encoder.choose(images, room, finest)
            classes = encoder.code.classes(labels, steps)
            sent = encoder.code.magnitudes(coefficients, classes, steps)
            errors.add(encoder.code, labels, coefficients)
            missed.index_add_(0, labels, energy(images, axes=2) - coefficients.square().sum((1, 2)))
            images_of += labels.bincount(minlength=config.mixtures)
            for kind in range(CLASSES):
                seen[kind] += np.bincount(sent[classes == kind].flatten().numpy(), minlength=SIZES[kind])
        for kind, counts in enumerate(seen):
            tables.set(kind, counts)
        encoder.code.errors.copy_(errors.mean())
        encoder.code.missed.copy_(missed / images_of.clamp(min=1))
        decoder.basis.load_state_dict(encoder.basis.state_dict())
        decoder.code.load_state_dict(encoder.code.state_dict())


class SentErrors:
    """Squared errors over the square of the step, summed up by class and magnitude of what is sent."""

    def __init__(self) -> None:
        self.sums = torch.full((CLASSES, MAGNITUDES), EXPECTED_SYMBOLS / 12)
        self.counts = torch.full((CLASSES, MAGNITUDES), float(EXPECTED_SYMBOLS))

    def add(self, code: MixtureCode, labels: Tensor, coefficients: Tensor) -> None:
        """Those of coefficients [N, K, 2] in kinds [N] at `ERROR_STEPS`."""
        for step in ERROR_STEPS:
            steps = torch.full_like(labels, step)
            classes = code.classes(labels, steps)
            sent = code.magnitudes(coefficients, classes, steps)
            errors = ((coefficients.abs() - code.values(sent, steps)) / step_size(steps)[:, None, None]).square()
            places = (classes[..., None] * MAGNITUDES + sent.clamp(max=MAGNITUDES - 1))[classes >= 0].flatten()
            self.sums.view(-1).index_add_(0, places, errors[classes >= 0].flatten())
            self.counts.view(-1).index_add_(0, places, torch.ones(len(places)))

    def mean(self) -> Tensor:
        """[CLASSES, MAGNITUDES]; where there are few, a twelfth weighs in."""
        return self.sums / self.counts


def step_table(usual: int) -> NDArray[np.float64]:
    """Probabilities of step indices: half for the scheme's own, the rest for any that a rate may ask for."""
    found = np.full(STEPS, 0.5 / STEPS)
    found[usual] += 0.5
    return found


def laplace_tables() -> list[NDArray[np.float64]]:
    """Probabilities of magnitudes 0, 1, .. of the classes, under a Laplace law of the deviation in their middle."""
    found = []
    for kind, size in enumerate(SIZES):
        mean = 2 ** (kind / CLASS_PARTS - 2) / math.sqrt(2)  # of the magnitude, in steps
        edges = np.concatenate([[0], np.arange(1, size) - ROUNDING])
        beyond = np.exp(-edges / mean)
        found.append(beyond - np.append(beyond[1:], 0))
    return found


def scaled_images(scheme: Gmtc, downlink: DownlinkView) -> Tensor:
    """Images [N T, Q, M] over their scales, as the UE sees them."""
    encoder = scheme.encoder
    return encoder.scaled(encoder.images(encoder.observe(downlink).flatten(0, 1)))


class MixtureTrainer:
    """Finds the kinds of a mixture; in use as `csiemu.training.trainer.Trainer`, a step being a round over all frames.

    The first round guesses kinds by k-means on pooled magnitudes; each then fits the kinds' covariances to the images
    that are of a kind, and takes each image for the kind that codes it best. The state is the labels.
    """

    def __init__(self, scheme: Gmtc, recipe: Recipe, sources: dict[str, str | None]) -> None:
        if given := next(filter(None, sources.values()), None):
            options = "start_from, frozen_from, freeze_encoder_from"
            raise InvalidInput(f"{options}: {given}; a mixture is fitted from its frames alone")
        if not recipe.frames:
            raise InvalidInput("frames: 0; a mixture is fitted to a fixed number of frames")
        self.scheme = scheme.eval()
        self.recipe = recipe
        self.sources = sources
        self.device = torch.device("cpu")
        self.step = 0
        self.stopping = False
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []
        self.labels = torch.zeros(recipe.frames, dtype=torch.int64)
        self.points = torch.zeros(0)
        self.pooled = torch.zeros(0)
        self.power = 0.0

    def stop(self) -> None:
        """Have `run` return after the round in hand."""
        self.stopping = True

    @torch.no_grad()
    def run(
        self,
        steps: int | None = None,
        *,
        report_every: int = 1,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        """Go on to round `steps` (default: all of the recipe)."""
        last = self.recipe.steps if steps is None else min(steps, self.recipe.steps)
        while self.step < last and not self.stopping:
            started = time.perf_counter()
            self._hold_frames()
            if self.step == 0:
                self.labels = k_means(self.pooled, self.scheme.config.mixtures, self.recipe.seed)
                self._fit()
            lengths = torch.cat([self.scheme.encoder.rank(part) for part in self.points.split(CHUNK)])
            shortest, self.labels = lengths.min(1)
            missed = self._fit()
            self.step += 1
            self.seconds += time.perf_counter() - started
            progress = Progress(self.step, float(shortest.mean()), 10 * math.log10(missed), self.seconds)
            self.history.append(dataclasses.asdict(progress))
            on_progress(progress)

    def save(self, folder: Path) -> None:
        """Write the state; the one before it stays valid until state.json is replaced, in one move."""
        folder.mkdir(parents=True, exist_ok=True)
        name, before = f"step-{self.step}.safetensors", set(folder.glob("*.safetensors"))
        save_file({"labels": self.labels}, folder / name)
        state = {"step": self.step, "seconds": self.seconds, "history": self.history, "settings": self._settings()}
        partial = folder / "state.partial"
        partial.write_text(json.dumps({**state, "parts": [name]}))
        partial.replace(folder / STATE)
        for path in before - {folder / name}:
            path.unlink()

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Go on from a folder that `save` wrote. Raises InvalidInput for the state of other settings."""
        header = json.loads((folder / STATE).read_text())
        ours, theirs = self._settings(), header["settings"]
        if ours != theirs:
            raise InvalidInput(f"resume: {folder} was made with other settings: {'; '.join(differences(ours, theirs))}")
        self.labels = load_file(folder / header["parts"][0])["labels"]
        self.step, self.seconds, self.history = header["step"], header["seconds"], header["history"]
        self._hold_frames()
        self._fit()

    def _settings(self) -> dict[str, Any]:
        settings = {
            "scheme": self.scheme.name,
            "config": self.scheme.config.to_json(),
            "scenario": str(self.scheme.scenario),
            "recipe": dataclasses.asdict(self.recipe),
        }
        return json.loads(json.dumps(settings))

    def _hold_frames(self) -> None:
        """Set the basis of all kinds, hold the frames' images in it, [N, P] complex64, and their pooled magnitudes."""
        if len(self.points):
            return
        ue = torch.arange(self.recipe.frames)
        view = DownlinkView(self.scheme.scenario, Samples(self.recipe.seed, Split.TRAIN, ue, torch.zeros_like(ue)))
        images, points, pooled, power = [], [], [], 0.0
        for number, part in enumerate(view.parts(CHUNK), start=1):
            images.append(scaled_images(self.scheme, part))
            pooled.append(avg_pool2d(images[-1].abs()[:, None], POOLED, ceil_mode=True).flatten(1))
            power += float(energy(images[-1], axes=2).sum())
            if number == BASIS_CHUNKS or (number < BASIS_CHUNKS and number * CHUNK >= len(ue)):
                self._set_basis(images)
            if number >= BASIS_CHUNKS or number * CHUNK >= len(ue):
                points += [self.scheme.encoder.points(found) for found in images]
                images.clear()
        self.points, self.pooled, self.power = torch.cat(points), torch.cat(pooled), power

    def _set_basis(self, images: list[Tensor]) -> None:
        """Set the basis of all kinds to the strongest eigenvectors of images' covariance."""
        encoder = self.scheme.encoder
        covariance = torch.zeros(images[0][0].numel(), images[0][0].numel(), dtype=torch.complex128)
        for part in images:
            covariance += part.flatten(1).mT @ part.flatten(1).conj()
        strongest = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, : self.scheme.config.subspace]
        encoder.basis.vectors.copy_(torch.stack([strongest.real, strongest.imag]))

    def _fit(self) -> float:
        """Set the kinds to what the labels say; the share of the power that their components leave."""
        code, config = self.scheme.encoder.code, self.scheme.config
        counts = self.labels.bincount(minlength=config.mixtures)
        gram = torch.zeros(config.mixtures, config.subspace, config.subspace, dtype=torch.complex128)
        for kind in range(config.mixtures):
            for part in self.points[self.labels == kind].split(CHUNK):
                gram[kind] += part.mT @ part.conj()
        everything = gram.sum(0) * (SHARED_FRAMES / len(self.points))
        vectors, levels, kept = [], [], 0.0
        for kind, of_kind in enumerate(gram):
            values, found = torch.linalg.eigh((of_kind + everything) / (counts[kind] + SHARED_FRAMES))
            strongest = found.flip(1)[:, : config.components]
            deviations = (values.flip(0)[: config.components].clamp(min=1e-12) / 2).sqrt()
            vectors.append(strongest)
            levels.append((PARTS * deviations.log2()).round())
            kept += float(torch.einsum("pk,pq,qk->", strongest.conj(), of_kind, strongest).real)
        code.set_kinds(torch.stack(vectors), torch.stack(levels), counts)
        return max(1e-12, 1 - kept / self.power)


def k_means(points: Tensor, count: int, seed: int) -> Tensor:
    """Labels [N] int64 of points [N, n]; Lloyd's algorithm from points drawn by the seed."""
    generator = torch.Generator().manual_seed(seed)
    centres = points[torch.randperm(len(points), generator=generator)[:count]]
    labels = torch.zeros(len(points), dtype=torch.int64)
    for _ in range(GUESSES):
        labels = torch.cat([torch.cdist(part, centres).argmin(1) for part in points.split(8 * CHUNK)])
        counts = labels.bincount(minlength=count).clamp(min=1)
        centres = torch.zeros_like(centres).index_add_(0, labels, points) / counts[:, None]
    return labels
