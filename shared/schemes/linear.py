"""Fully connected layers of decoders: torch's, with products by oneDNN where these are faster.

MKL, which computes float32 products in torch, uses AVX-512 of its own maker's processors alone; on others oneDNN, which
torch has for other types, takes half the time.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

LEAST_ROWS = 8
"""Of a product by oneDNN: for fewer, bringing the weights to its order costs more than it saves."""


class Linear(nn.Linear):
    """nn.Linear; in inference in float32 on a CPU its results are the same up to rounding."""

    def forward(self, values: Tensor) -> Tensor:
        if self._by_onednn(values):
            return torch.ops.mkldnn._linear_pointwise(values, self.weight, self.bias, "none", [], "")
        return super().forward(values)

    def _by_onednn(self, values: Tensor) -> bool:
        if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or not onednn_is_faster():
            return False
        float32 = values.dtype == self.weight.dtype == torch.float32
        return float32 and values.is_cpu and values.numel() >= LEAST_ROWS * self.in_features


@functools.cache
def onednn_is_faster() -> bool:
    """Whether the processor has AVX-512 that MKL does not use."""
    can = torch.cpu.get_capabilities()
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return both and can.get("avx512_f", False) and "Intel" not in can.get("cpu_name", "Intel")
