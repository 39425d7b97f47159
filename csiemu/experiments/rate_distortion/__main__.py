"""What feedback bits are worth on a scenario: NMSE, SGCS and cost of checkpoints, transform coders and codebooks.

Writes rate-distortion-WORLD.md, .csv and .png for each world, as soon as it is done.

python -m csiemu.experiments.rate_distortion [--scenario WORLD ...] [--ues N] [--out DIR] [--checkpoints DIR]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from rich.progress import Progress, TaskID

from csiemu.experiments.rate_distortion.bound import of_a_mixture, reverse_water_filling
from csiemu.experiments.rate_distortion.coders import (
    FITTED_SEED,
    RATES,
    Coder,
    fitted,
    measured_spectrum,
    mixture,
    standard,
    stored,
)
from csiemu.experiments.rate_distortion.measuring import measured, true_image
from csiemu.experiments.rate_distortion.report import GAUSSIAN, MIXTURE, Plane, write
from csiemu.experiments.rate_distortion.worlds import WORLDS, World
from csiemu.output import console, number, progress
from csiemu.training.schemes.transform import Spectrum, TransformTraining
from shared.channels.scenario import Scenario
from shared.channels.wideband import Wideband, require_wideband
from shared.checkpoints import CheckpointStore, default_checkpoints
from shared.machine import machine
from shared.quantizers import scale
from shared.schemes.gmtc import Gmtc
from shared.schemes.transform import Transform

BOUND_BITS = (32, 64, 128, *RATES)
"""Where the bound is given."""


def main() -> None:
    """Measure the worlds that are asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m csiemu.experiments.rate_distortion", description=__doc__)
    parser.add_argument("--scenario", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--ues", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--state", type=Path, default=Path("runs/rate-distortion"), help="points measured so far")
    parser.add_argument("--checkpoints", type=Path, default=default_checkpoints())
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.scenario:
        state = options.state / f"{name}-{options.ues}.jsonl"
        found = plane(WORLDS[name], name, CheckpointStore(options.checkpoints), options.ues, state)
        write(found, options.out / f"rate-distortion-{name}")
        print(f"{options.out / f'rate-distortion-{name}'}.md: {len(found.points)} coders", flush=True)


def plane(compared: World, name: str, store: CheckpointStore, ues: int, state: Path) -> Plane:
    """All points of a world; those that `state` has of an earlier call are not measured again."""
    world = require_wideband(Scenario.parse(compared.scenario), "this comparison")
    spectrum = measured_spectrum(world, compared.scales)
    points = []
    with progress(screen := console()) as bar:
        for coder in coders(compared, world, spectrum, store):
            task = bar.add_task(coder.name, total=ues)
            points.append(point := measured(coder, world, ues, state, partial(_show, bar, task)))
            bar.remove_task(task)
            nmse = number(point.nmse_db)
            screen.print(f"{name}: {point.name}: {point.bits:,.0f} bits, NMSE {nmse} dB, SGCS {number(point.sgcs, 3)}")
    bounds = {GAUSSIAN: [(bits, _bound(spectrum, bits)) for bits in BOUND_BITS]}
    if (kinds := mixture(store, world)) is not None:
        bounds[MIXTURE] = [(bits, _mixture_bound(kinds, bits)) for bits in RATES]
    return Plane(compared, points, bounds, true_image(world, ues), _provenance(name, ues))


def _show(bar: Progress, task: TaskID, done: int) -> None:
    bar.update(task, completed=done)


def coders(compared: World, world: Wideband, spectrum: Spectrum, store: CheckpointStore) -> Iterator[Coder]:
    """All that is compared, a transform coder where the store has none of as many bits."""
    ready = list(stored(store, world, compared.others))
    yield from ready
    there = {coder.scheme.layout.bits for coder in ready if coder.series == Transform.name}
    for bits in RATES:
        if bits not in there:
            yield fitted(world, compared.scales, spectrum, bits)
    yield from standard(world)


def _bound(spectrum: Spectrum, bits: int) -> float:
    """NMSE [dB]."""
    return 10 * math.log10(reverse_water_filling(spectrum.variances, bits - scale.BITS)[0])


def _mixture_bound(scheme: Gmtc, bits: int) -> float:
    """NMSE [dB]."""
    return 10 * math.log10(of_a_mixture(*scheme.code.kinds(), bits - scale.BITS))


def _provenance(name: str, ues: int) -> str:
    on, seed = machine(), FITTED_SEED
    return (
        f"`python -m csiemu.experiments.rate_distortion --scenario {name} --ues {ues}`: frame 0 of {ues:,} UEs of the"
        f" test split, seed 0; transform coders and the Gaussian by {TransformTraining.measured_frames:,} frames of the"
        f" training split, seed {seed}. One thread, {on['processor']}, {on['cores']} cores, torch {on['torch']}."
    )


if __name__ == "__main__":
    main()
