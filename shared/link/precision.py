"""The precision that decoders compute in: float32, or matrix products and convolutions in bfloat16 (weights, states and
what is between them stay float32). Processors with AMX or AVX512-BF16 decode HyperRNN three times as fast in it. It is
used for checkpoints alone whose card says that their NMSE hardly changes.
"""

from __future__ import annotations

import contextlib
from typing import Any, Literal

import torch

Precision = Literal["fp32", "bf16"]

CHANGE = "bf16_change_db"
"""Of a card: by how much the NMSE grows in bfloat16 [dB], `shared.link.evaluation.change_in_bf16`."""

MOST_CHANGE_DB = 0.02
"""By how much it may."""


def precision_for(card: dict[str, Any], wanted: Precision) -> Precision:
    """What a checkpoint computes in where `wanted` is asked for: float32 if its card allows nothing else."""
    change = card.get(CHANGE)
    return "bf16" if wanted == "bf16" and change is not None and change <= MOST_CHANGE_DB else "fp32"


def in_precision(precision: Precision) -> contextlib.AbstractContextManager[Any]:
    """Where a decoder computes."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


def fast_in_bf16() -> bool:
    """Whether the processor has instructions for bfloat16; without them it is slower than float32."""
    can = torch.cpu.get_capabilities()
    return any(can.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
