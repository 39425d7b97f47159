"""The states of a model's versions, as the repository's table has them, through any sequence of events."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gnb_server.app import service
from gnb_server.handlers import Attachment, Handlers
from gnb_server.settings import Settings
from shared.checkpoints import CheckpointStore
from shared.errors import Conflict, NotFound

MODEL = "hyperrnn"
VERSIONS = st.sampled_from([1, 2, 3])  # 1 and 2 are for one encoder


class ModelStates(RuleBasedStateMachine):
    """A gNB beside what the table says of it."""

    store: CheckpointStore

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.settings = Settings(checkpoints=self.store.root, store=f"sqlite:///{self.folder / 'g.sqlite'}")
        self.encoders = {version: self.store.card(MODEL, version)["encoder_id"] for version in (1, 2, 3)}
        self.states = dict.fromkeys(self.encoders, "available")
        self.serving: dict[str, int] = {}
        self.target: int | None = None

    @initialize()
    def start(self) -> None:
        self.stack = ExitStack()
        self.gnb: Handlers = self.stack.enter_context(service(self.settings))

    def teardown(self) -> None:
        self.stack.close()
        shutil.rmtree(self.folder)

    @rule()
    def restart(self) -> None:
        self.stack.close()
        self.start()

    @rule(version=VERSIONS)
    def load(self, version: int) -> None:
        assert self.gnb.swaps.load(MODEL, version).version == version
        self.states[version], self.serving[self.encoders[version]] = "loaded", version
        self.target = version

    @rule()
    def a_second_later(self) -> None:
        self.gnb.tick()
        for version, state in self.states.items():
            if state == "loaded" and self.target not in (None, version):
                self.states[version] = "available"
                if self.serving.get(self.encoders[version]) == version:
                    del self.serving[self.encoders[version]]

    @rule(version=VERSIONS)
    def ues_come(self, version: int) -> None:
        encoder_id = self.encoders[version]
        fitting = [other for other, served in self.encoders.items() if served == encoder_id]
        wanted = Attachment(MODEL, str(self.store.load(MODEL, version).scenario), 0, encoder_id, 1)
        expected = self.serving.get(encoder_id)
        if expected is None:
            expected = next((other for other in fitting if self.states[other] != "blocked"), None)
        if expected is None:
            with pytest.raises(Conflict, match="but is unloaded; load it first"):
                self.gnb.attach(wanted)
            return
        fleet, model = self.gnb.attach(wanted)
        assert model.version == expected
        self.states[expected], self.serving[encoder_id] = "loaded", expected
        self.gnb.detach(fleet.lease.token)

    @rule(version=VERSIONS)
    def unload_version(self, version: int) -> None:
        if self.states[version] != "loaded":
            with pytest.raises(NotFound, match="is not loaded"):
                self.gnb.swaps.unload(MODEL, version)
        elif version in self.serving.values():
            with pytest.raises(Conflict, match="serves new frames"):
                self.gnb.swaps.unload(MODEL, version)
        else:
            self.gnb.swaps.unload(MODEL, version)
            self.states[version] = "blocked"
            self.target = None if self.target == version else self.target

    @precondition(lambda self: "loaded" in self.states.values())
    @rule()
    def unload(self) -> None:
        self.gnb.swaps.unload(MODEL)
        self.states = dict.fromkeys(self.states, "blocked")
        self.serving.clear()
        self.target = None

    @invariant()
    def index_says_so(self) -> None:
        if not hasattr(self, "gnb"):
            return
        found: dict[int, dict[str, Any]] = {
            int(row["version"]): row for row in self.gnb.index() if row["name"] == MODEL
        }
        for version, state in self.states.items():
            assert (found[version]["state"] == "READY") == (state == "loaded"), version
            assert (found[version]["reason"] == "unloaded") == (state == "blocked"), version
            assert (found[version]["reason"] == "serves new frames") == (version in self.serving.values()), version
            assert self.gnb.model_ready(MODEL, version) == (state == "loaded")


def test_any_sequence_of_events(small_store: CheckpointStore) -> None:
    ModelStates.store = small_store
    settings = hypothesis.settings(max_examples=25, stateful_step_count=15, deadline=None, database=None)
    run_state_machine_as_test(ModelStates, settings=settings)  # type: ignore[no-untyped-call]  # hypothesis' lack


def test_a_model_that_cannot_be_loaded_again_serves_nobody_in_another_version(
    tmp_path: Path, small_store: CheckpointStore
) -> None:
    """After a restart, with the version that was in service damaged meanwhile."""
    root = tmp_path / "checkpoints"
    shutil.copytree(small_store.root, root)
    settings = Settings(checkpoints=root, store=f"sqlite:///{tmp_path / 'gnb.sqlite'}")
    wanted = Attachment(MODEL, str(small_store.load(MODEL).scenario), 0, small_store.load(MODEL).encoder_id, 1)
    with service(settings) as handlers:
        handlers.swaps.load(MODEL, 2)
        assert handlers.attach(wanted)[1].version == 2
    (root / MODEL / "2" / "decoder.safetensors").write_bytes(b"")
    with service(settings) as handlers:
        with pytest.raises(Conflict, match=r"unloaded, for version 2 could not be loaded again: .*; load it first"):
            handlers.attach(wanted)
        handlers.swaps.load(MODEL, 1)
        assert handlers.attach(wanted)[1].version == 1
