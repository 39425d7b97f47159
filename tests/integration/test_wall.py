"""The wall between truth and decoder: by import contract, and by redrawing what the decoder must not depend on."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from protos.csi_feedback.v1 import csi_feedback_pb2 as pb
from shared.channels.downlink import DownlinkView
from shared.channels.scenario import Scenario
from shared.channels.streams import Purpose, Samples, Split
from shared.checkpoints import CheckpointStore
from shared.link.decoding import decode_frames
from shared.link.encoding import encode_frames
from shared.schemes import scheme_class
from shared.schemes.pilots import PilotConfig

ROOT = Path(__file__).parents[2]
PACKAGES = ("shared", "ue_client", "gnb_server", "csiemu", "protos")


def redraw(monkeypatch: pytest.MonkeyPatch, link: str) -> None:
    """From now on the link's own streams (fading, phases, noise) are those of another world."""

    def redrawn(drawn: Callable[[Samples, Purpose, Tensor], Tensor]) -> Callable[[Samples, Purpose, Tensor], Tensor]:
        def other(self: Samples, purpose: Purpose, index: Tensor) -> Tensor:
            if purpose.name.startswith(link):
                self = Samples(self.seed + 1, self.split, self.ue, self.frame)
            return drawn(self, purpose, index)

        return other

    for name in ("_blocks", "six_uniforms"):
        monkeypatch.setattr(Samples, name, redrawn(getattr(Samples, name)))


@pytest.mark.parametrize("scheme_name", ["hyperrnn", "rnn", "dldnn", "genie_lmmse", "crnet", "dualnet_mp"])
def test_decoder(small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, scheme_name: str) -> None:
    checkpoint = small_store.load(scheme_name)
    scheme, scenario = checkpoint.scheme, checkpoint.scenario
    samples = Samples(1, Split.EMULATE, torch.arange(5), torch.arange(5))
    fields = encode_frames(scheme, scenario, samples)
    estimate = decode_frames(scheme, scenario, samples, fields)
    truth = DownlinkView(scenario, samples).channel()
    with monkeypatch.context() as patch:
        redraw(patch, "DOWNLINK")
        assert not torch.allclose(DownlinkView(scenario, samples).channel(), truth)
        assert torch.equal(decode_frames(scheme, scenario, samples, fields), estimate)
    with monkeypatch.context() as patch:
        redraw(patch, "UPLINK")
        again = decode_frames(scheme, scenario, samples, fields)
        takes = scheme_name in ("hyperrnn", "dualnet_mp")  # the others take nothing from the uplink
        assert torch.equal(again, estimate) == (not takes)


@pytest.mark.parametrize("world", ["cost2100-indoor-5g1-5g3", "cost2100-indoor:environment=fixed", "tr38901-umi-nlos"])
def test_every_world(monkeypatch: pytest.MonkeyPatch, world: str) -> None:
    """HyperRNN's decoder, untrained, in worlds whose links share positions, clusters and rays."""
    if world.startswith("tr38901"):
        pytest.importorskip("sionna")
    separator = "," if ":" in world else ":"
    scenario = Scenario.parse(f"{world}{separator}antennas=8,slots=2")
    torch.manual_seed(0)
    scheme = scheme_class("hyperrnn")(scenario, PilotConfig()).eval()
    samples = Samples(1, Split.EMULATE, torch.arange(5), torch.arange(5))
    fields = encode_frames(scheme, scenario, samples)
    estimate = decode_frames(scheme, scenario, samples, fields)
    truth = DownlinkView(scenario, samples).truth("angular-delay").channel
    with monkeypatch.context() as patch:
        redraw(patch, "DOWNLINK")
        assert not torch.allclose(DownlinkView(scenario, samples).truth("angular-delay").channel, truth)
        assert torch.equal(decode_frames(scheme, scenario, samples, fields), estimate)
    with monkeypatch.context() as patch:
        redraw(patch, "UPLINK")
        assert torch.equal(DownlinkView(scenario, samples).truth("angular-delay").channel, truth)
        assert not torch.equal(decode_frames(scheme, scenario, samples, fields), estimate)


def test_gnb(start_gnb: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same of the whole gNB: fixed payload in, recorded estimates out."""

    def estimates(name: str, link: str | None) -> tuple[np.ndarray, np.ndarray]:
        with monkeypatch.context() as patch:
            gnb = start_gnb(record=tmp_path / name, store=f"sqlite:///{tmp_path / name}.sqlite")
            with gnb.stub() as stub:
                lease = gnb.attach(stub)  # loads the model, whose probe would notice another world
                if link:
                    redraw(patch, link)
                encoder_id = bytes.fromhex(CheckpointStore(gnb.checkpoints).load("hyperrnn").encoder_id)
                chunk = pb.FeedbackRequest(encoder_id=encoder_id, ue_count=2, slot_count=8, payload=bytes(range(40)))
                list(stub.Feedback(iter([chunk]), metadata=(("fleet-token", lease.token),)))
            gnb.stop()
        with np.load(next((tmp_path / name).glob("*.npz")), allow_pickle=False) as file:
            return file["estimate"], file["truth"]

    estimate, truth = estimates("as-it-is", None)
    with_other_downlink, other_truth = estimates("downlink", "DOWNLINK")
    with_other_uplink, same_truth = estimates("uplink", "UPLINK")
    assert not np.allclose(truth, other_truth)
    np.testing.assert_array_equal(estimate, with_other_downlink)
    np.testing.assert_array_equal(truth, same_truth)
    assert not np.allclose(estimate, with_other_uplink)


def test_only_evaluators_may_import_what_sees_the_downlink() -> None:
    """Of all modules of the gNB: the evaluator, and what makes the frames that references are fitted to."""
    seeing = {"shared.channels.downlink", "shared.link.encoding", "shared.link.evaluation"}
    importing = set()
    for path in (ROOT / "gnb_server").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                named = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                named = {alias.name for alias in node.names}
            else:
                continue
            if named & seeing:
                importing.add(path.name)
    assert importing == {"evaluator.py", "calibration.py"}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    line = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"}
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_import_contracts(tmp_path: Path) -> None:
    assert lint_imports(ROOT).returncode == 0
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for module, seen in (
        ("shared/schemes/sign_feedback.py", "from shared.channels import downlink"),
        ("gnb_server/monitoring/windows.py", "from gnb_server import grading"),
    ):
        text = (tmp_path / module).read_text()
        (tmp_path / module).write_text(f"{text}\n{seen}\n")
    broken = lint_imports(tmp_path)
    assert broken.returncode == 1
    assert "The wall: what decodes never sees the downlink BROKEN" in broken.stdout
    shown = broken.stdout.replace("\n", " ")
    assert "The wall in the monitoring: alarms are raised by what a gNB can know BROKEN" in shown
