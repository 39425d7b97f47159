from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from csiemu.training.schemes import training_of
from shared.channels.multipath import Multipath
from shared.errors import InvalidInput, NotFound
from shared.schemes import Scheme, scheme_class, schemes
from shared.schemes.base import to_complex, to_real
from shared.schemes.pilots import PilotConfig, Pilots


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"feedback_bits": -1}, "feedback_bits: -1 is not in [0, 65536]"),
        ({"feedback_bits": 65537}, "feedback_bits: 65537 is not in [0, 65536]"),
        ({"feedback_bits": math.nan}, "feedback_bits: nan is not in [0, 65536]"),
        ({"downlink_pilots": 0}, "downlink_pilots: 0 is not in [1, 1024]"),
        ({"uplink_pilots": 1025}, "uplink_pilots: 1025 is not in [1, 1024]"),
        ({"uplink_reading": "both"}, "uplink_reading: 'both' is not array, projected, none or genie"),
        ({"beam_power": True, "uplink_reading": "projected"}, "beam_power: needs uplink_reading=array"),
    ],
)
def test_configuration_names_what_it_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        PilotConfig(**fields)
    assert str(refused.value) == message


def test_configuration_reads_back_from_json() -> None:
    config = PilotConfig(30, 4, 8, "array", True)
    assert PilotConfig(**config.to_json()) == config


def test_schemes_are_registered_by_their_names() -> None:
    multipath = {"hyperrnn", "rnn", "dldnn", "hyperdnn", "genie_lmmse", "angle_lmmse", "uplink_only"}
    multipath |= {"pilot_lmmse", "predictive_lmmse", "hyperrnn_angles"}
    images = {"crnet", "crnet_nested", "csinet", "dualnet_mp", "transform", "gmtc"}
    ours = {name for name, kind in schemes().items() if kind.__module__.startswith("shared.")}
    assert ours == multipath | images | {"etype2", "type1"}
    assert all(scheme_class(name).name == name for name in schemes())
    with pytest.raises(NotFound, match="scheme: 'clnet' is unknown; schemes are angle_lmmse, crnet"):
        scheme_class("clnet")


@pytest.mark.parametrize("field", ["antennas", "slots"])
def test_scenario_of_other_sizes_is_refused(make_scheme: Callable[..., Scheme], field: str) -> None:
    scheme = make_scheme("rnn", "multipath-p2:antennas=4,slots=2", uplink_reading="none")
    scheme.check_scenario(dataclasses.replace(scheme.scenario, snr_db=0.0, paths=7))
    with pytest.raises(
        InvalidInput, match=rf"scenario {field}: 3; this rnn was built for {getattr(scheme.scenario, field)}"
    ):
        scheme.check_scenario(dataclasses.replace(scheme.scenario, **{field: 3}))


def test_real_form_is_real_parts_then_imaginary_parts() -> None:
    values = torch.tensor([[1 + 2j, 3 - 4j]])
    assert to_real(values).tolist() == [[1, 3, 2, -4]]
    assert torch.equal(to_complex(to_real(values)), values)
    assert to_complex(to_real(values).bfloat16()).dtype == torch.complex64


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("hyperrnn", {"uplink_reading": "projected", "uplink_pilots": 3}),
        ("rnn", {"uplink_reading": "none"}),
        ("dldnn", {"uplink_reading": "none"}),
        ("hyperdnn", {"uplink_reading": "projected"}),
        ("genie_lmmse", {"uplink_reading": "genie"}),
    ],
)
def test_pilots_have_unit_norm(make_scheme: Callable[..., Scheme], name: str, config: dict[str, Any]) -> None:
    """From the start, and again after a step that moved them, uplink pilots too; frozen ones stay as they are."""
    scheme = make_scheme(name, "multipath-p2:antennas=6", downlink_pilots=3, **config)
    found = [module for module in scheme.modules() if isinstance(module, Pilots)]
    assert len(found) == (2 if config["uplink_reading"] == "projected" else 1)

    def norms(pilots: Pilots) -> torch.Tensor:
        return torch.linalg.vector_norm(pilots(), dim=0).detach()

    for pilots in found:
        assert pilots().shape[0] == 6
        torch.testing.assert_close(norms(pilots), torch.ones(pilots().shape[1]))
        with torch.no_grad():
            pilots.parts *= torch.rand_like(pilots.parts) + 1
    moved = [pilots().detach().clone() for pilots in found]
    training_of(scheme).after_step()
    for pilots, before in zip(found, moved, strict=True):
        if scheme.trainable:
            torch.testing.assert_close(norms(pilots), torch.ones(pilots().shape[1]))
            torch.testing.assert_close(pilots(), before / torch.linalg.vector_norm(before, dim=0))
        else:
            assert torch.equal(pilots(), before)


def test_frozen_pilots_are_left_as_they_are(make_scheme: Callable[..., Scheme]) -> None:
    scheme = make_scheme("rnn", "multipath-p2:antennas=6", uplink_reading="none")
    with torch.no_grad():
        scheme.encoder.pilots.parts *= 1.01
    scheme.encoder.requires_grad_(False)
    before = scheme.encoder.pilots.parts.clone()
    training_of(scheme).after_step()
    assert torch.equal(scheme.encoder.pilots.parts, before)


def test_scheme_without_training_refuses_to_reconstruct() -> None:
    scheme = scheme_class("uplink_only")(Multipath(antennas=4), PilotConfig(feedback_bits=0))
    with pytest.raises(InvalidInput, match="'uplink_only' has nothing to train"):
        training_of(scheme).reconstruct(torch.zeros(1, 8, 0), torch.zeros(1, 8, 8), 1.0)
