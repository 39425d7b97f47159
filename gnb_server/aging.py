"""What slowness costs: sums over reports whose estimates were compared with the channel of the slot in which they were
ready, beside that of their own (`gnb_server.serving.aged`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.metrics import Domain

AGED = ("count", "weight", "ratio", "sgcs")
"""What is summed: reports, how many they stand for, and what was measured, weighted so; also the store's columns."""

AgedSums = NDArray[np.float64]
"""[len(AGED)] sums over reports."""


def no_reports() -> AgedSums:
    """Sums to add to."""
    return np.zeros(len(AGED))


def aged_figures(sums: AgedSums, domain: Domain) -> dict[str, Any]:
    """Averages over reports: aged_reports, how many were compared; aged_nmse_db, None of precoders, which have no
    scale; aged_sgcs; None of no reports.
    """
    count, weight, ratio, sgcs = sums.tolist()
    if not count:
        return {"aged_reports": 0, "aged_nmse_db": None, "aged_sgcs": None}
    nmse_db = None if domain == "precoder" else 10 * math.log10(max(ratio / weight, 1e-30))
    return {"aged_reports": int(count), "aged_nmse_db": nmse_db, "aged_sgcs": sgcs / weight}
