"""A second device, for tests on machines without a GPU: its tensors live in CPU memory, but must not meet the CPU's.

A `Gpu` is a dispatch mode. In it, tensors made on `Gpu.device` or moved there are of another device to all code: what
mixes them with the CPU's fails as on CUDA, and what takes the CPU's shortcuts does not see them. `meta` stands for
CUDA, because a build without CUDA cannot name tensors of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

_COPIES = ("copy_.default", "_to_copy.default")
"""What may see both devices."""


class OnGpu(Tensor):
    """A tensor of the simulated device, whose numbers `held` has."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGpu:
        kind = {"dtype": held.dtype, "device": Gpu.device, "strides": held.stride()}
        made = Tensor._make_wrapper_subclass(cls, held.shape, storage_offset=held.storage_offset(), **kind)
        made.held = held
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"OnGpu({self.held})"

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class Gpu(TorchDispatchMode):
    """While it lasts, there is another device."""

    device = torch.device("meta")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    given: list[Tensor] = []

    def to_cpu(value: Any) -> Any:
        if isinstance(value, Tensor):
            given.append(value)
            return value.held if isinstance(value, OnGpu) else value
        return torch.device("cpu") if isinstance(value, torch.device) else value

    def to_gpu(value: Any) -> Any:
        written = (tensor for tensor in given if isinstance(tensor, OnGpu) and tensor.held is value)
        return next(written, OnGpu(value)) if isinstance(value, Tensor) else value

    cpu_args, cpu_kwargs = tree_map(to_cpu, args), tree_map(to_cpu, kwargs)
    ours = [isinstance(tensor, OnGpu) for tensor in given]
    copies = str(func).removeprefix("aten.") in _COPIES
    for tensor in given:
        if any(ours) and not isinstance(tensor, OnGpu) and tensor.dim() and not copies:
            raise RuntimeError(f"{func}: a tensor {tuple(tensor.shape)} of the CPU beside those of the GPU")
    if func is torch.ops.aten._conj.default:
        func = torch.ops.aten.conj_physical.default  # lazy conjugation is resolved above dispatch: not for `held`
    result = func(*cpu_args, **cpu_kwargs)
    if (wanted := kwargs.get("device")) is not None:
        on_gpu = torch.device(wanted) == Gpu.device
    else:
        on_gpu = ours[0] if copies else any(ours)
    return tree_map(to_gpu, result) if on_gpu else result
