"""The scale of an image, by its largest magnitude or by its power, as 8 bits of a logarithmic scale."""

from __future__ import annotations

from torch import Tensor

from shared.errors import InvalidInput
from shared.link.payload import SCALE
from shared.metrics import energy
from shared.quantizers.base import Quantizer

BITS = 8


class Scale(Quantizer):
    """Level l stands for a scale of low + l (high - low) / 255 dB: twice the largest magnitude of an image. It takes
    the images themselves.

    Raises:
        InvalidInput: limits that are none.
    """

    def __init__(self, low_db: float, high_db: float) -> None:
        if not -200 <= low_db < high_db <= 200:
            raise InvalidInput(f"scale_low_db, scale_high_db: {low_db}, {high_db}; wanted -200 <= low < high <= 200")
        super().__init__(SCALE, 1, BITS)
        self.low = low_db
        self.step = (high_db - low_db) / (2**BITS - 1)

    def to_levels(self, values: Tensor) -> Tensor:
        """[N, Q, M] complex images to [N, 1] int64, the least level that keeps the largest magnitude below 0.5."""
        scale = 2 * largest_magnitude(values).flatten(1).clamp(min=1e-30)
        return ((20 * scale.log10() - self.low) / self.step).ceil().clamp(0, 2**BITS - 1).long()

    def from_levels(self, levels: Tensor) -> Tensor:
        """[N, 1] int64 to scales [N, 1] float32."""
        return 10 ** ((self.low + levels * self.step) / 20)


class PowerScale(Scale):
    """The scale that brings an image to mean power 1 an entry: the root of its mean power, to the nearest level."""

    def to_levels(self, values: Tensor) -> Tensor:
        """[N, Q, M] complex images to [N, 1] int64."""
        power = energy(values, axes=2)[:, None] / values[0].numel()
        return ((10 * power.clamp(min=1e-30).log10() - self.low) / self.step).round().clamp(0, 2**BITS - 1).long()


def largest_magnitude(image: Tensor) -> Tensor:
    """Largest magnitude of each image [..., Q, M], [..., 1, 1]."""
    return (image.real.square() + image.imag.square()).amax((-2, -1), keepdim=True).sqrt()
