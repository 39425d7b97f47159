"""What a radio link does to reports: bits flipped, reports lost, alone or in bursts, all of them late; and the CRC that
finds damage.

gRPC is the emulator's wiring and loses nothing, so the air is simulated on what it carried, at the gNB. Its random
numbers are the world's kind (`shared.channels.streams`), keyed by seed, population, UE, frame and slot: whoever decodes
the same reports, in any batch, offline or again after a crash, sees the same errors, and nobody has to store them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.channels.streams import Purpose, Samples
from shared.errors import InvalidInput
from shared.fields import OneOf, Within, check_fields, read_fields

Policy = Literal["last", "blind", "predict"]
"""What stands for the estimate of an erased report: see `Air.policy`."""

After = Literal["continue", "reset"]
"""What becomes of a decoder's recurrent state: see `Air.state`."""

POLYNOMIALS = {6: 0x21, 11: 0x621, 16: 0x1021, 24: 0x864CFB}
"""Generators of TS 38.212, clause 5.1, without their highest power: g_CRC6, g_CRC11, g_CRC16 and g_CRC24A."""

LONGEST_BURST = 100.0
"""Reports, on average."""

MAX_DELAY_SLOTS = 1024
"""Longest feedback delay."""


class Fate(IntEnum):
    """What became of a report on the air. DETECTED and LOST ones are erased: nothing of them is decoded."""

    INTACT = 0
    CORRUPTED = 1
    """Some bits were flipped, which nobody noticed: it is decoded as it came."""
    DETECTED = 2
    """Some bits were flipped, and the CRC fails, or what came means nothing."""
    LOST = 3


def fate_name(fate: int | None) -> str | None:
    """`received`, `corrupted`, `detected` or `lost`; None of a report of which it is not known."""
    if fate is None:
        return None
    return "received" if fate == Fate.INTACT else Fate(fate).name.lower()


Fates = Counter[str]
"""How many reports met with each fate but the first, by name: `air_corrupted`, `air_detected`, `air_lost`."""

FATES = tuple(f"air_{fate.name.lower()}" for fate in Fate if fate)
"""These names."""


def count_fates(fates: NDArray[np.uint8]) -> Fates:
    """Count them, of any shape; those that nothing met with are left out."""
    counts = np.bincount(fates.ravel(), minlength=len(Fate))[1:].tolist()
    return Fates({name: count for name, count in zip(FATES, counts, strict=True) if count})


def erased(fates: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which reports are, of any shape."""
    return fates >= Fate.DETECTED


@dataclass(frozen=True)
class Air:
    """What the link does to the reports of a run, and what the gNB does about it.

    Reports are lost as a two-state Markov chain says, of which each UE has one of its own (Gilbert-Elliott: Gilbert,
    "Capacity of a burst-noise channel", BSTJ 1960): its bad state loses everything, its good one nothing. A report
    without bits cannot be lost.

    Attributes:
        ber: probability that a bit arrives flipped, each independent of the others, those of the CRC among them.
        loss: share of the reports that are lost.
        burst: mean number of reports that are lost in a row; 1: each is lost independently of the others.
        crc: bits of the CRC that each report has; they count as feedback bits. 0: none.
        policy: estimate of an erased report: `last`, the UE's newest in this frame, or zeros if there is none; `blind`,
            what the decoder makes of the uplink and its state without a report, if it can (`Decoder.erased`);
            `predict`, what is to be expected of the slot after the reports before it (`Decoder.predicted`).
        state: a recurrent decoder's state after an erased report: `continue`, as it was, or as the step without a
            report leaves it; `reset`, as at a frame's beginning.
        delay: feedback delay [slots]: the estimate of slot t is compared with the channel of slot t + delay.

    Raises:
        InvalidInput: a value is out of range, or bursts are shorter than those of independent losses.
    """

    ber: Annotated[float, Within(0, 0.5)] = 0.0
    loss: Annotated[float, Within(0, 1)] = 0.0
    burst: Annotated[float, Within(1, LONGEST_BURST)] = 1.0
    crc: int = 0
    policy: Annotated[Policy, OneOf(get_args(Policy))] = "last"
    state: Annotated[After, OneOf(get_args(After))] = "continue"
    delay: Annotated[int, Within(0, MAX_DELAY_SLOTS)] = 0

    def __post_init__(self) -> None:
        check_fields(self, "air ")
        if self.crc not in (0, *POLYNOMIALS):
            raise InvalidInput(f"air crc: {self.crc}; wanted 0, {', '.join(map(str, POLYNOMIALS))} bits")
        if self.burst > 1 and not self.burst * (1 - self.loss) >= 1:
            least = "1, which is independent losses" if self.loss == 1 else f"1, or at least {1 / (1 - self.loss):g}"
            raise InvalidInput(f"air burst: {self.burst:g}, with a loss of {self.loss:g}; wanted {least}")

    @classmethod
    def parse(cls, text: str) -> Air:
        """`ber=1e-3,loss=0.1,burst=5,crc=16`; what is not named is as in `UNDISTURBED`. Raises InvalidInput."""
        return read_fields("air", UNDISTURBED, text)

    def __str__(self) -> str:
        """Inverse of `parse`: what differs from `UNDISTURBED`."""
        values = dataclasses.asdict(self).items()
        return ",".join(f"{name}={value}" for name, value in values if value != getattr(UNDISTURBED, name))

    def delayed(self, slots: int) -> Air:
        """With a feedback delay that was named apart; 0: none was. Raises InvalidInput if this air has another one."""
        if slots and self.delay not in (0, slots):
            raise InvalidInput(f"delay_slots: {slots}; the air has delay={self.delay}, name one of them")
        return dataclasses.replace(self, delay=slots or self.delay)

    @property
    def disturbs(self) -> bool:
        """Whether anything can happen to a report."""
        return self.ber > 0 or self.loss > 0

    def lengths(self, feedback_bits: NDArray[np.int64]) -> NDArray[np.int64]:
        """Feedback bits of reports [...] with their CRC; a report without bits has none."""
        return np.where(feedback_bits > 0, feedback_bits + self.crc, 0)

    def carry(
        self, samples: Samples, slots: range, frame_slots: int, sent: NDArray[np.uint8], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Carry reports of some slots of N frames.

        Args:
            slots: of the frame, S of them. frame_slots: how many a frame has.
            sent: [N, S, bits], zeros and ones. lengths: [N, S], how many of them were sent.

        Returns:
            Bits as received, [N, S, bits], and fates, [N, S].
        """
        errors = self._errors(samples, slots, sent.shape[2], lengths)
        damaged = errors.any(axis=2)
        fates = np.where(damaged, Fate.CORRUPTED, Fate.INTACT).astype(np.uint8)
        if self.crc and damaged.any():
            fates[damaged] += remainders(self.crc, errors[damaged], lengths[damaged]) != 0
        fates[self._losses(samples, slots, frame_slots).numpy() & (lengths > 0)] = Fate.LOST
        return sent ^ errors[..., : sent.shape[2]], fates

    def _errors(self, samples: Samples, slots: range, bits: int, lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which bits are flipped, [N, S, bits + crc]: of reports as long as they are, then of their CRCs."""
        if not self.ber:
            return np.zeros((*lengths.shape, bits + self.crc), bool)
        drawn = samples.uniforms(Purpose.AIR_BITS, torch.arange(slots.start, slots.stop), bits + self.crc)
        place, length = np.arange(bits + self.crc), lengths[..., None]
        found: NDArray[np.bool_] = (drawn < self.ber).numpy() & ((place < length) | (place >= bits)) & (length > 0)
        return found

    def _losses(self, samples: Samples, slots: range, frame_slots: int) -> Tensor:
        """Which reports are lost, [N, S] bool."""
        if not self.loss:
            return torch.zeros(len(samples), len(slots), dtype=torch.bool)
        surely, perhaps = self._chain(samples, slots)
        if self.burst == 1:
            return surely
        lost, found = self._lost_before(samples, slots.start, frame_slots), []
        for k in range(len(slots)):
            lost = surely[:, k] | (perhaps[:, k] & lost)
            found.append(lost)
        return torch.stack(found, dim=1)

    def _chain(self, samples: Samples, slots: range) -> tuple[Tensor, Tensor]:
        """Which reports are lost whatever became of the one before, and which are if that was lost: [N, S] bool.

        With one number for both, a report in neither or in both of them ends all memory, so that the chain's state
        anywhere follows from a few numbers before it; and the very first report is lost with probability `loss`.
        """
        slot = torch.arange(slots.start, slots.stop)
        drawn = samples.uniforms(Purpose.AIR_LOSS, slot, 1)[..., 0]
        if self.burst == 1:
            return drawn < self.loss, drawn < self.loss
        first = (samples.frame == 0)[:, None] & (slot == 0)
        enter, stay = self.loss / (self.burst * (1 - self.loss)), 1 - 1 / self.burst
        return drawn < torch.where(first, self.loss, enter), drawn < torch.where(first, self.loss, stay)

    def _lost_before(self, samples: Samples, slot: int, frame_slots: int) -> Tensor:
        """Whether the report before a slot was lost, [N] bool: back, frame by frame, to where that is settled."""
        found, rows, earlier = torch.zeros(len(samples), dtype=torch.bool), torch.arange(len(samples)), samples
        while len(rows):
            surely, perhaps = self._chain(earlier, range(slot))
            settled = surely == perhaps
            there = settled.any(dim=1)
            if there.any():
                newest = slot - 1 - settled[there].flip(1).int().argmax(dim=1)
                found[rows[there]] = surely[there].gather(1, newest[:, None])[:, 0]
            left = ~there & (earlier.frame > 0)
            rows, earlier = rows[left], earlier.take(left.nonzero()[:, 0])
            earlier, slot = dataclasses.replace(earlier, frame=earlier.frame - 1), frame_slots
        return found


UNDISTURBED = Air()
"""Every report arrives as it was sent."""


def remainders(crc: int, bits: NDArray[np.bool_], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Remainders [R] of bit strings divided by a CRC's generator (TS 38.212, clause 5.1), as integers.

    A CRC is linear: damage is found unless the generator divides the pattern of flipped bits, whatever was sent.

    Args:
        bits: [R, B + crc], most significant first: the first `lengths` of B, then those of the CRC.
        lengths: [R].
    """
    place, count = np.arange(bits.shape[1]), bits.shape[1]
    power = np.where(place < count - crc, (lengths[:, None] + crc - 1 - place).clip(0), count - 1 - place)
    found: NDArray[np.int64] = np.bitwise_xor.reduce(np.where(bits, _powers(crc, count)[power], 0), axis=1)
    return found


@functools.lru_cache(maxsize=64)
def _powers(crc: int, count: int) -> NDArray[np.int64]:
    """Remainders of D^0 .. D^(count - 1)."""
    found, value, top = np.empty(count, np.int64), 1, 1 << crc
    for power in range(count):
        found[power] = value
        value <<= 1
        if value & top:
            value ^= top | POLYNOMIALS[crc]
    return found
