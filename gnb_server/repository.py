"""The gNB's models: which checkpoint versions are loaded and which one new frames are decoded with."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from shared.checkpoints import Checkpoint, CheckpointStore
from shared.errors import Conflict, DamagedCheckpoint, NotFound
from shared.link.evaluation import evaluate

PROBE_TOLERANCE_DB = 0.05
"""How far the probe's figure may be from the card's: kernels differ between machines, single sign bits with them."""


@dataclass
class _Model:
    loaded: dict[int, Checkpoint]
    serving: int


class Repository:
    """Loaded decoders by name and version. Safe to use from any thread."""

    def __init__(self, store: CheckpointStore) -> None:
        self.store = store
        self._models: dict[str, _Model] = {}
        self._lock = threading.RLock()

    def load(self, name: str, version: int | None = None) -> Checkpoint:
        """Load (again) a version, check it, and serve new frames with it. Open frames finish on their version.

        Args:
            version: default: the one in service, or the first.

        Raises:
            NotFound, InvalidInput: no such model, version or name. DamagedCheckpoint: files and card do not fit.
            Conflict: reports that are being sent were encoded for another encoder.
        """
        checkpoint = verified(self.store, name, self.version_to_load(name, version))
        with self._lock:
            model = self._models.setdefault(name, _Model({}, checkpoint.version))
            model.loaded[checkpoint.version] = checkpoint
            model.serving = checkpoint.version
        return checkpoint

    def version_to_load(self, name: str, version: int | None) -> int:
        """`version`, or the one in service, or the first. Raises NotFound, InvalidInput."""
        with self._lock:
            if version is None and name in self._models:
                return self._models[name].serving
        return self.store.versions(name)[0] if version is None else version

    def unload(self, name: str, version: int | None = None) -> None:
        """Forget a version, or all of a name; no open frame may use it any more. Raises NotFound, Conflict."""
        with self._lock:
            model = self._model(name)
            if version is None:
                del self._models[name]
            elif version not in model.loaded:
                raise NotFound(f"version: {name}/{version} is not loaded; loaded are {sorted(model.loaded)}")
            elif version == model.serving:
                raise Conflict(f"version: {name}/{version} serves new frames; load another version first")
            else:
                del model.loaded[version]

    def serving(self, name: str) -> Checkpoint:
        """The version that decodes new frames, loading the first one if none is loaded. Raises as `load`."""
        with self._lock:
            if (model := self._models.get(name)) is not None:
                return model.loaded[model.serving]
        return self.load(name)  # without the lock, which the serving thread takes for every chunk

    def for_encoder(self, name: str, encoder_id: str) -> Checkpoint:
        """A version that decodes for an encoder: the one in service if it does. Raises Conflict, and as `load`."""
        if (serving := self.serving(name)).encoder_id == encoder_id:
            return serving
        for version in self.store.versions(name):
            if self.store.card(name, version)["encoder_id"] == encoder_id:
                return self.version(name, version)
        raise Conflict(f"encoder_id: {encoder_id}; no version of {name} decodes for it")

    def version(self, name: str, version: int) -> Checkpoint:
        """A certain version, loading it if it is not (after a restart). Raises as `load`."""
        with self._lock:
            model = self._models.get(name)
            if model is not None and version in model.loaded:
                return model.loaded[version]
        checkpoint = verified(self.store, name, version)
        with self._lock:
            self._models.setdefault(name, _Model({}, version)).loaded[version] = checkpoint
        return checkpoint

    def loaded(self, name: str) -> list[int]:
        """Loaded versions of a name, ascending; empty if none."""
        with self._lock:
            return sorted(self._models[name].loaded) if name in self._models else []

    def index(self) -> list[dict[str, Any]]:
        """Every version in the repository: name, version, state and reason (Open Inference Protocol)."""
        rows = []
        for name in self.store.names():
            loaded = self.loaded(name)
            serving = self.serving(name).version if loaded else None
            for version in self.store.versions(name):
                state = "READY" if version in loaded else "UNAVAILABLE"
                reason = "serves new frames" if version == serving else "" if loaded else "not loaded"
                rows.append({"name": name, "version": str(version), "state": state, "reason": reason})
        return rows

    def _model(self, name: str) -> _Model:
        if name not in self._models:
            raise NotFound(f"model: '{name}' is not loaded; loaded are {', '.join(sorted(self._models)) or 'none'}")
        return self._models[name]


def verified(store: CheckpointStore, name: str, version: int) -> Checkpoint:
    """Load a checkpoint and decode its probe. Raises as `CheckpointStore.load`."""
    checkpoint = store.load(name, version)
    probe = checkpoint.card.get("probe")
    if not probe:
        raise DamagedCheckpoint(f"checkpoint {name}/{checkpoint.version}: the card has no probe")
    found = evaluate(checkpoint.scheme, checkpoint.scenario, ues=int(probe["ues"]))["ratio_of_sums_db"]
    if not abs(found - probe["ratio_of_sums_db"]) <= PROBE_TOLERANCE_DB:
        raise DamagedCheckpoint(
            f"checkpoint {name}/{checkpoint.version}: the probe gives {found:.3f} dB,"
            f" the card says {probe['ratio_of_sums_db']:.3f} dB"
        )
    return checkpoint
