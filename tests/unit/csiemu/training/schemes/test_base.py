"""How the training of a scheme is found, and what it is where the scheme has none of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from csiemu.training import schemes as trainings
from csiemu.training.schemes import SchemeTraining, training_of, trains
from csiemu.training.schemes.crnet import CrNetTraining
from csiemu.training.schemes.pilots import PilotTraining
from csiemu.training.trainer import Recipe, Trainer
from shared import schemes
from shared.channels.scenario import Scenario
from shared.channels.uplink import UplinkView
from shared.conditions import RunConditions
from shared.errors import InvalidInput
from shared.link.evaluation import evaluate
from shared.quantizers.uniform import UniformQuantizer
from shared.schemes import Decoder, Encoder, Scheme, SchemeConfig, State
from shared.schemes.base import Downlink
from shared.schemes.crnet import CrNet

ENTRIES = 8


class PlainEncoder(Encoder):
    """An image to a codeword, by one layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, ENTRIES)
        self.quantizer = UniformQuantizer("codeword", ENTRIES, 6)

    def observe(self, downlink: Downlink) -> Tensor:
        return torch.view_as_real(downlink.image()).flatten(2)

    def encode(self, observation: Tensor) -> dict[str, Tensor]:
        return self.quantizer.encode(self.layer(observation).tanh())

    def forward(self, observation: Tensor, slope: float) -> Tensor:
        return self.quantizer(self.layer(observation).tanh(), slope)


class PlainDecoder(Decoder):
    """The codeword to an image, by one layer."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.layer = nn.Linear(ENTRIES, 2 * shape[0] * shape[1])
        self.quantizer = UniformQuantizer("codeword", ENTRIES, 6)

    def side_information(self, uplink: UplinkView) -> Tensor:
        return torch.zeros(len(uplink.samples), uplink.scenario.slots, 0)

    def initial_state(self, count: int) -> State:
        return {}

    def step(self, fields: dict[str, Tensor], side: Tensor, state: State) -> tuple[Tensor, State]:
        return self(self.quantizer.decode(fields), side), {}

    def forward(self, sent: Tensor, side: Tensor) -> Tensor:
        image = self.layer(sent).unflatten(-1, (*self.shape, 2))
        return torch.view_as_complex(image.contiguous())


class Plain(Scheme):
    """A scheme that defines its two paths and nothing of training."""

    name: ClassVar[str] = "plain"
    config_class: ClassVar[type[SchemeConfig]] = SchemeConfig
    domain = "angular-delay"
    sizes: ClassVar[tuple[str, ...]] = ("antennas",)

    def make_encoder(self) -> PlainEncoder:
        return PlainEncoder(2 * 8 * self.scenario.antennas)

    def make_decoder(self) -> PlainDecoder:
        return PlainDecoder((8, self.scenario.antennas))


@pytest.fixture
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Registrations of a test end with it."""
    training_of(plain())
    monkeypatch.setattr(trainings, "_trainings", dict(trainings._trainings))
    schemes.import_all.cache_clear()
    yield
    schemes.import_all.cache_clear()


def plain() -> Plain:
    torch.manual_seed(0)
    return Plain(Scenario.parse("cost2100-indoor-csinet:antennas=8,first_rows=8,slots=2"), SchemeConfig())


def test_two_paths_are_enough_to_be_trained_and_sent_over_the_link() -> None:
    """Layout, check and training are those of its quantisers and of its ends' `forward`."""
    scheme = plain()
    assert type(training_of(scheme)) is SchemeTraining
    assert scheme.layout.describe() == "codeword:8x6"
    with torch.no_grad():
        for layer in (scheme.encoder.layer, scheme.decoder.layer):
            layer.weight.mul_(1e-2)
            layer.bias.zero_()
    before = evaluate(scheme, RunConditions(scheme.scenario), ues=50)["nmse_db"]
    trainer = Trainer(scheme, Recipe(steps=60, batch=32, rate=3e-3, warmup=2, frames=64))
    trainer.run(report_every=10)
    losses = [point["loss"] for point in trainer.history]
    assert losses[-1] < 0.7 * losses[0]
    after = evaluate(scheme, RunConditions(scheme.scenario), ues=50)["nmse_db"]
    assert after < before


def test_what_the_default_does_not_have_is_refused() -> None:
    messages = []
    training: Any = training_of(plain())
    for refused in (
        lambda: training_of(plain(), "phase"),
        lambda: training.start("principal", None),
        lambda: training.start("linear", None),
        lambda: training.compile("default"),
    ):
        with pytest.raises(InvalidInput) as error:
            refused()
        messages.append(str(error.value))
    assert messages == [
        "stage: 'phase' is not one of all",
        "start: 'plain' has no principal start; start is random",
        "start: 'plain' has no linear start; start is random",
        "compiled: 'plain' is not worth compiling",
    ]


def test_the_nearest_of_the_classes_that_a_scheme_extends_says_how(make_scheme: Callable[..., Scheme]) -> None:
    class Mine(CrNet):
        pass

    images = Scenario.parse("cost2100-indoor-csinet:antennas=8,first_rows=8")
    assert type(training_of(Mine(images, Mine.config_class()))) is CrNetTraining
    assert type(training_of(make_scheme("hyperdnn", "multipath-p2:antennas=4"))) is PilotTraining


@pytest.mark.usefixtures("_as_it_was")
def test_another_package_says_how_its_scheme_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the group of entry points, of which a broken one takes nothing away."""

    def load() -> None:
        trains(Plain)(type("PlainTraining", (SchemeTraining,), {"stages": ("all", "first")}))

    def fail() -> None:
        raise ImportError

    points = [SimpleNamespace(name="broken", value="b", load=fail), SimpleNamespace(name="plain", value="p", load=load)]
    monkeypatch.setattr(schemes, "entry_points", lambda group: points if group == "csiemu.training" else [])
    assert training_of(plain(), "first").stage == "first"
