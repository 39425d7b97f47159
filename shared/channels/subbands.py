"""Precoders of subbands: the directions that a UE with one antenna would want, and that a codebook is to report."""

from __future__ import annotations

import torch
from torch import Tensor


def precoders(channels: Tensor, subband: Tensor, count: int) -> Tensor:
    """The unit-norm precoder of each subband that serves its channels best: the dominant eigenvector of
    sum_f h_f h_f^H over its subcarriers f, for which SGCS is defined (TS 38.214, 5.2.1.4.6).

    Its phase, which means nothing, is that of the channel in the middle of the subband, so that it changes from subband
    to subband as the channel does.

    Args:
        channels: [..., F, M] complex64, antennas last.
        subband: [F] int64, ascending, of each subcarrier; each of `count` has one or more.

    Returns:
        [..., S, M] complex64; zeros for channels that are zero.
    """
    return torch.stack([_dominant(channels[..., subband == s, :]) for s in range(count)], dim=-2)


def _dominant(channels: Tensor) -> Tensor:
    """[..., F, M] to [..., M], by the F x F products: a subband has fewer subcarriers than there are antennas."""
    products = channels.conj() @ channels.mT
    weights = torch.linalg.eigh(products).eigenvectors[..., -1]
    phase = weights[..., weights.shape[-1] // 2 : weights.shape[-1] // 2 + 1].angle()
    direction = (channels.mT @ (weights * torch.polar(torch.ones_like(phase), -phase))[..., None])[..., 0]
    return direction / torch.linalg.vector_norm(direction, dim=-1, keepdim=True).clamp(min=1e-30)
