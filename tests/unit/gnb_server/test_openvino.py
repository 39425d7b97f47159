from __future__ import annotations

import pickle

import pytest
import torch

from gnb_server import openvino
from gnb_server.openvino import TOLERANCE, OpenVinoNetwork, check_backend, use_openvino
from shared.checkpoints import CheckpointStore
from shared.errors import InvalidInput
from shared.link.decoding import decode_frames, probed_frames, probed_reports


def test_estimates_are_those_of_torch(small_store: CheckpointStore) -> None:
    pytest.importorskip("openvino")
    checkpoint = small_store.load("crnet")
    scheme, probe = checkpoint.scheme.eval(), checkpoint.card["probe"]
    sent = probed_reports(scheme, probe)
    frames = scheme.scenario, probed_frames(len(sent)), sent
    expected = decode_frames(scheme, *frames)
    difference = use_openvino(scheme, probe)
    assert difference is not None
    assert 0 < difference < TOLERANCE
    for network in (scheme.decoder.network, pickle.loads(pickle.dumps(scheme.decoder.network))):  # as of a worker
        assert isinstance(network, OpenVinoNetwork)
        scheme.decoder.network = network
        found = decode_frames(scheme, *frames)
        assert (found - expected).norm() < TOLERANCE * expected.norm()
        kept = found.clone()
        decode_frames(scheme, *(scheme.scenario, probed_frames(1), 1 - sent[:1]))  # of another batch
        torch.testing.assert_close(found, kept, rtol=0, atol=0)


def test_a_network_that_differs_stays_with_torch(small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenVinoNetwork, "forward", lambda self, values: 1.001 * self.network(values))
    checkpoint = small_store.load("crnet")
    before = checkpoint.scheme.decoder.network
    difference = use_openvino(checkpoint.scheme.eval(), checkpoint.card["probe"])
    assert difference == pytest.approx(0.001, rel=0.01)
    assert checkpoint.scheme.decoder.network is before


def test_other_decoders_stay_with_torch(small_store: CheckpointStore) -> None:
    checkpoint = small_store.load("hyperrnn")
    assert use_openvino(checkpoint.scheme.eval(), checkpoint.card["probe"]) is None


def test_it_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino.importlib.util, "find_spec", lambda name: None)
    check_backend("torch")
    with pytest.raises(InvalidInput, match=r"^backend: openvino is not installed; pip install .*\[openvino\]"):
        check_backend("openvino")
