"""A gNB without its protocols."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gnb_server.app import service
from gnb_server.handlers import Handlers
from gnb_server.settings import Settings
from shared.checkpoints import CheckpointStore
from tests.unit.gnb_server.sending import Clock


@pytest.fixture
def settings(tmp_path: Path, small_store: CheckpointStore) -> Settings:
    return Settings(checkpoints=small_store.root, store=f"sqlite:///{tmp_path / 'gnb.sqlite'}", grpc_port=0)


@pytest.fixture
def handlers(settings: Settings) -> Iterator[Handlers]:
    with service(settings) as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()
