"""What a training takes of a node where a cluster runs it (`csiemu train --ray`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from csiemu.training.options import options_of
from shared.errors import InvalidInput
from shared.fields import Within, check_fields


@dataclass(frozen=True)
class Share:
    """What a training takes of a cluster's node. The texts beside the fields are also the help of their options.

    Raises:
        InvalidInput: a value is not allowed.
    """

    num_cpus: Annotated[float, "With --ray: cores that a training takes, for which it waits.", Within(0.01, 1024)] = 1.0
    num_gpus: Annotated[
        float | None,
        "With --ray: the GPU that it takes, 0.25 where four share one. Default: 1 with --device cuda, else 0.",
        Within(0, 1),
    ] = None

    def __post_init__(self) -> None:
        check_fields(self)

    def gpus(self, device: str) -> float:
        """What a training on this device takes. Raises InvalidInput if it would have none."""
        on_cuda = device.startswith("cuda")
        if on_cuda and self.num_gpus == 0:
            raise InvalidInput(f"num_gpus: 0 leaves a training on {device} without a GPU")
        return float(on_cuda) if self.num_gpus is None else self.num_gpus


SHARE_OPTIONS = list(options_of(Share))
"""Those that a plan has, too, and a command line that knows of clusters."""
