"""What the gNB can be asked to do, without any protocol: gRPC and REST are skins over these. All calls are blocking."""

from __future__ import annotations

import functools
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gnb_server.airs import change_air
from gnb_server.cells import listed_cells, named_cells, stored_figures, stored_fleets, stored_snapshots
from gnb_server.course import course
from gnb_server.exports import Export, Selection
from gnb_server.hardening import shorten
from gnb_server.monitor import LONGEST_WINDOW_S, Clock, Monitor, describe, report_rows, ue_qualities, ue_row
from gnb_server.rates import RateControl
from gnb_server.repository import ModelVersion, Repository
from gnb_server.rollouts import Rollouts
from gnb_server.served import ServedRates, check_offered, follow
from gnb_server.serving.admission import RESTORING, check_coordinates
from gnb_server.serving.chunks import Ack, Chunk
from gnb_server.serving.loop import ServingLoop
from gnb_server.serving.monitoring import Monitoring
from gnb_server.sessions import Absent, Fleet, Lease, VersionFacts
from gnb_server.snapshots import Snapshots
from gnb_server.store import Store
from gnb_server.swaps import Swaps
from shared.channels.scenario import Scenario
from shared.channels.wideband import require_wideband
from shared.conditions import AirChange, RunConditions
from shared.errors import Conflict, CsiError, InvalidInput, LimitReached, NotFound, NotReady
from shared.link.air import Air
from shared.link.precision import precision_for
from shared.link.rate import OWN, Rate
from shared.schemes import scheme_class

MAX_FLEET = 65_536
MAX_FLEETS, MAX_UES = 16_384, 2**20
"""Leases of a run, and UE ids in them, at most. One client may have half of what the others leave, so that some are
left for whoever comes next. Whose those of an earlier process are is not known until they come back.
"""

MOST_IDS = 2**32

_TOKEN = re.compile("[0-9a-f]{16}")

LINGER_S = 5.0
"""How long what is held for the open frames of a fleet that has gone stays, to be at hand if it comes back soon."""


@dataclass(frozen=True)
class Attachment:
    """An attach request; fields as in `AttachRequest`, encoder_id in hexadecimal, `ue_base` and `offered_per_s` None if
    left open; `client` is who asks.
    """

    model: str
    scenario: str
    seed: int
    encoder_id: str
    ue_count: int
    ue_base: int | None = None
    delay_slots: int = 0
    token: str = ""
    new_token: str = ""
    client: str = ""
    can_switch: bool = False
    rate: Rate = OWN
    air: str = ""
    offered_per_s: float | None = None


class Handlers:
    """The gNB's service.

    Attributes:
        swaps: which versions UEs are to use; loads and roll-outs.

    Args:
        note_history: called once a second.
        evict_s: what is held for a fleet that has been gone, or silent, for so long is freed [s].
        clock: monotonic [s].
    """

    def __init__(
        self,
        repository: Repository,
        store: Store,
        monitor: Monitor,
        serving: ServingLoop,
        rollouts: Rollouts,
        check_card: Callable[[str, int], None] = lambda name, version: None,
        note_history: Callable[[], None] = lambda: None,
        *,
        snapshots: Snapshots | None = None,
        monitoring: Monitoring | None = None,
        evict_s: float = 600.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._repository = repository
        self._store = store
        self._monitor = monitor
        self._serving = serving
        self._fleets: dict[str, Fleet] = {}
        self._absent: dict[str, Absent] = {}
        self._snapshots = snapshots or Snapshots()
        self._monitoring = monitoring
        self._note_history = note_history
        self._evict_s = evict_s
        self._clock = clock
        self._rates = RateControl(store)
        self._served = ServedRates(store, clock)
        self._lock = threading.RLock()
        self.swaps = Swaps(repository, store, rollouts, self._fleets, self._lock, serving.run, check_card)
        self.started = False

    @property
    def ready(self) -> bool:
        """Whether UEs can attach and their reports are stored."""
        return self.started and self.store_writable

    @property
    def store_writable(self) -> bool:
        """Whether results can be stored."""
        return self._store.writable()

    def tick(self) -> bool:
        """What is to be done once a second; returns whether the gNB is ready."""
        try:
            self._served.tick([fleet for fleet in list(self._fleets.values()) if fleet.attached])
            self._evict()
            self.swaps.tick()
            self._note_alarms()
            self._note_history()
        except NotReady as error:  # the store is away, or a batch is slow: the next time
            logging.debug("evictions and roll-outs wait: %s", error)
        except CsiError as error:  # the rest of the gNB is none the worse for it
            logging.error("roll-outs: %s", error)
        return self.ready

    def _note_alarms(self) -> None:
        """Keep alarms that were raised or cleared as events."""
        if self._monitoring is None:
            return
        alarms = self._monitoring.watch.alarms
        while news := alarms.news():
            kind, alarm = news
            text = f"{alarm.text}; {alarm.ended}" if kind == "alarm cleared" else alarm.text
            self._store.keep_event(kind, alarm.lease.model, str(alarm.version), "monitoring", text)
            alarms.noted()

    def restore(self) -> list[str]:
        """Bring back the models and leases of an earlier process of this run, with their totals, which are apart until
        the fleet comes back. Fleets that have not detached count as gone since now. Returns what could not be.
        """
        problems, failed = [], {}
        for name, version, loaded in self._store.loaded():
            try:
                if loaded:
                    self._repository.load(name, version)
                else:
                    self._repository.block(name, "unloaded", version)
            except CsiError as error:
                problems.append(f"{name}/{version}: {error}")
                failed[name] = f"unloaded, for version {version} could not be loaded again: {error}"
        for name, reason in failed.items():
            with suppress(CsiError):  # there is nothing left of it
                self._repository.block(name, reason)
        facts = self._store.versions()
        for lease, encoder_id, finished in self._store.leases():
            if finished:
                self._absent[lease.token] = Absent(lease, encoder_id, "finished")
                fleet = self._stored(self._absent[lease.token])
                self._monitor.set_apart(fleet)
                self._monitor.fold(fleet)
            else:
                self._monitor.set_apart(self._from_store(lease, encoder_id, facts.get(lease.model, {})))
        self.swaps.restore()
        return problems

    # --- UEs ---

    def attach(self, request: Attachment) -> tuple[Fleet, ModelVersion]:
        """Lease ids to a fleet, or give it back its lease; with the version that decodes its new frames.

        Raises:
            InvalidInput, NotFound, Conflict, DamagedCheckpoint: see `CsiFeedback.Attach` in the proto file.
        """
        if not self.started:
            raise NotReady("gNB: is starting or stopping")
        air = Air.parse(request.air).delayed(request.delay_slots)
        conditions = RunConditions(Scenario.parse(request.scenario), request.seed, air)
        if not 1 <= request.ue_count <= MAX_FLEET:
            raise InvalidInput(f"ue_count: {request.ue_count} is not in [1, {MAX_FLEET}]")
        check_offered(request.offered_per_s)
        if request.new_token and not _TOKEN.fullmatch(request.new_token):
            raise InvalidInput(
                f"new_token: '{shorten(request.new_token)}'; wanted 16 hexadecimal digits, small letters"
            )
        model = self._model_for(request)
        model.scheme.check_scenario(conditions.scenario, conditions.delay_slots)
        with self._lock:
            self.swaps.check_encoder(model.name, model.version, model.encoder_id)
            # before the lease, which cannot be read back without it, should this process be killed in between
            self._store.keep_version(model.name, model.version, model.facts)
            if request.token or request.new_token in self._known():
                token = request.token or request.new_token
                fleet = self._return_to_lease(token, request, conditions)
                self._store.keep_encoder(token, model.encoder_id)
                fleet.facts[model.version] = model.facts
                fleet.encoder_id = model.encoder_id
            else:
                model.scheme.check_rate(request.rate)
                fleet = self._new_lease(request, model, conditions)
            self._rates.begin(fleet, model.scheme)
            fleet.client, fleet.seen = request.client, self._clock()
            fleet.offered_per_s, fleet.watch = request.offered_per_s, None
            self._store.keep_loaded(model.name, [model.version], loaded=True, asked=False)
            self.swaps.attached(fleet, can_switch=request.can_switch)
            self._monitor.watch(fleet)
            return fleet, model

    def _model_for(self, request: Attachment) -> ModelVersion:
        """The version that decodes for the encoder that UEs have; if there is none, the one that they are to use."""
        try:
            return self._repository.for_encoder(request.model, request.encoder_id)
        except Conflict:
            if request.can_switch and (target := self.swaps.target(request.model)):
                return target
            raise

    def open_stream(self, token: str) -> tuple[Fleet, int]:
        """Begin a fleet's stream, ending its earlier ones. Returns the fleet and the number. Raises NotFound."""
        with self._lock:
            fleet = self._fleet(token)
            self._check_open(fleet)
            fleet.stream += 1
            fleet.status, fleet.seen = "attached", self._clock()
            self._served.watch(fleet)
            return fleet, fleet.stream

    def set_rate(self, ue: int, rate: Rate, by: str) -> dict[str, Any]:
        """Ask all UEs of a UE's fleet for a rate, from their next frames on.

        Raises:
            NotFound: no such UE. Conflict: its scheme cannot have this rate, or the fleet has gone.
        """
        with self._lock:
            fleet = self._held_fleet_of(ue)
            model = self._repository.for_encoder(fleet.lease.model, fleet.encoder_id)
            try:
                self._rates.set(fleet, model.scheme, rate)
            except InvalidInput as error:  # well formed, but not of this scheme
                raise Conflict(str(error)) from None
            ues, text = fleet.lease.ues, ", ".join(f"{k} {v}" for k, v in rate.to_json().items() if v is not None)
            self._store.keep_event(
                "rate", model.name, str(model.version), by, f"UEs {ues.start}..{ues.stop - 1}: {text or 'its own'}"
            )
            return self.rate(ue)

    def rate(self, ue: int) -> dict[str, Any]:
        """What the UEs of a UE's fleet are asked for, and what they can be. Raises NotFound, Conflict."""
        fleet = self._held_fleet_of(ue)
        scheme = self._repository.for_encoder(fleet.lease.model, fleet.encoder_id).scheme
        asked = fleet.asked.runs() if fleet.asked else []
        first = fleet.lease.first_ue
        return {
            "scheme": fleet.lease.model,
            "first_ue": first,
            "ue_count": fleet.lease.ue_count,
            "rate": fleet.rate.to_json(),
            "asked": [{"first_ue": first + row, "ue_count": n, "bits": b, "step": s} for row, n, b, s in asked],
            "least_bits": scheme.layout.bits if scheme.least_bits is None else scheme.least_bits,
            "most_bits": scheme.layout.bits,
            "steps": scheme.steps,
        }

    def set_air(self, ue: int, air: Air, by: str) -> dict[str, Any]:
        """Have the reports of a UE's fleet come over another air, from the next frame on that none of its UEs has
        begun.

        Raises:
            NotFound: no such UE. Conflict: the fleet has gone. LimitReached: its air has changed often enough.
            InvalidInput: its world, a data file, ends before the delay.
        """
        with self._lock:
            fleet = self._held_fleet_of(ue)
            fleet.lease.conditions.scenario.check_here(air.delay)
            before = fleet.lease.by_frame.newest
            self._serving.run(lambda: change_air(self._store, fleet, air))
            if (change := fleet.lease.by_frame.newest) != before:
                ues, asked = fleet.lease.ues, str(air) or "undisturbed"
                text = f"UEs {ues.start}..{ues.stop - 1}: {asked} from frame {change.from_frame}"
                self._store.keep_event("air", fleet.lease.model, "", by, text)
            return self.air(ue)

    def air(self, ue: int) -> dict[str, Any]:
        """The air of a UE's fleet, and those that it had before. Raises NotFound."""
        lease = self._known_of(ue).lease
        history = [AirChange(0, lease.conditions.air), *lease.air_changes]
        return {
            "scheme": lease.model,
            "first_ue": lease.first_ue,
            "ue_count": lease.ue_count,
            "history": [{"air": str(change.air), "from_frame": change.from_frame} for change in history],
            "air": str(history[-1].air),
            "from_frame": history[-1].from_frame,
        }

    def fleets(self, offset: int = 0, limit: int | None = None) -> dict[str, Any]:
        """Fleets by their first UE, but for those that have detached, or have been gone for long or since an earlier
        process of the gNB, with what each is to send and is served: `limit` of them from the one at `offset` on, and
        how many there are in `total`.
        """
        here = (fleet for token, fleet in self._fleets.copy().items() if not self._monitor.is_apart(token))
        held = sorted(here, key=lambda fleet: fleet.lease.first_ue)
        rows = []
        for fleet in held[offset : None if limit is None else offset + limit]:
            lease, by_frame = fleet.lease, fleet.lease.by_frame
            described = describe(fleet, fleet.encoder_id, by_frame.at(by_frame.newest.from_frame))
            whose = {"first_ue": lease.first_ue, "ue_count": lease.ue_count, "status": fleet.status}
            rows.append({**whose, **described, **self._monitor.pace(fleet)})
        return {"fleets": rows, "total": len(held)}

    def _held_fleet_of(self, ue: int) -> Fleet:
        """The fleet of a UE, unless it has detached, or has been gone for long."""
        fleet = next((fleet for fleet in self._fleets.values() if ue in fleet.lease.ues), None)
        if fleet is None:
            raise Conflict(f"ue: {ue}; its fleet has gone: it is {self._known_of(ue).status}")
        return fleet

    def submit(self, fleet: Fleet, stream: int, chunk: Chunk) -> Future[Ack]:
        """Queue a chunk of a stream. The future raises as `CsiFeedback.Feedback` says.

        Raises:
            Conflict: a newer stream has taken over. InvalidInput: the chunk cannot belong to the fleet.
        """
        self._check_open(fleet)
        if stream != fleet.stream:
            raise Conflict("fleet-token: a newer stream of this fleet has taken over")
        check_coordinates(fleet, chunk)
        fleet.seen = self._clock()
        future = self._serving.submit(fleet, stream, chunk)
        if fleet.watch is not None:
            follow(fleet.watch, chunk, future)
        return future

    def encoder(self, token: str, encoder_id: str) -> tuple[str, bytes]:
        """Card, as JSON, and file of an encoder of a fleet's model. Raises NotFound, DamagedCheckpoint."""
        return self.swaps.encoder(self._fleet(token), encoder_id)

    def share(self) -> tuple[float, float]:
        """Reports and bytes that a fleet may have waiting; one chunk it may have in any case."""
        return self._serving.share()

    def close_stream(self, fleet: Fleet, stream: int) -> None:
        """The stream ended; without an earlier detach the fleet's UEs are gone. What they have sent and nobody has
        acknowledged is dropped, and what is held for their open frames: the store has it, should they come back.
        """
        with self._lock:
            if stream == fleet.stream and fleet.attached:
                fleet.status, fleet.seen = "gone", self._clock()
                fleet.stream += 1  # what waits of it is not wanted any more
                self._serving.drop(fleet)
                self._serving.forget(fleet, LINGER_S)

    def detach(self, token: str) -> None:
        """End a fleet, with all that is held for it but its lease and its part of the sums. Raises NotFound."""
        with self._lock:
            absent = self._absent.get(token)
            if absent is not None and absent.status == "finished":
                return
            fleet = self._fleet(token) if absent is None else self._stored(absent)
            self._store.finish(fleet.lease)
            fleet.status = "finished"
            fleet.stream += 1
            self._serving.drop(fleet)
            self._serving.forget(fleet)
            self._serving.call(lambda: self._monitor.fold(fleet))  # after the batch in hand
            self._absent[token] = Absent(fleet.lease, fleet.encoder_id, "finished", fleet.client)
            self._fleets.pop(token, None)

    def _evict(self) -> None:
        """Free what is held for fleets that have been gone or silent for `evict_s`. The store has it: who was silent is
        told to attach again when it sends something, whoever comes back goes on where it was, and is assigned anew.
        """
        with self._lock:
            due = [fleet for fleet in self._fleets.values() if self._clock() - fleet.seen >= self._evict_s]
            gone = {fleet.lease.token: fleet for fleet in due if fleet.status == "gone"}
            for fleet in due:
                if fleet.status == "attached":
                    fleet.status = "idle"
                    self._serving.forget(fleet)
            if gone:
                self._store.keep_assigned({token: [] for token in gone})
            for token, fleet in gone.items():
                self._absent[token] = Absent(fleet.lease, fleet.encoder_id, "gone", fleet.client)
                del self._fleets[token]
                if fleet.open is not None:
                    self._serving.forget(fleet)
                self._serving.call(functools.partial(self._monitor.evict, fleet))  # after the batch in hand

    def _new_lease(self, request: Attachment, model: ModelVersion, conditions: RunConditions) -> Fleet:
        self._check_share(request)
        first_ue = self._free_ids(request.ue_count) if request.ue_base is None else request.ue_base
        if first_ue + request.ue_count > MOST_IDS:
            raise InvalidInput(f"ue_base: {first_ue} + {request.ue_count} ids go beyond 2^32")
        lease = Lease(request.new_token or secrets.token_hex(8), request.model, conditions, first_ue, request.ue_count)
        self._store.lease(lease, model.encoder_id, request.rate)
        fleet = Fleet(lease, model.encoder_id, request.rate)
        fleet.facts[model.version] = model.facts  # before others can ask for it
        self._fleets[lease.token] = fleet
        return fleet

    def _check_share(self, request: Attachment) -> None:
        """Raises LimitReached if the client's share of the run is used up."""
        known = self._known().values()
        own = [fleet.lease.ue_count for fleet in known if fleet.client == request.client]
        others = [fleet.lease.ue_count for fleet in known if fleet.client != request.client]
        ues, fleets = (MAX_UES - sum(others)) // 2, (MAX_FLEETS - len(others)) // 2
        if len(own) >= fleets or sum(own) + request.ue_count > ues:
            raise LimitReached(
                f"ue_count: {request.ue_count}; client {request.client} has leased {sum(own)} UE ids to {len(own)}"
                f" fleets of this run, at most {ues} to {fleets} are allowed: half of what others leave"
            )

    def _free_ids(self, count: int) -> int:
        """The first of so many free ids: above all leased ones, or else in the first gap between them."""
        last = 0
        leases = sorted((fleet.lease.first_ue, fleet.lease.ues.stop) for fleet in self._known().values())
        if not leases or max(stop for _, stop in leases) + count <= MOST_IDS:
            return max((stop for _, stop in leases), default=0)
        for first, stop in leases:
            if first - last >= count:
                return last
            last = max(last, stop)
        raise LimitReached(f"ue_count: {count} ids in a row are not free")

    def _return_to_lease(self, token: str, request: Attachment, conditions: RunConditions) -> Fleet:
        absent = self._absent.get(token)
        if absent is None or absent.status == "finished":
            fleet = self._fleet(token)
        else:
            fleet = Fleet(absent.lease, absent.encoder_id)
            fleet.facts, fleet.broken = self._store.versions().get(absent.lease.model, {}), True
        lease = fleet.lease
        for name, asked, leased in (
            ("scheme", request.model, lease.model),
            ("scenario", conditions.scenario, lease.conditions.scenario),
            ("seed", conditions.seed, lease.conditions.seed),
            ("air", conditions.air, lease.conditions.air),
            ("ue_count", request.ue_count, lease.ue_count),
            ("ue_base", lease.first_ue if request.ue_base is None else request.ue_base, lease.first_ue),
        ):
            if asked != leased:
                raise Conflict(f"{name}: {asked}; the lease of this token has {leased}")
        fleet.stream += 1  # nothing of an earlier stream is taken from now on
        self._serving.drop(fleet)
        self._serving.run(lambda: None)  # what is in hand of it is stored afterwards
        if fleet.broken:
            fleet = self._from_store(lease, fleet.encoder_id, fleet.facts)
            self._serving.rebuild(fleet)
            fleet.broken = False
        return fleet

    def _from_store(self, lease: Lease, encoder_id: str, facts: dict[int, VersionFacts]) -> Fleet:
        """A fleet as the store has it, broken: the states of its open frames are not decoded again yet."""
        fleet = Fleet(lease, encoder_id)
        fleet.facts = dict(facts)
        fleet.broken, fleet.seen = True, self._clock()
        self._store.restore(fleet)
        self._fleets[lease.token] = fleet
        self._absent.pop(lease.token, None)
        self._monitor.watch(fleet)
        return fleet

    def _stored(self, absent: Absent, rows: range | None = None) -> Fleet:
        """A fleet that is not in memory, with its figures as the store has them; only those of some UEs if asked."""
        fleet = Fleet(absent.lease, absent.encoder_id)
        fleet.facts = self._store.versions().get(absent.lease.model, {})
        fleet.status, fleet.open = absent.status, None
        self._store.restore(fleet, rows)
        return fleet

    def _known(self) -> dict[str, Fleet | Absent]:
        """All fleets of the run, by token."""
        known: dict[str, Fleet | Absent] = dict(self._fleets)
        return known | self._absent

    def _fleet(self, token: str) -> Fleet:
        if (absent := self._absent.get(token)) is not None:
            if absent.status == "gone":
                raise NotReady(RESTORING)
            raise Conflict(f"fleet-token: '{token}' has detached; attach without a token")
        if token not in self._fleets:
            raise NotFound(f"fleet-token: '{token}' is unknown to this run; attach without a token")
        return self._fleets[token]

    @staticmethod
    def _check_open(fleet: Fleet) -> None:
        """Raises Conflict for a fleet that has detached, NotReady for one that has to attach again first."""
        if fleet.status == "finished":
            raise Conflict("fleet-token: this fleet has detached")
        if fleet.broken:
            raise NotReady(RESTORING)

    # --- results ---

    def nmse(
        self,
        model: str | None = None,
        ue: int | None = None,
        window_s: float | None = None,
        *,
        by_version: bool = False,
        whole_run: bool = False,
        cells: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Figures per scheme (and version) and overall, of UEs that were attached since this process began or, with
        `whole_run`, of all; or of one UE; or of `cells`, runs of the store, as it has them. Raises NotFound,
        InvalidInput.
        """
        if window_s is not None and not 0 < window_s <= LONGEST_WINDOW_S:
            raise InvalidInput(f"window: {window_s} s is not in (0, {LONGEST_WINDOW_S}]")
        if model is not None and not self._repository.loaded(model):
            self._repository.store.versions(model)
        if cells:
            for name, value in (("ue", ue), ("window", window_s)):
                if value is not None:
                    raise InvalidInput(f"{name}: {value}, and cell; wanted one of them, or the gNB of a cell asked")
            names = named_cells(self._store, cells)
            fleets = (fleet for name in names for fleet in stored_fleets(self._store.of(name)))
            rows, overall = stored_figures(fleets, model, by_version=by_version)
            return {**self._now(), "cells": names, "window_s": None, "schemes": rows, "overall": overall}
        if ue is None:
            rows, overall = self._monitor.figures(window_s, model, by_version=by_version, whole_run=whole_run)
            return {**self._now(), "window_s": window_s, "schemes": rows, "overall": overall}
        row = self.ue(ue, window_s)
        if model not in (None, row["scheme"]):
            raise NotFound(f"ue: {ue} runs {row['scheme']}, not {model}")
        return {**self._now(), "window_s": window_s, "schemes": [row], "overall": None}

    def _now(self) -> dict[str, Any]:
        """Whose figures they are, and when."""
        return {"cell": self._store.run, "cells": [self._store.run], "at": time.time()}

    def history(self, window_s: float, since: float = 0.0, cell: str | None = None) -> dict[str, Any]:
        """Figures of the run over a sliding window: now, and at the times of its snapshots after `since` [s since
        1970]; or of `cell`, a run of the store, at the times of its snapshots. Raises NotFound.
        """
        if cell is None:
            snapshots = [*self._store.snapshots(), (time.time(), self._monitor.snapshot())]
        else:
            snapshots = stored_snapshots(self._store, cell)
        return {"cell": cell or self._store.run, "window_s": window_s, **course(snapshots, window_s, since)}

    def cells(self) -> dict[str, Any]:
        """The gNB's own cell, and all that its store has."""
        return {"cell": self._store.run, "cells": listed_cells(self._store)}

    def series(self) -> list[dict[str, Any]]:
        """Figures since the start of the run, in as many rows as the gNB's checkpoints and presets allow."""
        return self._monitor.series()

    def ues(
        self,
        model: str | None = None,
        status: str | None = None,
        offset: int = 0,
        limit: int | None = None,
        *,
        whole_run: bool = False,
    ) -> dict[str, Any]:
        """UEs that were attached since this process began or, with `whole_run`, all of them, by their ids: what their
        NMSE is named with, status, next sequence, decoder version, reports, NMSE and SGCS. `limit` of them from the one
        at `offset` on, and how many there are in `total`.
        """
        rows: list[dict[str, Any]] = []
        total = 0
        for known in sorted(self._known().values(), key=lambda known: known.lease.first_ue):
            if model not in (None, known.lease.model) or status not in (None, known.status):
                continue
            if not whole_run and self._monitor.is_apart(known.lease.token):
                continue
            first, total = max(offset - total, 0), total + known.lease.ue_count
            asked_for = range(known.lease.ue_count)[first : None if limit is None else first + limit - len(rows)]
            if not asked_for:
                continue
            fleet = self._stored(known, asked_for) if isinstance(known, Absent) else known
            described = functools.cache(functools.partial(describe, fleet))
            present = [(fleet.encoder_of(index), fleet.conditions_of(index)) for index in asked_for]
            qualities = ue_qualities(fleet, asked_for, present)
            rows += [
                {
                    "ue": fleet.lease.ues[index],
                    **described(*encoder_and_conditions),
                    "status": fleet.status,
                    "next_sequence": int(fleet.next_sequence[index]),
                    "decoder_version": int(fleet.version[index]),
                    "assigned_version": int(fleet.assigned[index]) or None,
                    "switch": "asked" if fleet.problem is None else fleet.problem,
                    "reports": int(sum(totals.sums[index, :-1, 0].sum() for totals in list(fleet.totals.values()))),
                    "dropped": int(fleet.dropped[index]),
                    **quality,
                    "offered_reports_per_s": fleet.offered_per_s if fleet.attached else None,
                    "rate_held": fleet.watch.held if fleet.attached and fleet.watch else None,
                }
                for index, encoder_and_conditions, quality in zip(asked_for, present, qualities, strict=True)
            ]
        return {"ues": rows, "total": total}

    def ue(self, ue: int, window_s: float | None = None) -> dict[str, Any]:
        """Figures of one UE, in total or of its kept reports of the last `window_s` seconds. Raises NotFound."""
        fleet = self._fleet_of(ue)
        return ue_row(fleet, ue, self._store.reports(ue), window_s)

    def reports(self, ue: int, limit: int) -> dict[str, Any]:
        """The newest kept reports of a UE, ascending, and what their NMSE is named with. Raises NotFound."""
        fleet = self._fleet_of(ue)
        kept = self._store.reports(ue, limit=limit)
        return {"ue": ue, **self._described(fleet, ue), "reports": report_rows(fleet, kept)}

    def channel(self, ue: int) -> dict[str, Any]:
        """The newest report of a UE since it was first asked for beside the true channel, as magnitudes; `report` is
        None until there is one. Raises NotFound.
        """
        fleet = self._fleet_of(ue)
        newest = self._snapshots.ask(ue)
        report = None if newest is None else newest.to_json()
        return {"ue": ue, "status": fleet.status, **self._described(fleet, ue), "report": report}

    def export(self, selection: Selection) -> Export:
        """Kept reports of many UEs, to be written as a table."""
        return Export(self._store, selection)

    @staticmethod
    def _described(fleet: Fleet, ue: int) -> dict[str, Any]:
        """What the newest reports of a UE are to be named with."""
        row = ue - fleet.lease.first_ue
        return describe(fleet, fleet.encoder_of(row), fleet.conditions_of(row))

    def _fleet_of(self, ue: int) -> Fleet:
        known = self._known_of(ue)
        row = ue - known.lease.first_ue
        return self._stored(known, range(row, row + 1)) if isinstance(known, Absent) else known

    def _known_of(self, ue: int) -> Fleet | Absent:
        for known in self._known().values():
            if ue in known.lease.ues:
                return known
        raise NotFound(f"ue: {ue} is unknown; /v1/ues lists them")

    # --- monitoring ---

    def alarms(self) -> dict[str, Any]:
        """Alarms, the newest first, what is watched, and whether the alarms were right, which no gNB could know."""
        return {"alarms": [], "watched": []} if self._monitoring is None else self._monitoring.describe()

    def undecodable(self) -> dict[tuple[str, int], int]:
        """Reports that were refused since each ended the process that decoded it, by model and version."""
        return self._serving.undecodable()

    def alarm_counts(self) -> dict[tuple[str, int, str], tuple[int, int]]:
        """How many alarms were raised, and how many are on, by model, version and indicator."""
        return {} if self._monitoring is None else self._monitoring.watch.alarms.counts()

    # --- models ---

    def events(self, after: int, limit: int) -> list[dict[str, Any]]:
        """What happened to models: the newest events above number `after`, at most `limit`, ascending."""
        return self._store.events(after, limit)

    def uploaded(self, name: str, version: int, by: str) -> None:
        """Note that a version was uploaded."""
        self._store.keep_event("uploaded", name, str(version), by, "not loaded")

    def model(self, name: str, version: int | None = None) -> dict[str, Any]:
        """Metadata of a model: versions, and the card of one, by default the one loaded last.

        Raises:
            NotFound, InvalidInput, DamagedCheckpoint.
        """
        versions = self._repository.store.versions(name)
        loaded = self._repository.loaded(name)
        version = self._repository.version_to_load(name, version)
        card = self._repository.store.card(name, version)
        return {
            "name": name,
            "versions": [str(v) for v in versions],
            "platform": "csiemu_torch",
            "inputs": [{"name": "payload", "datatype": "UINT8", "shape": [-1, -(-card["feedback_bits"] // 8)]}],
            "outputs": [{"name": "channel", "datatype": "FP32", "shape": [-1, *_estimate_shape(card), 2]}],
            "parameters": {
                "loaded": [str(v) for v in loaded],
                "precision": precision_for(card, self._repository.precision),
                "target": self.swaps.target_version(name),
                "version": str(version),
                "ues": self.swaps.ues(name),
                "card": card,
            },
        }

    def model_ready(self, name: str, version: int | None = None) -> bool:
        """Whether a model (version) is loaded. Raises NotFound, InvalidInput."""
        versions = self._repository.loaded(name)
        if versions and version in (None, *versions):
            return True  # whatever has become of its files
        if version is not None:
            self._repository.store.folder(name, version)
        self._repository.store.versions(name)
        return False

    def index(self) -> list[dict[str, Any]]:
        """The repository's versions and their states."""
        return self._repository.index()


def _estimate_shape(card: dict[str, Any]) -> list[int]:
    """Of one estimate, without real and imaginary part."""
    scenario = Scenario.parse(card["scenario"])
    domain = scheme_class(card["scheme"]).domain
    if domain == "spatial":
        return [scenario.antennas]
    world = require_wideband(scenario, card["scheme"])
    return [world.subbands if domain == "precoder" else len(world.rows()), scenario.antennas]
