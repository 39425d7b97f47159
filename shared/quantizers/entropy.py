"""Entropy coding of a report's integers: asymmetric numeral systems (ANS) with tables of whole numbers.

Tables are buffers, so that they stand in the checkpoint: both ends decode by the same whole numbers on every machine.
The coder is `constriction`'s (Bamler, "Understanding entropy coding with asymmetric numeral systems", 2022): a stack,
so that what is written last is read first. What is as good as random (signs) lies at its bottom, behind a one that
marks its end: a coder that starts empty would waste up to 24 bits on its first symbol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.errors import InvalidInput

TOTAL = 1 << 24
"""Sum of the weights of a table: `constriction`'s precision."""

WORD_BITS = 32
"""Of the coder's words."""

Bits = NDArray[np.uint8]
"""Zeros and ones."""

Run = tuple[int, NDArray[np.int32]]
"""Row of the tables, and symbols that it codes."""


class EntropyTables(nn.Module):
    """Probabilities of symbols as whole numbers; row r has `sizes[r]` (2 or more) symbols from 0 on.

    Attributes:
        weights: [sum of sizes] int32, each at least 1, those of a row summing up to `TOTAL`; at first equal ones.
        starts: where the rows begin.
    """

    weights: Tensor

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)
        equal = [whole_weights(np.ones(size)) for size in self.sizes]
        self.register_buffer("weights", torch.from_numpy(np.concatenate(equal)))
        self._models: list[Any] = []
        self._lengths: Tensor | None = None
        nn.Module.register_load_state_dict_post_hook(self, lambda *_: self._forget())

    def set(self, row: int, probabilities: NDArray[np.float64]) -> None:
        """Set a row to the whole numbers nearest to probabilities [sizes[row]], which need not sum up to 1."""
        first, last = self.starts[row : row + 2]
        self.weights[first:last] = torch.from_numpy(whole_weights(probabilities))
        self._forget()

    def _forget(self) -> None:
        """What was made of other weights."""
        self._models.clear()
        self._lengths = None

    def lengths(self) -> Tensor:
        """Code length of every symbol [bits], [sum of sizes] float32."""
        if self._lengths is None:
            self._lengths = -(self.weights.double() / TOTAL).log2().float()
        return self._lengths

    def write(self, runs: Sequence[Run], raw: Bits) -> Bits:
        """Code runs of symbols, and raw bits as they are: a binary number that begins with a one."""
        import constriction

        coder = constriction.stream.stack.AnsCoder(_to_words(np.concatenate([np.ones(1, np.uint8), raw])))
        for row, symbols in reversed(runs):
            coder.encode_reverse(symbols, self.model(row))
        return _to_bits(coder.get_compressed())

    def model(self, row: int) -> Any:
        """`constriction`'s model of a row. Raises InvalidInput for weights that are no table."""
        if not self._models:
            self._models = [self._make(row) for row in range(len(self.sizes))]
        return self._models[row]

    def _make(self, row: int) -> Any:
        import constriction

        weights = self.weights[self.starts[row] : self.starts[row + 1]].cpu().numpy().astype(np.int64)
        if weights.min() < 1 or weights.sum() != TOTAL:
            raise InvalidInput(
                f"tables: row {row} has weights from {weights.min()} on that sum up to {weights.sum()}; wanted 1 or"
                f" more, and {TOTAL}"
            )
        # It takes floats, sets 1 aside for each symbol and scales the rest to TOTAL - size: by exactly 1 here, and
        # whole numbers up to 2^24 are exact in float32, so that nothing is rounded on any machine.
        table = (weights - 1).astype(np.float32)
        return constriction.stream.model.Categorical(table, lazy=False, perfect=False)


class SymbolReader:
    """Reads back what `EntropyTables.write` made, with zeros in front of it or without.

    Raises:
        InvalidInput: there is no one in it.
    """

    def __init__(self, tables: EntropyTables, bits: Bits) -> None:
        import constriction

        if not bits.any():
            raise InvalidInput(f"payload: {len(bits)} bits of entropy code that are all 0; wanted a one")
        self._tables = tables
        self._coder = constriction.stream.stack.AnsCoder(_to_words(bits))

    def read(self, row: int, count: int) -> NDArray[np.int32]:
        """The next `count` symbols, by a row of the tables; of damaged code any symbols of the row."""
        found: NDArray[np.int32] = self._coder.decode(self._tables.model(row), count)
        return found

    def rest(self, count: int) -> Bits:
        """The raw bits, when all symbols are read. Raises InvalidInput if they are not `count`, of damaged code."""
        found = _to_bits(self._coder.get_compressed())
        if len(found) != count + 1:
            raise InvalidInput(f"payload: entropy code leaves {len(found) - 1} bits; wanted {count}: it is damaged")
        return found[1:]


def whole_weights(probabilities: NDArray[np.float64]) -> NDArray[np.int32]:
    """Whole numbers of at least 1 that sum up to `TOTAL`, as near to probabilities (of any sum above 0) as may be."""
    free = TOTAL - len(probabilities)
    weights = 1 + np.floor(probabilities / probabilities.sum() * free).astype(np.int64)
    weights[probabilities.argmax()] += TOTAL - weights.sum()
    return weights.astype(np.int32)


def _to_words(bits: Bits) -> NDArray[np.uint32]:
    """A binary number, most significant bit first, as words, the least significant first and the last not 0."""
    first = int(bits.argmax())
    number = bits[first:]
    padded = np.concatenate([np.zeros(-len(number) % WORD_BITS, np.uint8), number])
    return np.packbits(padded).view(">u4")[::-1].astype(np.uint32)


def _to_bits(words: NDArray[np.uint32]) -> Bits:
    """Inverse of `_to_words`; no word is no bit."""
    bits = np.unpackbits(words[::-1].astype(">u4").view(np.uint8))
    return bits[int(bits.argmax()) :] if len(bits) else bits
