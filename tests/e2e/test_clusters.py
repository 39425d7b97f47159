"""Trainings on a Ray cluster of nodes that die."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from e2e_tools import wait_for
from ray.cluster_utils import Cluster

from tests.ray_cluster import start_cluster

STEPS = 500
SIZES = f"--batch 16 --scenario multipath-p2:antennas=4,slots=2 --evaluation-ues 64 --save-every 20 --steps {STEPS}"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head that has no cores for trainings."""
    made = start_cluster(num_cpus=0, include_dashboard=False)
    yield made
    made.shutdown()


def train(folder: Path, *options: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "csiemu", "train", "--campaign", str(folder / "plan.json"), *SIZES.split(), *options]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def steps(out: Path, name: str) -> int:
    """Of the state that has come from a node."""
    state = out / "states" / f"{name}-1" / "state.json"
    return int(json.loads(state.read_text())["step"]) if state.exists() else 0


def process(name: str) -> int | None:
    """The process of Ray's that runs a task."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if line.read_text().startswith(f"ray::{name}"):
                return int(line.parent.name)
        except OSError:
            continue
    return None


@pytest.mark.slow
def test_a_node_and_a_process_die(cluster: Cluster, tmp_path: Path) -> None:
    """Both trainings go on elsewhere from what they had sent, and their weights are those of trainings without Ray."""
    first, second = (f"{name}-{uuid4().hex[:8]}" for name in ("rnn", "dldnn"))
    plan = [
        {"name": "rnn", "as": first, "set": "feedback_bits=6", "num-cpus": 2, "steps": 3 * STEPS},
        {"name": "dldnn", "as": second, "set": "feedback_bits=6"},
    ]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    cluster.add_node(num_cpus=1)
    larger = cluster.add_node(num_cpus=2)
    out = tmp_path / "out"
    command = train(tmp_path, "--ray", cluster.address, "--out", str(out))
    wait_for(lambda: steps(out, second) or command.poll() is not None)
    subprocess.run(["kill", "-9", str(process(f"{second}/1"))], check=True)
    wait_for(lambda: steps(out, first) or command.poll() is not None)
    cluster.remove_node(larger, allow_graceful=False)
    cluster.add_node(num_cpus=2)
    printed, _ = command.communicate(timeout=300)
    assert command.returncode == 0, printed
    for name, of in ((first, 3 * STEPS), (second, STEPS)):
        assert f"{name}/1: lost, " in printed
        assert f"{name}/1: begins at step 0 of {of}" in printed
        assert f"{name}/1: goes on at step " in printed
        assert not steps(out, name)
    alone = tmp_path / "alone"
    assert train(tmp_path, "--out", str(alone)).wait(300) == 0
    for name in (first, second):
        for path in (
            Path(f"checkpoints/{name}/1/encoder.safetensors"),
            Path(f"checkpoints/{name}/1/decoder.safetensors"),
        ):
            assert (out / path).read_bytes() == (alone / path).read_bytes()
        assert (out / f"{name}-1.zip").exists()
