"""Tables of trainings: arms at a budget, kept and shared, beside the paper's numbers."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from csiemu.experiments import grid
from csiemu.experiments.crnet import figure_5, linear, shipped, table_1, table_2, table_3, table_4
from csiemu.experiments.grid import Arm, Budget, Place, slope_at_the_end
from csiemu.experiments.hyperrnn import curves
from csiemu.training.recipes import Design
from shared.checkpoints import CheckpointStore
from shared.errors import Conflict, InvalidInput
from shared.schemes.crnet import CrNetConfig
from shared.schemes.dualnet_mp import DualNetConfig
from shared.schemes.pilots import PilotConfig
from tests.ray_cluster import start_cluster

TINY = Design("crnet", "cost2100-indoor-csinet:antennas=8,first_rows=8", CrNetConfig(compression=2))
ARMS = [Arm("one", ("one",), TINY, "cosine", 1000, -26.99), Arm("two", ("two",), TINY, "const", 2000, None)]
BUDGET = ["--share", "0.001", "--frames", "400", "--ues", "16"]


def run(monkeypatch: pytest.MonkeyPatch, out: Path, *options: str) -> str:
    monkeypatch.setattr(sys, "argv", ["grid", *BUDGET, "--out", str(out), *options])
    grid.main("Table 9: tiny", ("arm",), ARMS)
    return (out / "share-0.001-frames-400" / "table-9" / "table.md").read_text()


def test_table_stands_beside_the_papers_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = run(monkeypatch, tmp_path)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert [row[0] for row in rows[2:]] == ["one", "two"]
    assert [row[2:6] for row in rows[2:]] == [["-26.99", "1", "1000", "400"], ["-", "2", "2000", "800"]]
    assert (tmp_path / "share-0.001-frames-400" / "table-9" / "curves.png").stat().st_size > 1000


def test_arms_that_are_there_are_not_trained_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = run(monkeypatch, tmp_path, "--only", "one")
    assert "| two |" not in first
    monkeypatch.setattr(grid, "train", lambda *_, **__: pytest.fail("trained again"))
    assert run(monkeypatch, tmp_path, "--only", "one") == first


def test_an_arm_of_another_recipe_is_not_taken_for_this_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = run(monkeypatch, tmp_path, "--only", "one")
    longer = dataclasses.replace(ARMS[0], epochs=3000)
    monkeypatch.setattr(sys, "argv", ["grid", *BUDGET, "--out", str(tmp_path)])
    with pytest.raises(Conflict, match=r"arm: one in .* has another recipe: steps was 2, is 6; name another folder"):
        grid.main("Table 9: tiny", ("arm",), [longer])
    store = CheckpointStore(tmp_path / "share-0.001-frames-400")
    card = store.folder("one", 1) / "card.json"
    unmeasured = json.loads(card.read_text())
    del unmeasured["evaluation"]  # stopped between the training and its evaluation
    card.write_text(json.dumps(unmeasured))
    assert run(monkeypatch, tmp_path, "--only", "one").endswith(first)
    text = run(monkeypatch, tmp_path, "--only", "one", "--ues", "24")  # the last --ues counts
    assert "24 UEs" in text
    assert store.card("one", 1)["evaluation"]["reports"] == 24


def test_arms_on_a_cluster_are_those_of_this_machine(tmp_path: Path) -> None:
    """Also one that goes on from another, and one whose scheme an experiment registers."""
    pairs, pilots = "cost2100-indoor-5g1-5g3:antennas=8,first_rows=4,last_rows=4", "multipath-p2:antennas=4,slots=2"
    branches = Design("dualnet_mp", pairs, DualNetConfig())
    first = Arm("first", (), branches, "magnitude", 1, None)
    then = Arm("then", (), branches, "phase", 1, None, frozen_from=first)
    soft = Arm("soft", (), Design("hyperrnn_soft", pilots, PilotConfig(feedback_bits=5)), "default", 1, None)
    budget = Budget(1.0, {"frames": 16, "batch": 8}, 16)
    cluster = start_cluster(num_cpus=2, include_dashboard=False)
    try:
        made = []
        for address in (cluster.address, None):
            store = CheckpointStore(tmp_path / f"{address}")
            grid.train_all([then, soft], budget, store, Place("cpu", 1, address, (0.5, 0)), curves.trained)
            assert store.names() == ["first", "soft", "then"]
            assert store.card("then", 1)["training"]["frozen_from"] == "first/1"
            made.append({name: store.card(name, 1)["sha256"] for name in store.names()})
        files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
        grid.train_all(
            [then], budget, CheckpointStore(tmp_path / cluster.address), Place("cpu", 1, cluster.address, (1, 0))
        )
        assert files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}  # all was there
    finally:
        cluster.shutdown()
    assert made[0] == made[1]


def test_a_budget_is_a_share_of_the_papers() -> None:
    arm = table_1.ARMS[2]
    assert arm.labels == ("1/4", "indoor", "CRNet-cosine")
    full = Budget(1.0, {}, 5000).recipe(arm)
    assert (full.steps, full.warmup, full.rate, full.final_rate, full.batch) == (1_250_000, 15_000, 2e-3, 5e-5, 200)
    part = Budget(0.01, {"frames": 20_000, "start": "principal"}, 5000).recipe(arm)
    assert (part.steps, part.warmup, part.frames, part.start) == (2500, 60, 20_000, "principal")  # epochs of 20,000
    assert Budget(0.001, {}, 5000).recipe(arm).warmup == 60  # a share of 15 would not do
    assert Budget(0.001, {}, 5000).recipe(table_1.ARMS[1]).warmup == 0  # CRNet-const has none
    with pytest.raises(InvalidInput, match="frames: 10 is less than a batch of 200"):
        Budget(0.01, {"frames": 10}, 5000).recipe(arm)


def test_tables_share_their_arms() -> None:
    """CRNet-cosine 1/4 indoor of Table I is one arm of Tables II, III and IV too."""
    best = next(arm for arm in table_1.ARMS if arm.paper_db == -26.99)
    for table in (table_2, table_3, table_4, figure_5):
        same = [arm for arm in table.ARMS if arm.name == best.name]
        assert len(same) == 1
        assert dataclasses.replace(same[0], labels=best.labels) == best
    assert len({arm.name for table in (table_1, table_2, table_3, table_4) for arm in table.ARMS}) == 30 + 10 + 20 - 6


def test_slope_at_the_end_of_a_curve() -> None:
    curve = [{"step": 10.0 * step, "nmse_db": -2.0 * step} for step in range(50)]
    assert slope_at_the_end(curve, 100) == pytest.approx(-20)
    assert slope_at_the_end(curve[:1], 100) == 0


def test_shipped_checkpoints_stand_beside_the_papers(
    monkeypatch: pytest.MonkeyPatch, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["shipped", "--checkpoints", str(root / "checkpoints")])
    shipped.main()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    rows = {cells[0]: dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]}
    assert {"crnet/2", "crnet-16/2", "crnet-outdoor/3", "csinet/2"} <= set(rows)
    assert rows["crnet-16/2"]["paper, float (dB)"] == "-11.35"
    assert rows["csinet/2"]["paper, float (dB)"] == "-17.36"
    assert rows["crnet/2"]["paper's"] == "250,000,000"


def test_samples_of_earlier_trainings_count() -> None:
    training = {"frames_seen": 5, "before": {"frames_seen": 7, "before": None}}
    assert [part["frames_seen"] for part in shipped.history(training)] == [5, 7]


def test_linear_autoencoder_loses_what_is_not_in_its_components(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = torch.eye(4).view(4, 2, 2, 1) * torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1, 1)
    assert linear.projected(image, torch.eye(4)[:, :3]) == pytest.approx(10 * math.log10(1 / 4))
    monkeypatch.setattr(sys, "argv", ["linear", "64", "40"])
    linear.main()
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:2] + row[3:] for row in rows[:2]] == [["1/4", "indoor", "-26.99"], ["1/8", "indoor", "-16.01"]]
    indoor, outdoor = ([float(row[2]) for row in rows if row[1] == world] for world in ("indoor", "outdoor"))
    assert indoor == sorted(indoor)  # fewer components, more error
    assert all(better < worse < 0 for better, worse in zip(indoor, outdoor, strict=True))


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_a_plot_with_a_notebooks_backend(backend: str, tmp_path: Path, root: Path) -> None:
    code = "import sys, pathlib; from csiemu.experiments import grid; grid.plot('t', [], pathlib.Path(sys.argv[1]))"
    line = [sys.executable, "-c", code, str(tmp_path / "x.png")]
    subprocess.run(line, cwd=root, env=os.environ | {"MPLBACKEND": backend}, check=True)
    assert (tmp_path / "x.png").exists()
