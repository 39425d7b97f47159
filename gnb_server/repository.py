"""The gNB's models: which versions are loaded, and which one decodes new frames of which encoder.

A version is a decoder: the gNB loads no encoder, and checks the decoder by the probe in its card, which needs neither
the encoder nor the downlink.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from gnb_server.sessions import VersionFacts
from shared.checkpoints import CheckpointStore
from shared.errors import Conflict, DamagedCheckpoint, NotFound
from shared.link.payload import PayloadLayout
from shared.link.probe import check_probe
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
    """Loaded versions of a name; for each encoder the one that decodes its new frames; the one loaded last."""

    loaded: dict[int, ModelVersion] = field(default_factory=dict)
    serving: dict[str, int] = field(default_factory=dict)
    newest: int = 0


class Repository:
    """Loaded decoders by name and version. Safe to use from any thread."""

    def __init__(self, store: CheckpointStore) -> None:
        self.store = store
        self._models: dict[str, _Model] = {}
        self._lock = threading.RLock()

    def load(self, name: str, version: int | None = None) -> ModelVersion:
        """Load (again) a version, check it, and decode new frames of its encoder with it. Open frames finish on theirs.

        Args:
            version: default: the one loaded last, or the first.

        Raises:
            NotFound, InvalidInput: no such model, version or name. DamagedCheckpoint: files, card and probe do not fit.
        """
        found = verified(self.store, name, self.version_to_load(name, version))
        with self._lock:
            model = self._models.setdefault(name, _Model())
            before = model.loaded.get(found.version)
            if before is not None and (before.sha256, before.encoder_id) == (found.sha256, found.encoder_id):
                found = before  # open frames go on with their states
            model.loaded[found.version] = found
            model.serving[found.encoder_id] = model.newest = found.version
        return found

    def version_to_load(self, name: str, version: int | None) -> int:
        """`version`, or the one loaded last, or the first. Raises NotFound, InvalidInput."""
        with self._lock:
            if version is None and name in self._models:
                return self._models[name].newest
        return self.store.versions(name)[0] if version is None else version

    def unload(self, name: str, version: int | None = None) -> None:
        """Forget a version, or all of a name; no open frame may use it any more. Raises NotFound, Conflict."""
        with self._lock:
            if name not in self._models:
                loaded = ", ".join(sorted(self._models)) or "none"
                raise NotFound(f"model: '{name}' is not loaded; loaded are {loaded}")
            model = self._models[name]
            if version is None:
                del self._models[name]
            elif version not in model.loaded:
                raise NotFound(f"version: {name}/{version} is not loaded; loaded are {sorted(model.loaded)}")
            elif version in model.serving.values():
                raise Conflict(f"version: {name}/{version} serves new frames; load another version first")
            else:
                del model.loaded[version]

    def for_encoder(self, name: str, encoder_id: str) -> ModelVersion:
        """The version that decodes new frames of an encoder, loading the first that can if none is loaded.

        Raises:
            Conflict: no version of the model decodes for it. NotFound, InvalidInput, DamagedCheckpoint: as `load`.
        """
        with self._lock:
            model = self._models.get(name)
            if model is not None and encoder_id in model.serving:
                return model.loaded[model.serving[encoder_id]]
        known = {version: self.store.card(name, version)["encoder_id"] for version in self.store.versions(name)}
        for version, served in known.items():
            if served == encoder_id:
                return self.load(name, version)
        decoded = ", ".join(dict.fromkeys(known.values()))
        raise Conflict(f"encoder_id: {encoder_id or 'empty'}; the versions of {name} decode for {decoded}")

    def version(self, name: str, version: int) -> ModelVersion:
        """A certain version, loading it if it is not (after a restart). Raises as `load`."""
        with self._lock:
            model = self._models.get(name)
            if model is not None and version in model.loaded:
                return model.loaded[version]
        found = verified(self.store, name, version)
        with self._lock:
            model = self._models.setdefault(name, _Model(newest=version))
            model.serving.setdefault(found.encoder_id, version)
            model.loaded[version] = found
        return found

    def loaded(self, name: str) -> list[int]:
        """Loaded versions of a name, ascending; empty if none."""
        with self._lock:
            return sorted(self._models[name].loaded) if name in self._models else []

    def serving(self, name: str) -> list[int]:
        """Versions that decode new frames, one for each encoder."""
        with self._lock:
            return sorted(self._models[name].serving.values()) if name in self._models else []

    def index(self) -> list[dict[str, Any]]:
        """Every version in the repository: name, version, state and reason (Open Inference Protocol). So is what cannot
        be one, without a version where it is no folder of versions.
        """
        rows, problems = [], self.store.problems()
        for name in self.store.names():
            loaded, serving = self.loaded(name), self.serving(name)
            for version in self.store.versions(name):
                state = "READY" if version in loaded else "UNAVAILABLE"
                reason = problems.pop((name, str(version)), "" if loaded else "not loaded")
                reason = "serves new frames" if version in serving else reason
                rows.append({"name": name, "version": str(version), "state": state, "reason": reason})
        for (name, other), reason in problems.items():
            rows.append({"name": name, "version": other, "state": "UNAVAILABLE", "reason": reason})
        return rows


def verified(store: CheckpointStore, name: str, version: int) -> ModelVersion:
    """Load a checkpoint's decoder and check it by its probe. Raises as `CheckpointStore.load`."""
    checkpoint = store.load(name, version, ("decoder",))
    try:
        check_probe(checkpoint.scheme, checkpoint.card.get("probe", {}))
    except DamagedCheckpoint as error:
        raise DamagedCheckpoint(f"checkpoint {name}/{version}: {error}") from error
    return ModelVersion(
        name,
        version,
        checkpoint.encoder_id,
        checkpoint.scheme.layout,
        checkpoint.scheme,
        checkpoint.card["sha256"]["decoder"],
    )
