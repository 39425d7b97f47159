"""Which version of a model each UE is to use: loads, roll-outs, what UEs say to it, and versions that nobody needs.

A load is for all UEs of a model. UEs whose encoder the version has are decoded by it from their next frame on; others
are told on their streams to fetch its encoder, and are decoded by it from the frame that they begin with it. What each
UE is assigned is stored before it is told, so that gNB and UEs come back to it after a crash.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnb_server.comparison import Comparison
from gnb_server.repository import ModelVersion, Repository
from gnb_server.rollouts import Guard, Mode, Rollout, Rollouts, State
from gnb_server.sessions import Fleet
from gnb_server.store import Store
from shared.errors import Conflict, CsiError, DamagedCheckpoint, InvalidInput, NotFound, NotReady

CANNOT_SWITCH = "these UEs do not switch encoders (an older client, or --no-switch)"


@dataclass(frozen=True)
class SwitchStatus:
    """What UEs say to the encoders that they were told: from which slot on they use them, or why they do not.

    Attributes:
        told: what they were told, (first UE, UEs, encoder id).
    """

    first_slot: int
    problem: str
    told: list[tuple[int, int, str]]


class Swaps:
    """The versions of models in use. Safe to use from any thread.

    Attributes:
        rollouts: of the run.

    Args:
        fleets: of the run by token. lock: that guards them.
        between_batches: runs something while nothing is decoded.
        check_card: raises if a version does not reach its card.
    """

    def __init__(
        self,
        repository: Repository,
        store: Store,
        rollouts: Rollouts,
        fleets: dict[str, Fleet],
        lock: threading.RLock,
        between_batches: Callable[[Callable[[], None]], object],
        check_card: Callable[[str, int], None] = lambda name, version: None,
    ) -> None:
        self.rollouts = rollouts
        self._repository = repository
        self._store = store
        self._fleets = fleets
        self._lock = lock
        self._between_batches = between_batches
        self._check_card = check_card
        self._targets: dict[str, int] = {}

    def restore(self) -> None:
        """Bring back targets and roll-outs of an earlier process of this run."""
        self._targets = self._store.targets()
        for content in self._store.rollouts():
            self.rollouts.put(Rollout.from_store(content))

    # --- what is asked for ---

    def load(self, name: str, version: int | None = None, by: str = "") -> ModelVersion:
        """Load a version, and have all UEs of the model use it.

        Raises:
            NotFound, InvalidInput. DamagedCheckpoint: files, card and probe do not fit, or it does not reach its card.
            Conflict: the version was another model earlier in this run, or a roll-out of the model is running.
        """
        version = self._repository.version_to_load(name, version)
        self._check_idle(name, version)
        model = self._verified(name, version, by)
        with self._lock:
            self._check_idle(name, version)
            self._serve(model)
        self._store.keep_event("loaded", name, str(version), by, "for all UEs")
        return model

    def unload(self, name: str, version: int | None = None, by: str = "") -> None:
        """Forget a model or one version. Raises NotFound, and Conflict while UEs need it."""
        with self._lock:
            self._check_idle(name, version)
            for fleet in self._live(name):
                if version is None or version in self._needed_by(fleet):
                    ues = f"UEs {fleet.lease.ues.start}..{fleet.lease.ues.stop - 1} ({fleet.status})"
                    state = "decoding for" if fleet.attached else "kept for"
                    raise Conflict(
                        f"{_asked(name, version)} is {state} {ues}; it can be unloaded when they have detached or been"
                        " away for long"
                    )
            blocked = self._repository.unload(name, version)
            self._store.keep_loaded(name, blocked, loaded=False)
            if version in (None, self._targets.get(name)):
                self._targets.pop(name, None)
                self._store.keep_target(name, None)
        self._store.keep_event("unloaded", name, "" if version is None else str(version), by, "")

    def start(self, name: str, version: int, mode: Mode, share: float, guard: Guard | None, by: str = "") -> Rollout:
        """Begin a roll-out.

        Raises:
            As `load`. Conflict: another one of the model is running, or there is nothing to compare with.
        """
        if not 0 < share < 1:
            raise InvalidInput(f"share: {share} is not between 0 and 1")
        with self._lock:
            self._check_idle(name, version)
            card = self._repository.store.card(name, version)
            self._old_version(name, version, mode, str(card["encoder_id"]))
            was_loaded = version in self._repository.loaded(name)
        model = self._verified(name, version, by)
        with self._lock:
            self._check_idle(name, version)
            old = self._old_version(name, version, mode, model.encoder_id)
            if not was_loaded:  # a restart loads it for this roll-out alone, not to serve others
                self._store.forget_loaded(name, version)
            number = len(self.rollouts.all()) + 1
            comparison = Comparison(paired=mode == "shadow")
            now = time.time()
            rollout = Rollout(number, name, version, old, mode, share, guard, by, now, comparison)
            self._store.keep_rollout(number, rollout.to_store())
            self.rollouts.put(rollout)
            fleets = self._live(name) if mode == "canary" else []
            for index, fleet in enumerate(fleets):
                self._assign(fleet, model, self._canary_rows(fleet, rollout, fleets[:index]))
        text = "beside it" if mode == "shadow" else f"for {100 * share:g} % of the UEs"
        self._store.keep_event(mode, name, str(version), by, f"roll-out {number}: {text}; the old version is {old}")
        return rollout

    def promote(self, number: int, by: str = "", reason: str = "asked for") -> Rollout:
        """Have all UEs use the new version of a roll-out. Raises NotFound, and Conflict if it has ended."""
        with self._lock:
            rollout = self._running(number)
            model = self._repository.version(rollout.model, rollout.version)
            rollout = self._end(rollout, "promoted", reason)
            self._serve(model)
        self._store.keep_event(
            "promoted", rollout.model, str(rollout.version), by, f"roll-out {number}: {rollout.reason}"
        )
        return rollout

    def abort(self, number: int, by: str = "", reason: str = "asked for") -> Rollout:
        """Bring the UEs of a roll-out back to the old version. Raises NotFound, and Conflict if it has ended."""
        with self._lock:
            rollout = self._running(number)
            fleets = self._live(rollout.model)
            try:
                old = self._repository.version(rollout.model, rollout.old_version)
            except CsiError as error:
                fleets, reason = [], f"{reason}; its UEs stay, for the old version cannot be loaded: {error}"
            rollout = self._end(rollout, "aborted", reason)
            for fleet in fleets:
                self._assign(fleet, old, fleet.assigned == rollout.version)
        self._store.keep_event(
            "aborted", rollout.model, str(rollout.version), by, f"roll-out {number}: {rollout.reason}"
        )
        return rollout

    def describe(self, rollout: Rollout) -> dict[str, Any]:
        """A roll-out with its figures, and how many UEs are on which version."""
        ues = {"new": 0, "assigned": 0, "old": 0, "refused": 0}
        for fleet in self._live(rollout.model):
            assigned, begun = fleet.assigned == rollout.version, fleet.version == rollout.version
            ues["assigned"] += int(assigned.sum())
            ues["new"] += int(begun.sum())
            ues["old"] += int((fleet.version == rollout.old_version).sum())
            ues["refused"] += int(assigned.sum()) if fleet.problem else 0
        return {**rollout.to_json(), "ues": ues}

    # --- UEs ---

    def target_version(self, name: str) -> int | None:
        """The version that all UEs of a model are to use, if one was asked for."""
        return self._targets.get(name)

    def ues(self, name: str) -> dict[str, Any]:
        """How many attached UEs of a model are on which version, how many do not take the encoder that they were told,
        and why.
        """
        attached = [fleet for fleet in self._live(name) if fleet.attached]
        by_version: Counter[int] = Counter()
        for fleet in attached:
            by_version.update(fleet.version.tolist())
        refusing = [fleet for fleet in attached if fleet.problem]
        return {
            "attached": sum(fleet.lease.ue_count for fleet in attached),
            "by_version": {str(version): count for version, count in sorted(by_version.items()) if version},
            "refused": sum(fleet.lease.ue_count for fleet in refusing),
            "problems": sorted({str(fleet.problem) for fleet in refusing}),
        }

    def target(self, name: str) -> ModelVersion | None:
        """The version that all UEs of a model are to use, if one was asked for. Raises as `Repository.version`."""
        version = self._targets.get(name)
        return None if version is None else self._repository.version(name, version)

    def attached(self, fleet: Fleet, *, can_switch: bool) -> None:
        """Assign versions to the UEs of a fleet that has just attached."""
        with self._lock:
            fleet.can_switch = can_switch
            name = fleet.lease.model
            wanted: list[tuple[ModelVersion, NDArray[np.bool_]]] = []
            if target := self.target(name):
                wanted.append((target, np.ones(fleet.lease.ue_count, bool)))
            if (rollout := self.rollouts.running(name)) and rollout.mode == "canary":
                others = [other for other in self._live(name) if other is not fleet]
                try:
                    new = self._repository.version(name, rollout.version)
                    wanted.append((new, self._canary_rows(fleet, rollout, others)))
                except CsiError as error:  # its files have gone, and the process that had loaded them
                    self.rollouts.fail(name, rollout.version, str(error))
            fleet.told, fleet.problem = [(0, fleet.lease.ue_count, fleet.encoder_id)], ""
            if not can_switch:
                encoders = {version: facts.encoder_id for version, facts in fleet.facts.items()}
                fleet.assigned[[encoders.get(v) != fleet.encoder_id for v in fleet.assigned.tolist()]] = 0
            self._tell(fleet)
            for model, rows in wanted:
                self._assign(fleet, model, rows)

    def switched(self, fleet: Fleet, status: SwitchStatus) -> None:
        """Note what a fleet's UEs say to the encoders that they were told; an answer to what was told before is not
        heeded.
        """
        with self._lock:
            if not _answers(fleet, status):
                return
            if not status.problem and fleet.encoder_id != fleet.told[-1][2]:
                fleet.encoder_id = fleet.told[-1][2]  # of most of its UEs
                self._store.keep_encoder(fleet.lease.token, fleet.encoder_id)
            before, fleet.problem = fleet.problem, status.problem
        if before == status.problem:
            return
        versions = ", ".join(sorted({str(run.version) for run in fleet.assignments()}))
        ues = f"UEs {fleet.lease.ues.start}..{fleet.lease.ues.stop - 1}"
        kind = "not switched" if status.problem else "switched"
        text = f"{ues}: {status.problem}" if status.problem else f"{ues}, from slot {status.first_slot} on"
        self._store.keep_event(kind, fleet.lease.model, versions, "UE", text)

    def encoder(self, fleet: Fleet, encoder_id: str) -> tuple[str, bytes]:
        """Card and encoder file of a version of a fleet's model that has this encoder.

        Raises:
            NotFound: there is none. DamagedCheckpoint: its file is not what its card says.
        """
        name, store = fleet.lease.model, self._repository.store
        damaged: str | None = None
        preferred = [run.version for run in fleet.assignments()]
        for version in [*preferred, *store.versions(name)]:
            try:
                card = store.card(name, version)
            except CsiError:  # the others are none the worse for it
                continue
            if card["encoder_id"] == encoder_id:
                if (reason := store.fault(name, version, "encoder")) is None:
                    return json.dumps(card), store.part(name, version, "encoder")
                damaged = damaged or f"checkpoint {name}/{version}: {reason}"
        if damaged:
            raise DamagedCheckpoint(damaged)
        raise NotFound(f"encoder_id: no version of {name} has encoder {encoder_id}")

    # --- from time to time ---

    def tick(self) -> None:
        """Decide roll-outs by their guards, keep their figures, retire versions that nothing needs."""
        self.keep_figures()
        with self._lock:  # nobody else ends one meanwhile
            for rollout in self.rollouts.all():
                if rollout.state == "running":
                    self._decide(rollout)
        if any(self._unneeded(name) for name in self._repository.names()):
            self._between_batches(self._retire)

    def keep_figures(self) -> None:
        """Store what roll-outs have come to. Raises StoreUnavailable."""
        with self._lock:  # nobody else ends one meanwhile
            for rollout, content in self.rollouts.changed():
                self._store.keep_rollout(rollout.number, content)

    # --- parts ---

    def _decide(self, rollout: Rollout) -> None:
        """End a roll-out that has failed, or that its guard has seen enough of."""
        if rollout.failure:
            self.abort(rollout.number, "gNB", f"the new version failed: {rollout.failure}")
        elif rollout.guard is not None:
            state, reason = rollout.guard.verdict(rollout.comparison.difference())
            if state == "aborted":
                self.abort(rollout.number, "guard", reason)
            elif state == "promoted":
                try:
                    self.promote(rollout.number, "guard", reason)
                except NotReady:
                    raise
                except CsiError as error:
                    self.abort(rollout.number, "guard", f"{reason}, but it cannot be loaded any more: {error}")

    def _verified(self, name: str, version: int, by: str) -> ModelVersion:
        """Load a version after all checks, for nobody yet; a refusal is an event."""
        try:
            self.check_encoder(name, version, str(self._repository.store.card(name, version)["encoder_id"]))
            self._check_card(name, version)
            model = self._repository.load(name, version, serve=False)
        except CsiError as error:
            self._store.keep_event("refused", name[:64], str(version), by, str(error)[:400])
            raise
        self._store.keep_version(name, version, model.facts)
        return model

    def check_encoder(self, name: str, version: int, encoder_id: str) -> None:
        """Raises Conflict if a version of this run decoded for another encoder before."""
        known = self._store.versions().get(name, {}).get(version)
        if known is not None and known.encoder_id != encoder_id:
            raise Conflict(
                f"version: {name}/{version} decodes for encoder {encoder_id}, earlier in this run it did for"
                f" {known.encoder_id}; give the new one another version"
            )

    def _serve(self, model: ModelVersion) -> None:
        """Have all UEs of a model use a version."""
        self._store.keep_loaded(model.name, [model.version], loaded=True)
        self._repository.serve(model)
        self._store.keep_target(model.name, model.version)
        self._targets[model.name] = model.version
        for fleet in self._live(model.name):
            self._assign(fleet, model, np.ones(fleet.lease.ue_count, bool))

    def _assign(self, fleet: Fleet, model: ModelVersion, rows: NDArray[np.bool_]) -> None:
        """Assign a version to some UEs of a fleet, store it, and have them told if it means another encoder."""
        if not rows.any():
            return
        try:
            model.scheme.check_scenario(fleet.lease.conditions.scenario)
            if fleet.can_switch is False and model.encoder_id != fleet.encoder_id:
                raise Conflict(CANNOT_SWITCH)
        except CsiError as error:
            fleet.problem = str(error)
            return
        fleet.facts.setdefault(model.version, model.facts)
        before, fleet.assigned = fleet.assigned, np.where(rows, model.version, fleet.assigned)
        try:
            if (before != fleet.assigned).any():
                self._store.keep_assigned({fleet.lease.token: fleet.assignments()})
        except CsiError:
            fleet.assigned = before
            raise
        self._tell(fleet)

    @staticmethod
    def _tell(fleet: Fleet) -> None:
        """Have UEs told their encoders, if these are others than they were told, or they did not take them then."""
        told = _encoders(fleet)
        if told == fleet.told and not fleet.problem:
            return
        asked = fleet.can_switch is not False  # or else they keep what they have
        fleet.told, fleet.problem = told, None if asked else ""
        if asked and fleet.on_assigned is not None:
            fleet.on_assigned()

    def _canary_rows(self, fleet: Fleet, rollout: Rollout, others: list[Fleet]) -> NDArray[np.bool_]:
        """Which UEs of a fleet are on the new version: its first ones, so many that it and the others have the share.
        UEs differ in nothing but their channels, which are drawn alike.
        """
        taken = sum(int((other.assigned == rollout.version).sum()) for other in others)
        ues = sum(other.lease.ue_count for other in [*others, fleet])
        wanted = min(max(math.ceil(rollout.share * ues - 1e-9) - taken, 0), fleet.lease.ue_count)
        return np.arange(fleet.lease.ue_count) < max(wanted, int((fleet.assigned == rollout.version).sum()))

    def _old_version(self, name: str, version: int, mode: Mode, encoder_id: str) -> int:
        """The version that a new one is compared with. Raises Conflict if there is none."""
        if mode == "shadow":
            old = self._repository.serving(name).get(encoder_id)
            if old is None:
                raise Conflict(
                    f"version: {name}/{version} decodes for encoder {encoder_id}, which no version in service does; a"
                    " canary compares versions of different encoders"
                )
        else:
            old = self._targets.get(name, self._repository.newest(name))
        if old in (None, version):
            raise Conflict(f"version: {name}/{version} has no other version in service to be compared with; load it")
        assert old is not None
        return old

    def _running(self, number: int) -> Rollout:
        rollout = self.rollouts.get(number)
        if rollout.state != "running":
            raise Conflict(f"rollout: {number} was {rollout.state} ({rollout.reason})")
        return rollout

    def _check_idle(self, name: str, version: int | None) -> None:
        if rollout := self.rollouts.running(name):
            raise Conflict(
                f"{_asked(name, version)} has to wait: roll-out {rollout.number}, of {name}/{rollout.version}, is"
                " running; promote or abort it first"
            )

    def _end(self, rollout: Rollout, state: State, reason: str) -> Rollout:
        ended = dataclasses.replace(rollout, state=state, reason=reason, decided_at=time.time())
        self._store.keep_rollout(rollout.number, ended.to_store())
        self.rollouts.put(ended)
        return ended

    def _live(self, name: str) -> list[Fleet]:
        """Fleets of a model that may send reports again."""
        fleets = list(self._fleets.values())
        return [fleet for fleet in fleets if fleet.lease.model == name and fleet.status != "finished"]

    def _needed_by(self, fleet: Fleet) -> set[int]:
        """Versions that a fleet's open and next frames may need."""
        serving = self._repository.serving(fleet.lease.model)
        begun = np.unique(fleet.version).tolist()
        encoders = {fleet.encoder_id, *(fleet.facts[version].encoder_id for version in begun if version in fleet.facts)}
        return {
            *np.unique(fleet.assigned).tolist(),
            *(run.version for run in fleet.open_frames()),
            *(serving[encoder] for encoder in encoders if encoder in serving),
        }

    def _unneeded(self, name: str) -> set[int]:
        """Loaded versions that another one has replaced and no UE needs."""
        replaced = {r.version for r in self.rollouts.all() if r.model == name and r.state != "running"}
        loaded = set(self._repository.loaded(name))
        left = (loaded if name in self._targets else loaded & replaced) - {self._targets.get(name)}
        if rollout := self.rollouts.running(name):
            left -= {rollout.version, rollout.old_version}
        return left.difference(*map(self._needed_by, self._live(name))) if left else left

    def _retire(self) -> None:
        """Free versions that nothing needs; between batches, so that none is in hand."""
        for name in self._repository.names():
            for version in sorted(self._unneeded(name)):
                self._repository.retire(name, version)
                self._store.forget_loaded(name, version)
                self._store.keep_event("retired", name, str(version), "gNB", "no UE needs it any more")


def _asked(name: str, version: int | None) -> str:
    """What a request was about."""
    return f"model: {name}" if version is None else f"version: {name}/{version}"


def _answers(fleet: Fleet, status: SwitchStatus) -> bool:
    """Whether UEs answer to what they were told last."""
    said = np.full(fleet.lease.ue_count, fleet.encoder_id)
    for first_ue, count, encoder_id in status.told:
        first = max(first_ue - fleet.lease.first_ue, 0)
        said[first : first + count] = encoder_id
    told = [encoder_id for _, count, encoder_id in fleet.told for _ in range(count)]
    return bool((said == told).all())


def _encoders(fleet: Fleet) -> list[tuple[int, int, str]]:
    """The encoder of each run of a fleet's UEs, (first row, UEs, id): of what they are assigned, or their own."""
    ids = [fleet.facts[v].encoder_id if v else fleet.encoder_id for v in fleet.assigned.tolist()]
    runs, first = [], 0
    for encoder_id, members in itertools.groupby(ids):
        count = len(list(members))
        runs.append((first, count, encoder_id))
        first += count
    return runs
