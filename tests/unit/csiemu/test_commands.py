"""Commands: what they say where there is nothing to work on, and that importing them runs nothing."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from csiemu import cli
from shared.commands import run_command

NEED_CHECKPOINTS = ("emulate", "gnb", "ue", "evaluate rnn", "checkpoints", "bench serving")


@pytest.mark.parametrize("command", NEED_CHECKPOINTS)
@pytest.mark.parametrize("how", ["option", "variable"])
def test_no_checkpoints(
    command: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *arguments = command.split()
    monkeypatch.setenv("CSIEMU_CHECKPOINTS", "folder" if how == "variable" else "another")
    arguments += ["--checkpoints", "folder"] if how == "option" else []
    monkeypatch.setattr(sys, "argv", ["csiemu", name, *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"csiemu: checkpoints: there are none in {tmp_path / 'folder'}; ")
    assert "--checkpoints or CSIEMU_CHECKPOINTS" in printed.err
    assert printed.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["csiemu", "gnb_server", "ue_client", "csiemu.training"])
def test_importing_main_runs_nothing(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [module, "--nonsense"])
    importlib.reload(importlib.import_module(f"{module}.__main__"))


def test_unknown_commands_and_options(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["csiemu", "fly", "--high"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("csiemu: command: 'fly' is unknown; commands are emulate, gnb, ue")
    assert run_command("csiemu gnb", "gnb_server.command", ["--rest-port", "-1"]) == 2
    assert capsys.readouterr().err.startswith("csiemu: rest-port: '-1': ")
