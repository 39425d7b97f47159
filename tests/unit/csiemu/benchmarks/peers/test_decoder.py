"""What servers of others are given decodes as the gNB does, however requests come."""

from __future__ import annotations

import argparse

import numpy as np
import torch

from csiemu.benchmarks.peers.decoder import PeerDecoder, Request
from shared.channels.streams import Samples, Split
from shared.checkpoints import CheckpointStore
from shared.link.decoding import decode_frames
from shared.link.encoding import encode_frames

UES = 6


def test_requests_in_any_order(small_store: CheckpointStore) -> None:
    checkpoint = small_store.load("hyperrnn")
    scheme, scenario = checkpoint.scheme, checkpoint.scenario
    samples = Samples(0, Split.EMULATE, torch.arange(UES), torch.zeros(UES, dtype=torch.int64))
    sent = encode_frames(scheme, scenario, samples)
    expected = decode_frames(scheme, scenario, samples, sent)
    asked = {"checkpoints": small_store.root, "scheme": "hyperrnn", "ues": UES, "precision": "fp32"}
    decode = PeerDecoder(argparse.Namespace(**asked))

    def request(first: int, count: int, slot: int) -> Request:
        return Request(first, count, slot, scheme.layout.pack_bits(sent[first : first + count, slot]))

    for _ in range(2):  # frames may be sent again
        for slot in range(scenario.slots + 1):  # the last two UEs are a slot behind
            requests = [request(4, 2, slot - 1)] if slot else []
            requests += [request(1, 3, slot), request(0, 1, slot)] if slot < scenario.slots else []
            for each, estimates in zip(requests, decode(requests), strict=True):
                wanted = expected[each.first_ue : each.first_ue + each.ue_count, each.slot]
                np.testing.assert_allclose(estimates, wanted, rtol=1e-4, atol=1e-6)
