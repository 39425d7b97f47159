"""Unitary matrices as products of Householder reflections in int8: unitary whatever the rounding, a byte an entry."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LARGEST = 127


class UnitaryMatrices(nn.Module):
    """J unitary matrices of size R, whose columns are known but for their phases.

    Matrix j is a product of reflections 1 - 2 v v^H / ||v||^2 by vectors v_0, v_1, .. with zeros above entry k of v_k,
    which is 1 (Golub and Van Loan, "Matrix computations", section 5.1).

    Attributes:
        packed: [J, R, R] int8; real parts of v_k in column k below the diagonal, imaginary parts in row k behind it.
        scales: [J, R], by which those of v_k are multiplied.
    """

    packed: Tensor
    scales: Tensor

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.register_buffer("packed", torch.zeros(count, size, size, dtype=torch.int8))
        self.register_buffer("scales", torch.zeros(count, size))
        self._matrices: Tensor | None = None
        nn.Module.register_load_state_dict_post_hook(self, UnitaryMatrices._forget)

    def _forget(self, _: object) -> None:
        """What was made of other vectors."""
        self._matrices = None

    @property
    def matrices(self) -> Tensor:
        """[J, R, R] complex64."""
        if self._matrices is None:
            whole = self.packed.float()
            vectors = torch.complex(whole.tril(-1), whole.triu(1).mT) * self.scales[:, None]
            factors = 2 / (1 + torch.view_as_real(vectors).square().sum((1, 3)))
            self._matrices = torch.linalg.householder_product(vectors, factors.to(vectors.dtype))
        return self._matrices

    def set(self, matrices: Tensor) -> None:
        """Set to unitary matrices [J, R, R] complex64, but for the phases of columns. What a rounded vector does wrong,
        those after it make good as far as they can.
        """
        left = matrices.clone()
        for k in range(left.shape[1]):
            column = left[:, k:, k]
            phase = torch.sgn(column[:, :1])
            vector = column / (column[:, :1] + torch.where(phase == 0, 1, phase) * column.norm(dim=1, keepdim=True))
            parts = torch.view_as_real(vector[:, 1:]).flatten(1)
            scale = parts.abs().amax(1, keepdim=True).clamp(min=1e-20) / LARGEST if parts.shape[1] else vector.real
            whole = (torch.view_as_real(vector[:, 1:]) / scale[..., None]).round()
            self.packed[:, k + 1 :, k], self.packed[:, k, k + 1 :] = whole.to(torch.int8).unbind(-1)
            self.scales[:, k] = scale[:, 0]
            vector[:, 0], vector[:, 1:] = 1, torch.view_as_complex(whole * scale[..., None])
            factor = 2 / torch.view_as_real(vector).square().sum((1, 2))
            products = torch.einsum("jr,jrc->jc", vector.conj(), left[:, k:, k + 1 :]) * factor[:, None]
            left[:, k:, k + 1 :] -= vector[:, :, None] * products[:, None]
        self._matrices = None
