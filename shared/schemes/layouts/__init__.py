"""How layers of few channels hold images, for speed: chosen for a network, never by what is around it.

A convolution of 2 to 16 channels leaves most of a matrix unit idle. `rows` and `blocks` have layers that do more
multiplications in far fewer seconds. Parameters are those of the torch modules that they extend, results theirs up to
rounding, whatever is chosen. What is not chosen suits inference on a CPU.
"""

from __future__ import annotations

from torch import nn

from shared.schemes.layouts.blocks import BlockLayer
from shared.schemes.layouts.rows import RowLayer


def choose_layout(network: nn.Module, *, rows: bool = False, blocks: bool = True) -> None:
    """Choose what the layers of a network hold images in.

    Args:
        rows: layers of `rows` multiply whole rows, instead of torch's convolutions on channels last in memory.
        blocks: layers of `blocks` convolve blocks of pixels, instead of the device's own convolutions on pixels.
    """
    for module in network.modules():
        if isinstance(module, RowLayer):
            module.in_rows = rows
        if isinstance(module, BlockLayer):
            module.in_blocks = blocks
