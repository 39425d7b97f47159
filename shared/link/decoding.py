"""What a gNB computes: reports and its own uplink to downlink estimates. Nothing here can see the downlink.

A card keeps a probe: what the encoder sent of two frames, and what the decoder made of it, when its checkpoint was
written. So a gNB can check a decoder with nothing but this, its weights and its own uplink: it needs no encoder and no
downlink; and a UE the encoder (`shared.link.encoding`). Estimates of the last slot of a frame depend on all its
reports, through the recurrent states.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.channels.multipath import Multipath
from shared.channels.scenario import Link, Scenario
from shared.channels.streams import Samples, Split
from shared.channels.transforms import to_spatial_frequency, zero_fill
from shared.channels.uplink import UplinkView
from shared.channels.wideband import Wideband
from shared.errors import DamagedCheckpoint, InvalidInput
from shared.link.air import UNDISTURBED, Air, Fate, erased
from shared.link.precision import in_precision
from shared.quantizers.float32 import Float32
from shared.schemes import Scheme, State

Fields = dict[str, NDArray[np.int64]]
"""Payload fields of N reports, name -> [N, count]."""

TOLERANCE = 0.01
"""Largest relative difference ||a - b|| / ||b|| of estimates: kernels round differently on different machines, and the
expected ones are kept as float16."""

LARGEST = 1e12
"""Magnitude of a float32 value that no report has: what arrives with a larger one is damaged."""

NEWEST = "newest estimate"
"""Part of a state where reports can be erased: each UE's newest estimate in its frame."""

MOST_PROBED = 2048
"""Reports of a probe, at most: it is to take no time."""


@torch.inference_mode()
def side_information(scheme: Scheme, scenario: Scenario, samples: Samples) -> Tensor:
    """What the decoder takes from the gNB's own uplink of N frames, [N, T, S]."""
    return scheme.decoder.side_information(UplinkView(scenario, samples))


@torch.inference_mode()
def decode_slot(scheme: Scheme, fields: Fields, side: Tensor, state: State) -> tuple[Tensor, State]:
    """Decode one report of each of N UEs, in the scheme's precision; shapes as `Decoder.step`."""
    values = {name: torch.from_numpy(values) for name, values in fields.items()}
    at_once = scheme.decoded_at_once or max(1, len(side))
    found: list[tuple[Tensor, State]] = []
    with in_precision(scheme.precision):
        for first in range(0, max(1, len(side)), at_once):
            rows = slice(first, first + at_once)
            found.append(scheme.decoder.step(_rows(values, rows), side[rows], _rows(state, rows)))
    estimates, states = zip(*found, strict=True)
    after = {name: torch.cat([each[name] for each in states]).to(state[name].dtype) for name in states[0]}
    return torch.cat(estimates), after


def _rows(values: dict[str, Tensor], rows: slice) -> dict[str, Tensor]:
    return {name: each[rows] for name, each in values.items()}


def estimate_shape(scheme: Scheme, scenario: Scenario) -> tuple[int, ...]:
    """Of one estimate: [M], an image [Q, M] or precoders [S, M]."""
    if scheme.domain == "spatial" or not isinstance(scenario, Wideband):
        return (scenario.antennas,)
    return (scenario.subbands if scheme.domain == "precoder" else len(scenario.rows()), scenario.antennas)


def initial_state(scheme: Scheme, scenario: Scenario, air: Air, count: int) -> State:
    """State of `count` UEs at the start of a frame, for `decode_received`."""
    state = scheme.decoder.initial_state(count)
    if air.disturbs:
        state[NEWEST] = torch.zeros(count, *estimate_shape(scheme, scenario), dtype=torch.complex64)
    return state


@torch.inference_mode()
def decode_received(
    scheme: Scheme, air: Air, fields: Fields, missing: NDArray[np.bool_], side: Tensor, state: State
) -> tuple[Tensor, State]:
    """Decode what came of one report of each of N UEs.

    Args:
        fields: of all reports; those of erased ones are not looked at. missing: [N], which are erased.
        side: [N, S]. state: as `initial_state` begins it.

    Returns:
        As `decode_slot`; where a report is erased, the estimate and the state that the air's `policy` and `state` say.
    """
    if not air.disturbs:
        return decode_slot(scheme, fields, side, state)
    decoder, gone = scheme.decoder, torch.from_numpy(missing)
    estimate, after = state[NEWEST].clone(), {name: values.clone() for name, values in state.items() if name != NEWEST}

    def put(rows: Tensor, found: tuple[Tensor, State]) -> None:
        estimate[rows] = found[0]
        for name, values in found[1].items():
            after[name][rows] = values

    if not missing.all():
        came = {name: values[~missing] for name, values in fields.items()}
        put(~gone, decode_slot(scheme, came, side[~gone], {name: values[~gone] for name, values in after.items()}))
    if missing.any():
        before = {name: values[gone] for name, values in after.items()}
        with in_precision(scheme.precision):
            if air.policy == "blind" and (blind := decoder.erased(side[gone], before)) is not None:
                put(gone, blind)
            if air.policy == "predict":
                put(gone, _predicted(scheme, side[gone], before, estimate[gone]))
        if air.state == "reset":
            put(gone, (estimate[gone], decoder.initial_state(int(missing.sum()))))
    return estimate, {**after, NEWEST: estimate}


def _predicted(scheme: Scheme, side: Tensor, state: State, newest: Tensor) -> tuple[Tensor, State]:
    """What is to be expected of the slot of a report that is missing: as the decoder has it, or else the newest
    estimate, as much less as the fading of the scenario that the scheme was built for is correlated.
    """
    if (found := scheme.decoder.predicted(side, state)) is not None:
        return found
    correlated = scheme.scenario.correlation(Link.DOWNLINK) if isinstance(scheme.scenario, Multipath) else 1.0
    return correlated * newest, state


@dataclass(frozen=True)
class Received:
    """What the gNB has of reports after the air: bits [N, S, bits], zeros and ones, and fates [N, S]."""

    bits: NDArray[np.uint8]
    fates: NDArray[np.uint8]


def receive(scheme: Scheme, air: Air, samples: Samples, slots: range, sent: NDArray[np.uint8]) -> Received:
    """Carry reports of some slots of N frames over the air. One that was damaged and cannot be read any more is
    detected, CRC or not: its length is not that of what came, or a value or a code means nothing.

    Args:
        slots: of the frame, S of them. sent: [N, S, bits], zeros and ones.
    """
    if not air.disturbs:
        return Received(sent, np.zeros(sent.shape[:2], np.uint8))
    lengths = scheme.layout.lengths(sent)
    bits, fates = air.carry(samples, slots, scheme.scenario.slots, sent, lengths)
    if (wrong := fates == Fate.CORRUPTED).any():
        damaged = bits[wrong]
        legible = scheme.layout.lengths(damaged) == lengths[wrong]
        legible[legible] = _legible(scheme, scheme.layout.fields_of(damaged[legible]))
        fates[wrong] = np.where(legible, Fate.CORRUPTED, Fate.DETECTED)
    return Received(bits, fates)


def _legible(scheme: Scheme, fields: Fields) -> NDArray[np.bool_]:
    """Which of N reports have fields that can be decoded, [N]; found by halves."""
    reports = len(next(iter(fields.values())))
    try:
        scheme.check_fields(fields)
        for quantizer in scheme.quantizers:
            if isinstance(quantizer, Float32):
                values = quantizer.decode({quantizer.field: torch.from_numpy(fields[quantizer.field])})
                if (values.abs() > LARGEST).any():
                    raise InvalidInput(f"payload {quantizer.field}: beyond {LARGEST:g}")
    except InvalidInput:
        if reports == 1:
            return np.zeros(1, bool)
        halves = (slice(0, reports // 2), slice(reports // 2, reports))
        return np.concatenate([_legible(scheme, {name: v[half] for name, v in fields.items()}) for half in halves])
    return np.ones(reports, bool)


@torch.inference_mode()
def distortion(scheme: Scheme, fields: Fields) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What is to be expected of N reports, and their steps, as `Decoder.distortion`."""
    expected, steps = scheme.decoder.distortion({name: torch.from_numpy(v) for name, v in fields.items()})
    return expected.numpy(), steps.numpy()


def decode_frames(
    scheme: Scheme, scenario: Scenario, samples: Samples, reports: NDArray[np.uint8], air: Air = UNDISTURBED
) -> Tensor:
    """Decode whole frames of N UEs from the start of the frame, as they come over the air.

    Args:
        reports: [N, T, bits], zeros and ones, as sent.

    Returns:
        Estimates [N, T, M], images [N, T, Q, M] or precoders [N, T, S, M], complex64.
    """
    received = receive(scheme, air, samples, range(scenario.slots), reports)
    return decode_received_frames(scheme, scenario, samples, received, air)


def decode_received_frames(
    scheme: Scheme, scenario: Scenario, samples: Samples, received: Received, air: Air
) -> Tensor:
    """As `decode_frames`, of all slots after the air."""
    side, missing = side_information(scheme, scenario, samples), erased(received.fates)
    state, estimates = initial_state(scheme, scenario, air, len(samples)), []
    for t in range(scenario.slots):
        fields = scheme.layout.fields_of(received.bits[:, t])
        estimate, state = decode_received(scheme, air, fields, missing[:, t], side[:, t], state)
        estimates.append(estimate)
    return torch.stack(estimates, dim=1)


def whole_band(scheme: Scheme, scenario: Scenario, estimates: Tensor) -> Tensor:
    """Estimates as the channel at every subcarrier and antenna: images [N, Q, M] by zero filling and inverse DFT (CRNet
    paper, section II) to [N, N_f, M]; precoders [N, S, M], each at the subcarriers of its subband, to the same;
    channels of one subcarrier [N, M] to [N, 1, M].
    """
    if scheme.domain == "spatial" or not isinstance(scenario, Wideband):
        return estimates[:, None]
    if scheme.domain == "precoder":
        return estimates[:, scenario.subband_of(torch.arange(scenario.subcarriers))]
    image = zero_fill(estimates, scenario.first_rows, scenario.last_rows, scenario.subcarriers)
    return to_spatial_frequency(image)


def probed_frames(ues: int = 2) -> Samples:
    """The frames of a probe: frame 0 of the first UEs of the test split, seed 0."""
    return Samples(0, Split.TEST, torch.arange(ues), torch.zeros(ues, dtype=torch.int64))


def make_probe(scheme: Scheme, reports: NDArray[np.uint8]) -> dict[str, Any]:
    """A probe, as JSON, from the reports [N, T, bits] of `probed_frames(N)` in the scheme's own scenario."""
    estimates = _last_estimates(scheme, reports)
    largest = float(estimates.abs().max().clamp(min=1e-30))
    return {
        "ues": len(reports),
        "payload": base64.b64encode(scheme.layout.pack_bits(reports)).decode(),
        "largest": largest,
        "estimates": base64.b64encode((estimates / largest).numpy().astype("<f2").tobytes()).decode(),
    }


def probed_reports(scheme: Scheme, probe: dict[str, Any]) -> NDArray[np.uint8]:
    """The reports of a probe, [N, T, bits], zeros and ones. Raises DamagedCheckpoint if the card has no such probe."""
    with _as_a_card_has_it():
        ues, slots = int(probe["ues"]), scheme.scenario.slots
        if not 1 <= ues <= MOST_PROBED // slots:
            raise InvalidInput(f"ues: {ues} is not in [1, {MOST_PROBED // slots}]")
        sent = scheme.layout.unpack_bits(base64.b64decode(probe["payload"]), ues * slots)
        return sent.reshape(ues, slots, scheme.layout.bits)


def check_probe(scheme: Scheme, probe: dict[str, Any]) -> None:
    """Decode the probe and compare.

    Raises:
        DamagedCheckpoint: the card has no such probe, or the decoder gives other estimates.
    """
    sent = probed_reports(scheme, probe)
    with _as_a_card_has_it():
        expected = np.frombuffer(base64.b64decode(probe["estimates"]), "<f2").astype(np.float32) * probe["largest"]
    found = _last_estimates(scheme, sent).numpy().ravel()
    if found.shape != expected.shape:
        raise DamagedCheckpoint(f"probe: {expected.size} numbers expected, the decoder gives {found.size}")
    difference = float(np.linalg.norm(found - expected) / max(float(np.linalg.norm(expected)), 1e-30))
    if not difference <= TOLERANCE:
        raise DamagedCheckpoint(
            f"probe: the decoder's estimates differ by {difference:.2g} (relative) from those of the card; at most"
            f" {TOLERANCE} are allowed"
        )


@contextlib.contextmanager
def _as_a_card_has_it() -> Iterator[None]:
    """Raises DamagedCheckpoint for what cannot be read of a probe."""
    try:
        yield
    except (KeyError, TypeError, ValueError, OverflowError, InvalidInput) as error:
        raise DamagedCheckpoint(
            f"probe: {error}; wanted payload and estimates, as `csiemu evaluate NAME --renew-card` writes them"
        ) from error


def _last_estimates(scheme: Scheme, reports: NDArray[np.uint8]) -> Tensor:
    """Estimates of the frames' last slot, real and imaginary parts as the last axis, float32."""
    return torch.view_as_real(decode_frames(scheme, scheme.scenario, probed_frames(len(reports)), reports)[:, -1])
