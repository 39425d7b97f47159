"""Plans of campaigns, schedules fitted to a speed, archives. Whole campaigns are in tests/e2e/test_campaign.py."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from csiemu.train import _plan as read_yaml
from csiemu.training import member
from csiemu.training.campaign import Campaign
from csiemu.training.job import TrainingJob
from csiemu.training.member import Member, fitted, run_alone, write_archive
from csiemu.training.plan import asked
from csiemu.training.recipes import Design
from csiemu.training.run import train
from csiemu.training.trainer import Recipe, Rounds, Trainer, saved_recipe
from gnb_server.archives import open_archive
from shared.checkpoints import CheckpointStore
from shared.errors import InvalidInput, NotFound, TooLarge
from shared.schemes.pilots import PilotConfig

SCENARIO = "multipath-p2:antennas=4,slots=2"
TINY: dict[str, Any] = {"scenario": SCENARIO, "batch": 4, "evaluation_ues": 16}


def planned(folder: Path, plan: Any, **given: Any) -> Campaign:
    path = folder / "plan.json"
    path.write_text(plan if isinstance(plan, str) else json.dumps(plan))
    found = asked({"campaign": path, "out": folder / "out", **given}, json.loads)
    assert isinstance(found, Campaign)
    return found


@pytest.fixture
def job(small_store: CheckpointStore) -> TrainingJob:
    return TrainingJob("hyperrnn", version=3, checkpoints=small_store.root)


def test_a_plan_names_options_as_a_command_line_does(tmp_path: Path) -> None:
    plan = [{"name": "rnn", "as": "mine", "set": "feedback_bits=6", "save-every": 7, "rate": 1}, {"name": "dldnn"}]
    first, second = planned(tmp_path, plan, save_every=9, seed=4, version=2, device=None).jobs
    folders = {"checkpoints": tmp_path / "out" / "checkpoints", "version": 2}
    assert first == TrainingJob(
        "rnn",
        save_as="mine",
        sizes="feedback_bits=6",
        save_every=7,
        state=tmp_path / "out" / "states" / "mine-2",
        changes={"seed": 4, "rate": 1.0},
        **folders,
    )
    state = tmp_path / "out" / "states" / "dldnn-2"
    assert second == TrainingJob("dldnn", save_every=9, state=state, changes={"seed": 4}, **folders)


def test_a_plan_in_yaml(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("- {name: rnn, rate: 1e-3, compiled: true}\n- name: dldnn\n")
    found = asked({"campaign": path, "out": tmp_path}, read_yaml)
    assert isinstance(found, Campaign)
    assert [(job.name, job.changes) for job in found.jobs] == [("rnn", {"rate": 1e-3, "compiled": True}), ("dldnn", {})]
    path.write_text("- {name: rnn")
    with pytest.raises(InvalidInput, match=r"campaign: .*plan.yaml cannot be read: while parsing"):
        asked({"campaign": path, "out": tmp_path}, read_yaml)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("{", "campaign: .*plan.json cannot be read: "),
        ({"name": "rnn"}, "campaign: .*plan.json is not a list of trainings"),
        ([], "campaign: .*plan.json is not a list of trainings"),
        ([{"name": "rnn"}, "dldnn"], "training 2: 'dldnn' is not a mapping of options with a name"),
        ([{"as": "rnn"}], "training 1: {'as': 'rnn'} is not a mapping of options with a name"),
        ([{"name": "rnn", "bits": 3}], "training 1: option 'bits' is unknown; options are name, as, version, "),
        ([{"name": "rnn", "batch": "many"}], "training 1: batch: 'many' is not a whole number"),
        ([{"name": "rnn", "batch": True}], "training 1: batch: True is not a whole number"),
        ([{"name": "rnn", "rate": "much"}], "training 1: rate: 'much' is not a number"),
        ([{"name": "rnn", "compiled": 1}], "training 1: compiled: 1 is not true or false"),
        ([{"name": "rnn", "as": 6}], "training 1: as: 6 is not a text"),
        ([{"name": "rnn", "batch": 1}], "training 1: batch: 1 is less than 2"),
        ([{"name": "rnn", "version": 0}], "training 1: version: 0 is less than 1"),
        ([{"name": "rnn", "set": "bits=3"}], "training 1: set: field 'bits' is unknown"),
        ([{"name": "rnn", "as": "../rnn"}], "training 1: checkpoint: '../rnn' is not a name"),
        ([{"name": "rnn", "num_gpus": 2}], "training 1: num_gpus: 2.0 is not in \\[0, 1\\]"),
        ([{"name": "rnn", "num-cpus": 0}], "training 1: num_cpus: 0.0 is not in \\[0.01, 1024\\]"),
        (
            [{"name": "rnn", "device": "cuda", "num-gpus": 0}],
            "training 1: num_gpus: 0 leaves a training on cuda without",
        ),
        ([{"name": "rnn", "checkpoints": "here"}], "training 1: checkpoints: here; a campaign sets it itself"),
        ([{"name": "rnn", "state": "here"}], "training 1: state: here; a campaign sets it itself"),
        ([{"name": "rnn"}, {"name": "rnn"}], "training 2: rnn/1 is there twice; name another with as or version"),
    ],
)
def test_refused_plans(tmp_path: Path, plan: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        planned(tmp_path, plan)


def test_a_design_or_recipe_that_is_none(tmp_path: Path) -> None:
    for entry in ({"name": "nonsense"}, {"name": "rnn", "recipe": "nonsense"}):
        with pytest.raises(NotFound, match=r"training 1: .*'nonsense' is unknown"):
            planned(tmp_path, [entry])


def test_refused_command_lines(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('[{"name": "rnn"}]')
    file = tmp_path / "file"
    file.touch()
    for given, message in (
        ({}, "name: it is missing; name a design or a scheme, or a plan with --campaign"),
        ({"name": "rnn", "campaign": plan}, r"name: 'rnn' and campaign: .*plan.json cannot both be given"),
        ({"name": "rnn", "budget": 5.0}, "budget: 5.0 is for a campaign; name its plan with --campaign"),
        ({"campaign": plan, "budget": 0.5}, "budget: 0.5 is less than 1"),
        ({"campaign": plan, "out": file}, "out: .* is not a folder"),
        ({"campaign": tmp_path / "none"}, "campaign: .*none cannot be read: .*No such file"),
        ({"campaign": plan, "state": file}, "training 1: state: .*file; a campaign sets it itself"),
        ({"name": "rnn", "num_cpus": 2.0}, "num_cpus: 2.0 is for a campaign; name its plan with --campaign"),
    ):
        with pytest.raises(InvalidInput, match=message):
            asked(given, json.loads)


def test_steps_are_those_that_there_is_time_for() -> None:
    recipe = fitted(Recipe(warmup=200), step_s=0.01, left_s=100)
    assert recipe == Recipe(steps=9000, warmup=200)
    assert fitted(recipe, step_s=0.01, left_s=10) == Recipe(steps=900, warmup=90)
    with pytest.raises(InvalidInput, match=r"budget: it leaves 1.0 s for steps of 2.000 s; give it more seconds"):
        fitted(recipe, step_s=2, left_s=1)


def test_measuring_the_speed_changes_nothing(tmp_path: Path) -> None:
    """The card's steps give the same weights without a campaign."""
    design = Design("rnn", SCENARIO, PilotConfig(feedback_bits=6, uplink_reading="none"))
    made = []
    for fit in (True, False):

        def prepare(trainer: Rounds, fit: bool = fit) -> None:
            assert isinstance(trainer, Trainer)
            if fit:
                job = TrainingJob("rnn", state=tmp_path / "none")
                timed = Member(job, tmp_path, 1.0, 0.0, threading.Barrier(1))
                assert timed.seconds_a_step(trainer, 0.05) > 0
            trainer.recipe = Recipe(steps=6, batch=4, warmup=2)

        name = f"rnn-{fit}".lower()
        store, state = CheckpointStore(tmp_path / "checkpoints"), tmp_path / name
        recipe = Recipe(batch=4)
        made.append(train(name, 1, design, recipe, store=store, state=state, evaluation_ues=16, on_ready=prepare))
        assert saved_recipe(state) == Recipe(steps=6, batch=4, warmup=2)
    assert made[0].card["sha256"] == made[1].card["sha256"]
    assert made[0].card["training"]["recipe"] == made[1].card["training"]["recipe"]
    assert made[0].card["training"]["frames_seen"] == 24


def test_a_training_that_names_its_steps_keeps_them(tmp_path: Path) -> None:
    (job,) = planned(tmp_path, [{"name": "rnn", "set": "feedback_bits=6"}], steps=4, **TINY).jobs
    run_alone(job, 60.0, tmp_path / "fits")
    run_alone(dataclasses.replace(job, changes={"batch": 4, "frames": 8}, epochs=1), None, tmp_path / "of-epochs")
    for folder, steps in (("fits", 4), ("of-epochs", 2)):
        card = CheckpointStore(tmp_path / folder / "checkpoints").card("rnn", 1)
        assert card["training"]["recipe"]["steps"] == steps
        assert (tmp_path / folder / "rnn-1.zip").exists()
        assert not list((tmp_path / folder / "states").iterdir())


def test_a_training_whose_time_is_over_keeps_its_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (job,) = planned(tmp_path, [{"name": "rnn", "set": "feedback_bits=6"}], steps=10**9, **TINY).jobs
    run_alone(job, 0.1, tmp_path / "late")
    saved = saved_recipe(tmp_path / "late" / "states" / "rnn-1")
    assert saved is not None
    assert saved.steps == 10**9
    assert re.search(r"rnn/1: stops at step \d+ of 1000000000; the same command goes on", capsys.readouterr().out)


def test_shares_of_a_node(tmp_path: Path) -> None:
    plan = [{"name": "rnn", "num-gpus": 0.25}, {"name": "dldnn", "device": "cuda"}, {"name": "hyperrnn"}]
    found = planned(tmp_path, plan, num_cpus=0.5)
    shares = [(share.num_cpus, share.gpus(job.device)) for job, share in zip(found.jobs, found.shares, strict=True)]
    assert shares == [(0.5, 0.25), (0.5, 1.0), (0.5, 0.0)]


def test_an_archive_is_one_that_a_gnb_takes(job: TrainingJob, small_store: CheckpointStore, tmp_path: Path) -> None:
    path = write_archive(small_store, job, tmp_path)
    assert path == tmp_path / "hyperrnn-3.zip"
    with path.open("rb") as file, open_archive(file, 2**24) as archive:
        for end in ("encoder", "decoder"):
            assert archive.read(f"{end}.safetensors") == small_store.part("hyperrnn", 3, end)
        assert json.loads(archive.read("card.json")) == small_store.card("hyperrnn", 3)
    first = path.read_bytes()
    path.unlink()
    assert write_archive(small_store, job, tmp_path).read_bytes() == first


def test_an_archive_that_is_there_stays(job: TrainingJob, small_store: CheckpointStore, tmp_path: Path) -> None:
    (tmp_path / "hyperrnn-3.zip").write_text("theirs")
    write_archive(small_store, job, tmp_path)
    assert (tmp_path / "hyperrnn-3.zip").read_text() == "theirs"


def test_an_archive_too_large(
    job: TrainingJob, small_store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member, "MOST_ARCHIVE_BYTES", 1000)
    with pytest.raises(TooLarge, match=r"archive: hyperrnn-3.zip would have \d+ bytes; at most 1000 are allowed"):
        write_archive(small_store, job, tmp_path)
    assert not list(tmp_path.glob("hyperrnn*"))
