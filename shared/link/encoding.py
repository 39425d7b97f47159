"""What a UE computes: measure the downlink of a frame, encode it slot by slot, write each report as bits."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Samples
from shared.schemes import Scheme

ENCODE_BATCH = 32
"""Reports encoded in one call, always: short batches are padded. Matrix kernels round differently for different batch
sizes, and a sign near zero would flip; with one size an observation encoded again gives the same bits."""


@torch.inference_mode()
def encode_frames(scheme: Scheme, scenario: Scenario, samples: Samples) -> NDArray[np.uint8]:
    """Measure and encode whole frames of N UEs.

    Returns:
        Reports [N, T, bits], zeros and ones.
    """
    observation = scheme.encoder.observe(DownlinkView(scenario, samples))
    fields = encode(scheme, observation.flatten(0, 1))
    reports = len(samples) * scenario.slots
    return scheme.layout.bits_of(fields, reports).reshape(len(samples), scenario.slots, -1)


@torch.inference_mode()
def encode(scheme: Scheme, observation: Tensor) -> dict[str, NDArray[np.int64]]:
    """Encode observations [R, observation] in batches of ENCODE_BATCH to fields, name -> [R, count] int64."""
    reports = len(observation)
    padded = torch.nn.functional.pad(observation, (0, 0, 0, -reports % ENCODE_BATCH))
    batches = [scheme.encoder.encode(batch) for batch in padded.split(ENCODE_BATCH)]
    return {name: torch.cat([batch[name] for batch in batches])[:reports].numpy() for name in batches[0]}
