"""What the gNB can be asked to do, without any protocol: gRPC and REST are skins over these. All calls are blocking."""

from __future__ import annotations

import secrets
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from gnb_server.evaluator import Evaluator
from gnb_server.monitor import LONGEST_WINDOW_S, Monitor, describe, report_rows, ue_row
from gnb_server.pipeline import Ack, Chunk, Pipeline
from gnb_server.repository import Repository
from gnb_server.sessions import Fleet, Lease
from gnb_server.store import Store
from shared.channels.scenario import Scenario
from shared.channels.wideband import require_wideband
from shared.checkpoints import Checkpoint
from shared.errors import Conflict, CsiError, InvalidInput, NotFound, NotReady
from shared.schemes import scheme_class

MAX_FLEET = 65_536
MAX_DELAY = 1024


@dataclass(frozen=True)
class Attachment:
    """An attach request; fields as in `AttachRequest`, encoder_id in hexadecimal, `ue_base` None if left open."""

    scheme: str
    scenario: str
    seed: int
    encoder_id: str
    ue_count: int
    ue_base: int | None = None
    delay: int = 0
    token: str = ""


class Handlers:
    """The gNB's service."""

    def __init__(
        self, repository: Repository, store: Store, monitor: Monitor, evaluator: Evaluator, pipeline: Pipeline
    ) -> None:
        self._repository = repository
        self._store = store
        self._monitor = monitor
        self._evaluator = evaluator
        self._pipeline = pipeline
        self._fleets: dict[str, Fleet] = {}
        self._lock = threading.RLock()
        self.ready = False

    def restore(self) -> list[str]:
        """Bring back the leases of an earlier process of this run, with their totals. Returns what could not be."""
        problems = []
        for name, version in self._store.serving().items():
            try:
                self._repository.load(name, version)
            except CsiError as error:
                problems.append(f"{name}/{version}: {error}")
        for lease, finished in self._store.leases():
            try:
                fleet = self._from_store(lease)
            except CsiError as error:
                problems.append(f"{lease.scheme} UEs {lease.first_ue}..{lease.first_ue + lease.ue_count - 1}: {error}")
                continue
            fleet.status = "finished" if finished else "gone"
        return problems

    # --- UEs ---

    def attach(self, request: Attachment) -> Fleet:
        """Lease ids to a fleet, or give it back its lease.

        Raises:
            InvalidInput, NotFound, Conflict, DamagedCheckpoint: see `CsiFeedback.Attach` in the proto file.
        """
        if not self.ready:
            raise NotReady("gNB: is starting")
        scenario = Scenario.parse(request.scenario)
        if not 1 <= request.ue_count <= MAX_FLEET:
            raise InvalidInput(f"ue_count: {request.ue_count} is not in [1, {MAX_FLEET}]")
        if not 0 <= request.delay <= MAX_DELAY:
            raise InvalidInput(f"delay_slots: {request.delay} is not in [0, {MAX_DELAY}]")
        checkpoint = self._repository.serving(request.scheme)
        _check_encoder(checkpoint, request.encoder_id)
        checkpoint.scheme.check_scenario(scenario, request.delay)
        with self._lock:
            if request.token:
                return self._return_to_lease(request, scenario)
            first_ue = self._store.next_free_ue() if request.ue_base is None else request.ue_base
            if first_ue + request.ue_count > 2**32:
                raise InvalidInput(f"ue_base: {first_ue} + {request.ue_count} ids go beyond 2^32")
            lease = Lease(
                token=secrets.token_hex(8),
                scheme=request.scheme,
                scenario=scenario,
                seed=request.seed,
                encoder_id=request.encoder_id,
                first_ue=first_ue,
                ue_count=request.ue_count,
                delay=request.delay,
            )
            self._store.lease(lease)
            fleet = Fleet(lease, checkpoint.scheme.layout, checkpoint.scheme.domain)
            self._fleets[fleet.token] = fleet
            self._monitor.watch(fleet)
            return fleet

    def open_stream(self, token: str) -> tuple[Fleet, int]:
        """Begin a fleet's stream, ending its earlier ones. Returns the fleet and the number. Raises NotFound."""
        with self._lock:
            fleet = self._fleet(token)
            if fleet.status == "finished":
                raise Conflict("fleet-token: this fleet has detached")
            if fleet.broken:
                raise NotReady("fleet: its state is being restored; attach again with its token")
            fleet.stream += 1
            fleet.status = "attached"
            return fleet, fleet.stream

    def submit(self, fleet: Fleet, stream: int, chunk: Chunk) -> Future[Ack]:
        """Queue a chunk of a stream. The future raises as `CsiFeedback.Feedback` says. Raises Conflict when fenced."""
        if fleet.broken:
            raise NotReady("fleet: its state is being restored; attach again with its token")
        if fleet.status == "finished":
            raise Conflict("fleet-token: this fleet has detached")
        if stream != fleet.stream:
            raise Conflict("fleet-token: a newer stream of this fleet has taken over")
        return self._pipeline.submit(fleet, chunk)

    def close_stream(self, fleet: Fleet, stream: int) -> None:
        """The stream ended; without an earlier detach the fleet's UEs are gone."""
        with self._lock:
            if stream == fleet.stream and fleet.status == "attached":
                fleet.status = "gone"

    def detach(self, token: str) -> None:
        """End a fleet. Raises NotFound."""
        with self._lock:
            fleet = self._fleet(token)
            fleet.status = "finished"
            self._store.finish(token)

        def free() -> None:
            self._evaluator.forget(fleet)
            fleet.open.side.clear()
            fleet.open.state.clear()

        self._pipeline.call(free)

    def _return_to_lease(self, request: Attachment, scenario: Scenario) -> Fleet:
        fleet = self._fleet(request.token)
        lease = fleet.lease
        for name, asked, leased in (
            ("scheme", request.scheme, lease.scheme),
            ("scenario", scenario, lease.scenario),
            ("seed", request.seed, lease.seed),
            ("encoder_id", request.encoder_id, lease.encoder_id),
            ("ue_count", request.ue_count, lease.ue_count),
            ("ue_base", lease.first_ue if request.ue_base is None else request.ue_base, lease.first_ue),
            ("delay_slots", request.delay, lease.delay),
        ):
            if asked != leased:
                raise Conflict(f"{name}: {asked}; the lease of this token has {leased}")
        if fleet.status == "finished":
            raise Conflict(f"token: '{request.token}' has detached; attach without a token")
        if fleet.broken:
            fleet = self._from_store(lease)
            self._pipeline.call(lambda: self._pipeline.rebuild(fleet)).result()
            fleet.broken = False
        fleet.stream += 1  # nothing that an earlier stream still has in flight is taken from now on
        # what it had in flight before is in the queue ahead of this, so that next_sequence is final afterwards
        self._pipeline.call(lambda: None).result()
        return fleet

    def _from_store(self, lease: Lease) -> Fleet:
        """A fleet as the store has it, broken: the states of its open frames are not decoded again yet."""
        scheme = self._repository.for_encoder(lease.scheme, lease.encoder_id).scheme
        fleet = Fleet(lease, scheme.layout, scheme.domain)
        fleet.broken = True
        self._store.restore(fleet)
        self._fleets[fleet.token] = fleet
        self._monitor.watch(fleet)
        return fleet

    def _fleet(self, token: str) -> Fleet:
        if token not in self._fleets:
            raise NotFound(f"fleet-token: '{token}' is unknown to this run; attach without a token")
        return self._fleets[token]

    # --- results ---

    def nmse(self, scheme: str | None = None, ue: int | None = None, window_s: float | None = None) -> dict[str, Any]:
        """Figures per scheme and overall, or of one UE. Raises NotFound, InvalidInput."""
        if window_s is not None and not 0 < window_s <= LONGEST_WINDOW_S:
            raise InvalidInput(f"window: {window_s} s is not in (0, {LONGEST_WINDOW_S}]")
        if scheme is not None:
            self._repository.store.versions(scheme)
        if ue is None:
            rows, overall = self._monitor.figures(window_s, scheme)
            return {"window_s": window_s, "schemes": rows, "overall": overall}
        row = self.ue(ue, window_s)
        if scheme not in (None, row["scheme"]):
            raise NotFound(f"ue: {ue} runs {row['scheme']}, not {scheme}")
        return {"window_s": window_s, "schemes": [row], "overall": None}

    def ues(self, scheme: str | None = None, status: str | None = None) -> list[dict[str, Any]]:
        """Every UE: id, what its NMSE is named with, status, next sequence, decoder version, reports."""
        return [
            {
                "ue": fleet.first_ue + index,
                **about,
                "status": fleet.status,
                "next_sequence": int(fleet.next_sequence[index]),
                "decoder_version": int(fleet.version[index]),
                "reports": int(fleet.sums[index, :-1, 0].sum()),
            }
            for fleet in list(self._fleets.values())
            if scheme in (None, fleet.lease.scheme) and status in (None, fleet.status)
            for about in (describe(fleet),)
            for index in range(fleet.ue_count)
        ]

    def ue(self, ue: int, window_s: float | None = None) -> dict[str, Any]:
        """Figures of one UE, in total or of its kept reports of the last `window_s` seconds. Raises NotFound."""
        fleet = self._fleet_of(ue)
        return ue_row(fleet, ue, self._store.reports(ue), window_s)

    def reports(self, ue: int, limit: int) -> dict[str, Any]:
        """The newest kept reports of a UE, ascending, and what their NMSE is named with. Raises NotFound."""
        fleet = self._fleet_of(ue)
        kept = self._store.reports(ue, limit=limit)
        return {"ue": ue, **describe(fleet), "reports": report_rows(fleet, kept)}

    def _fleet_of(self, ue: int) -> Fleet:
        for fleet in list(self._fleets.values()):
            if ue in fleet.ues:
                return fleet
        raise NotFound(f"ue: {ue} is unknown; /v1/ues lists them")

    # --- models ---

    def model(self, name: str, version: int | None = None) -> dict[str, Any]:
        """Metadata of a model: versions and the card of one. Raises NotFound, InvalidInput, DamagedCheckpoint."""
        versions = self._repository.store.versions(name)
        loaded = self._repository.loaded(name)
        if version is None:
            version = self._repository.serving(name).version if loaded else versions[0]
        card = self._repository.store.card(name, version)
        return {
            "name": name,
            "versions": [str(v) for v in versions],
            "platform": "csiemu_torch",
            "inputs": [{"name": "payload", "datatype": "UINT8", "shape": [-1, -(-card["feedback_bits"] // 8)]}],
            "outputs": [{"name": "channel", "datatype": "FP32", "shape": [-1, *_estimate_shape(card), 2]}],
            "parameters": {"loaded": [str(v) for v in loaded], "version": str(version), "card": card},
        }

    def model_ready(self, name: str, version: int | None = None) -> bool:
        """Whether a model (version) is loaded. Raises NotFound, InvalidInput."""
        if version is not None:
            self._repository.store.folder(name, version)
        versions = self._repository.loaded(name) if self._repository.store.versions(name) else []
        return bool(versions) if version is None else version in versions

    def index(self) -> list[dict[str, Any]]:
        """The repository's versions and their states."""
        return self._repository.index()

    def load(self, name: str, version: int | None = None) -> Checkpoint:
        """Load a version and decode new frames with it.

        Raises:
            Conflict: UEs of this model are attached with another encoder. NotFound, InvalidInput, DamagedCheckpoint.
        """
        card = self._repository.store.card(name, self._repository.version_to_load(name, version))
        with self._lock:
            for fleet in self._fleets.values():
                used = fleet.lease.encoder_id
                if (fleet.lease.scheme, fleet.status) == (name, "attached") and used != card["encoder_id"]:
                    raise Conflict(
                        f"version: {name}/{card['version']} decodes for encoder {card['encoder_id']}, attached UEs"
                        f" {fleet.ues.start}..{fleet.ues.stop - 1} encode with {used}"
                    )
        checkpoint = self._repository.load(name, version)
        self._store.keep_serving(name, checkpoint.version)
        return checkpoint

    def unload(self, name: str, version: int | None = None) -> None:
        """Forget a model or one version. Raises NotFound, and Conflict while UEs need it."""
        with self._lock:
            for fleet in self._fleets.values():
                if fleet.lease.scheme == name and fleet.status == "attached":
                    within = fleet.next_sequence % fleet.scenario.slots > 0
                    if version is None or (fleet.version[within] == version).any():
                        raise Conflict(
                            f"model: {name} is decoding for UEs {fleet.ues.start}..{fleet.ues.stop - 1}; it can be"
                            " unloaded when they have detached"
                        )
            self._repository.unload(name, version)


def _check_encoder(checkpoint: Checkpoint, encoder_id: str) -> None:
    if encoder_id != checkpoint.encoder_id:
        raise Conflict(
            f"encoder_id: {encoder_id or 'empty'}; {checkpoint.name}/{checkpoint.version} decodes for"
            f" {checkpoint.encoder_id}"
        )


def _estimate_shape(card: dict[str, Any]) -> list[int]:
    """Of one estimate, without real and imaginary part."""
    scenario = Scenario.parse(card["scenario"])
    if scheme_class(card["scheme"]).domain == "spatial":
        return [scenario.antennas]
    return [len(require_wideband(scenario, card["scheme"]).rows()), scenario.antennas]
