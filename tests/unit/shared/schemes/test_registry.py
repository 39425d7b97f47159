"""What a registered scheme has to have, and what it can be built from."""

from __future__ import annotations

from typing import ClassVar

import pytest

from shared.channels.scenario import Scenario
from shared.errors import Conflict
from shared.link.payload import PayloadLayout
from shared.schemes import ENDS, Decoder, Encoder, Scheme, SchemeConfig, _schemes, register, schemes


class Unfinished(Scheme):
    """Does not say how its ends are made."""

    name: ClassVar[str] = "unfinished"
    config_class: ClassVar[type[SchemeConfig]] = SchemeConfig


class WithoutDecoder(Unfinished):
    def make_encoder(self) -> Encoder: ...


class WithoutStep(Decoder):
    """Does not say how a report is decoded."""


@pytest.mark.parametrize(
    ("kind", "missing"), [(Unfinished, "make_decoder, make_encoder"), (WithoutDecoder, "make_decoder")]
)
def test_a_scheme_that_lacks_something_cannot_be_built(kind: type[Scheme], missing: str) -> None:
    with pytest.raises(TypeError, match=f"abstract .*{missing}".replace(", ", ".*")):
        kind(Scenario.parse("multipath-p2"), SchemeConfig())


def test_nor_can_an_end() -> None:
    with pytest.raises(TypeError, match="step"):
        WithoutStep()
    with pytest.raises(TypeError, match="encode"):
        Encoder()


@pytest.mark.parametrize("name", schemes())
def test_a_scheme_takes_its_own_default_configuration(name: str) -> None:
    kind = schemes()[name]
    config = kind.config_class()
    scheme = kind(Scenario.parse(kind.default_scenario), config)
    assert kind.config_class(**config.to_json()) == config
    assert isinstance(scheme.layout, PayloadLayout)


@pytest.mark.parametrize("name", schemes())
def test_each_end_can_be_built_alone_and_knows_the_payload(name: str) -> None:
    kind = schemes()[name]
    scenario, config = Scenario.parse(kind.default_scenario), kind.config_class()
    whole = kind(scenario, config)
    for end in ENDS:
        alone = kind(scenario, config, (end,))
        assert [part for part in ENDS if hasattr(alone, part)] == [end]
        assert alone.layout == whole.layout
        assert alone.reads_uplink == whole.reads_uplink
        assert getattr(alone, end).state_dict().keys() == getattr(whole, end).state_dict().keys()


def test_two_schemes_of_one_name_are_refused() -> None:
    class Other(WithoutDecoder):
        name: ClassVar[str] = "crnet"

    before = schemes()["crnet"]
    with pytest.raises(Conflict, match=r"scheme: 'crnet' of .* is registered by shared\.schemes\.crnet already"):
        register(Other)
    assert schemes()["crnet"] is before
    assert register(before) is before
    assert "unfinished" not in _schemes
