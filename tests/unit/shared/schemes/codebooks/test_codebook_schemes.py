"""What the codebooks reach: one path, worlds with many, and each other."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from shared.channels.scenario import Scenario
from shared.channels.streams import Samples, Split
from shared.checkpoints import encoder_id
from shared.conditions import RunConditions
from shared.errors import InvalidInput
from shared.link.evaluation import outcomes, over_the_link
from shared.schemes import Scheme, scheme_class
from shared.schemes.base import to_real
from shared.schemes.codebooks.base import beams
from shared.schemes.codebooks.tables import PORTS

MakeSamples = Callable[..., Samples]
MakeScheme = Callable[..., Scheme]

WORLD = "cost2100-outdoor-csinet"
ANY_PORTS = pytest.mark.parametrize("ports", sorted(PORTS))
ANY_COMBINATION = pytest.mark.parametrize("combination", range(1, 9))


def one_path(ports: str, offset: float, count: int = 200) -> Tensor:
    """Precoders [N, 13, 32] of single paths with any delay, and any phase between the polarisations.

    Args:
        offset: from the direction of a beam of the grid, in beams, at most; the grid has O1 (O2) beams for each
            orthogonal one.
    """
    draw, of = torch.Generator().manual_seed(1), PORTS[ports]
    away = (2 * torch.rand(2, count, generator=draw) - 1) * offset
    first = torch.randint(of.n1 * of.o1, (count,), generator=draw) + away[0]
    second = torch.randint(of.n2 * of.o2, (count,), generator=draw) + (away[1] if of.n2 > 1 else 0)
    beam = beams(of, first, second)
    turns, delays = torch.rand(2, count, 1, generator=draw) * 2 * math.pi
    both = torch.cat([beam, beam * torch.polar(torch.ones_like(turns), turns)], dim=1) / of.total**0.5
    waves = torch.polar(torch.ones(count, 13), -delays * torch.arange(13))
    return waves[..., None] * both[:, None]


def similarity(scheme: Scheme, wanted: Tensor) -> Tensor:
    """SGCS [N] of what a scheme makes of precoders."""
    fields = scheme.encoder.encode(to_real(wanted.flatten(1)))
    scheme.check_fields({name: values.numpy() for name, values in fields.items()})
    found, _ = scheme.decoder.step(fields, torch.zeros(len(wanted), 0), {})
    assert (torch.linalg.vector_norm(found, dim=-1) - 1).abs().max() < 1e-5
    return (found.conj() * wanted).sum(-1).abs().square().mean(-1)


@ANY_PORTS
@ANY_COMBINATION
def test_one_path_in_the_direction_of_a_beam(make_scheme: MakeScheme, ports: str, combination: int) -> None:
    """What is left is the phase between the polarisations, one of 16: cos^2(pi / 32) at worst."""
    found = similarity(make_scheme("etype2", WORLD, ports=ports, combination=combination), one_path(ports, 0))
    assert found.min() > math.cos(math.pi / 32) ** 2 - 1e-4 > 0.99


@ANY_COMBINATION
def test_one_path_in_any_direction(make_scheme: MakeScheme, combination: int) -> None:
    """Between two beams of the grid L orthogonal ones do not hold all of it."""
    found = similarity(make_scheme("etype2", WORLD, combination=combination), one_path("16x1", 0.5, 1000))
    assert found.mean() > (0.984 if combination < 3 else 0.989)
    assert found.min() > 0.96


def test_a_path_in_any_direction_by_type_i(make_scheme: MakeScheme) -> None:
    """At worst pi/4 between the polarisations, and the loss of a beam that is half a step away."""
    along = math.sin(math.pi / 8) / (16 * math.sin(math.pi / 128))
    found = similarity(make_scheme("type1", WORLD), one_path("16x1", 0.5, 1000))
    assert (math.cos(math.pi / 8) * along) ** 2 - 1e-3 < found.min() < found.mean() < 0.95


@pytest.mark.parametrize("name", ["type1", "etype2"])
def test_phases_of_subbands_do_not_matter(make_scheme: MakeScheme, name: str) -> None:
    scheme = make_scheme(name, WORLD)
    wanted = one_path("16x1", 0.5)
    turned = wanted * torch.polar(torch.ones(13), 7.0 * torch.arange(13) ** 2)[:, None]
    if name == "type1":
        assert (similarity(scheme, wanted) - similarity(scheme, turned)).abs().max() < 1e-5
    else:  # the search begins elsewhere
        assert similarity(scheme, turned).mean() > 0.9


def test_type_i_is_the_best_of_all_beams_and_phases(make_scheme: MakeScheme) -> None:
    scheme = make_scheme("type1", WORLD, ports="8x2")
    draw = np.random.default_rng(0)
    drawn = draw.normal(size=(4, 13, 32)) + 1j * draw.normal(size=(4, 13, 32))
    drawn /= np.linalg.norm(drawn, axis=-1, keepdims=True)
    best = np.zeros(4)
    for l in range(32):  # noqa: E741  # as the standard has it
        for m in range(8):
            v = np.kron(np.exp(2j * np.pi * l * np.arange(8) / 32), np.exp(2j * np.pi * m * np.arange(2) / 8))
            both = [np.concatenate([v, np.exp(0.5j * np.pi * n) * v]) / 32**0.5 for n in range(4)]
            gains = np.abs(drawn @ np.conj(both).T) ** 2
            best = np.maximum(best, gains.max(-1).mean(-1))
    assert similarity(scheme, torch.from_numpy(drawn).to(torch.complex64)).numpy() == pytest.approx(best, rel=1e-4)


@functools.cache
def reached(name: str, combination: int) -> tuple[float, float]:
    """SGCS over the wire of 200 UEs and its standard error."""
    kind, conditions = scheme_class(name), RunConditions(Scenario.parse(WORLD))
    config = kind.config_class(**({"combination": combination} if combination else {}))
    scheme = kind(conditions.scenario, config).eval()
    samples = conditions.samples(Split.TEST, torch.arange(200), 0)
    sgcs = outcomes(scheme, conditions, samples, over_the_link(scheme, conditions, samples)).sgcs
    return float(sgcs.mean()), float(sgcs.std() / len(sgcs) ** 0.5)


def test_similarity_rises_with_the_combination() -> None:
    found = [reached("etype2", combination)[0] for combination in range(1, 9)]
    assert all(np.diff(found) > 0.005), found


def test_type_i_is_below_all_of_them() -> None:
    (floor, floor_se), (least, least_se) = reached("type1", 0), reached("etype2", 1)
    assert floor + 4 * math.hypot(floor_se, least_se) < least


def test_an_estimated_channel_costs_similarity(make_scheme: MakeScheme, make_samples: MakeSamples) -> None:
    def mean(**config: str) -> float:
        scheme = make_scheme("etype2", f"{WORLD}:snr_db=-10", combination=8, **config)
        conditions, samples = RunConditions(scheme.scenario), make_samples(50)
        return float(outcomes(scheme, conditions, samples, over_the_link(scheme, conditions, samples)).sgcs.mean())

    assert 0.2 < mean(observation="estimated") < mean() - 0.02


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ("multipath-p2", "scenario: etype2 needs a wideband world"),
        (f"{WORLD}:antennas=16", "scenario antennas: 16; etype2 has 32 ports"),
        (f"{WORLD}:subcarriers=9,first_rows=4", "scenario subbands: 13 for 9 subcarriers; wanted one or more in each"),
    ],
)
def test_worlds_that_do_not_fit_are_refused(make_scheme: MakeScheme, scenario: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make_scheme("etype2", scenario)


def test_a_checkpoint_runs_in_worlds_of_its_ports_and_subbands(make_scheme: MakeScheme) -> None:
    scheme = make_scheme("etype2", WORLD)
    scheme.check_scenario(Scenario.parse("cost2100-indoor:first_rows=20"))
    with pytest.raises(InvalidInput, match="scenario subbands: 10; this etype2 was built for 13"):
        scheme.check_scenario(Scenario.parse(f"{WORLD}:subbands=10"))


def test_ports_are_those_of_the_panel(make_scheme: MakeScheme) -> None:
    panel = "tr38901-umi-nlos:array=8x2"
    assert make_scheme("etype2", panel, ports="8x2").layout.bits == 279
    with pytest.raises(InvalidInput, match="scenario array: 8x2; this type1 has ports 4x4"):
        make_scheme("type1", panel, ports="4x4")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"combination": 9}, r"combination: 9 is not in \[1, 8\]"),
        ({"ports": "32x1"}, r"ports: '32x1' is not 16x1, 8x2 or 4x4"),
        ({"observation": "none"}, r"observation: 'none' is not perfect or estimated"),
    ],
)
def test_configurations_that_no_codebook_has(make_scheme: MakeScheme, changes: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make_scheme("etype2", WORLD, **changes)


def test_ports_of_the_same_bits_have_encoders_of_their_own(make_scheme: MakeScheme) -> None:
    one, other = (make_scheme("etype2", WORLD, ports=ports) for ports in ("8x2", "4x4"))
    assert one.layout == other.layout
    assert encoder_id(one) != encoder_id(other)
