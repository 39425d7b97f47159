"""Trellis-coded quantisation of coefficients of known deviations, with an entropy code of contexts.

A part of a coefficient, real or imaginary, is quantised to whole numbers of a step by one of two quantisers: the even
one has 0, 2, 4, .. steps, the odd one 0, 1, 3, .. and their negatives. Which of them is next follows from whether the
index of what was sent is even or odd, through a trellis of 8 states: the encoder finds the path of the least error +
price * bits (Marcellin and Fischer, "Trellis coded quantization of memoryless and Gauss-Markov sources", 1990; with
two quantisers that both have a 0 as in H.266/VVC, "dependent quantization").

Indices are entropy coded (ANS) by tables that depend on the quantiser, on the class of deviation over step, and on a
context: how large the parts before were against what was to be expected. Deviations and steps are powers of
2^(1/16) and tables whole numbers that stand in the checkpoint, so that both ends read the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.errors import InvalidInput

PARTS = 16
"""Deviations and steps are powers of 2^(1/PARTS)."""

COARSEST = 7 * PARTS
"""Step index 0 stands for 2^7, which rounds whole images of mean power 1 to nothing."""

STEPS = 192
"""Steps 2^((COARSEST - index) / PARTS), down to 2^-5."""

CLASS_PARTS = 4
"""A class of coefficients, with tables of its own, is so much of an octave of deviation over step."""

OCTAVES = 12
"""Of classes, from a deviation of a quarter of the step on; below, a coefficient is not sent."""

CLASSES = CLASS_PARTS * OCTAVES

SYMBOLS = 18
"""Of a table: indices of magnitudes from 0 on, and one for all that are larger."""

ESCAPE = SYMBOLS - 1
LONGEST = 20
"""Bits of what exceeds a table, at most: damaged code may claim any."""

LARGEST = np.float32(1 << 16)
"""Magnitude that is sent, at most, in steps."""

LONGEST_PART = 80
"""Bits of a part, more than any has."""

THRESHOLDS = np.array([4, 10, 16, 22, 32, 50])
"""Contexts differ in what was seen over what was to be expected, in twentieths."""

CONTEXTS = len(THRESHOLDS) + 1

START = 512
"""What was seen, and what was to be expected, before the first coefficient, in 256ths of a step."""

PRECISION = 16
"""Weights of a table sum up to 2^PRECISION."""

BITS_OF_A_STEP, BITS_OF_AN_INDEX = 1.5, 1.6 / PARTS
"""About what a part takes that is as large as the step, and what it takes more at the next finer step."""


MAGNITUDES = 7
"""Told apart where errors are measured: 0 to 5 steps, and more."""

PRICE = 0.4
"""What a bit is worth in squared steps."""

Bits = NDArray[np.uint8]
"""Zeros and ones."""


def ungerboeck_trellis() -> NDArray[np.int64]:
    """The state after a state and an even or odd index, [8, 2]: the systematic feedback encoder of parity-check
    polynomials 13 and 04, octal (Ungerboeck, "Channel coding with multilevel/phase signals", 1982, table I). The last
    bit of a state says which quantiser it has.
    """
    return np.array([[(state ^ 0o13 * (state & 1) ^ 0o04 * odd) >> 1 for odd in range(2)] for state in range(8)])


@dataclass(frozen=True)
class Choice:
    """What was found for N reports of K coefficients.

    Attributes:
        tried: [N] int64, which of the kinds that were tried. steps: [N] int64.
        levels: [N, K, 2] int32, parts in steps. bits: [N] ideal lengths. errors: [N] squared errors.
    """

    tried: Tensor
    steps: Tensor
    levels: Tensor
    bits: Tensor
    errors: Tensor


def _forget(code: nn.Module, _: Any) -> None:
    """A hook of its own, and not of the code: the code goes to decode workers with it."""
    cast(TrellisCode, code).forget()


class TrellisCode(nn.Module):
    """The code of reports of K coefficients, of one of J kinds each, of which deviations are known.

    Attributes:
        trellis: [states, 2], see `ungerboeck_trellis`. price: what a bit is worth in squared steps.
        deviations: [J, K] int16, of real and imaginary parts: 2^(deviation / PARTS).
        weights: [2, CLASSES, CONTEXTS, SYMBOLS] int32 of the tables of indices, by quantiser, class and context.
        kinds, steps: [J] and [STEPS] int32, weights of kinds and steps.
        expected: [CLASSES] int32, what a magnitude is on average, in 256ths of a step.
        inwards: [CLASSES, MAGNITUDES], by how much less the decoder takes a magnitude for [steps].
        errors: [CLASSES, MAGNITUDES], mean squared errors of what is sent [steps^2].
        bias: [STEPS], squared errors of reports over what is expected by `errors` and deviations: a kind is chosen
            also because what it does not send is spared.
    """

    deviations: Tensor
    weights: Tensor
    kinds: Tensor
    steps: Tensor
    expected: Tensor
    inwards: Tensor
    errors: Tensor
    bias: Tensor

    def __init__(self, kinds: int, coefficients: int) -> None:
        super().__init__()
        self.trellis = ungerboeck_trellis()
        self.price = PRICE
        self.sizes = step_size(torch.arange(STEPS)).numpy()
        self.register_buffer("deviations", torch.zeros(kinds, coefficients, dtype=torch.int16))
        self.register_buffer("weights", whole_weights(torch.ones(2, CLASSES, CONTEXTS, SYMBOLS)))
        self.register_buffer("kinds", whole_weights(torch.ones(kinds)))
        self.register_buffer("steps", whole_weights(torch.ones(STEPS)))
        self.register_buffer("expected", torch.full((CLASSES,), START // 2, dtype=torch.int32))
        self.register_buffer("inwards", torch.zeros(CLASSES, MAGNITUDES))
        self.register_buffer("errors", torch.full((CLASSES, MAGNITUDES), 1 / 12))
        self.register_buffer("bias", torch.ones(STEPS))
        self._made: dict[str, Any] = {}
        nn.Module.register_load_state_dict_post_hook(self, _forget)

    def forget(self) -> None:
        """What was made of other tables. Raises InvalidInput for weights that are no tables."""
        self._made.clear()
        for name in ("weights", "kinds", "steps"):
            weights = getattr(self, name)
            sums = weights.sum(-1)
            if int(weights.min()) < 1 or bool((sums != 1 << PRECISION).any()):
                raise InvalidInput(
                    f"{name}: from {int(weights.min())} on, that sum up to {int(sums.min())} to {int(sums.max())};"
                    f" wanted 1 or more, and {1 << PRECISION}"
                )

    def classes(self, labels: Tensor, steps: Tensor) -> Tensor:
        """Classes of the coefficients of reports of kinds and steps [N] int64, [N, K] int64; below 0 if not sent."""
        places = self.deviations[labels].long() + steps[:, None] - COARSEST + 2 * PARTS + PARTS // (2 * CLASS_PARTS)
        return places.div(PARTS // CLASS_PARTS, rounding_mode="floor").clamp(max=CLASSES - 1)

    def choose(self, coefficients: Tensor, labels: Tensor, room: Tensor, finest: Tensor) -> Choice:
        """Of each report that which costs least of the kinds that are tried, at the finest step that is allowed.

        Args:
            coefficients: [N, T, K, 2] float32, in kinds `labels` [N, T].
            room, finest: [N], most bits of a code, by its ideal length, and the finest step.
        """
        from shared.quantizers import loops  # numba takes a second: not before it is needed

        reports, tried, count, _ = coefficients.shape
        chosen, steps = np.zeros(reports, np.int64), np.zeros(reports, np.int64)
        levels, figures = np.zeros((reports, 2 * count), np.int32), np.zeros((reports, 2))
        heads = self.lengths("kinds")[labels]
        values = coefficients.reshape(reports, tried, 2 * count).contiguous().numpy()
        loops.choose(
            values, labels.contiguous().numpy(), heads.numpy(), self.lengths("steps").numpy(),
            room.numpy(), finest.numpy(), self.deviations.numpy(), self.sizes,
            self.lengths("weights").numpy(), self.expected.numpy(), self.inwards.numpy(), self.trellis, self.price,
            chosen, steps, levels, figures,
        )  # fmt: skip
        found = torch.from_numpy(figures)
        return Choice(
            torch.from_numpy(chosen),
            torch.from_numpy(steps),
            torch.from_numpy(levels).unflatten(1, (count, 2)),
            found[:, 0],
            found[:, 1],
        )

    def rows(self, label: int, step: int, levels: Tensor) -> NDArray[np.int64]:
        """What the parts of a report's coefficients [K, 2] are coded by, [2 K, 4]: quantiser (-1 where nothing is
        sent), class, context, and index.
        """
        from shared.quantizers import loops  # numba takes a second: not before it is needed

        flat = np.ascontiguousarray(levels.flatten().numpy())
        found = np.zeros((len(flat), 4), np.int64)
        loops.rows(flat, self.deviations[label].numpy(), step, self.expected.numpy(), self.trellis, found)
        return found

    def write(self, label: int, step: int, levels: Tensor) -> Bits:
        """The code of a report's levels [K, 2] int32."""
        from shared.quantizers import loops  # numba takes a second: not before it is needed

        flat = np.ascontiguousarray(levels.flatten().numpy())
        out = np.zeros(LONGEST_PART * len(flat) + 64, np.uint8)
        tables = self._starts("weights"), self._starts("kinds"), self._starts("steps")
        length = loops.write(label, step, flat, self.rows(label, step, levels), *tables, out)
        return out[:length]

    def read(self, code: Bits) -> tuple[int, int, NDArray[np.int32]]:
        """Kind, step and levels [K, 2] of what `write` made. Raises InvalidInput for damaged code."""
        from shared.quantizers import loops  # numba takes a second: not before it is needed

        heads, levels = np.zeros(2, np.int64), np.zeros(2 * self.deviations.shape[1], np.int32)
        tables = self._starts("weights"), self._starts("kinds"), self._starts("steps")
        left = loops.read(code, self.deviations.numpy(), *tables, self.expected.numpy(), self.trellis, heads, levels)
        if left:
            raise InvalidInput(f"payload: entropy code of {len(code)} bits leaves {left}; wanted 0: it is damaged")
        return int(heads[0]), int(heads[1]), levels.reshape(-1, 2)

    def values(self, labels: Tensor, steps: Tensor, levels: Tensor) -> Tensor:
        """What the decoder takes levels [N, K, 2] for, float32."""
        places = (self.classes(labels, steps).clamp(min=0)[..., None], levels.abs().clamp(max=MAGNITUDES - 1).long())
        return (levels - levels.sign() * self.inwards[places]) * step_size(steps)[:, None, None]

    def expected_errors(self, labels: Tensor, steps: Tensor, levels: Tensor) -> Tensor:
        """Squared errors that are to be expected of reports, [N], by their kinds, steps [N] and levels [N, K, 2]: as
        measured in training where something is sent, else the power that the coefficient has.
        """
        classes, power = self.classes(labels, steps), 2 * 2 ** (2 * self.deviations[labels].float() / PARTS)
        places = (classes.clamp(min=0)[..., None], levels.abs().clamp(max=MAGNITUDES - 1).long())
        of_sent = self.errors[places].sum(2) * step_size(steps)[:, None].square()
        return self.bias[steps] * torch.where(classes < 0, power, of_sent).sum(1)

    def lengths(self, name: str) -> Tensor:
        """Code lengths [bits] by the weights of that name, float32."""
        key = f"lengths of {name}"
        if key not in self._made:
            self._made[key] = PRECISION - getattr(self, name).double().log2().float()
        found: Tensor = self._made[key]
        return found

    def _starts(self, name: str) -> NDArray[np.int32]:
        """Where the symbols of tables begin, and the last ends."""
        if name not in self._made:
            ends = np.cumsum(getattr(self, name).numpy(), axis=-1, dtype=np.int32)
            self._made[name] = np.concatenate([np.zeros_like(ends[..., :1]), ends], axis=-1)
        found: NDArray[np.int32] = self._made[name]
        return found


def step_size(steps: Tensor) -> Tensor:
    """Steps of step indices, float32."""
    return 2 ** ((COARSEST - steps) / PARTS)


def whole_weights(probabilities: Tensor) -> Tensor:
    """Whole numbers of at least 1, int32, whose sum over the last axis is 2^PRECISION, as near to probabilities (of any
    sum above 0) as may be.
    """
    wanted = probabilities.double() / probabilities.double().sum(-1, keepdim=True)
    weights = 1 + (wanted * ((1 << PRECISION) - wanted.shape[-1])).floor().long()
    missing = (1 << PRECISION) - weights.sum(-1, keepdim=True)
    return weights.scatter_add(-1, wanted.argmax(-1, keepdim=True), missing).int()
