"""What a gNB computes: reports and its own uplink to downlink estimates. Nothing here can see the downlink."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.channels.scenario import Scenario
from shared.channels.streams import Samples
from shared.channels.transforms import to_spatial_frequency, zero_fill
from shared.channels.uplink import UplinkView
from shared.channels.wideband import Wideband
from shared.schemes import Scheme, State

Fields = dict[str, NDArray[np.int64]]
"""Payload fields of N reports, name -> [N, count]."""


@torch.inference_mode()
def side_information(scheme: Scheme, scenario: Scenario, samples: Samples) -> Tensor:
    """What the decoder takes from the gNB's own uplink of N frames, [N, T, S]."""
    return scheme.decoder.side_information(UplinkView(scenario, samples))


@torch.inference_mode()
def decode_slot(scheme: Scheme, fields: Fields, side: Tensor, state: State) -> tuple[Tensor, State]:
    """Decode one report of each of N UEs; shapes as `Decoder.step`."""
    return scheme.decoder.step({name: torch.from_numpy(values) for name, values in fields.items()}, side, state)


def decode_frames(scheme: Scheme, scenario: Scenario, samples: Samples, reports: NDArray[np.uint8]) -> Tensor:
    """Decode whole frames of N UEs from the start of the frame.

    Args:
        reports: [N, T, bits], zeros and ones.

    Returns:
        Estimates [N, T, M], or images [N, T, Q, M], complex64.
    """
    side = side_information(scheme, scenario, samples)
    state, estimates = scheme.decoder.initial_state(len(samples)), []
    for t in range(scenario.slots):
        estimate, state = decode_slot(scheme, scheme.layout.fields_of(reports[:, t]), side[:, t], state)
        estimates.append(estimate)
    return torch.stack(estimates, dim=1)


def whole_band(scheme: Scheme, scenario: Scenario, estimates: Tensor) -> Tensor:
    """Estimates as the channel at every subcarrier and antenna: images [N, Q, M] by zero filling and inverse DFT (CRNet
    paper, section II) to [N, N_f, M]; channels of one subcarrier [N, M] to [N, 1, M].
    """
    if scheme.domain == "spatial" or not isinstance(scenario, Wideband):
        return estimates[:, None]
    image = zero_fill(estimates, scenario.first_rows, scenario.last_rows, scenario.subcarriers)
    return to_spatial_frequency(image)
