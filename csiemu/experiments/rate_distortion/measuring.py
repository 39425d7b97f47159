"""A coder's place on the plane: NMSE and SGCS from packed payloads, and what both ends pay."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from csiemu.benchmarks import rate
from csiemu.experiments.codebooks import similarity
from csiemu.experiments.rate_distortion.coders import Coder
from csiemu.training.complexity import complexity
from shared.channels.downlink import DownlinkView
from shared.channels.streams import Samples, Split
from shared.channels.wideband import Wideband
from shared.checkpoints import encoder_id
from shared.conditions import RunConditions
from shared.link.decoding import decode_frames, decode_slot, side_information
from shared.link.encoding import encode
from shared.link.evaluation import over_the_link
from shared.link.rate import Lengths, summarise_lengths
from shared.metrics import Outcomes, Truth

BATCH = 250
"""Frames measured at once."""

TIMED = 64
"""Reports encoded, and decoded, in a call that is timed."""

SECONDS = 0.5
"""CPU time that each end's speed is measured for, at least."""


@dataclass(frozen=True)
class Point:
    """Figures of a coder; None where there is none.

    Attributes:
        series, name: as of `Coder`.
        bits: of a report, mean, with 5th and 95th percentile.
        nmse_db: mean of ratios, truncated angular-delay domain; nmse_2se_db: two standard errors.
        sgcs: mean over subbands and reports of the precoders that the estimates say; sgcs_2se: two standard errors.
        encoder_macs, decoder_macs: real multiply-accumulates of a report (`csiemu.training.complexity`).
        encoder_mb, decoder_mb: memory of the weights and tables of an end, as its state has them [MB].
        encoder_ms, decoder_ms: CPU time of a report [ms], one thread.
    """

    series: str
    name: str
    bits: float
    bits_p5: int
    bits_p95: int
    nmse_db: float | None
    nmse_2se_db: float | None
    sgcs: float
    sgcs_2se: float
    encoder_macs: int | None
    decoder_macs: int | None
    encoder_mb: float
    decoder_mb: float
    encoder_ms: float
    decoder_ms: float


def measured(
    coder: Coder, world: Wideband, ues: int, state: Path, on_progress: Callable[[int], None] = lambda ues: None
) -> Point:
    """As `measure`, or what the file `state` has of it, of the same weights; what is new is added to it."""
    key = f"{coder.name} {encoder_id(coder.scheme)}"
    lines = state.read_text().splitlines() if state.is_file() else []
    for line in lines:
        if (kept := json.loads(line))["key"] == key:
            return Point(**kept["point"])
    point = measure(coder, world, ues, on_progress)
    state.parent.mkdir(parents=True, exist_ok=True)
    with state.open("a") as file:
        file.write(json.dumps({"key": key, "point": asdict(point)}) + "\n")
    return point


def measure(coder: Coder, world: Wideband, ues: int, on_progress: Callable[[int], None] = lambda ues: None) -> Point:
    """Figures of frame 0 of the first UEs of the test split, seed 0; `on_progress` is told how many are done."""
    scheme, conditions = coder.scheme, RunConditions(world)
    scheme.check_scenario(world, conditions.delay_slots)
    ratios, similarities, lengths = [], [], Lengths()
    for part in torch.arange(ues).split(BATCH):
        samples = conditions.samples(Split.TEST, part, 0)
        view = DownlinkView(world, samples)
        reports = over_the_link(scheme, conditions, samples, coder.rate)
        lengths.update(scheme.layout.lengths(reports).ravel().tolist())
        estimates = decode_frames(scheme, world, samples, reports)
        found = Outcomes.measure(estimates, view.truth(scheme.domain))
        ratios.append(torch.from_numpy(found.nmse).mean(1))
        truth = Truth.precoders(view.precoders())
        similarities.append(similarity(world, scheme.domain == "precoder", estimates, truth).mean(1))
        on_progress(int(part[-1]) + 1)
    nmse, nmse_error = _mean(ratios)
    sgcs, sgcs_error = _mean(similarities)
    scaled = not math.isnan(nmse)
    cost, spread = complexity(scheme), summarise_lengths(lengths)
    encoder_ms, decoder_ms = _speeds(coder, conditions)
    return Point(
        coder.series,
        coder.name,
        spread["feedback_bits"],
        spread["feedback_bits_p5"],
        spread["feedback_bits_p95"],
        10 * math.log10(nmse) if scaled else None,
        10 / math.log(10) * nmse_error / nmse if scaled else None,
        sgcs,
        sgcs_error,
        cost["encoder"].macs if cost else None,
        cost["decoder"].macs if cost else None,
        _megabytes(scheme.encoder),
        _megabytes(scheme.decoder),
        encoder_ms,
        decoder_ms,
    )


def true_image(world: Wideband, ues: int) -> float:
    """SGCS of precoders from the true image of the kept delay rows, as a perfect estimate would have it."""
    found = []
    for part in torch.arange(ues).split(BATCH):
        view = DownlinkView(world, RunConditions(world).samples(Split.TEST, part, 0))
        found.append(similarity(world, False, view.image(), Truth.precoders(view.precoders())).mean(1))
    return _mean(found)[0]


def _megabytes(end: nn.Module) -> float:
    """Of the parameters and buffers of an end, without what it makes of them at work."""
    return sum(value.numel() * value.element_size() for value in end.state_dict().values()) / 1e6


def _mean(parts: list[Tensor]) -> tuple[float, float]:
    """Mean over frames, which are independent, and two standard errors of it."""
    values = torch.cat(parts)
    return float(values.mean()), 2 * float(values.std()) / len(values) ** 0.5


def _speeds(coder: Coder, conditions: RunConditions) -> tuple[float, float]:
    """Milliseconds of CPU time a report, of the encoder from what the UE measured to payload fields, and of the decoder
    from these, and what the gNB took from its uplink, to estimates.
    """
    scheme, world = coder.scheme, conditions.scenario
    ue = torch.arange(TIMED)
    samples = Samples(0, Split.TEST, ue, torch.zeros_like(ue))
    observation = scheme.encoder.observe(DownlinkView(world, samples))[:, 0]
    rates = None if coder.rate is None else scheme.rates(coder.rate, TIMED)
    fields = encode(scheme, observation, rates)
    side, state = side_information(scheme, world, samples)[:, 0], scheme.decoder.initial_state(TIMED)
    encoded = rate(lambda: encode(scheme, observation, rates), TIMED, SECONDS)
    decoded = rate(lambda: decode_slot(scheme, fields, side, state), TIMED, SECONDS)
    return 1000 / encoded, 1000 / decoded
