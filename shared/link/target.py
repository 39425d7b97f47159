"""Target CSI: a second, finer description of a channel that a UE sends now and then, for the gNB to judge its own
estimates by (3GPP's network-side monitoring of CSI compression).

It is a sample of the channel: up to ENTRIES of its entries, others in each UE and frame, of the channel over antennas
or of the image's two-dimensional DFT, over which its power is spread evenly; of precoders whole subbands. Each part of
an entry has 8 bits, beside a scale of 8 bits. So one description serves every scheme, and its size is known: 1,032 bits
where there are 64 entries. No end sees more than its own: what the UE measures is in `shared.link.encoding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.channels.streams import Purpose, Samples
from shared.errors import InvalidInput
from shared.link.payload import PayloadLayout
from shared.metrics import Domain, energy
from shared.quantizers.scale import Scale
from shared.quantizers.uniform import UniformQuantizer

ENTRIES, ENTRY_BITS = 64, 8
"""Complex entries of a target at most, and bits of each real or imaginary part."""

SCALE_DB = (-200.0, 200.0)
"""Limits of its scale: no world's channels are beyond them."""

SMALLEST = 1e-30


@dataclass(frozen=True)
class TargetCoder:
    """Writes and reads the targets of channels of a domain and shape, [M], [Q, M] or [S, M]."""

    domain: Domain
    shape: tuple[int, ...]

    @cached_property
    def entries(self) -> int:
        """Complex entries of a target."""
        if self.domain == "precoder":
            return self.shape[-1] * min(self.shape[0], max(1, ENTRIES // self.shape[-1]))
        return min(ENTRIES, int(np.prod(self.shape)))

    @cached_property
    def _quantizers(self) -> tuple[Scale, UniformQuantizer]:
        return Scale(*SCALE_DB), UniformQuantizer("entries", 2 * self.entries, ENTRY_BITS)

    @cached_property
    def layout(self) -> PayloadLayout:
        """The bits of one target."""
        return PayloadLayout(tuple(field for quantizer in self._quantizers for field in quantizer.fields()))

    @torch.inference_mode()
    def encode(self, channels: Tensor, samples: Samples) -> bytes:
        """Targets of the channels [N, *shape] complex64 of N frames, packed."""
        picked, (scale, uniform) = self._pick(channels, samples), self._quantizers
        level = scale.to_levels(picked[:, None])
        unit = 2 * torch.view_as_real(picked / scale.from_levels(level)).flatten(1)  # the scale is twice the largest
        fields = {scale.field: level, **uniform.encode(unit)}
        return self.layout.pack({name: values.numpy() for name, values in fields.items()}, len(samples))

    @torch.inference_mode()
    def decode(self, target: bytes, count: int) -> Tensor:
        """The entries of `count` packed targets, [count, entries] complex64. Raises InvalidInput if they are not."""
        try:
            fields = self.layout.unpack(target, count)
        except InvalidInput as error:
            raise InvalidInput(f"target: {error}") from None
        scale, uniform = self._quantizers
        given = {name: torch.from_numpy(values) for name, values in fields.items()}
        parts = uniform.decode(given).unflatten(1, (self.entries, 2)).contiguous()
        return torch.view_as_complex(parts) * scale.from_levels(given[scale.field]) / 2

    @torch.inference_mode()
    def ratio(self, estimates: Tensor, target: Tensor, samples: Samples) -> NDArray[np.float64]:
        """||e||^2 / ||h||^2 of estimates [N, *shape] by targets [N, entries], [N]; of precoders 1 - SGCS."""
        picked = self._pick(estimates, samples)
        if self.domain == "precoder":
            mine, true = (values.unflatten(1, (-1, self.shape[-1])) for values in (picked, target))
            products = (mine.conj() * true).sum(2).abs().square()
            ratio = 1 - (products / (energy(mine) * energy(true)).clamp(min=SMALLEST)).mean(1)
        else:
            ratio = energy(picked - target) / energy(target).clamp(min=SMALLEST)
        return ratio.double().numpy()

    def _pick(self, channels: Tensor, samples: Samples) -> Tensor:
        """The entries of channels [N, *shape] that belong to their frames, [N, entries]."""
        if self.domain == "angular-delay":
            channels = torch.fft.fft2(channels, norm="ortho")
        width = self.shape[-1] if self.domain == "precoder" else 1
        blocks = channels.reshape(len(channels), -1, width)
        drawn = samples.uniform(Purpose.TARGET_ENTRIES, blocks.shape[1])
        chosen = drawn.argsort(dim=1, stable=True)[:, : self.entries // width]
        return blocks.gather(1, chosen[..., None].expand(-1, -1, width)).flatten(1)
