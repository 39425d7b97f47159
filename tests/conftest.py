"""Fixtures for all tests: small trained checkpoints, made once a session, and the shipped ones."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from csiemu.training.recipes import Design, design
from csiemu.training.run import train
from csiemu.training.trainer import Recipe
from shared.checkpoints import Checkpoint, CheckpointStore
from shared.schemes.gmtc import GmtcConfig

ROOT = Path(__file__).parent.parent
SCENARIO = "multipath-p2:antennas=16"
PAIRS = "cost2100-indoor-5g1-5g3:antennas=8,first_rows=4,last_rows=4,slots=2"
IMAGES = "cost2100-indoor-csinet:antennas=8,first_rows=8,slots=2"
RECIPE = Recipe(steps=12, batch=64, warmup=2)

os.environ["CSIEMU_GNB_WORKERS"] = "0"  # tests have decode workers where they ask for them, whatever the machine
os.environ.update({"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"})  # Ray's processes are as fast as ours


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> CheckpointStore:
    """Hardly trained. For 16 antennas hyperrnn/1, hyperrnn/2 (another decoder of the same encoder), hyperrnn/3 (another
    encoder, of 12 bits), rnn/1, dldnn/1, genie_lmmse/1 and uplink_only/1; crnet/1, dualnet_mp/1 and gmtc/1 for small
    images of two slots.
    """
    folder = tmp_path_factory.mktemp("checkpoints")
    store = CheckpointStore(folder)

    def make(name: str, version: int, seed: int = 1, frozen: Checkpoint | None = None, **config: Any) -> Checkpoint:
        made, worlds = design(name), {"crnet": IMAGES, "dualnet_mp": PAIRS}
        return train(
            name,
            version,
            Design(made.scheme, worlds.get(name, SCENARIO), dataclasses.replace(made.config, **config)),
            Recipe(**{**RECIPE.__dict__, "seed": seed}),
            store=store,
            state=folder / "states" / f"{name}-{version}",
            freeze_encoder_from=frozen,
            evaluation_ues=64,
        )

    first = make("hyperrnn", 1)
    make("hyperrnn", 2, seed=2, frozen=first, beam_power=True)
    make("hyperrnn", 3, seed=3, feedback_bits=12)
    for name in ("rnn", "dldnn", "genie_lmmse", "uplink_only", "crnet", "dualnet_mp"):
        make(name, 1)
    sizes = {"mixtures": 2, "subspace": 32, "components": 40, "ranked": 8}
    mixture = Design("gmtc", IMAGES, GmtcConfig(bits=500, step=118, **sizes))
    rounds = Recipe(steps=2, batch=500, frames=500)
    train("gmtc", 1, mixture, rounds, store=store, state=folder / "states" / "gmtc", evaluation_ues=64)
    return store


@pytest.fixture(scope="session")
def shipped() -> CheckpointStore:
    """The checkpoints in the repository."""
    return CheckpointStore(ROOT / "checkpoints")
