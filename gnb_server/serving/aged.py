"""Estimates against the channel of the slot in which they were ready.

A UE that is to send r reports a second has a slot every 1/r seconds. An estimate of slot t that is ready a seconds
after the slot was measured is compared with the channel of slot t + floor(a r). Of estimates that are a slot old or
older, those of every EVERY-th frame are, and stand for as many: one more channel for each would slow down a gNB that is
slow already.
"""

from __future__ import annotations

import math

import torch

from gnb_server.aging import AgedSums, no_reports
from gnb_server.evaluator import Evaluator
from gnb_server.serving.backend import Estimates, Part
from shared.metrics import Domain, Outcomes

EVERY = 8
"""Every how many frames estimates are compared that are a slot old or older."""

MOST_SLOTS = 256
"""So many slots later a channel is at most that an estimate is compared with: those further on take longer to make."""


def aged_sums(
    evaluator: Evaluator,
    domain: Domain,
    part: Part,
    estimates: Estimates,
    own: Outcomes,
    ready: float,
) -> AgedSums:
    """Sums over the reports of a part, if its slots have a duration and it is known when they were measured.

    Args:
        estimates: [slots, n, ...], ready then [s, monotonic].
        own: outcomes [slots, n] against the channels of their own slots, which count as long as these last.
    """
    sums, rate = no_reports(), part.offered_per_s
    if rate is None:
        return sums
    for k, measured_at in enumerate(part.measured_at):
        ratio, sgcs = own.ratio[k], own.sgcs[k]
        weight = 1
        if later := math.floor(min((ready - measured_at) * rate, MOST_SLOTS)):
            if part.frame % EVERY:
                continue
            weight = EVERY
            truth = evaluator.later_truth(part.lease, domain, part.rows, part.frame, part.first_slot + k + later)
            if truth is None:
                continue
            then = Outcomes.measure(torch.from_numpy(estimates[k : k + 1]), truth)
            ratio, sgcs = then.ratio[0], then.sgcs[0]
        sums += len(part.rows), weight * len(part.rows), weight * ratio.sum(), weight * sgcs.sum()
    return sums
