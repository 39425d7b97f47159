"""An observation encoded again gives the same bits, whatever it is encoded with."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shared.channels.streams import Samples, Split
from shared.checkpoints import CheckpointStore
from shared.errors import DamagedCheckpoint
from shared.link.encoding import ENCODE_BATCH, check_encoder, encode_frames

SHIPPED = CheckpointStore(Path(__file__).parents[4] / "checkpoints").names()


@pytest.mark.parametrize("name", ["hyperrnn", "predictive_lmmse"])
def test_bits_do_not_depend_on_the_company(shipped: CheckpointStore, name: str) -> None:
    checkpoint = shipped.load(name)
    scheme, scenario = checkpoint.scheme, checkpoint.scenario
    ue = torch.arange(150)

    def signs(rows: torch.Tensor) -> np.ndarray:
        return encode_frames(scheme, scenario, Samples(0, Split.EMULATE, rows, torch.zeros_like(rows)))

    together = signs(ue)
    assert together.shape == (150, scenario.slots, scheme.layout.bits)
    for rows in (ue[:1], ue[3:10], ue[40:113], ue.flip(0)):
        np.testing.assert_array_equal(signs(rows), together[rows.numpy()])
    assert len(ue) * scenario.slots % ENCODE_BATCH  # the last batch was padded


@pytest.mark.parametrize("name", SHIPPED)
def test_a_machine_that_rounds_otherwise_passes_the_probe(
    shipped: CheckpointStore, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are, and with observations off by 1e-5, as channels of two machines may be."""
    for version in shipped.versions(name):
        checkpoint = shipped.load(name, version, ("encoder",))
        scheme, probe = checkpoint.scheme, checkpoint.card["probe"]
        check_encoder(scheme, probe)
        observe, generator = scheme.encoder.observe, torch.Generator().manual_seed(1)

        def rounded(downlink: Any, observe: Any = observe, generator: torch.Generator = generator) -> torch.Tensor:
            observation = observe(downlink)
            return observation * (1 + 1e-5 * torch.randn(observation.shape, generator=generator))

        monkeypatch.setattr(scheme.encoder, "observe", rounded)
        check_encoder(scheme, probe)


@pytest.mark.parametrize("name", ["hyperrnn", "crnet", "dualnet_mp", "genie_lmmse"])
def test_other_weights_fail_the_probe(shipped: CheckpointStore, name: str) -> None:
    checkpoint = shipped.load(name, ends=("encoder",))
    torch.manual_seed(1)
    for value in checkpoint.scheme.encoder.state_dict().values():
        if value.is_floating_point() and value.dim() > 1:
            torch.nn.init.normal_(value, std=float(value.std()))
    with pytest.raises(
        DamagedCheckpoint, match=r"probe: \d+ of \d+ bits that the encoder gives are not those of the card"
    ):
        check_encoder(checkpoint.scheme, checkpoint.card["probe"])


def test_a_hundredth_of_the_bits_may_differ(shipped: CheckpointStore) -> None:
    checkpoint = shipped.load("rnn", ends=("encoder",))
    card = checkpoint.card["probe"]
    payload = bytearray(base64.b64decode(card["payload"]))
    for byte in range(3):  # of 320 bits
        payload[byte] ^= 1
    check_encoder(checkpoint.scheme, {**card, "payload": base64.b64encode(payload)})
    payload[3] ^= 1
    with pytest.raises(DamagedCheckpoint, match="probe: 4 of 320 bits"):
        check_encoder(checkpoint.scheme, {**card, "payload": base64.b64encode(payload)})


@pytest.mark.parametrize(
    ("probe", "says"),
    [
        ({}, "ues"),
        ([], "list"),
        ({"ues": 0}, r"ues: 0 is not in \[1, 256\]"),
        ({"ues": 257}, r"ues: 257 is not in \[1, 256\]"),
        ({"ues": float("inf")}, "infinity"),
        ({"ues": 2}, "payload"),
        ({"ues": 2, "payload": "AAAA"}, "3 bytes for 16 reports"),
        ({"ues": 2, "payload": None}, "NoneType"),
    ],
)
def test_a_card_without_a_probe_says_how_to_get_one(shipped: CheckpointStore, probe: Any, says: str) -> None:
    scheme = shipped.load("rnn", ends=("encoder",)).scheme
    with pytest.raises(DamagedCheckpoint, match=rf"^probe: .*{says}.*--renew-card"):
        check_encoder(scheme, probe)
