from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.channels.multipath import Multipath
from shared.channels.scenario import PRESETS, Link, Scenario
from shared.errors import InvalidInput, NotFound

RANGES = {
    "antennas": (1, 1024),
    "paths": (1, 256),
    "slots": (1, 1024),
    "snr_db": (-100, 200),
    "fading_correlation": (-1, 1),
    "speed_kmh": (0, 1e4),
    "slot_ms": (1e-6, 1e4),
    "uplink_ghz": (1e-3, 1e3),
    "downlink_ghz": (1e-3, 1e3),
    "spacing_m": (1e-6, 1e3),
    "angle_deg": (1e-6, 90),
}
INTEGERS = ("antennas", "paths", "slots")


def values_of(name: str) -> st.SearchStrategy[float | None]:
    low, high = RANGES[name]
    if name in INTEGERS:
        return st.integers(int(low), int(high))
    numbers = st.floats(low, high)
    return st.none() | numbers if name == "fading_correlation" else numbers


SCENARIOS = st.fixed_dictionaries({}, optional={name: values_of(name) for name in RANGES})


@given(SCENARIOS)
def test_text_reads_back(fields: dict[str, float]) -> None:
    scenario = Multipath(**fields)  # type: ignore[arg-type]  # fields drawn by name
    assert Scenario.parse(str(scenario)) == scenario


@given(st.sampled_from([name for name, preset in PRESETS.items() if isinstance(preset, Multipath)]), SCENARIOS)
def test_overrides_change_what_they_name_only(preset: str, fields: dict[str, float | None]) -> None:
    text = ",".join(f"{name}={'none' if value is None else value}" for name, value in fields.items())
    parsed = Scenario.parse(f"{preset}:{text}")
    for name in RANGES:
        assert getattr(parsed, name) == fields.get(name, getattr(PRESETS[preset], name))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_its_name(preset: str) -> None:
    assert str(PRESETS[preset]) == preset
    assert Scenario.parse(preset) == PRESETS[preset]


def test_presets_are_those_of_the_paper() -> None:
    fig5, fig4, table1 = (Scenario.parse(f"multipath-{name}") for name in ("p2", "p8", "30kmh"))
    assert (fig5.paths, fig5.fading_correlation, fig5.snr_db, fig5.antennas, fig5.slots) == (2, 0.99, 10, 64, 8)
    assert (fig4.paths, fig4.fading_correlation) == (8, 0)
    assert (table1.fading_correlation, table1.speed_kmh, table1.slot_ms) == (None, 30, 0.1)
    assert {(s.uplink_ghz, s.downlink_ghz, s.spacing_m) for s in (fig5, fig4, table1)} == {(3.0, 3.1, 0.05)}


def test_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match=r"scenario: 'multipath' is unknown; presets are .*multipath-p2, multipath-p8"):
        Scenario.parse("multipath:paths=2")


def test_unknown_field_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match=r"field 'antenna' is unknown; fields are antennas, slots, snr_db, paths"):
        Scenario.parse("multipath-p2:antenna=4")


@pytest.mark.parametrize(("name", "bounds"), RANGES.items())
@pytest.mark.parametrize("where", ["below", "above", "nan", "inf"])
def test_out_of_range_names_field_value_and_bounds(name: str, bounds: tuple[float, float], where: str) -> None:
    low, high = bounds
    below = math.nextafter(low, -math.inf) if name not in INTEGERS else int(low) - 1
    above = math.nextafter(high, math.inf) if name not in INTEGERS else int(high) + 1
    value = {"below": below, "above": above, "nan": math.nan, "inf": math.inf}[where]
    with pytest.raises(InvalidInput) as refused:
        Multipath(**{name: value})  # type: ignore[arg-type]  # fields drawn by name
    assert str(refused.value) == f"scenario {name}: {value} is not in [{low}, {high}]"


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("value", ["", "two", "0x10", "none "])
def test_malformed_value_names_field_and_value(name: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=f"scenario {name}: '{value}' is not a number"):
        Scenario.parse(f"multipath-p2:{name}={value}")


@pytest.mark.parametrize(
    "text", ["snr_db=nan", "fading_correlation=nan", "antennas=2.5", "antennas=nan", "snr_db", "paths=none"]
)
def test_text_with_an_unusable_value_is_refused(text: str) -> None:
    name, _, value = text.partition("=")
    with pytest.raises(InvalidInput) as refused:
        Scenario.parse(f"multipath-p2:{text}")
    assert str(refused.value).startswith(f"scenario {name}: ")
    assert value in str(refused.value)


@pytest.mark.parametrize(
    ("slot_ms", "at_3_0", "at_3_1"),  # reference/FIELD.md, section 1
    [(0.05, 0.9998, 0.9998), (0.5, 0.9829, 0.9818), (0.8, 0.9566, 0.9537), (1, 0.9326, 0.9281), (2, 0.7441, 0.7280)],
)
def test_rho_is_computed_per_link(slot_ms: float, at_3_0: float, at_3_1: float) -> None:
    """The authors' figures, to their four digits and to light at 3e8 m/s (0.07 %: 0.14 % of 1 - rho)."""
    world = Scenario.parse(f"multipath-30kmh:slot_ms={slot_ms}")
    assert world.correlation(Link.UPLINK) == pytest.approx(at_3_0, abs=5e-5 + 0.0015 * (1 - at_3_0))
    assert world.correlation(Link.DOWNLINK) == pytest.approx(at_3_1, abs=5e-5 + 0.0015 * (1 - at_3_1))


def test_rho_of_the_paper() -> None:
    assert Scenario.parse("multipath-30kmh").correlation(Link.UPLINK) == pytest.approx(0.9993, abs=5e-5)


def test_given_rho_is_that_of_both_links() -> None:
    world = Scenario.parse("multipath-p2:fading_correlation=-0.25,speed_kmh=500")
    assert (world.correlation(Link.UPLINK), world.correlation(Link.DOWNLINK)) == (-0.25, -0.25)


@pytest.mark.parametrize(("snr_db", "power"), [(10, 0.1), (0, 1), (-20, 100)])
def test_noise_power(snr_db: float, power: float) -> None:
    assert Multipath(snr_db=snr_db).noise_power == pytest.approx(power)
