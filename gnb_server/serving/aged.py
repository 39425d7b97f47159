"""Estimates against the channel of the slot in which they were ready.

A UE that is to send r reports a second has a slot every 1/r seconds. An estimate of slot t that is ready a seconds
after the slot was measured is compared with the channel of slot t + floor(a r). Of estimates that are a slot old or
older, those of every EVERY-th frame are, and stand for as many: one more channel for each would slow down a gNB that is
slow already.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from gnb_server.aging import AgedSums, no_reports
from gnb_server.evaluator import Evaluator
from gnb_server.serving.backend import Estimates
from gnb_server.sessions import Fleet
from shared.metrics import Domain, Outcomes

EVERY = 8
"""Every how many frames estimates are compared that are a slot old or older."""

MOST_SLOTS = 256
"""So many slots later a channel is at most that an estimate is compared with: those further on take longer to make."""


def aged_sums(
    evaluator: Evaluator,
    fleet: Fleet,
    domain: Domain,
    rows: NDArray[np.int64],
    frame: int,
    slots: range,
    estimates: Estimates,
    own: Outcomes,
    ages_s: list[float],
) -> AgedSums:
    """Sums over reports of UEs whose slots have a duration and whose ages are known.

    Args:
        rows: [n] int64, of the fleet. frame, slots: S slots of one frame. estimates: [S, n, ...].
        own: outcomes [S, n] against the channels of their own slots, which count as long as these last.
        ages_s: of each slot, from its measurement to when the estimate was ready [s]; empty if they are not known.
    """
    sums, rate = no_reports(), fleet.offered_per_s
    if rate is None:
        return sums
    for k, age_s in enumerate(ages_s):
        ratio, sgcs = own.ratio[k], own.sgcs[k]
        weight = 1
        if later := math.floor(min(age_s * rate, MOST_SLOTS)):
            if frame % EVERY:
                continue
            weight = EVERY
            truth = evaluator.later_truth(fleet.lease, domain, rows, frame, slots[k] + later)
            if truth is None:
                continue
            then = Outcomes.measure(torch.from_numpy(estimates[k : k + 1]), truth)
            ratio, sgcs = then.ratio[0], then.sgcs[0]
        sums += len(rows), weight * len(rows), weight * ratio.sum(), weight * sgcs.sum()
    return sums
