"""A step of training as one CUDA graph: a step of small networks is all launches of kernels, and a graph is one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3
"""Calls that run as they are before one is recorded: what they allocate for good (states of the optimiser, workspaces
of libraries) must not be of the graph."""


class Captured:
    """A function of tensors as one CUDA graph; on another device every call runs the function.

    On either, inputs are copied into buffers of the first call, and it is those that the function is given: a graph is
    recorded with them, and replays read them.

    Args:
        function: keyword arguments to a tensor. Between two calls nothing else that it depends on may change but what
            it changes itself, in place. It may read no tensor's value on the host and copy nothing to the device: while
            a graph is recorded, CUDA refuses both.
        device: of all tensors.
    """

    def __init__(self, function: Callable[..., Tensor], device: torch.device) -> None:
        self._function = function
        self._on_cuda = device.type == "cuda"
        self._inputs: dict[str, Tensor] = {}
        self._graph: torch.cuda.CUDAGraph | None = None
        self._output = torch.empty(0)
        self._calls = 0

    def __call__(self, **inputs: Tensor) -> Tensor:
        """The function's value; the inputs have the names and shapes of the first call."""
        if not self._inputs:
            self._inputs = {name: value.clone() for name, value in inputs.items()}
        else:
            for name, buffer in self._inputs.items():
                buffer.copy_(inputs[name])
        self._calls += 1
        if not self._on_cuda:
            return self._function(**self._inputs)
        if self._calls <= WARM_UP:
            return self._beside()
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):  # records, and runs nothing
                self._output = self._function(**self._inputs)
        self._graph.replay()
        return self._output.clone()

    def _beside(self) -> Tensor:
        """The function on a stream of its own, as torch asks for before a recording."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            output = self._function(**self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return output
