"""Training of mixtures of transforms: kinds by hard expectation maximisation on code lengths, then the tables."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
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
from shared.quantizers.trellis import (
    CLASS_PARTS,
    CLASSES,
    CONTEXTS,
    MAGNITUDES,
    PARTS,
    STEPS,
    SYMBOLS,
    Choice,
    TrellisCode,
    step_size,
    whole_weights,
)
from shared.schemes.gmtc import Gmtc

CHUNK = 1024
"""Frames whose images are held at once."""

BASIS_CHUNKS = 32
"""The basis of all kinds is that of the first so many."""

POOLED = 2
"""Magnitudes are averaged over so many rows and columns before kinds are first guessed."""

GUESSES = 12
"""Rounds of k-means that guess them."""

OF_REPORTS = ("bits", "step", "tried")
"""Settings on which kinds do not depend: tables are measured anew with others."""

CANDIDATES, ROUNDS_FOR_ALL = 8, 3
"""In every third round, from the first on, an image is compared with all kinds, in others with the nearest 8 alone."""

SHARED_FRAMES = 60
"""The covariance of all kinds counts in each as if it were of so many frames more."""

BITS = 776
"""Of a report, for which progress is told: what Gaussian vectors of the kinds' powers would be left with."""

EXPECTED_SYMBOLS = 50
"""What is known beforehand counts in a table as if it were of so many symbols seen."""

LEAST_EXPECTED = 8
"""Of a magnitude, in 256ths of a step."""

INWARDS = 0.1
"""By which magnitudes are taken for smaller where few were seen, in steps: small ones are the likelier."""

UNLIMITED = 1 << 20
"""Bits, more than any report has."""

STEPS_MEASURED = tuple(range(100, 180, 8))
"""Of the reports by which tables are set: they are in use at any."""

TABLE_ROUNDS = 2
"""What is sent depends on what it takes by the tables of the round before."""


class TableStatistics:
    """What was sent of many reports: how often what, what it stood for, how far it was off."""

    def __init__(self) -> None:
        self.symbols = torch.zeros(2, CLASSES, CONTEXTS, SYMBOLS)
        self.magnitudes, self.counts = torch.zeros(CLASSES), torch.zeros(CLASSES)
        self.of_magnitude, self.inwards, self.errors = (torch.zeros(CLASSES, MAGNITUDES) for _ in range(3))

    def add(self, code: TrellisCode, labels: Tensor, choice: Choice, coefficients: Tensor) -> None:
        """What is sent of coefficients [N, K, 2] in kinds [N]."""
        reports = zip(labels.tolist(), choice.steps.tolist(), choice.levels, strict=True)
        found = torch.from_numpy(np.concatenate([code.rows(*report) for report in reports]))
        there = found[:, 0] >= 0
        quantiser, kind, context, index = found[there].unbind(1)
        symbol = (index >> (kind // CLASS_PARTS - 4).clamp(min=0)).clamp(max=SYMBOLS - 1)
        place = ((quantiser * CLASSES + kind) * CONTEXTS + context) * SYMBOLS + symbol
        self.symbols += place.bincount(minlength=self.symbols.numel()).view(self.symbols.shape)
        sizes = step_size(choice.steps)[:, None, None]
        sent = choice.levels.abs().flatten()[there]
        inwards = (choice.levels.abs() - coefficients.abs() / sizes).flatten()[there]
        errors = ((code.values(labels, choice.steps, choice.levels) - coefficients) / sizes).square().flatten()[there]
        self.magnitudes += kind.bincount(sent.double(), CLASSES)
        self.counts += kind.bincount(minlength=CLASSES)
        place = kind * MAGNITUDES + sent.clamp(max=MAGNITUDES - 1)
        for sums, values in (
            (self.of_magnitude, torch.ones(len(sent))),
            (self.inwards, inwards),
            (self.errors, errors),
        ):
            sums += place.bincount(values.double(), sums.numel()).view(sums.shape)

    def set(self, code: TrellisCode) -> None:
        """Set a code's tables to it: where few were seen, to what is so of all contexts, or by the Laplace law."""
        by_law = EXPECTED_SYMBOLS * laplace_tables()
        common = self.symbols.sum(2) + by_law
        counts = self.symbols + EXPECTED_SYMBOLS * (common / common.sum(2, keepdim=True))[:, :, None]
        code.weights.copy_(whole_weights(counts))
        seen = self.counts > EXPECTED_SYMBOLS
        mean = (256 * self.magnitudes / self.counts.clamp(min=1)).clamp(min=LEAST_EXPECTED)
        code.expected.copy_(torch.where(seen, mean, code.expected))
        weight = self.of_magnitude + EXPECTED_SYMBOLS
        code.inwards.copy_((self.inwards + EXPECTED_SYMBOLS * INWARDS) / weight)
        code.inwards[:, 0] = 0
        code.errors.copy_((self.errors + EXPECTED_SYMBOLS / 3) / weight)
        code.forget()


@trains(Gmtc)
class GmtcTraining(ImageEstimatorTraining):
    """Training of a mixture of transforms: its kinds are a `MixtureTrainer`'s, its tables are set by `statistics`."""

    statistics: ClassVar[type[TableStatistics]] = TableStatistics

    scheme: Gmtc

    def rounds(self, recipe: Recipe, sources: dict[str, str | None]) -> MixtureTrainer:
        return MixtureTrainer(self.scheme, recipe, sources)

    @torch.no_grad()
    def calibrate(self, downlink: DownlinkView) -> None:
        """Set the tables by what the encoder sends of the given channels, and give the gNB its copy."""
        code, config = self.scheme.encoder.code, self.scheme.config
        code.trellis.steps.copy_(whole_weights(step_probabilities(config.step)))
        images = torch.cat([scaled_images(self.scheme, part) for part in downlink.parts(CHUNK)])
        finest = torch.tensor(STEPS_MEASURED).repeat(-(-len(images) // len(STEPS_MEASURED)))[: len(images)]
        start_tables(code.trellis)
        code.trellis.bias.fill_(1)
        for _ in range(TABLE_ROUNDS):
            measured = self.statistics()
            for part, steps in zip(images.split(CHUNK), finest.split(CHUNK), strict=True):
                labels, choice, coefficients = self._sent(part, steps)
                measured.add(code.trellis, labels, choice, coefficients)
            measured.set(code.trellis)
        errors, expected = torch.zeros(STEPS), torch.zeros(STEPS)
        missed, of_kind = torch.zeros(config.mixtures), torch.zeros(config.mixtures)
        for part, steps in zip(images.split(CHUNK), finest.split(CHUNK), strict=True):
            labels, choice, coefficients = self._sent(part, steps)
            errors.index_add_(0, steps, choice.errors.float())
            expected.index_add_(0, steps, code.trellis.expected_errors(labels, steps, choice.levels))
            missed.index_add_(0, labels, energy(part, axes=2) - coefficients.square().sum((1, 2)))
            of_kind += labels.bincount(minlength=config.mixtures)
        found = (errors / expected)[list(STEPS_MEASURED)]
        code.trellis.bias.copy_(torch.from_numpy(np.interp(np.arange(STEPS), STEPS_MEASURED, found.numpy())))
        code.missed.copy_(missed / of_kind.clamp(min=1))
        self.scheme.decoder.code.load_state_dict(code.state_dict())

    def _sent(self, images: Tensor, steps: Tensor) -> tuple[Tensor, Choice, Tensor]:
        """Kinds [N] of scaled images, what is sent of them at steps [N], and their coefficients [N, P, 2]."""
        encoder = self.scheme.encoder
        labels, choice = encoder.choose(images, torch.full_like(steps, UNLIMITED), steps)
        points = encoder.code.basis.analyse(images)
        return labels, choice, encoder.code.coefficients(points, labels[:, None])[:, 0]


def step_probabilities(usual: int) -> Tensor:
    """Of step indices, [STEPS]: half for the scheme's own, the rest for any that a rate may ask for."""
    found = torch.full((STEPS,), 0.5 / STEPS)
    found[usual] += 0.5
    return found


def start_tables(code: TrellisCode) -> None:
    """Set tables by a Laplace law of the deviation in the middle of a class, and what is expected by it."""
    code.weights.copy_(whole_weights(laplace_tables()[:, :, None].expand(-1, -1, CONTEXTS, -1)))
    mean = 2 ** ((torch.arange(CLASSES) + 0.5) / CLASS_PARTS - 2) / math.sqrt(2)
    code.expected.copy_((256 * mean * (-1 / mean).exp()).clamp(min=LEAST_EXPECTED))
    code.inwards.fill_(INWARDS)
    code.inwards[:, 0] = 0
    code.forget()


def laplace_tables() -> Tensor:
    """Probabilities of symbols, [2, CLASSES, SYMBOLS], under a Laplace law of the deviation in a class's middle."""
    kinds, symbols = torch.arange(CLASSES), torch.arange(1, SYMBOLS)
    mean = 2 ** ((kinds + 0.5) / CLASS_PARTS - 2) / math.sqrt(2)  # of magnitudes, in steps
    first = symbols * 2 ** (kinds // CLASS_PARTS - 4).clamp(min=0)[:, None]  # index of a symbol
    edges = torch.stack([2 * first - 1.0, 2 * first - torch.where(first > 1, 2.0, 1.5)])
    beyond = torch.cat([torch.ones(2, CLASSES, 1), (-edges / mean[:, None]).exp(), torch.zeros(2, CLASSES, 1)], 2)
    return -beyond.diff(dim=2)


def scaled_images(scheme: Gmtc, downlink: DownlinkView) -> Tensor:
    """Images [N T, Q, M] over their scales, as the UE sees them."""
    encoder = scheme.encoder
    return encoder.scaled(encoder.images(encoder.observe(downlink).flatten(0, 1)))


class MixtureTrainer:
    """Finds the kinds of a mixture; in use as `csiemu.training.trainer.Trainer`, a step being a round over all frames.

    The first round guesses kinds by k-means on pooled magnitudes; each then fits the kinds' covariances to the images
    that are of a kind, and takes each image for the kind that codes it best. The state is the labels, and the kinds
    that are nearest.
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
        self.candidates = torch.zeros(0)
        self.points = torch.zeros(0)
        self.pooled = torch.zeros(0)

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
            shortest = self._assign()
            left = self._fit()
            self.step += 1
            self.seconds += time.perf_counter() - started
            progress = Progress(self.step, float(shortest.mean()), 10 * math.log10(left), self.seconds)
            self.history.append(dataclasses.asdict(progress))
            on_progress(progress)

    def save(self, folder: Path) -> None:
        """Write the state; the one before it stays valid until state.json is replaced, in one move."""
        folder.mkdir(parents=True, exist_ok=True)
        name, before = f"step-{self.step}.safetensors", set(folder.glob("*.safetensors"))
        save_file({"labels": self.labels, "candidates": self.candidates}, folder / name)
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
        held = load_file(folder / header["parts"][0])
        self.labels, self.candidates = held["labels"], held["candidates"]
        self.step, self.seconds, self.history = header["step"], header["seconds"], header["history"]
        self._hold_frames()
        self._fit()

    def _settings(self) -> dict[str, Any]:
        config = {name: value for name, value in self.scheme.config.to_json().items() if name not in OF_REPORTS}
        settings = {
            "scheme": self.scheme.name,
            "config": config,
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
        images, points, pooled = [], [], []
        for number, part in enumerate(view.parts(CHUNK), start=1):
            images.append(scaled_images(self.scheme, part))
            pooled.append(avg_pool2d(images[-1].abs()[:, None], POOLED, ceil_mode=True).flatten(1))
            if number == BASIS_CHUNKS or (number < BASIS_CHUNKS and number * CHUNK >= len(ue)):
                self._set_basis(images)
            if number >= BASIS_CHUNKS or number * CHUNK >= len(ue):
                points += [self.scheme.encoder.code.basis.analyse(found) for found in images]
                images.clear()
        self.points, self.pooled = torch.cat(points), torch.cat(pooled)

    def _set_basis(self, images: list[Tensor]) -> None:
        """Set the directions of all kinds to those that have the most power in images."""
        basis = self.scheme.encoder.code.basis
        found = torch.cat(images).to(torch.complex128)
        sides = (
            ("rows", torch.einsum("nqm,npm->qp", found, found.conj())),
            ("columns", torch.einsum("nqm,nqk->mk", found, found.conj())),
        )
        for name, covariance in sides:
            strongest = torch.linalg.eigh(covariance).eigenvectors.flip(1)
            getattr(basis, name).copy_(torch.stack([strongest.real, strongest.imag]))
        left, right = torch.complex(*basis.rows), torch.complex(*basis.columns)
        products = torch.cat([left.mH @ part @ right.conj() for part in images])
        power = products.abs().square().sum(0).flatten()
        basis.places.copy_(power.argsort(descending=True, stable=True)[: len(basis.places)])

    def _assign(self) -> Tensor:
        """Take each image for the kind that codes it best; its code length then, [frames]."""
        rank, count = self.scheme.encoder.rank, self.scheme.config.mixtures
        if self.step % ROUNDS_FOR_ALL == 0:
            nearest = [rank(part).topk(min(CANDIDATES, count), largest=False) for part in self.points.split(CHUNK)]
            lengths = torch.cat([part.values for part in nearest])
            self.candidates = torch.cat([part.indices for part in nearest])
        else:
            lengths = torch.zeros(self.candidates.shape)
            for kind in range(count):
                frames, places = (self.candidates == kind).nonzero(as_tuple=True)
                lengths[frames, places] = rank(self.points[frames], slice(kind, kind + 1))[:, 0]
        shortest, places = lengths.min(1)
        self.labels = self.candidates.gather(1, places[:, None])[:, 0]
        return shortest

    def _fit(self) -> float:
        """Set the kinds to what the labels say; the NMSE that they would have as Gaussian vectors."""
        code, config = self.scheme.encoder.code, self.scheme.config
        counts = self.labels.bincount(minlength=config.mixtures)
        rotated, plain = self.points[:, : config.subspace], self.points[:, config.subspace :]
        gram = torch.zeros(config.mixtures, config.subspace, config.subspace, dtype=torch.complex128)
        beyond = torch.zeros(config.mixtures, plain.shape[1], dtype=torch.float64)
        for kind in range(config.mixtures):
            for part in (self.labels == kind).nonzero()[:, 0].split(CHUNK):
                gram[kind] += rotated[part].mT @ rotated[part].conj()
                beyond[kind] += torch.view_as_real(plain[part]).square().sum((0, 2))
        share, weights = SHARED_FRAMES / len(self.points), (counts + SHARED_FRAMES)[:, None]
        gram = (gram + gram.sum(0) * share) / weights[..., None]
        code.transforms.set(torch.linalg.eigh(gram).eigenvectors.flip(2).to(torch.complex64))
        vectors = code.transforms.matrices.to(torch.complex128)
        power = torch.cat(
            [(vectors.conj() * (gram @ vectors)).sum(1).real, (beyond + beyond.sum(0) * share) / weights], 1
        )
        code.trellis.deviations.copy_((PARTS / 2 * (power.clamp(min=1e-12) / 2).log2()).round())
        code.trellis.kinds.copy_(whole_weights(counts + 1.0))
        code.trellis.forget()
        return gaussian_nmse(power, counts / counts.sum(), BITS)


def gaussian_nmse(power: Tensor, shares: Tensor, bits: float) -> float:
    """What Gaussian vectors of kinds of such shares [J] would be left with at so many bits on average: reverse
    water-filling (Cover and Thomas, "Elements of information theory", section 10.3.3) of powers [J, P] of complex
    coefficients; over their mean power.
    """
    power, shares = power.double(), shares.double()
    low, high = -60.0, 60.0  # of the level, as a power of 2
    for _ in range(50):
        level = 2 ** ((low + high) / 2)
        needed = float(shares @ (power / level).log2().clamp(min=0).sum(1))
        low, high = (low, math.log2(level)) if needed < bits else (math.log2(level), high)
    return float(shares @ power.clamp(max=level).sum(1)) / float(shares @ power.sum(1))


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
