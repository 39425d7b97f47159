"""Estimates against the truth, and whole evaluations: every payload packed, unpacked and decoded, as over the wire.

Only evaluators may import this module: it sees the downlink.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from shared.channels.downlink import DownlinkView
from shared.channels.streams import Samples, Split
from shared.conditions import RunConditions
from shared.link.air import FATES, Fates, count_fates
from shared.link.decoding import decode_frames, decode_received_frames, receive
from shared.link.encoding import encode_frames
from shared.link.payload import SCALE, saturated
from shared.link.precision import Precision
from shared.link.rate import Lengths, Rate, summarise_lengths
from shared.metrics import COLUMNS, DOMAIN_NAMES, Domain, Outcomes, Truth, summarise
from shared.schemes import Scheme

BATCH = 512
"""Frames evaluated at once."""


def true_channels(conditions: RunConditions, domain: Domain, samples: Samples, slots: range | None = None) -> Truth:
    """What the estimates of N frames are compared with, [N, T, ...], or of some slots [N, S, ...]: the channels after
    the feedback delay. Slots beyond the frame go on with its process.
    """
    return DownlinkView(conditions.scenario, samples).truth(domain, conditions.delay_slots, slots=slots)


def over_the_link(
    scheme: Scheme, conditions: RunConditions, samples: Samples, rate: Rate | None = None
) -> NDArray[np.uint8]:
    """Reports of N frames as the wire brings them to the gNB, [N, T, bits]: encoded at the scheme's own rate or at
    another one, packed and unpacked; not yet over the air.
    """
    rates = None if rate is None else scheme.rates(rate, len(samples))
    sent = encode_frames(scheme, conditions.scenario, samples, rates)
    reports = len(samples) * conditions.scenario.slots
    return scheme.layout.unpack_bits(scheme.layout.pack_bits(sent), reports).reshape(sent.shape)


def outcomes(scheme: Scheme, conditions: RunConditions, samples: Samples, reports: NDArray[np.uint8]) -> Outcomes:
    """Outcomes [N, T] of frames whose reports [N, T, bits] were sent."""
    estimates = decode_frames(scheme, conditions.scenario, samples, reports, conditions.air)
    return Outcomes.measure(estimates, true_channels(conditions, scheme.domain, samples))


def change_in_bf16(scheme: Scheme, conditions: RunConditions, ues: int) -> float | None:
    """By how much the NMSE grows where the reports of frame 0 of UEs of the test split are decoded in bfloat16 [dB]:
    mean of ratios or ratio of sums, whichever grows more; None of precoders, which have no NMSE.
    """
    if scheme.domain == "precoder":
        return None
    before, sums = scheme.precision, np.zeros((2, 2))
    for part in torch.arange(ues).split(BATCH):
        samples = conditions.samples(Split.TEST, part, 0)
        reports = over_the_link(scheme, conditions, samples)
        for row, precision in enumerate(get_args(Precision)):
            scheme.precision = precision
            found = outcomes(scheme, conditions, samples, reports)
            sums[row] += found.ratio.sum(), found.error.sum()
        scheme.precision = before
    fp32, bf16 = sums
    return float(10 * np.log10(bf16 / fp32).max())


def evaluate(
    scheme: Scheme,
    conditions: RunConditions,
    *,
    split: Split = Split.TEST,
    ues: int = 5000,
    frames: int = 1,
    rate: Rate | None = None,
    on_progress: Callable[[int], None] = lambda frames: None,
) -> dict[str, Any]:
    """NMSE and SGCS of frames 0..frames-1 of UEs 0..ues-1; `on_progress` is told how many frames are done.

    Returns:
        `shared.metrics.summarise` and `shared.link.rate.summarise_lengths` of them, with the settings under `settings`,
        and the number of reports whose scale is at an end of its range (`saturated_scales`) where a payload has one;
        in a disturbed link how many reports met with each of `shared.link.air.FATES`.

    Raises:
        InvalidInput: the scheme cannot run in these conditions (`Scheme.check_scenario`), or at this rate.
    """
    scheme = scheme.eval()
    scheme.check_scenario(conditions.scenario, conditions.delay_slots)
    if rate is not None:
        scheme.check_rate(rate)
    by_slot, of_frames, at_an_end = np.zeros((conditions.scenario.slots, len(COLUMNS))), np.zeros(len(COLUMNS)), 0
    lengths, fates, air = Lengths(), Fates(), conditions.air
    for pairs in torch.cartesian_prod(torch.arange(ues), torch.arange(frames)).split(BATCH):
        samples = conditions.samples(split, *pairs.mT.contiguous())
        reports = over_the_link(scheme, conditions, samples, rate)
        lengths.update(air.lengths(scheme.layout.lengths(reports)).ravel().tolist())
        received = receive(scheme, air, samples, range(conditions.scenario.slots), reports)
        fates += count_fates(received.fates)
        estimates = decode_received_frames(scheme, conditions.scenario, samples, received, air)
        found = Outcomes.measure(estimates, true_channels(conditions, scheme.domain, samples))
        fields = scheme.layout.fields_of(reports.reshape(found.error.size, scheme.layout.bits))
        at_an_end += int(saturated(scheme.layout, fields).sum())
        by_slot += found.moments().sum(axis=0)
        of_frames += found.frame_moments().sum(axis=0)
        on_progress(int(of_frames[0]))
    settings = {
        **dataclasses.replace(conditions, scenario=conditions.scenario.pinned()).to_json(),
        "split": split.name.lower(),
        "ues": ues,
        "frames": frames,
        "domain": DOMAIN_NAMES[scheme.domain],
    }
    if rate is not None:
        settings["rate"] = rate.to_json()
    figures = {"settings": settings, **summarise(by_slot, of_frames), **summarise_lengths(lengths)}
    if SCALE in {field.name for field in scheme.layout.fields}:
        figures["saturated_scales"] = at_an_end
    if air.disturbs:
        figures |= {name: fates[name] for name in FATES}
    return figures
