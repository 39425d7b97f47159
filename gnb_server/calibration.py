"""Behind the wall, beside the evaluator: frames of the scenario that a version was trained for, encoded and decoded.

This is what a vendor would do where a model is trained, and hand over as reference statistics. The gNB's monitoring
gets payloads, estimates and target CSI; what is true of them stays here, for the grader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gnb_server.monitoring.indicators import Decoded, uplink_agreement
from gnb_server.monitoring.references import FITTED, JUDGED, Calibration
from shared.channels.streams import Split
from shared.checkpoints import CheckpointStore
from shared.conditions import RunConditions
from shared.link.air import erased
from shared.link.decoding import decode_received_frames, receive
from shared.link.encoding import target_channels
from shared.link.evaluation import over_the_link, true_channels
from shared.link.precision import Precision, precision_for
from shared.link.target import TargetCoder
from shared.metrics import Outcomes
from shared.schemes import Scheme

BATCH = 64
"""Frames at once: others want the machine, too."""


@dataclass(frozen=True)
class Simulated:
    """Whole frames as a gNB decodes them, with what it cannot know of them.

    Attributes:
        decoded: N * T reports, frame by frame; agreement with the uplink and target CSI of each frame's last.
        ratios: [N], mean ||e||^2 / ||h||^2 of each frame's reports; of precoders 1 - SGCS.
    """

    decoded: Decoded
    ratios: NDArray[np.float64]


@torch.inference_mode()
def simulate(
    scheme: Scheme, conditions: RunConditions, split: Split, first_ue: int, frames: int, *, mixed_up: bool = False
) -> Simulated:
    """Frame 0 of so many UEs; if they are mixed up, each report comes under the name of another UE, whose uplink and
    target CSI the gNB takes for it. Raises InvalidInput if the scheme cannot run in these conditions.
    """
    scheme.check_scenario(conditions.scenario, conditions.delay_slots)
    ues = torch.arange(first_ue, first_ue + frames)
    parts = [_simulated(scheme, conditions, split, batch, mixed_up=mixed_up) for batch in ues.split(BATCH)]
    decoded = [part.decoded for part in parts]

    def all_of(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in decoded])

    fields = {name: np.concatenate([part.fields[name] for part in decoded]) for name in decoded[0].fields}
    others = (all_of(name) for name in ("lengths", "erased", "uplink", "target"))
    return Simulated(Decoded(all_of("estimates"), fields, *others), np.concatenate([part.ratios for part in parts]))


def _simulated(
    scheme: Scheme, conditions: RunConditions, split: Split, ues: torch.Tensor, *, mixed_up: bool
) -> Simulated:
    scenario, samples = conditions.scenario, conditions.samples(split, ues, 0)
    frames, slots = len(ues), conditions.scenario.slots
    sent = np.roll(over_the_link(scheme, conditions, samples), int(mixed_up), axis=0)
    received = receive(scheme, conditions.air, samples, range(slots), sent)
    estimates = decode_received_frames(scheme, scenario, samples, received, conditions.air)
    uplink, target = np.full((frames, slots), np.nan), np.full((frames, slots), np.nan)
    if scenario.has_uplink:
        uplink[:, -1] = uplink_agreement(scheme.domain, scenario, samples, estimates[:, -1])
    coder = TargetCoder(scheme.domain, estimates.shape[2:])
    told = coder.decode(coder.encode(target_channels(scheme, scenario, samples), samples), frames)
    target[:, -1] = coder.ratio(estimates[:, -1], told, samples)
    decoded = Decoded(
        estimates.flatten(0, 1).numpy(),
        scheme.layout.fields_of(received.bits.reshape(frames * slots, -1)),
        scheme.layout.lengths(sent).ravel(),
        erased(received.fates).ravel(),
        uplink.ravel(),
        target.ravel(),
    )
    truth = true_channels(conditions, scheme.domain, samples)
    return Simulated(decoded, Outcomes.measure(estimates, truth).ratio.mean(axis=1))


class Calibrator:
    """Makes the frames that references are fitted to, and keeps what is true of them.

    Args:
        store: of the checkpoints, whose encoders it needs. precision: of decoders, as far as their cards allow it.
        frames: how many it makes of each.
    """

    def __init__(self, store: CheckpointStore, precision: Precision = "fp32", frames: int = FITTED + JUDGED) -> None:
        self._store = store
        self._precision = precision
        self._frames = frames
        self._expected: dict[tuple[str, int], float] = {}

    def __call__(self, name: str, version: int) -> Calibration:
        """Frames of the test split, seed 0, other ones than the card's check takes. Raises CsiError."""
        checkpoint = self._store.load(name, version)
        scheme, conditions = checkpoint.scheme.eval(), RunConditions(checkpoint.scenario)
        scheme.precision = precision_for(checkpoint.card, self._precision)
        found = simulate(scheme, conditions, Split.TEST, 0, self._frames)
        self._expected[name, version] = float(found.ratios.mean())
        return Calibration(found.decoded, checkpoint.scenario.slots)

    def expected(self, name: str, version: int) -> float | None:
        """Mean of ||e||^2 / ||h||^2 of these frames; None until they were made."""
        return self._expected.get((name, version))
