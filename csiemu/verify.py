"""Did the gNB decode what the UEs sent, with a version for their encoder, the one that it said? Payloads decoded again
offline.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared.channels.downlink import DownlinkView
from shared.channels.streams import Samples, Split
from shared.checkpoints import Checkpoint, CheckpointStore
from shared.conditions import ChangingConditions, RunConditions
from shared.link.decoding import decode_frames, distortion
from shared.link.encoding import encode, encode_frames
from shared.link.evaluation import BATCH
from shared.link.precision import Precision, precision_for
from shared.link.rate import OWN, Rate, Rates
from shared.schemes import Scheme
from shared.schemes.base import ENDS, End

TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "bf16": 1e-2}
"""Largest relative difference, ||a - b|| / ||b||, between the gNB's estimate and the one decoded again, in another
batch, and perhaps by the kernels of another machine."""

Columns = dict[str, NDArray[Any]]


def misdecoded(
    store: CheckpointStore,
    sent_file: Path,
    recorded: list[Path],
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[int, int]:
    """Compare a UE process's record with the gNB's.

    Args:
        sent_file: payloads that were sent, their encoders, and the versions that acks name (`csiemu ue --record`).
        recorded: estimates of the same fleet (`csiemu gnb --record`).
        on_progress: is told how many reports that were sent are done, and of how many.

    Returns:
        (reports that were decoded otherwise than their payload and version say, reports compared).
    """
    if not recorded or not sent_file.exists():
        return 0, 0
    parts = [_read(path) for path in recorded]
    metas = [json.loads(str(part["meta"])) for part in parts]
    meta = max(metas, key=lambda meta: len(meta.get("air_changes", [])))  # the newest, which has all changes
    names = ("ue", "sequence", "decoder_version", "estimate")
    decoded = {name: np.concatenate([part[name] for part in parts]) for name in names}
    sent = _read(sent_file)
    by_frame = ChangingConditions.from_json(meta)
    scenario = by_frame.first.scenario
    reports = zip(decoded["ue"].tolist(), decoded["sequence"].tolist(), strict=True)
    results = zip(decoded["decoder_version"].tolist(), decoded["estimate"], strict=True)
    estimates = dict(zip(reports, results, strict=True))
    wrong = compared = done = 0
    for version in np.unique(sent["decoder_version"][sent["decoder_version"] > 0]).tolist():  # 0: dropped
        checkpoint = _load(store, meta, version, ("decoder",))
        scheme, mine = checkpoint.scheme, sent["decoder_version"] == version
        for_another = mine & (sent["encoder_id"] != checkpoint.encoder_id)
        wrong += int(for_another.sum())
        theirs = {name: values[mine & ~for_another] for name, values in sent.items()}
        all_keys, all_bits = _frames(theirs, scenario.slots, scheme.layout.bits)
        for conditions, rows in _batches(by_frame, all_keys):
            keys, bits = all_keys[rows], all_bits[rows]
            ue, frame = (torch.from_numpy(np.ascontiguousarray(column)) for column in keys.T)
            samples = conditions.samples(Split.EMULATE, ue, frame)
            again = decode_frames(scheme, scenario, samples, bits, conditions.air).numpy()
            for (ue_id, number), expected in zip(keys.tolist(), again, strict=True):
                for sequence, wanted in enumerate(expected, start=number * scenario.slots):
                    if (ue_id, sequence) in estimates:
                        compared += 1
                        by, found = estimates[ue_id, sequence]
                        largest = TOLERANCE[scheme.precision] * max(float(np.linalg.norm(wanted)), 1e-12)
                        wrong += by != version or not np.linalg.norm(found - wanted) <= largest
            done += bits.shape[0] * bits.shape[1]
            on_progress(done, len(sent["ue"]))
    return wrong, compared


def recoded(store: CheckpointStore, recorded: list[Path], rate: Rate = OWN) -> tuple[int, int]:
    """Compare a gNB's record with what its UEs must have sent: their channels are measured, encoded by the encoder of
    the version that decoded the report, and decoded again.

    Args:
        recorded: files of `csiemu gnb --record`; those that cannot be read, of a gNB that was killed, are left out.
        rate: that was asked for all the time, of schemes that can have it; where an NMSE was to be held, each report is
            taken to have the step that it says.

    Returns:
        (reports with other bits, or another estimate, reports compared).
    """
    wrong = compared = 0
    begun: dict[str, Columns] = {}  # reports of frames whose rest is in files that follow, by their `meta`
    for path in recorded:
        try:
            columns = _read(path)
        except (OSError, ValueError, zipfile.BadZipFile):
            continue
        text = str(columns.pop("meta"))
        meta = json.loads(text)
        if text in begun:
            columns = {name: np.concatenate([values, columns[name]]) for name, values in begun[text].items()}
        done = np.zeros(len(columns["ue"]), bool)
        by_frame = ChangingConditions.from_json(meta)
        slots = by_frame.first.scenario.slots
        for version in np.unique(columns["decoder_version"]).tolist():
            checkpoint = _load(store, meta, version)
            mine = np.flatnonzero(columns["decoder_version"] == version)
            if checkpoint.encoder_id != meta["encoder_id"]:
                wrong += len(mine)
                done[mine] = True
                continue
            keys, rows = _whole_frames({name: values[mine] for name, values in columns.items()}, slots)
            done[mine[rows]] = True
            for conditions, part in _batches(by_frame, keys):
                ue, frame = (torch.from_numpy(np.ascontiguousarray(column)) for column in keys[part].T)
                samples = conditions.samples(Split.EMULATE, ue, frame)
                found = {name: columns[name][mine[rows[part]]] for name in ("payload", "estimate")}
                sent = _encoded(checkpoint.scheme, conditions, samples, found["payload"], rate)
                again = decode_frames(checkpoint.scheme, conditions.scenario, samples, sent, conditions.air).numpy()
                error, size = _norms(found["estimate"] - again), _norms(again)
                largest = TOLERANCE[checkpoint.scheme.precision]
                bad = (found["payload"] != sent).any(axis=2) | ~(error <= largest * np.maximum(size, 1e-12))
                wrong, compared = wrong + int(bad.sum()), compared + bad.size
        begun[text] = {name: values[~done] for name, values in columns.items()}
    return wrong, compared


def _encoded(
    scheme: Scheme, conditions: RunConditions, samples: Samples, payload: NDArray[np.uint8], rate: Rate
) -> NDArray[np.uint8]:
    """What UEs must have sent in N frames, [N, T, bits], of which `payload` [N, T, bits] came."""
    if scheme.least_bits is None:
        return encode_frames(scheme, conditions.scenario, samples)
    if rate.target_nmse_db is not None and not scheme.steps:
        rate = OWN
    came = payload.reshape(-1, scheme.layout.bits)
    observation = scheme.encoder.observe(DownlinkView(conditions.scenario, samples)).flatten(0, 1)
    rates = scheme.rates(rate, len(came))
    if rate.target_nmse_db is None:
        return scheme.layout.bits_of(encode(scheme, observation, rates), len(came)).reshape(payload.shape)
    steps = torch.from_numpy(distortion(scheme, scheme.layout.fields_of(came))[1])
    sent, others = np.zeros_like(came), np.arange(len(came))
    while len(others):
        asked = Rates(rates.bits[others], steps[others])
        sent[others] = scheme.layout.bits_of(encode(scheme, observation[others], asked), len(others))
        # a finer step may have been asked for, which the most bits did not allow
        steps[others] += 1
        others = others[(sent[others] != came[others]).any(axis=1) & (steps[others] < scheme.steps).numpy()]
    return sent.reshape(payload.shape)


def _load(store: CheckpointStore, meta: dict[str, Any], version: int, ends: tuple[End, ...] = ENDS) -> Checkpoint:
    """A version of what was recorded, in the precision that it was decoded in."""
    checkpoint = store.load(meta["model"], version, ends)
    checkpoint.scheme.precision = precision_for(checkpoint.card, meta["precision"])
    return checkpoint


def _batches(
    by_frame: ChangingConditions, keys: NDArray[np.int64]
) -> Iterator[tuple[RunConditions, NDArray[np.int64]]]:
    """Conditions and indices of frames [(ue, frame)] that can be decoded at once, BATCH at most."""
    for conditions, rows in by_frame.split(keys[:, 1]):
        for first in range(0, len(rows), BATCH):
            yield conditions, rows[first : first + BATCH]


def _norms(values: NDArray[Any]) -> NDArray[np.float64]:
    """Of each report, [frames, slots]."""
    return np.sqrt((np.abs(values.reshape(*values.shape[:2], -1)) ** 2).sum(axis=2))


def _frames(sent: Columns, slots: int, bits: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Complete frames of some reports: [(ue, frame)] and payload bits [frames, slots, bits]."""
    keys, rows = _whole_frames(sent, slots)
    return keys, sent["payload"][:, :bits][rows]


def _whole_frames(reports: Columns, slots: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Complete frames of some reports: [(ue, frame)], and where their reports are, [frames, slots]."""
    ue, sequence = reports["ue"], reports["sequence"]
    order = np.lexsort((sequence, ue))
    ue, sequence = ue[order], sequence[order]
    keys, first, counts = np.unique(
        np.stack([ue, sequence // slots], axis=1), axis=0, return_index=True, return_counts=True
    )
    whole = counts == slots
    return keys[whole], order[first[whole][:, None] + np.arange(slots)]


def _read(path: Path) -> Columns:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
