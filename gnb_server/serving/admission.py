"""Which chunks are taken: coordinates, payload, order, the model version of each frame; and what the air leaves."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnb_server.faults import Faults
from gnb_server.repository import ModelVersion, Repository
from gnb_server.serving.chunks import Admitted, Chunk, Dropped, Group, Job
from gnb_server.sessions import Fleet, Lease
from shared.channels.streams import Split
from shared.errors import Conflict, InvalidInput, NotReady, SequenceGap
from shared.link.decoding import Fields, estimate_shape, receive
from shared.link.target import TargetCoder

MAX_CHUNK_REPORTS = 65_536

RESTORING = "fleet: its state is being restored; attach again with its token"


def admit(job: Job, models: Repository, faults: Faults, *, late: bool = False) -> Admitted:
    """Unpack a chunk of right coordinates, check it, and carry it over the fleet's air; `faults` may change its bits
    before. What is new in a `late` one is dropped.

    Raises:
        InvalidInput, Conflict, NotFound, DamagedCheckpoint: its payload is malformed, or nothing decodes it.
        SequenceGap: reports before it are missing. NotReady: the fleet's state is to be restored first.
    """
    fleet, chunk = job.fleet, job.chunk
    if fleet.broken or fleet.open is None:
        raise NotReady(RESTORING)
    model = models.for_encoder(fleet.lease.model, chunk.encoder_id)
    bits = faults.flip(model.layout.unpack_bits(chunk.payload, chunk.reports), varies=model.layout.varies)
    model.scheme.check_fields(model.layout.fields_of(bits))
    shape, air = (chunk.slot_count, chunk.ue_count), fleet.lease.by_frame.at(job.frame).air
    by_slot = bits.reshape(*shape, model.layout.bits)
    received = received_by_slot(fleet.lease, model, np.array(chunk.ues), job.frame, job.slots, by_slot)
    rows = np.arange(chunk.ue_count) + (chunk.first_ue - fleet.lease.first_ue)
    groups, dropped = _groups(fleet, chunk, rows, model, models, late=late)
    lengths = air.lengths(model.layout.lengths(by_slot))
    return Admitted(by_slot, lengths, *received, rows, groups, dropped, model, _target(job, model))


def received_by_slot(
    lease: Lease, model: ModelVersion, ues: NDArray[np.int64], frame: int, slots: range, sent: NDArray[np.uint8]
) -> tuple[Fields, NDArray[np.uint8]]:
    """What comes over a fleet's air of reports [slots, U, bits] of UEs [U]: fields, name -> [slots, U, count], and
    fates [slots, U].
    """
    conditions = lease.by_frame.at(frame)
    samples = conditions.samples(Split.EMULATE, torch.from_numpy(ues), frame)
    received = receive(model.scheme, conditions.air, samples, slots, sent.swapaxes(0, 1))
    bits = received.bits.swapaxes(0, 1)
    reports = bits.shape[0] * bits.shape[1]
    fields = model.layout.fields_of(bits.reshape(reports, bits.shape[2]))
    shaped = {name: values.reshape(*bits.shape[:2], values.shape[1]) for name, values in fields.items()}
    return shaped, received.fates.swapaxes(0, 1)


def _target(job: Job, model: ModelVersion) -> Tensor | None:
    """The entries of a chunk's target CSI, [U, entries], if it has any. Raises InvalidInput if it cannot have these."""
    chunk, scenario = job.chunk, job.fleet.lease.conditions.scenario
    if not chunk.target:
        return None
    if job.slots.stop != job.fleet.slots:
        raise InvalidInput(f"target: {len(chunk.target)} bytes; wanted none but with the last slot of a frame")
    coder = TargetCoder(model.scheme.domain, estimate_shape(model.scheme, scenario))
    return coder.decode(chunk.target, chunk.ue_count)


def check_coordinates(fleet: Fleet, chunk: Chunk) -> None:
    """Raises InvalidInput for a chunk that cannot belong to the fleet."""
    slots, ues = fleet.slots, fleet.lease.ues
    if chunk.ue_count < 1 or chunk.first_ue < ues.start or chunk.ues.stop > ues.stop:
        raise InvalidInput(
            f"first_ue, ue_count: {chunk.first_ue}, {chunk.ue_count}; this fleet leases {ues.start}..{ues.stop - 1}"
        )
    if chunk.slot_count < 1 or chunk.first_slot % slots + chunk.slot_count > slots:
        raise InvalidInput(
            f"first_slot, slot_count: {chunk.first_slot}, {chunk.slot_count}; wanted 1..{slots} slots of one frame"
            f" (frames start at multiples of {slots})"
        )
    if chunk.first_slot + chunk.slot_count >= 2**32 * slots:
        raise InvalidInput(f"first_slot: {chunk.first_slot} is beyond the last frame, 2^32 - 1")
    if chunk.reports > MAX_CHUNK_REPORTS:
        raise InvalidInput(f"ue_count * slot_count: more than {MAX_CHUNK_REPORTS} reports in one chunk")


def _groups(
    fleet: Fleet, chunk: Chunk, rows: NDArray[np.int64], model: ModelVersion, models: Repository, *, late: bool
) -> tuple[list[Group], list[Dropped]]:
    """The chunk's new reports by version and first slot, and those to be dropped: of frames that lack an earlier report
    (their version is 0), or all if it is late. Frames that begin in it are begun on the version that their UE is
    assigned, if that decodes for the chunk's encoder, or else on `model`.
    """
    assert fleet.open is not None  # checked by `admit`
    expected = fleet.open.next_sequence[rows]
    if (gap := int(expected.min())) < chunk.first_slot:
        ue = chunk.first_ue + int(expected.argmin())
        raise SequenceGap(f"first_slot: {chunk.first_slot} of UE {ue} leaves a gap; expected {gap}", gap)
    skipped = expected - chunk.first_slot
    within = expected % fleet.slots > 0
    fitting = [version for version, facts in list(fleet.facts.items()) if facts.encoder_id == chunk.encoder_id]
    assigned = fleet.assigned[rows]
    begun_on = np.where(np.isin(assigned, fitting), assigned, model.version)
    versions = np.zeros_like(rows) if late else np.where(within, fleet.open.version[rows], begun_on)
    groups, dropped = [], []
    for version, first in sorted({*zip(versions.tolist(), skipped.tolist(), strict=True)}):
        if first >= chunk.slot_count:
            continue
        columns = np.flatnonzero((versions == version) & (skipped == first))
        if not version:
            dropped.append(Dropped(columns, first))
            continue
        decoding = model if version == model.version else models.version(fleet.lease.model, version)
        if decoding.encoder_id != chunk.encoder_id:
            raise Conflict(
                f"encoder_id: {chunk.encoder_id}; the open frame of UE {chunk.first_ue + int(columns[0])} was begun"
                f" with {decoding.encoder_id}"
            )
        if version not in fleet.facts:
            decoding.scheme.check_scenario(fleet.lease.conditions.scenario)
        groups.append(Group(decoding, columns, first))
    return groups, dropped
