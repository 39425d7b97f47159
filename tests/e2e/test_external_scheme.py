"""A scheme of a package outside the repository: found by its entry point, trained, emulated, served."""

from __future__ import annotations

import json
from pathlib import Path

from e2e_tools import Environment

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "signs-of-beams"
version = "1"

[project.entry-points."csiemu.schemes"]
signs-of-beams = "signs_of_beams"

[tool.setuptools]
py-modules = ["signs_of_beams"]
"""

MODULE = '''
"""Signs of learned projections of a few beams; an estimate that is linear in them and in the uplink."""

from dataclasses import dataclass

import torch
from torch import nn

from shared.link.payload import Field, PayloadLayout
from shared.schemes import Decoder, Encoder, Scheme, SchemeConfig, register


@dataclass(frozen=True)
class BeamConfig(SchemeConfig):
    beams: int = 4
    bits: int = 12


class BeamEncoder(Encoder):
    def __init__(self, antennas, config):
        super().__init__()
        every = antennas // config.beams
        self.register_buffer("beams", torch.view_as_real(torch.fft.fft(torch.eye(antennas), norm="ortho")[:, ::every]))
        self.projection = nn.Linear(2 * config.beams, config.bits)

    def observe(self, downlink):
        return torch.view_as_real(downlink.pilots(torch.view_as_complex(self.beams.contiguous()))).flatten(-2)

    def encode(self, observation):
        return {"signs": (self.projection(observation) > 0).long()}

    def forward(self, observation, slope):
        values = self.projection(observation)
        smooth = torch.tanh(slope * values)
        return smooth + (2.0 * (values > 0) - 1 - smooth).detach()


class BeamDecoder(Decoder):
    def __init__(self, antennas, config):
        super().__init__()
        self.estimate = nn.Linear(config.bits + 2 * antennas, 2 * antennas)

    def side_information(self, uplink):
        return torch.view_as_real(uplink.array_pilots(1)).flatten(-3)

    def initial_state(self, count):
        return {}

    def step(self, fields, side, state):
        return self(2.0 * fields["signs"] - 1, side), {}

    def forward(self, codeword, side):
        values = self.estimate(torch.cat([codeword, side], dim=-1))
        return torch.view_as_complex(values.float().unflatten(-1, (-1, 2)))


@register
class SignsOfBeams(Scheme):
    name = "signs_of_beams"
    config_class = BeamConfig

    @property
    def layout(self):
        return PayloadLayout((Field("signs", self.config.bits, 1),))

    @property
    def reads_uplink(self):
        return True

    def make_encoder(self):
        return BeamEncoder(self.scenario.antennas, self.config)

    def make_decoder(self):
        return BeamDecoder(self.scenario.antennas, self.config)
'''


def test_it_is_trained_emulated_and_served(installed: Environment, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(PROJECT)
    (project / "signs_of_beams.py").write_text(MODULE)
    installed.install(project)
    assert "signs_of_beams" in installed.run("csiemu", "train", "--help", cwd=tmp_path)
    store = ("--checkpoints", tmp_path / "checkpoints")
    sizes = ("--scenario", "multipath-p2:antennas=16", "--set", "bits=10", "--steps", 20, "--batch", 32)
    installed.run("csiemu", "train", "signs_of_beams", *sizes, "--evaluation-ues", 64, *store, cwd=tmp_path)
    options = ("--ues", 4, "--slots", 8, "--rate", "max", "--check-every", 1, "--rest-port", 0, "--json", "out.json")
    installed.run("csiemu", "emulate", *options, *store, cwd=tmp_path)  # all that the store has
    results = json.loads((tmp_path / "out.json").read_text())
    row = results["schemes"]["signs_of_beams"]
    assert (row["reports_decoded"], row["feedback_bits"]) == (32, 10)
    assert (results["lost"], results["misdecoded"], results["checked"]) == (0, 0, 32)
