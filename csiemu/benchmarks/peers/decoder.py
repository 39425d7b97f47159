"""What a server of others is given to serve: the decoder of a checkpoint, with the states of its UEs."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from shared.channels.streams import Samples, Split
from shared.checkpoints import CheckpointStore
from shared.link.decoding import decode_slot, side_information
from shared.link.precision import precision_for

BATCH_WAIT_S = 0.01
"""How long requests wait for others to be decoded with, at most."""


class Request(NamedTuple):
    """Reports of UEs first_ue .. first_ue + ue_count - 1 for one slot of frame 0, packed."""

    first_ue: int
    ue_count: int
    slot: int
    payload: bytes


class PeerDecoder:
    """Decodes reports of frame 0 of UEs 0 .. ues-1, which may be sent again and again: side information is at hand."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.set_num_threads(1)
        checkpoint = CheckpointStore(options.checkpoints).load(options.scheme, ends=("decoder",))
        self._scheme = checkpoint.scheme.eval()
        self._scheme.precision = precision_for(checkpoint.card, options.precision)
        samples = Samples(0, Split.EMULATE, torch.arange(options.ues), torch.zeros(options.ues, dtype=torch.int64))
        self._side = side_information(self._scheme, checkpoint.scenario, samples)
        self._state = self._scheme.decoder.initial_state(options.ues)

    def __call__(self, requests: Sequence[Request]) -> list[Tensor]:
        """Decode requests of different UEs together: estimates of each, as `decode_slot`."""
        ues = torch.cat([torch.arange(each.first_ue, each.first_ue + each.ue_count) for each in requests])
        counts = [each.ue_count for each in requests]
        slots = torch.tensor([each.slot for each in requests]).repeat_interleave(torch.tensor(counts))
        layout = self._scheme.layout
        reports = np.concatenate([layout.unpack_bits(each.payload, each.ue_count) for each in requests])
        begins = slots == 0
        state = {name: values[ues] for name, values in self._state.items()}
        for values in state.values():
            values[begins] = 0
        estimates, after = decode_slot(self._scheme, layout.fields_of(reports), self._side[ues, slots], state)
        for name, values in after.items():
            self._state[name][ues] = values
        return list(estimates.split(counts))


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def options(description: str | None) -> argparse.Namespace:
    """Options of a server's process."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--scheme", required=True)
    parser.add_argument("--ues", type=int, required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--batch", type=int, required=True, help="requests that are decoded together, at most")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for what the server keeps in files")
    return parser.parse_args()
