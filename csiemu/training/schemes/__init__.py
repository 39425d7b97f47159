"""What training does with each scheme, beside its encoder and decoder. The defaults are for one that needs nothing
special.

A scheme's own is a subclass that names it, `@trains(MyScheme)`. Modules of this package are found by themselves, those
of other packages by the entry point group `csiemu.training`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, TypeVar

from torch import Tensor

from shared.channels.downlink import DownlinkView
from shared.errors import InvalidInput
from shared.metrics import energy
from shared.schemes import Scheme, import_all

if TYPE_CHECKING:
    from csiemu.training.trainer import Recipe, Rounds

ENTRY_POINTS = "csiemu.training"
"""Group of entry points whose modules say how schemes of other packages are trained."""


class SchemeTraining:
    """A scheme in a stage of its training.

    Class attributes:
        stages: `all` and those that train some parts of the scheme.
        one_graph: whether a step, from observation to optimiser, can be recorded as a CUDA graph: it reads no tensor's
            value on the host and copies nothing to the device.
        measured_frames: frames of the training split by which a start is set, and what `calibrate` measures; fewer lack
            the far ends of codewords.

    Args:
        scheme: what is trained.
        stage: one of `stages`; parameters that another one trains are frozen.

    Raises:
        InvalidInput: the scheme has no such stage.
    """

    stages: ClassVar[tuple[str, ...]] = ("all",)
    one_graph: ClassVar[bool] = False
    measured_frames: ClassVar[int] = 16_384

    scheme: Scheme

    def __init__(self, scheme: Scheme, stage: str = "all") -> None:
        if stage not in self.stages:
            raise InvalidInput(f"stage: '{stage}' is not one of {', '.join(self.stages)}")
        self.scheme = scheme
        self.stage = stage

    def rounds(self, recipe: Recipe, sources: dict[str, str | None]) -> Rounds | None:
        """What trains the scheme where that is not done by gradients; None where it is.

        Args:
            sources: what the training is asked to go out from, by the name of the option; None where it is not.
        """
        return None

    def reconstruct(self, observation: Tensor, side: Tensor, slope: float | Tensor) -> Tensor:
        """Differentiable path from observation to estimate: the encoder's `forward`, then the decoder's.

        Args:
            observation: [N, T, observation].
            side: [N, T, S], from `precompute`.
            slope: of straight-through gradients; a tensor [] where a step is one graph.

        Returns:
            [N, T, M] complex64, or images [N, T, Q, M].

        Raises:
            InvalidInput: the scheme has nothing to train.
        """
        if not self.scheme.trainable:
            raise InvalidInput(f"scheme: '{self.scheme.name}' has nothing to train")
        estimate: Tensor = self.scheme.decoder(self.scheme.encoder(observation, slope), side)
        return estimate

    def precompute(self, observation: Tensor, side: Tensor) -> Tensor:
        """What `reconstruct` takes for `side`, computed once for fixed frames: side information with what the parts
        that this stage does not train make of it; by default side information itself.
        """
        return side

    def loss(self, estimate: Tensor, truth: Tensor) -> Tensor:
        """What training minimises, from `reconstruct` and the true channels: the mean squared error per antenna."""
        return energy(estimate - truth).mean() / truth.shape[-1]

    def progress(self, estimate: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Numerator and denominator of the NMSE that training shows: squared error and power, ratio of sums."""
        return energy(estimate - truth).mean(), energy(truth).mean()

    def start(self, kind: str, downlink: DownlinkView) -> None:
        """Set initial weights that are not random, by channels of the training split: `principal`, from their principal
        components, or `linear`, as their best linear autoencoder, for training with `frozen_norms`. A scheme that has
        such a start has a method of that name, `start_principal(downlink)`.

        Raises:
            InvalidInput: the scheme has no such start.
        """
        begin = getattr(self, f"start_{kind}", None)
        if begin is None:
            raise InvalidInput(f"start: '{self.scheme.name}' has no {kind} start; start is random")
        begin(downlink)

    def calibrate(self, downlink: DownlinkView) -> None:
        """Set what is measured rather than trained (ranges of quantisers), from channels of the training split."""

    def compile(self, mode: str) -> None:
        """Have torch.compile fuse the networks that `reconstruct` spends its time in, in one of its modes.

        Raises:
            InvalidInput: there are none.
        """
        raise InvalidInput(f"compiled: '{self.scheme.name}' is not worth compiling")

    def after_step(self) -> None:
        """Bring parameters back to their constraints, after each step of the optimiser."""


_trainings: dict[type, type[SchemeTraining]] = {}

T = TypeVar("T", bound=SchemeTraining)


def trains(scheme: type) -> Callable[[type[T]], type[T]]:
    """Class decorator: this is how a scheme, and what extends it, is trained."""

    def register(training: type[T]) -> type[T]:
        _trainings[scheme] = training
        return training

    return register


def training_of(scheme: Scheme, stage: str = "all") -> SchemeTraining:
    """The training of a scheme: its own, that of the nearest scheme that it extends, or the default.

    Raises:
        InvalidInput: the scheme has no such stage.
    """
    import_all("csiemu.training.schemes", ENTRY_POINTS)
    kind = next((_trainings[kind] for kind in type(scheme).__mro__ if kind in _trainings), SchemeTraining)
    return kind(scheme, stage)
