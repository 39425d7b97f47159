"""Offline evaluation of a scheme: the same encoder, packed payload and decoder as over the wire, then the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gnb_server.decoding import decode_frames
from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Samples, Split
from shared.metrics import COLUMNS, DOMAIN_NAMES, Outcomes, summarise
from shared.payload import SCALE, saturated
from shared.schemes import Scheme
from ue_client.encoding import encode_frames

BATCH = 512

Received = dict[str, NDArray[np.int64]]


def evaluate(
    scheme: Scheme,
    scenario: Scenario,
    *,
    seed: int = 0,
    split: Split = Split.TEST,
    ues: int = 5000,
    frames: int = 1,
    delay: int = 0,
) -> dict[str, Any]:
    """NMSE and SGCS of frames 0..frames-1 of UEs 0..ues-1, every payload packed and unpacked.

    Args:
        delay: slots between the report and the channel that its estimate is compared with.

    Returns:
        `shared.metrics.summarise` of them, with the settings under `settings`, and the number of reports whose scale
        is at an end of its range (`saturated_scales`) where a payload has one.
    """
    scheme = scheme.eval()
    by_slot, of_frames, at_an_end = np.zeros((scenario.slots, len(COLUMNS))), np.zeros(len(COLUMNS)), 0
    for ue, frame in zip(
        torch.arange(ues).repeat_interleave(frames).split(BATCH),
        torch.arange(frames).repeat(ues).split(BATCH),
        strict=True,
    ):
        samples = Samples(seed, split, ue, frame)
        received = _received(scheme, scenario, samples)
        outcomes = _outcomes(scheme, scenario, samples, received, delay)
        at_an_end += int(saturated(scheme.layout, received).sum())
        by_slot += outcomes.moments().sum(axis=0)
        of_frames += outcomes.frame_moments().sum(axis=0)
    settings = {
        "scenario": str(scenario),
        "seed": seed,
        "split": split.name.lower(),
        "ues": ues,
        "frames": frames,
        "delay_slots": delay,
        "domain": DOMAIN_NAMES[scheme.domain],
    }
    figures = {"settings": settings, **summarise(by_slot, of_frames)}
    if SCALE in {field.name for field in scheme.layout.fields}:
        figures["saturated_scales"] = at_an_end
    return figures


def evaluate_samples(scheme: Scheme, scenario: Scenario, samples: Samples, delay: int = 0) -> Outcomes:
    """Outcomes [N, T] of the given frames."""
    return _outcomes(scheme, scenario, samples, _received(scheme, scenario, samples), delay)


def _received(scheme: Scheme, scenario: Scenario, samples: Samples) -> Received:
    """Payload fields [N, T, count], packed and unpacked."""
    fields = encode_frames(scheme, scenario, samples)
    layout, reports = scheme.layout, len(samples) * scenario.slots
    payload = layout.pack({name: values.reshape(reports, -1) for name, values in fields.items()}, reports)
    unpacked = layout.unpack(payload, reports)
    return {name: values.reshape(len(samples), scenario.slots, -1) for name, values in unpacked.items()}


def _outcomes(scheme: Scheme, scenario: Scenario, samples: Samples, received: Received, delay: int) -> Outcomes:
    estimates = decode_frames(scheme, scenario, samples, received)
    return Outcomes.measure(estimates, DownlinkView(scenario, samples).truth(scheme.domain, delay))
