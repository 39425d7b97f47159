"""How many bits reports take, for schemes that can give more or fewer of them."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from shared.fields import Within, check_fields

MOST_BITS, MOST_STEPS = 1 << 16, 1 << 16
"""Of a rate, whatever the scheme."""


@dataclass(frozen=True)
class Rate:
    """What UEs are asked for. A scheme's own rate where everything is None.

    Attributes:
        bits: most bits of a report, all fields counted; each report is as fine as they allow.
        step: index of the finest quantiser step that a report may have, of schemes that have steps.
        target_nmse_db: NMSE [dB] that the gNB is to hold with the fewest bits, by choosing each UE's step.

    Raises:
        InvalidInput: a value is out of its range.
    """

    bits: Annotated[int | None, Within(1, MOST_BITS)] = None
    step: Annotated[int | None, Within(0, MOST_STEPS)] = None
    target_nmse_db: Annotated[float | None, Within(-60, 0)] = None

    def __post_init__(self) -> None:
        check_fields(self)

    def to_json(self) -> dict[str, Any]:
        """For cards, results and REST."""
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        """For the store; `from_text` reads it back."""
        return json.dumps(self.to_json())

    @classmethod
    def from_text(cls, text: str) -> Rate:
        """Inverse of `to_text`."""
        return cls(**json.loads(text))


OWN = Rate()
"""The scheme's own rate."""


@dataclass(frozen=True)
class Rates:
    """What N reports may take: `bits` and `step` as in `Rate`, [N] int64 each."""

    bits: Tensor
    step: Tensor

    @classmethod
    def of(cls, bits: int, step: int, reports: int) -> Rates:
        """The same for all."""
        return cls(torch.full((reports,), bits), torch.full((reports,), step))

    def __getitem__(self, index: Any) -> Rates:
        """Of some of the reports."""
        return Rates(self.bits[index], self.step[index])

    def or_else(self, others: Rates) -> Rates:
        """With others in place of those of 0 bits."""
        given = self.bits > 0
        return Rates(torch.where(given, self.bits, others.bits), torch.where(given, self.step, others.step))


Lengths = Counter[int]
"""How many reports have so many feedback bits."""

CLASSES = 64
"""Of a histogram, at most."""


def summarise_lengths(lengths: Mapping[int, int]) -> dict[str, Any]:
    """Feedback bits of reports: `feedback_bits` (mean), `feedback_bits_p5`, `_p95`, `_most` (None of no reports),
    `feedback_bits_total`, and `feedback_bits_histogram`: classes of equal width, each `least`, `most` (both are in it)
    and `reports`, those without reports left out.
    """
    if not lengths:
        return {**dict.fromkeys(summarise_lengths({0: 1})), "feedback_bits_total": 0, "feedback_bits_histogram": []}
    bits, reports = np.array(sorted(lengths.items())).T
    below = reports.cumsum()
    low, high = (int(bits[np.searchsorted(below, share * below[-1])]) for share in (0.05, 0.95))
    width = -(-int(bits[-1] - bits[0] + 1) // CLASSES)
    counts = np.bincount((bits - bits[0]) // width, reports)
    first = [(int(bits[0]) + width * number, int(count)) for number, count in enumerate(counts) if count]
    return {
        "feedback_bits": float(bits @ reports / below[-1]),
        "feedback_bits_p5": low,
        "feedback_bits_p95": high,
        "feedback_bits_most": int(bits[-1]),
        "feedback_bits_total": int(bits @ reports),
        "feedback_bits_histogram": [{"least": at, "most": at + width - 1, "reports": count} for at, count in first],
    }
