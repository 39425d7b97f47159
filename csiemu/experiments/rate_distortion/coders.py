"""What is compared on a scenario: checkpoints of a store, codebooks of 3GPP, transform coders at many rates."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch

from csiemu.experiments.codebooks import codebooks
from csiemu.experiments.rate_distortion.bound import reverse_water_filling
from csiemu.training.schemes.transform import Spectrum, TransformTraining
from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Samples, Split
from shared.channels.wideband import Wideband
from shared.checkpoints import CheckpointStore
from shared.conditions import RunConditions
from shared.link.encoding import encode_frames
from shared.link.rate import Rate
from shared.quantizers import scale
from shared.quantizers.uniform import ALLOCATED_BY
from shared.schemes import Scheme
from shared.schemes.codebooks import CodebookConfig
from shared.schemes.codebooks.tables import PORTS
from shared.schemes.gmtc import Gmtc
from shared.schemes.transform import Transform, TransformConfig

RATES = (264, 392, 776, 1032, 2056, 3080, 4104)
"""Feedback bits of coders that can have any, those of the shipped networks among them."""

SEARCHED = 250
"""UEs by whose reports a step is found that takes so many bits on average."""

COMPANDING = 10.0
"""mu of transform coders, the same at all rates."""

FITTED_SEED = 1
"""Of the training split by whose channels they are fitted."""


@dataclass(frozen=True)
class Coder:
    """A scheme at a rate. `series` names its scheme, `name` the coder: a checkpoint `NAME/VERSION`, with its rate where
    it has several.
    """

    series: str
    name: str
    scheme: Scheme
    rate: Rate | None = None


def stored(store: CheckpointStore, scenario: Scenario, others: Collection[str] = ()) -> Iterator[Coder]:
    """The latest versions of the checkpoints that were made for a scenario, and of some others; codebooks aside, of
    which `standard` has all.
    """
    for name in store.names():
        version = store.versions(name)[-1]
        own = str(Scenario.parse(store.card(name, version)["scenario"])) == str(scenario)
        if not (own or name in others):
            continue
        scheme = store.load(name, version).scheme
        if scheme.least_bits is not None:
            yield from at_rates(scheme, f"{name}/{version}")
        elif not isinstance(scheme.config, CodebookConfig):
            yield Coder(scheme.name, f"{name}/{version}" if own else f"{name}/{version} of {scheme.scenario}", scheme)


def mixture(store: CheckpointStore, scenario: Scenario) -> Gmtc | None:
    """The mixture of a store that was fitted to a scenario, if there is one."""
    for name in store.names():
        card = store.card(name, store.versions(name)[-1])
        if card["scheme"] == Gmtc.name and str(Scenario.parse(card["scenario"])) == str(scenario):
            scheme = store.load(name, store.versions(name)[-1]).scheme
            return scheme if isinstance(scheme, Gmtc) else None
    return None


def at_rates(scheme: Scheme, name: str) -> Iterator[Coder]:
    """A scheme whose reports can have more or fewer bits: at most RATES, and at steps that take these on average."""
    within = [bits for bits in RATES if (scheme.least_bits or 0) <= bits <= scheme.layout.bits]
    for bits in within:
        capped = f"{scheme.name}, at most" if scheme.steps else scheme.name
        yield Coder(capped, f"{name}, at most {bits:,}", scheme, Rate(bits=bits))
    for step in dict.fromkeys(step_of(scheme, bits) for bits in within if scheme.steps):
        yield Coder(scheme.name, f"{name}, step {step}", scheme, Rate(step=step))


def step_of(scheme: Scheme, bits: int) -> int:
    """The finest step at which reports of the first UEs of the test split have at most so many bits on average."""
    ue, low, high = torch.arange(SEARCHED), 0, scheme.steps - 1
    conditions = RunConditions(scheme.scenario)
    samples = conditions.samples(Split.TEST, ue, 0)
    while low < high:
        middle = (low + high + 1) // 2
        sent = encode_frames(scheme, scheme.scenario, samples, scheme.rates(Rate(step=middle), len(ue)))
        fits = scheme.layout.lengths(sent).mean() <= bits
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def standard(world: Wideband) -> Iterator[Coder]:
    """Type I and all combinations of enhanced Type II, where the array has their 32 ports."""
    if world.antennas != PORTS[CodebookConfig.ports].total:
        return
    for name, scheme in codebooks(world):
        yield Coder(name.partition(",")[0], name, scheme)


def measured_spectrum(world: Wideband, scales: tuple[float, float]) -> Spectrum:
    """Of images of the training split, divided by their scales, which are sent in 8 bits in the range `scales` [dB]."""
    training = TransformTraining(_transform(world, scales, bits=scale.BITS + 1, components=1))
    ue = torch.arange(training.measured_frames)
    return training.spectrum(DownlinkView(world, Samples(FITTED_SEED, Split.TRAIN, ue, torch.zeros_like(ue))))


def fitted(world: Wideband, scales: tuple[float, float], spectrum: Spectrum, bits: int) -> Coder:
    """A transform coder of so many bits, with the components that get some: of scalar quantisers fewer than by reverse
    water-filling.
    """
    _, components = reverse_water_filling(spectrum.variances, bits - scale.BITS)
    widest = _transform(world, scales, bits, components)
    TransformTraining(widest).fit(dataclasses.replace(spectrum, images=spectrum.images[:ALLOCATED_BY]))
    in_use = widest.encoder.quantizer.bits.view(2, components).any(0).nonzero()
    scheme = _transform(world, scales, bits, int(in_use.max()) + 1)
    TransformTraining(scheme).fit(spectrum)
    return Coder(Transform.name, f"transform, {bits:,}", scheme)


def _transform(world: Wideband, scales: tuple[float, float], bits: int, components: int) -> Transform:
    low, high = scales
    config = TransformConfig(bits, components, COMPANDING, scale_low_db=low, scale_high_db=high)
    scheme: Transform = Transform(world, config).eval()
    return scheme
