"""Options of a training: once at the dataclasses, the same on both command lines."""

from __future__ import annotations

import importlib
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from csiemu import train
from csiemu.training import __main__ as bare
from csiemu.training.job import TrainingJob
from csiemu.training.options import Option, job_of, options
from csiemu.training.recipes import DESIGNS, RECIPES
from csiemu.training.trainer import Recipe
from shared.errors import InvalidInput
from shared.schemes import schemes

GIVEN: dict[str, Any] = {
    "save_as": "mine",
    "version": 2,
    "state": Path("state"),
    "device": "cuda",
    "sizes": "feedback_bits=12",
    "epochs": 3,
    "batch": 64,
    "rate": 0.5,
    "frozen_norms": False,
    "compiled": True,
    "seed": 7,
}
LINE = [
    "hyperrnn",
    "--as=mine",
    "--version=2",
    "--state=state",
    "--device=cuda",
    "--set=feedback_bits=12",
    "--epochs=3",
]
LINE += ["--batch=64", "--rate=.5", "--no-frozen-norms", "--compiled", "--seed=7"]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[TrainingJob]:
    """Jobs that a command line was about to run."""
    asked: list[TrainingJob] = []

    def note(job: TrainingJob, *_: Any) -> None:
        asked.append(job)
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingJob, "run", note)
    return asked


def by_field() -> dict[str, Option]:
    return {option.field: option for option in options()}


def test_every_field_has_an_option_with_help() -> None:
    wanted = [field.name for field in fields(TrainingJob) if field.name != "changes"]
    assert list(by_field()) == [*wanted, *(field.name for field in fields(Recipe))]
    assert all(option.help.endswith(".") for option in options())
    assert {option.kind for option in options()} == {str, int, float, bool, Path}
    assert [option.field for option in options() if option.default is MISSING] == ["name"]
    assert {option.field: option.name for option in options() if option.field != option.name} == {
        "save_as": "as",
        "sizes": "set",
    }


def test_lists_in_the_help_are_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert all(name in by_field()["name"].help for name in (*DESIGNS, *schemes()))
    assert all(name in by_field()["recipe"].help for name in RECIPES)
    monkeypatch.setattr(sys, "argv", ["training", "--help"])
    importlib.reload(train)  # its help is made once, and other tests may have registered schemes since
    for show in (bare.main, lambda: train.Settings(_cli_parse_args=["--help"])):
        with pytest.raises(SystemExit) as caught:
            show()
        assert caught.value.code == 0
        printed = " ".join(capsys.readouterr().out.split()).replace("- ", "-")
        assert all(option.help.replace("- ", "-") in printed for option in options())


def test_options_that_are_not_given_leave_the_defaults() -> None:
    assert job_of({"name": "rnn", "save_as": None, "batch": None}) == TrainingJob("rnn")
    assert job_of({option.field: option.default for option in options()} | {"name": "rnn"}) == TrainingJob("rnn")
    assert job_of({"name": "rnn", "frames": 0, "frozen_norms": False}).changes == {"frames": 0, "frozen_norms": False}


def test_both_command_lines_ask_for_the_same(jobs: list[TrainingJob], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["training", *LINE])
    with pytest.raises(SystemExit) as caught:
        bare.main()
    assert caught.value.code == 130
    with pytest.raises(KeyboardInterrupt):
        train.run(train.Settings(_cli_parse_args=LINE))
    assert jobs == [job_of({"name": "hyperrnn", **GIVEN})] * 2
    assert jobs[0].changes == {name: GIVEN[name] for name in ("batch", "rate", "frozen_norms", "compiled", "seed")}


def test_variables_of_the_environment(jobs: list[TrainingJob], monkeypatch: pytest.MonkeyPatch) -> None:
    """Aliases have the command's prefix too: STATE and SEED are nobody's."""
    for name, value in {"STATE": "a", "SEED": "1", "AS": "b", "TRAIN_SEED": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CSIEMU_TRAIN_AS", "mine")
    monkeypatch.setenv("CSIEMU_TRAIN_STEPS", "5")
    with pytest.raises(KeyboardInterrupt):
        train.run(train.Settings(_cli_parse_args=["rnn"]))
    assert jobs == [TrainingJob("rnn", save_as="mine", changes={"steps": 5})]


@pytest.mark.parametrize(("field", "value"), [("version", 0), ("epochs", 0), ("save_every", 0), ("evaluation_ues", 15)])
def test_refused_numbers(field: str, value: int) -> None:
    with pytest.raises(InvalidInput, match=f"{field}: {value} is less than {value + 1}"):
        job_of({"name": "rnn", field: value})
