"""The gNB's models: which versions are loaded, and which one decodes new frames of which encoder.

A version is a decoder: the gNB loads no encoder, and checks the decoder by the probe in its card, which needs neither
the encoder nor the downlink. It is in one of three states:

    available   in the repository; UEs whose encoder it decodes for get it loaded when they come
    loaded      decodes frames; new ones, if no other version for the same encoder was loaded after it
    blocked     unloaded by request, or could not be loaded again at a restart: UEs that need it are refused

    event                          available   loaded      blocked
    load V                         loaded      loaded      loaded
    UEs of its encoder come        loaded      -           refused
    unload V                       refused     blocked     refused     (refused while V serves new frames)
    unload the model               blocked     blocked     blocked     (refused while UEs need it)
    nothing needs V any more       -           available   -           (once all UEs are to use another version)
    restart                        available   loaded      blocked     (all of a model, if one of it fails to load)
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gnb_server.openvino import TOLERANCE, Backend, use_openvino
from gnb_server.sessions import VersionFacts
from shared.checkpoints import CheckpointStore
from shared.errors import Conflict, CsiError, DamagedCheckpoint, NotFound
from shared.link.decoding import check_probe
from shared.link.payload import PayloadLayout
from shared.link.precision import Precision, precision_for
from shared.schemes import Scheme


@dataclass(frozen=True)
class ModelVersion:
    """A loaded decoder.

    Attributes:
        name, version: where it stands in the repository.
        encoder_id: of the encoder whose reports it decodes, 16 hexadecimal digits.
        layout: of these reports.
        scheme: with its decoder alone.
        sha256: of the decoder's file.
    """

    name: str
    version: int
    encoder_id: str
    layout: PayloadLayout
    scheme: Scheme
    sha256: str

    @property
    def facts(self) -> VersionFacts:
        """What its figures are named with."""
        return VersionFacts(self.encoder_id, self.layout.bits, self.scheme.domain)


@dataclass
class _Model:
    """Loaded versions of a name; for each encoder the one that decodes its new frames; the one that was asked for last,
    or else came with UEs; blocked versions, with the reason.
    """

    loaded: dict[int, ModelVersion] = field(default_factory=dict)
    serving: dict[str, int] = field(default_factory=dict)
    newest: int | None = None
    blocked: dict[int, str] = field(default_factory=dict)


class Repository:
    """Loaded decoders by name and version; in bfloat16 if that is wanted and their cards allow it. Safe to use from any
    thread.

    Args:
        hold: has who decodes hold a version, before it counts as loaded; raises DamagedCheckpoint if that cannot be.
        free: has them hold it no more.
    """

    def __init__(
        self,
        store: CheckpointStore,
        precision: Precision = "fp32",
        hold: Callable[[ModelVersion], None] = lambda model: None,
        free: Callable[[str, int], None] = lambda name, version: None,
        backend: Backend = "torch",
    ) -> None:
        self.store = store
        self.precision = precision
        self._backend = backend
        self._hold = hold
        self._free = free
        self._models: dict[str, _Model] = {}
        self._lock = threading.RLock()

    def load(self, name: str, version: int | None = None, *, serve: bool = True) -> ModelVersion:
        """Load (again) a version, check it, and decode new frames of its encoder with it. Open frames finish on theirs.

        Args:
            version: default: the one loaded last, or the first.
            serve: if not, only UEs that are assigned the version use it.

        Raises:
            NotFound, InvalidInput: no such model, version or name. DamagedCheckpoint: files, card and probe do not fit.
        """
        found = verified(self.store, name, self.version_to_load(name, version), self.precision, self._backend)
        with self._lock:
            model = self._models.setdefault(name, _Model())
            before = model.loaded.get(found.version)
            if before is not None and (before.sha256, before.encoder_id) == (found.sha256, found.encoder_id):
                found = before  # open frames go on with their states
        self._hold(found)
        with self._lock:
            model.loaded[found.version] = found
            model.blocked.pop(found.version, None)
            if serve:
                self.serve(found)
        return found

    def serve(self, found: ModelVersion) -> None:
        """Decode new frames of its encoder with a loaded version, whatever has become of its files."""
        with self._lock:
            model = self._models[found.name]
            model.loaded[found.version] = found
            model.serving[found.encoder_id] = model.newest = found.version

    def version_to_load(self, name: str, version: int | None) -> int:
        """`version`, or the one loaded last, or the first. Raises NotFound, InvalidInput."""
        with self._lock:
            newest = self._models[name].newest if name in self._models else None
            if version is None and newest is not None:
                return newest
        return self.store.versions(name)[0] if version is None else version

    def unload(self, name: str, version: int | None = None) -> list[int]:
        """Forget a version, or all of a name, and block them; no open frame may use them any more.

        Returns:
            The versions that are blocked by it.

        Raises:
            NotFound: there is nothing to unload. Conflict: the version serves new frames.
        """
        with self._lock:
            model = self._models.get(name, _Model())
            if version is not None and version not in model.loaded:
                raise NotFound(f"version: {name}/{version} is not loaded; loaded are {sorted(model.loaded)}")
            if version is not None and version in model.serving.values():
                raise Conflict(f"version: {name}/{version} serves new frames; load another version first")
            if not model.loaded:
                loaded = ", ".join(sorted(name for name, other in self._models.items() if other.loaded)) or "none"
                raise NotFound(f"model: '{name}' is not loaded; loaded are {loaded}")
            return self.block(name, "unloaded", version)

    def block(self, name: str, reason: str, version: int | None = None) -> list[int]:
        """Let a version, or all of a name, serve nobody until it is loaded again. Returns those versions."""
        with self._lock:
            model = self._models.setdefault(name, _Model())
            blocked = sorted({*self._on_disk(name), *model.loaded}) if version is None else [version]
            for number in blocked:
                if model.loaded.pop(number, None) is not None:
                    self._free(name, number)
                model.blocked[number] = reason
            if version is None:
                model.serving.clear()
            return blocked

    def retire(self, name: str, version: int) -> None:
        """Free a version that nothing needs; it is loaded again should UEs of its encoder come."""
        with self._lock:
            model = self._models[name]
            if model.loaded.pop(version, None) is not None:
                self._free(name, version)
            model.serving = {encoder: number for encoder, number in model.serving.items() if number != version}

    def serving(self, name: str) -> dict[str, int]:
        """The version that decodes new frames of each encoder, unless their UEs are assigned another one."""
        with self._lock:
            return dict(self._models[name].serving) if name in self._models else {}

    def newest(self, name: str) -> int | None:
        """The version that was loaded last; None if none is."""
        with self._lock:
            model = self._models.get(name, _Model())
            return model.newest if model.newest in model.loaded else None

    def names(self) -> list[str]:
        """Models that have loaded versions."""
        with self._lock:
            return [name for name, model in self._models.items() if model.loaded]

    def for_encoder(self, name: str, encoder_id: str) -> ModelVersion:
        """The version that decodes new frames of an encoder, loading the first that can if none is loaded.

        Raises:
            Conflict: no version of the model decodes for it, or those that do are blocked. NotFound, InvalidInput,
                DamagedCheckpoint: as `load`.
        """
        with self._lock:
            model = self._models.get(name, _Model())
            if encoder_id in model.serving:
                return model.loaded[model.serving[encoder_id]]
            blocked = dict(model.blocked)
        known: dict[int, str] = {}
        damaged: list[CsiError] = []
        for version in self.store.versions(name):
            try:
                known[version] = self.store.card(name, version)["encoder_id"]
            except (DamagedCheckpoint, NotFound) as error:  # the others are none the worse for it
                damaged.append(error)
        fitting = [version for version, served in known.items() if served == encoder_id]
        for version in fitting:
            if version not in blocked:
                try:
                    return self._begin(self.load(name, version, serve=False))
                except (DamagedCheckpoint, NotFound) as error:  # being copied, or taken away
                    damaged.append(error)
        for version in fitting:
            if version in blocked:
                state = blocked[version]
                raise Conflict(
                    f"model: {name}/{version} decodes for encoder {encoder_id}, but is {state}; load it first"
                )
        if damaged:
            raise damaged[0]
        decoded = ", ".join(dict.fromkeys(known.values()))
        raise Conflict(f"encoder_id: {encoder_id or 'empty'}; the versions of {name} decode for {decoded}")

    def _begin(self, found: ModelVersion) -> ModelVersion:
        """Decode new frames of its encoder with a version that nobody asked for, but UEs came with or switched to."""
        with self._lock:
            model = self._models[found.name]
            model.serving[found.encoder_id] = found.version
            if model.newest not in model.loaded:
                model.newest = found.version
        return found

    def version(self, name: str, version: int) -> ModelVersion:
        """A certain version, loading it if it is not (after a restart). Raises as `load`."""
        with self._lock:
            model = self._models.get(name)
            if model is not None and version in model.loaded:
                return model.loaded[version]
            if model is not None and version in model.blocked:
                raise Conflict(f"model: {name}/{version} is {model.blocked[version]}; load it first")
        found = verified(self.store, name, version, self.precision, self._backend)
        self._hold(found)
        with self._lock:
            model = self._models.setdefault(name, _Model())
            model.loaded[version] = found
        return found

    def loaded(self, name: str) -> list[int]:
        """Loaded versions of a name, ascending; empty if none."""
        with self._lock:
            return sorted(self._models[name].loaded) if name in self._models else []

    def index(self) -> list[dict[str, Any]]:
        """Every version in the repository: name, version, state and reason (Open Inference Protocol). So is what cannot
        be one, without a version where it is no folder of versions.
        """
        with self._lock:
            models = {
                name: (set(m.loaded), set(m.serving.values()), dict(m.blocked)) for name, m in self._models.items()
            }
        rows, problems = [], self.store.problems()
        for name in sorted({*self.store.names(), *(name for name, (loaded, _, _) in models.items() if loaded)}):
            loaded, serving, blocked = models.get(name, (set(), set(), {}))
            on_disk = self._on_disk(name)
            for version in sorted({*on_disk, *loaded}):
                problem = problems.pop((name, str(version)), None)
                problem = problem or (self._fault(name, version) if version in on_disk else "has gone")
                reasons = [blocked.get(version), problem]
                if version in loaded:
                    reasons = ["serves new frames" if version in serving else None, problem and f"on disk: {problem}"]
                elif not any(reasons):
                    reasons = ["not loaded"]
                rows.append(
                    {
                        "name": name,
                        "version": str(version),
                        "state": "READY" if version in loaded else "UNAVAILABLE",
                        "reason": "; ".join(filter(None, reasons)),
                    }
                )
        for (name, other), reason in problems.items():
            rows.append({"name": name, "version": other, "state": "UNAVAILABLE", "reason": reason})
        return rows

    def _on_disk(self, name: str) -> list[int]:
        """Versions that have a folder with a card, ascending; none if that of the name has gone."""
        try:
            return self.store.versions(name)
        except NotFound:
            return []

    def _fault(self, name: str, version: int) -> str | None:
        """What is wrong with the files of a version whose card can be read; the encoder is the UEs' to load."""
        try:
            if reason := self.store.fault(name, version, "decoder"):
                return reason
            reason = self.store.fault(name, version, "encoder")
            return reason and f"{reason}: UEs cannot fetch it"
        except CsiError as error:  # it went, or changed, while we looked
            return str(error)


def verified(
    store: CheckpointStore, name: str, version: int, precision: Precision = "fp32", backend: Backend = "torch"
) -> ModelVersion:
    """Load a checkpoint's decoder, check it by its probe (in float32), and have it compute in `precision` if its card
    allows it, and by `backend` as far as that can. Raises as `CheckpointStore.load`.
    """
    checkpoint = store.load(name, version, ("decoder",))
    try:
        check_probe(checkpoint.scheme, checkpoint.card.get("probe", {}))
    except DamagedCheckpoint as error:
        raise DamagedCheckpoint(f"checkpoint {name}/{version}: {error}") from error
    if backend == "openvino":
        difference = use_openvino(checkpoint.scheme, checkpoint.card["probe"])
        if difference is not None and difference > TOLERANCE:
            logging.warning("%s/%d: OpenVINO's estimates differ by %.1g, torch's are used", name, version, difference)
    checkpoint.scheme.precision = precision_for(checkpoint.card, precision)
    return ModelVersion(
        name,
        version,
        checkpoint.encoder_id,
        checkpoint.scheme.layout,
        checkpoint.scheme,
        checkpoint.card["sha256"]["decoder"],
    )
