"""A decoder's probe: a payload, and what the decoder made of it when its checkpoint was written.

A card keeps one, so that a gNB can check a decoder with nothing but this, its weights and its own uplink: it needs no
encoder and no downlink. Estimates of the last slot of a frame depend on all its reports, through the recurrent states.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.channels.streams import Samples, Split
from shared.errors import DamagedCheckpoint, InvalidInput
from shared.link.decoding import decode_frames
from shared.link.payload import pack_bits
from shared.schemes import Scheme

TOLERANCE = 0.01
"""Largest relative difference ||a - b|| / ||b|| of estimates: kernels round differently on different machines, and the
expected ones are kept as float16."""


def probed_frames(ues: int = 2) -> Samples:
    """The frames of a probe: frame 0 of the first UEs of the test split, seed 0."""
    return Samples(0, Split.TEST, torch.arange(ues), torch.zeros(ues, dtype=torch.int64))


def make_probe(scheme: Scheme, reports: NDArray[np.uint8]) -> dict[str, Any]:
    """A probe, as JSON, from the reports [N, T, bits] of `probed_frames(N)` in the scheme's own scenario."""
    estimates = _last_estimates(scheme, reports)
    largest = float(estimates.abs().max().clamp(min=1e-30))
    return {
        "ues": len(reports),
        "payload": base64.b64encode(pack_bits(reports)).decode(),
        "largest": largest,
        "estimates": base64.b64encode((estimates / largest).numpy().astype("<f2").tobytes()).decode(),
    }


def check_probe(scheme: Scheme, probe: dict[str, Any]) -> None:
    """Decode the probe and compare.

    Raises:
        DamagedCheckpoint: the card has no such probe, or the decoder gives other estimates.
    """
    try:
        ues, slots = int(probe["ues"]), scheme.scenario.slots
        sent = scheme.layout.unpack_bits(base64.b64decode(probe["payload"]), ues * slots)
        expected = np.frombuffer(base64.b64decode(probe["estimates"]), "<f2").astype(np.float32) * probe["largest"]
    except (KeyError, TypeError, ValueError, InvalidInput) as error:
        raise DamagedCheckpoint(
            f"probe: {error}; wanted payload and estimates, as `csiemu evaluate NAME --renew-card` writes them"
        ) from error
    found = _last_estimates(scheme, sent.reshape(ues, slots, -1)).numpy().ravel()
    if found.shape != expected.shape:
        raise DamagedCheckpoint(f"probe: {expected.size} numbers expected, the decoder gives {found.size}")
    difference = float(np.linalg.norm(found - expected) / max(float(np.linalg.norm(expected)), 1e-30))
    if not difference <= TOLERANCE:
        raise DamagedCheckpoint(
            f"probe: the decoder's estimates differ by {difference:.2g} (relative) from those of the card; at most"
            f" {TOLERANCE} are allowed"
        )


def _last_estimates(scheme: Scheme, reports: NDArray[np.uint8]) -> Tensor:
    """Estimates of the frames' last slot, real and imaginary parts as the last axis, float32."""
    return torch.view_as_real(decode_frames(scheme, scheme.scenario, probed_frames(len(reports)), reports)[:, -1])
