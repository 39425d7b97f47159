"""README and docs: blocks are run as they are written, options exist, links lead somewhere, tables are the commands'.

`documents` has the classes of blocks. A document's blocks are run one after the other in one folder.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import DOCUMENTS, ROOT, Block, anchors, blocks, links
from e2e_tools import wait_for
from pydantic import ValidationError

from csiemu import cli
from csiemu.processes import Gnb, end, spawn
from csiemu.rest import Rest
from csiemu.training.plan import asked
from shared.checkpoints import shipped_checkpoints

SHELL = [block for document in DOCUMENTS for block in blocks(document) if block.info[:1] == ("sh",)]

COMPOSE = (ROOT / "docker-compose.yml").read_text()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_says_what_is_done_with_it(document: str) -> None:
    assert [block.where for block in blocks(document) if not block.is_classed] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for link in links(document):
        name, _, anchor = link.partition("#")
        target = (ROOT / document).parent / name if name else ROOT / document
        assert target.exists(), link
        assert not anchor or anchor in anchors(str(target.resolve().relative_to(ROOT))), link


@pytest.mark.parametrize("document", ["README.md", "docs/checkpoints.md"])
def test_tables_of_checkpoints_are_those_of_the_cards(document: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / document).read_text()
    lines = [words for block in blocks(document) for words in _csiemu(block, "checkpoints") if "--markdown" in words]
    assert lines
    for words in lines:
        run_parsed(words)
        for table in capsys.readouterr().out.strip().split("\n\n"):
            assert table in text, f"{document} is not what csiemu {' '.join(words)} prints"


def _csiemu(block: Block, command: str) -> list[list[str]]:
    return [words[1:] for words in block.commands() if words[:2] == ["csiemu", command]] if block in SHELL else []


def run_parsed(words: list[str]) -> None:
    """A command of csiemu, in this process."""
    module = importlib.import_module(cli.COMMANDS[words[0]][0])
    module.run(module.Settings(_cli_parse_args=words[1:]))


# --- parsed ---


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.where)
def test_commands_and_options_exist(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = list(block.commands())
    assert commands
    for words in commands:
        try:
            check(words, monkeypatch)
        except (SystemExit, ValidationError, LookupError, AssertionError) as error:
            pytest.fail(f"{' '.join(words)}: {error}")


def check(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises where a program, an option, a variable or a name is not one."""
    if words[0] == "export":
        words = words[1:]
    while words and (match := re.fullmatch(r"([A-Za-z_]+)=.*", words[0])):
        assert match[1] in variables() or f"${{{match[1]}:" in COMPOSE or not match[1].startswith("CSIEMU")
        words = words[1:]
    if not words:
        return
    program, *arguments = words
    program = Path(program).name  # .venv/bin/csiemu
    if program == "python" and arguments[0] == "-m" and arguments[1].startswith("csiemu"):
        parse_module(arguments[1], arguments[2:], monkeypatch)
    elif program in CHECKS:
        CHECKS[program](arguments, monkeypatch)
    else:
        assert program in OTHERS, f"{program} is no program that the documentation knows"


OTHERS = ("apt", "cat", "cd", "chromium", "cp", "curl", "git", "grep", "head", "kill", "ls", "mkdir", "openssl")
OTHERS += ("pip", "pytest", "python", "sed", "echo", "sleep", "tail", "ray", "unzip")
"""Programs whose options are not ours."""

NOT_EVERYWHERE = ("curl", "openssl", "unzip")
"""Those that a machine with Python, pip and make need not have."""


def variables() -> set[str]:
    """Environment variables of all commands."""
    found = {"CSIEMU_CHECKPOINTS", "CSIEMU_DATA"}
    for name, (module, _) in cli.COMMANDS.items():
        if name != "experiment":
            fields = importlib.import_module(module).Settings.model_fields
            prefix = f"CSIEMU_{name.split()[0]}_"
            found |= {f"{prefix}{info.alias or field}".upper() for field, info in fields.items()}
    return found


def parse_csiemu(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if "--help" in arguments:
        arguments = [word for word in arguments if word != "--help"]
        assert arguments == [] or " ".join(arguments) in cli.COMMANDS
        return
    count = 2 if " ".join(arguments[:2]) in cli.COMMANDS else 1
    command, options = " ".join(arguments[:count]), arguments[count:]
    assert command in cli.COMMANDS, f"{command} is no command of csiemu"
    module = importlib.import_module(cli.COMMANDS[command][0])
    if command == "experiment":
        assert options == [] or options[0] in module.names(), f"{options[0]} is no experiment"
        if options:
            parse_module(f"{module.PACKAGE}.{options[0].replace('-', '_')}", options[1:], monkeypatch)
        return
    settings = module.Settings(_cli_parse_args=options)
    if command == "train":
        train(settings.model_dump(exclude_unset=True))


def train(given: dict[str, Any]) -> None:
    """Names, scenario, fields of the configuration and recipe, as far as they are known without a checkpoint."""
    if "campaign" not in given and given.get("name") != "NAME":
        asked(given | {"device": "cpu"}, yaml.safe_load)


class _Parsed(Exception):
    """Raised where the work would begin."""


def parse_module(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m module`, until it has parsed its options."""

    def parse(parser: argparse.ArgumentParser, *given: Any, **named: Any) -> None:
        original(parser, *given, **named)
        raise _Parsed

    original = argparse.ArgumentParser.parse_args
    with monkeypatch.context() as patch, contextlib.suppress(_Parsed):
        patch.setattr(sys, "argv", [module, *arguments])
        patch.setattr(argparse.ArgumentParser, "parse_args", parse)
        runpy.run_module(module, run_name="__main__", alter_sys=False)


def parse_make(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for word in arguments:
        if word.startswith("ARGS="):
            parse_csiemu(["emulate", *word.removeprefix("ARGS=").split()], monkeypatch)
        else:
            assert re.search(rf"^{word}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"{word} is no target"


def parse_docker(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert arguments[0] == "compose"
    if "run" in arguments:  # [OPTIONS] SERVICE COMMAND OF csiemu
        place = next(i for i, word in enumerate(arguments) if word[0] != "-" and i > arguments.index("run"))
        parse_csiemu(arguments[place + 1 :], monkeypatch)
        arguments = arguments[: place + 1]
    services = yaml.safe_load(COMPOSE)["services"]
    profiles = {profile for service in services.values() for profile in service.get("profiles", [])}
    for option, value in itertools.pairwise(arguments):
        assert option != "--profile" or value in profiles, f"{value} is no profile"
        assert option != "--scale" or value.split("=")[0] in services, f"{value}: no such service"


CHECKS: dict[str, Callable[[list[str], pytest.MonkeyPatch], None]] = {
    "csiemu": parse_csiemu,
    "make": parse_make,
    "docker": parse_docker,
}


def test_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for document in DOCUMENTS:
        for named in re.findall(r"csi-feedback-emulator\[(\w+)\]", (ROOT / document).read_text()):
            assert named in extras


# --- run ---


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of blocks: a virtual one of their own, into which they may install something, checkpoints that
    they may add to, and a curl that fails where it is refused.
    """
    folder = tmp_path_factory.mktemp("home")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    (packages,) = folder.glob("venv/lib/python*/site-packages")
    (packages / "ours.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    script = folder / "venv" / "bin" / "csiemu"
    run = "from csiemu.cli import main\nif __name__ == '__main__':\n    main()\n"
    script.write_text(f"#!{folder / 'venv/bin/python'} -P\n{run}")
    script.chmod(0o755)
    (folder / ".curlrc").write_text("fail-with-body\nno-progress-meter\nmax-time = 60\n")
    ours = {
        "PATH": f"{folder / 'venv/bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CURL_HOME": str(folder),
        "CSIEMU_EMULATE_REST_PORT": "0",
        "OMP_NUM_THREADS": "1",
        "no_proxy": "127.0.0.1,localhost",
        "PIP_PYTHON": str(folder / "venv/bin/python"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # which is how pip's variable says that there is to be none
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CSIEMU_", "PIP_"))}
    return kept | ours


def checkpoints(folder: Path) -> Path:
    """The shipped versions as links, in folders that others can be added to."""
    for version in shipped_checkpoints().resolve().glob("*/*"):
        link = folder / version.relative_to(version.parents[1])
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(version)
    return folder


FLEETS = {"gmtc": (4, 2.0), "hyperrnn": (40, 20.0), "crnet": (2, 2.0)}
"""UEs and reports per second of each scheme beside which blocks are run; ids from 0 on, in this order."""


@pytest.fixture(scope="module")
def gnb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gnb]:
    """A gNB with UEs that send."""
    folder = tmp_path_factory.mktemp("gnb")
    store = checkpoints(folder / "checkpoints")
    with Gnb(folder, checkpoints=store, upload_mib=8) as gnb, contextlib.ExitStack() as stack:
        first = 0
        for scheme, (ues, rate) in FLEETS.items():
            asked_for = {"gnb": gnb.grpc, "scheme": scheme, "ues": ues, "ue_base": first, "rate": rate}
            fleet = spawn("ue_client", folder / f"{scheme}.log", checkpoints=store, **asked_for)
            stack.callback(end, fleet)
            first += ues
        rest = Rest(f"http://{gnb.rest}")
        wait_for(lambda: {row["scheme"] for row in rest.get("/v1/nmse")["schemes"] if row["reports"]} >= {*FLEETS}, 600)
        yield gnb


def run(document: str, folder: Path, environment: dict[str, str], request: pytest.FixtureRequest, slow: bool) -> int:
    """Run the blocks of a document in a folder; returns how many."""
    checkpoints(folder / "checkpoints")
    environment = {**environment, "CSIEMU_CHECKPOINTS": str(folder / "checkpoints")}
    shown = blocks(document)
    programs = {words[0] for block in shown if _is_run(block, slow) for words in block.commands()}
    if lacking := sorted(name for name in programs & {*NOT_EVERYWHERE} if shutil.which(name) is None):
        pytest.skip(f"{document} needs {', '.join(lacking)}")
    count = 0
    for block in shown:
        text = block.text
        if block.info[0] != "sh":
            if len(block.info) == 2:
                (folder / block.info[1]).parent.mkdir(parents=True, exist_ok=True)
                (folder / block.info[1]).write_text(text)
            continue
        if not _is_run(block, slow):
            continue
        if "gnb" in block.info:
            running = request.getfixturevalue("gnb")
            if "CSIEMU_UE_GNB" not in environment:  # every document finds version 1 in service
                Rest(f"http://{running.rest}").post("/v2/repository/models/hyperrnn/load", {})
            environment |= {"CSIEMU_SWAP_GNB": f"http://{running.rest}", "CSIEMU_UE_GNB": running.grpc}
            text = re.sub(r"(localhost|127\.0\.0\.1):8000", running.rest, text)
            text = text.replace("127.0.0.1:50051", running.grpc)
        done = subprocess.run(
            ["bash", "-euc", text],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        assert done.returncode == 0, f"{block.where}:\n{text}\n{done.stdout}\n{done.stderr}"
        count += 1
    return count


def _is_run(block: Block, slow: bool) -> bool:
    """Whether a block is a script that is run; those that are always run go before slow ones, too."""
    return block.info[0] == "sh" and "parse" not in block.info and (slow or "slow" not in block.info)


def _with(slow: bool) -> list[str]:
    """Documents with blocks that are run on demand, or always."""
    wanted = {b.where.split(":")[0] for b in SHELL if _is_run(b, slow) and ("slow" in b.info) == slow}
    return [document for document in DOCUMENTS if document in wanted]


@pytest.mark.parametrize("document", _with(slow=False))
def test_blocks_run(document: str, tmp_path: Path, home: dict[str, str], request: pytest.FixtureRequest) -> None:
    assert run(document, tmp_path, home, request, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("document", _with(slow=True))
def test_slow_blocks_run(document: str, tmp_path: Path, home: dict[str, str], request: pytest.FixtureRequest) -> None:
    assert run(document, tmp_path, home, request, slow=True)
