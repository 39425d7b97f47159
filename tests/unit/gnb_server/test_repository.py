from __future__ import annotations

import logging

import pytest

from gnb_server import openvino
from gnb_server.openvino import OpenVinoNetwork
from gnb_server.repository import Repository
from shared.checkpoints import CheckpointStore


def test_networks_by_openvino(
    small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("openvino")
    network = Repository(small_store, backend="openvino").load("crnet").scheme.decoder.network
    assert isinstance(network, OpenVinoNetwork)
    assert not caplog.records
    monkeypatch.setattr(openvino, "TOLERANCE", 0.0)
    monkeypatch.setattr("gnb_server.repository.TOLERANCE", 0.0)
    with caplog.at_level(logging.WARNING):
        network = Repository(small_store, backend="openvino").load("crnet").scheme.decoder.network
    assert not isinstance(network, OpenVinoNetwork)
    assert "crnet/1: OpenVINO's estimates differ" in caplog.text
