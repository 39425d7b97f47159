"""Counter-based random streams: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11).

A number depends on its key and its counter only, so any process can draw any sample, in any batch and order, on any
device. The integers are bit-identical everywhere; the floats made from them agree to float32 rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shared.channels import compiled
from shared.errors import InvalidInput

_MASK = 0xFFFFFFFF
_MASK_21 = (1 << 21) - 1
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


class Split(IntEnum):
    """Which population a sample belongs to. Part of the counter, so that two splits never share a sample."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2
    EMULATE = 3
    CELL = 4
    """Not a population: what belongs to a fixed cell (COST 2100's environment)."""


class Purpose(IntEnum):
    """What the numbers are for. DOWNLINK_* streams are those that a decoder must never depend on."""

    PATH_ANGLE = 0
    UPLINK_FADING = 1
    UPLINK_NOISE = 2
    DOWNLINK_FADING = 3
    DOWNLINK_NOISE = 4
    PLACE = 5
    CLUSTER = 6
    SCATTERER = 7
    UPLINK_PHASE = 8
    DOWNLINK_PHASE = 9
    AIR_BITS = 10
    AIR_LOSS = 11
    TARGET_ENTRIES = 12
    DOWNLINK_TARGET_NOISE = 13


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox4x32-10 block function.

    Args:
        counter: four broadcastable int64 tensors with values in [0, 2^32).
        key: two words in [0, 2^32).

    Returns:
        Four int64 tensors of the broadcast shape, values in [0, 2^32).
    """
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    k0, k1 = key
    for _ in range(_ROUNDS):
        # int64 products wrap, but their 64 bits are those of the unsigned product; what is above 32 bits is masked late
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = (p1 >> 32).bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(_MASK)
        c2 = (p0 >> 32).bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(_MASK)
        c1, c3 = p1, p0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1 & _MASK, c2, c3 & _MASK


@dataclass(frozen=True)
class Samples:
    """Which samples of the world: one row per (ue, frame).

    Attributes:
        seed: 64-bit seed of the world.
        split: population.
        ue: [N] int64, UE ids (training: sample numbers), in [0, 2^32).
        frame: [N] int64, frame numbers, in [0, 2^32).
    """

    seed: int
    split: Split
    ue: Tensor
    frame: Tensor

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise InvalidInput(f"seed: {self.seed} is not in [0, 2^64)")
        if self.ue.shape != self.frame.shape or self.ue.dim() != 1:
            raise InvalidInput(f"ue, frame: shapes {tuple(self.ue.shape)}, {tuple(self.frame.shape)}; wanted [N], [N]")

    def __len__(self) -> int:
        return self.ue.shape[0]

    def uniform(self, purpose: Purpose, count: int) -> Tensor:
        """[N, count] float32, uniform on (0, 1)."""
        return self.uniforms(purpose, torch.zeros(1, dtype=torch.int64, device=self.ue.device), count)[:, 0]

    def uniforms(self, purpose: Purpose, index: Tensor, count: int) -> Tensor:
        """[N, S, count] float32, uniform on (0, 1), one independent row per number in `index` ([S] int64)."""
        return _open_interval(self._words(purpose, index, count))

    def six_uniforms(self, purpose: Purpose, index: Tensor) -> Tensor:
        """Six uniforms on (0, 1) of 21 bits for each number in `index`.

        Args:
            index: [B, N or 1, C] int64.

        Returns:
            [6, B, N, C] float32. They take one block together, for bulk draws: block `index` of the stream is theirs.
        """
        if (loops := compiled.for_device(index.device)) is not None:
            out = torch.empty(6, len(index), len(self), index.shape[2])
            loops.six_uniforms(*self._stream(purpose, index), out.flatten(2).numpy())
            return out
        words = self._philox(purpose, index)
        pairs = (words[0] << 32 | words[1], words[2] << 32 | words[3])
        bits = [(pair >> shift) & _MASK_21 for pair in pairs for shift in (0, 21, 42)]
        return torch.stack(bits).to(torch.float32).add_(0.5).mul_(2.0**-21)

    def take(self, rows: Tensor | slice) -> Samples:
        """The samples of the given rows (a slice, or [K] int64)."""
        return Samples(self.seed, self.split, self.ue[rows], self.frame[rows])

    def complex_normal(self, purpose: Purpose, slots: Tensor, count: int) -> Tensor:
        """[N, slots, count] complex64, CN(0, 1), one independent draw per slot number in `slots` ([S] int64)."""
        words = self._words(purpose, slots, 2 * count)
        radius = _open_interval(words[..., 0::2]).log_().neg_().sqrt_()  # |CN(0,1)|^2 is Exp(1)
        return torch.polar(radius, _open_interval(words[..., 1::2]).mul_(2 * math.pi))

    def _words(self, purpose: Purpose, slots: Tensor, count: int) -> Tensor:
        """[N, slots, count] int64 words in [0, 2^32); slot s owns blocks s*b .. s*b + b-1 of its stream."""
        blocks = -(-count // 4)
        index = slots[:, None] * blocks + torch.arange(blocks, device=slots.device)
        words = self._blocks(purpose, index.flatten()[None])
        return words.unflatten(1, index.shape).flatten(-2)[..., :count]

    def _blocks(self, purpose: Purpose, index: Tensor) -> Tensor:
        """The four words of each block of a stream, [N, S, 4] int64; `index` is [1 or N, S]."""
        if (loops := compiled.for_device(index.device)) is not None:
            out = torch.empty(len(self), index.shape[1], 4, dtype=torch.int64)
            loops.words(*self._stream(purpose, index), out.numpy())
            return out
        return torch.stack(self._philox(purpose, index), dim=-1)

    def _philox(self, purpose: Purpose, index: Tensor) -> tuple[Tensor, ...]:
        """The words of blocks `index`, whose last axes are [1 or N, any]: four of index's shape, with N."""
        stream = torch.full((1, 1), self.split << 8 | purpose, dtype=torch.int64, device=index.device)
        counter = (index, self.ue[:, None], self.frame[:, None], stream)
        return philox4x32(counter, (self.seed & _MASK, self.seed >> 32))

    def _stream(self, purpose: Purpose, index: Tensor) -> tuple[Any, ...]:
        """Counters and key as `compiled.loops` take them."""
        counter = [values.contiguous().numpy() for values in (index, self.ue, self.frame)]
        return *counter, self.split << 8 | purpose, np.array([self.seed & _MASK, self.seed >> 32], np.uint32)


def _open_interval(words: Tensor) -> Tensor:
    """32-bit words to float32 in (0, 1): the upper 24 bits, centred; the largest would round to 1."""
    return (words >> 8).to(torch.float32).add_(0.5).mul_(2.0**-24).clamp_(max=1 - 2.0**-24)
