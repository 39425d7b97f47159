"""What a UE computes: measure the downlink of a frame, encode it slot by slot, write each report as bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Purpose, Samples
from shared.errors import DamagedCheckpoint
from shared.link.decoding import probed_frames, probed_reports
from shared.link.rate import Rates
from shared.schemes import Scheme

ENCODE_BATCH = 32
"""Reports encoded in one call, always: short batches are padded. Matrix kernels round differently for different batch
sizes, and a sign near zero would flip; with one size an observation encoded again gives the same bits."""

PROBE_SHARE = 0.99
"""Smallest share of a probe's bits that an encoder has to give again. Channels of different machines agree to 1e-5
(relative), so a few values lie on the other side of a threshold: the shipped encoders stay within this share with
observations that are off by so much (tests/unit/shared/link/test_encoding.py), and with other weights about half of all
bits change."""

PROBE_REPORTS = 0.5
"""Or else the smallest share of its reports, where these have lengths of their own: one value on the other side of a
threshold changes a whole entropy code."""

PROBE_BITS = 16
"""Of an integer, the first so many bits are compared: of a float32 sign, exponent and 7 bits of the fraction."""


@torch.inference_mode()
def encode_frames(
    scheme: Scheme, scenario: Scenario, samples: Samples, rates: Rates | None = None
) -> NDArray[np.uint8]:
    """Measure and encode whole frames of N UEs, at the scheme's own rate or at each UE's.

    Returns:
        Reports [N, T, bits], zeros and ones.
    """
    observation = scheme.encoder.observe(DownlinkView(scenario, samples))
    reports = len(samples) * scenario.slots
    if rates is None:
        frames = max(1, ENCODE_BATCH // scenario.slots)
        whole = _in_batches(lambda batch, at: scheme.encoder.encode_frames(batch), observation, frames)
        fields = {name: values.reshape(reports, values.shape[2]) for name, values in whole.items()}
    else:
        of_slots = rates[torch.arange(len(samples)).repeat_interleave(scenario.slots)]
        fields = encode(scheme, observation.flatten(0, 1), of_slots)
    return scheme.layout.bits_of(fields, reports).reshape(len(samples), scenario.slots, -1)


@torch.inference_mode()
def encode(scheme: Scheme, observation: Tensor, rates: Rates | None = None) -> dict[str, NDArray[np.int64]]:
    """Encode observations [R, observation] in batches of ENCODE_BATCH to fields, name -> [R, count] int64; at the
    scheme's own rate, or at rates [R].
    """

    def one(batch: Tensor, at: Tensor) -> dict[str, Tensor]:
        return scheme.encoder.encode(batch) if rates is None else scheme.encoder.encode_within(batch, rates[at])

    return _in_batches(one, observation, ENCODE_BATCH)


@torch.inference_mode()
def target_channels(scheme: Scheme, scenario: Scenario, samples: Samples) -> Tensor:
    """What UEs know of their downlink in the last slot of N frames when they describe it as target CSI, [N, ...] as an
    estimate is: images and precoders are perfect, as their encoders have them; channels of one subcarrier are measured
    with a pilot for each antenna, at the scenario's SNR.
    """
    view = DownlinkView(scenario, samples)
    if scheme.domain == "angular-delay":
        return view.image()[:, -1]
    if scheme.domain == "precoder":
        return view.precoders()[:, -1]
    channel, last = view.channel()[:, -1], torch.tensor([scenario.slots - 1])
    noise = samples.complex_normal(Purpose.DOWNLINK_TARGET_NOISE, last, scenario.antennas)[:, 0]
    return channel + noise * scenario.noise_power**0.5


def _in_batches(
    one: Callable[[Tensor, Tensor], dict[str, Tensor]], rows: Tensor, size: int
) -> dict[str, NDArray[np.int64]]:
    """Fields of all rows, encoded by `one` in batches that all have the same size: it is given the batch, and whose
    rows these are (of what is filled up, the last).
    """
    count = len(rows)
    padded = torch.nn.functional.pad(rows, (*[0, 0] * (rows.dim() - 1), 0, -count % size)).split(size)
    numbers = torch.arange(len(padded) * size).clamp(max=count - 1).split(size)
    batches = [one(batch, at) for batch, at in zip(padded, numbers, strict=True)]
    return {name: torch.cat([batch[name] for batch in batches])[:count].numpy() for name in batches[0]}


def check_encoder(scheme: Scheme, probe: dict[str, Any]) -> None:
    """Encode the frames of a card's probe (`shared.link.decoding`) and compare.

    Raises:
        DamagedCheckpoint: the card has no such probe, or the encoder gives other bits.
    """
    layout, expected = scheme.layout, probed_reports(scheme, probe)
    reports = expected.shape[0] * expected.shape[1]
    found = encode_frames(scheme, scheme.scenario, probed_frames(len(expected)))
    if layout.varies and (expected == found).all(axis=2).mean() >= PROBE_REPORTS:
        return
    wanted, given = (layout.fields_of(sent.reshape(reports, layout.bits)) for sent in (expected, found))
    bits = different = 0
    for field in layout.fields:
        compared = min(field.bits, PROBE_BITS)
        changed = (wanted[field.name] ^ given[field.name]) >> (field.bits - compared)
        bits += changed.size * compared
        different += int(np.bitwise_count(changed).sum())
    if different > (1 - PROBE_SHARE) * bits:
        raise DamagedCheckpoint(
            f"probe: {different} of {bits} bits that the encoder gives are not those of the card; at most"
            f" {1 - PROBE_SHARE:.0%} are allowed"
        )
