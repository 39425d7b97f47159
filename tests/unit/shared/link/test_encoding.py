"""An observation encoded again gives the same bits, whatever it is encoded with."""

from __future__ import annotations

import numpy as np
import torch

from shared.channels.streams import Samples, Split
from shared.checkpoints import CheckpointStore
from shared.link.encoding import ENCODE_BATCH, encode_frames


def test_bits_do_not_depend_on_the_company(shipped: CheckpointStore) -> None:
    checkpoint = shipped.load("hyperrnn")
    scheme, scenario = checkpoint.scheme, checkpoint.scenario
    ue = torch.arange(150)

    def signs(rows: torch.Tensor) -> np.ndarray:
        return encode_frames(scheme, scenario, Samples(0, Split.EMULATE, rows, torch.zeros_like(rows)))

    together = signs(ue)
    assert together.shape == (150, scenario.slots, 20)
    for rows in (ue[:1], ue[3:10], ue[40:113], ue.flip(0)):
        np.testing.assert_array_equal(signs(rows), together[rows.numpy()])
    assert len(ue) * scenario.slots % ENCODE_BATCH  # the last batch was padded
