"""Offline evaluation of a scheme: the same encoder, packed payload and decoder as over the wire, then the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from gnb_server.decoding import decode_frames
from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Samples, Split
from shared.metrics import COLUMNS, DOMAIN_NAMES, Outcomes, summarise
from shared.schemes import Scheme
from ue_client.encoding import encode_frames

BATCH = 512


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
        `shared.metrics.summarise` of them, with the settings under `settings`.
    """
    scheme = scheme.eval()
    by_slot, of_frames = np.zeros((scenario.slots, len(COLUMNS))), np.zeros(len(COLUMNS))
    for ue, frame in zip(
        torch.arange(ues).repeat_interleave(frames).split(BATCH),
        torch.arange(frames).repeat(ues).split(BATCH),
        strict=True,
    ):
        outcomes = evaluate_samples(scheme, scenario, Samples(seed, split, ue, frame), delay)
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
    return {"settings": settings, **summarise(by_slot, of_frames)}


def evaluate_samples(scheme: Scheme, scenario: Scenario, samples: Samples, delay: int = 0) -> Outcomes:
    """Outcomes [N, T] of the given frames."""
    fields = encode_frames(scheme, scenario, samples)
    layout, reports = scheme.layout, len(samples) * scenario.slots
    payload = layout.pack({name: values.reshape(reports, -1) for name, values in fields.items()}, reports)
    received = {
        name: values.reshape(len(samples), scenario.slots, -1)
        for name, values in layout.unpack(payload, reports).items()
    }
    estimates = decode_frames(scheme, scenario, samples, received)
    return Outcomes.measure(estimates, DownlinkView(scenario, samples).truth(scheme.domain, delay))
