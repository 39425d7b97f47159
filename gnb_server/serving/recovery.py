"""What has lost its states is decoded again, from the bits that are kept of its frames; what ends its worker each time
is refused.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from gnb_server.repository import ModelVersion, Repository
from gnb_server.serving.admission import received_by_slot
from gnb_server.serving.backend import Part
from gnb_server.serving.chunks import Group, Job
from gnb_server.serving.execution import Executor, Failure, Result
from gnb_server.sessions import Fleet
from gnb_server.store import Store
from shared.errors import InvalidInput, StoreUnavailable

Member = tuple[Job, Group, Part]

Results = list[Result | Failure]


class Undecodable(InvalidInput):
    """Reports whose decoding ends the process that does it, each time."""


class Recovery:
    """Executes parts until each has a result, or a failure that another attempt would not mend.

    Attributes:
        refused: reports that were refused as `Undecodable`, by model and version.
    """

    def __init__(self, models: Repository, executor: Executor, store: Store) -> None:
        self._models = models
        self._executor = executor
        self._store = store
        self.refused: Counter[tuple[str, int]] = Counter()

    def execute(self, members: list[Member]) -> Results:
        """What becomes of members of one model version.

        Where a state has gone, what is kept of the frame is decoded first. A worker that ends is started again, and
        all of whom it had parts are decoded again, together: most often nothing is wrong with them. If it ends over
        them once more, each is decoded alone, and those over which it ends then are refused: after three times, for
        whoever ends workers at random may do so twice.
        """
        results = self._executor.execute(members[0][1].model, [part for *_, part in members])
        if gone := [k for k, found in enumerate(results) if isinstance(found, Failure) and found.state_gone]:
            logging.warning("serving: states of %d chunks have gone; their open frames are decoded again", len(gone))
            self._again(members, results, gone)
        suspects = [k for k in gone if _over(results[k])]
        for k in suspects:
            self._again(members, results, [k])
            if _over(results[k]):
                results[k] = self._refused(members[k])
        return results

    def _again(self, members: list[Member], results: Results, chosen: list[int]) -> None:
        """Decode some members, from the beginnings of their frames on."""
        model = members[0][1].model
        kept = [(k, part) for k in chosen for _, part in self.kept(members[k][0].fleet, members[k][2].rows)]
        begun = zip(kept, self._executor.execute(model, [part for _, part in kept]), strict=True)
        failed = {k: found for (k, _), found in begun if isinstance(found, Failure)}
        going_on = [k for k in chosen if k not in failed]
        again = self._executor.execute(model, [members[k][2] for k in going_on])
        for k, found in (*failed.items(), *zip(going_on, again, strict=True)):
            results[k] = found

    def kept(self, fleet: Fleet, rows: NDArray[np.int64]) -> Iterator[tuple[ModelVersion, Part]]:
        """What is kept of the open frames of a fleet's UEs [n], from their beginnings, and the versions of these."""
        frames = fleet.open
        assert frames is not None
        reached, numbers = frames.next_sequence[rows] % fleet.slots, frames.next_sequence[rows] // fleet.slots
        standing = np.stack([frames.version[rows], numbers, reached], axis=1)
        for version, frame, slots in np.unique(standing, axis=0).tolist():
            if not (slots and version):  # at a frame's beginning, or dropped
                continue
            chosen = rows[(standing == (version, frame, slots)).all(axis=1)]
            model = self._models.version(fleet.lease.model, version)
            packed = frames.reports[version][chosen, :slots].swapaxes(0, 1)
            bits = np.unpackbits(packed, axis=-1, count=model.layout.bits)
            ues = chosen + fleet.lease.first_ue
            fields, fates = received_by_slot(fleet.lease, model, ues, frame, range(slots), bits)
            yield model, Part(fleet.lease, chosen, frame, 0, slots, fields, fates)

    def _refused(self, member: Member) -> Failure:
        """Count and tell a member that is refused."""
        job, group, part = member
        model, reports = group.model, len(part.rows) * part.slots
        ues, first = part.rows + part.lease.first_ue, part.frame * job.fleet.slots + part.first_slot
        what = f"{reports} reports of UEs {ues.min()}..{ues.max()}, slots {first}..{first + part.slots - 1}"
        text = f"{what}, end the decode worker of {model.name}/{model.version} each time, three times"
        logging.error("serving: %s; they are refused", text)
        self.refused[model.name, model.version] += reports
        with suppress(StoreUnavailable):
            self._store.keep_event("undecodable", model.name, str(model.version), "gNB", text)
        return Failure(Undecodable(f"payload: {text}; wanted what can be decoded"))


def _over(found: Result | Failure) -> bool:
    return isinstance(found, Failure) and found.worker_ended
