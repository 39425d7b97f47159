"""docker-compose.yml, for real: up, scaled, swapped, disturbed, restarted, down and up again, and nothing is lost.

On demand, for it builds an image: `make test-slow ARGS=tests/e2e/test_containers.py`. CSIEMU_COMPOSE names the program,
`docker compose` unless it says otherwise.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import tarfile
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import get, wait_for

from shared.checkpoints import CheckpointStore

PROGRAM = shlex.split(os.environ.get("CSIEMU_COMPOSE", "docker compose"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which(PROGRAM[0]) is None, reason=f"{PROGRAM[0]} is not there"),
]

TOKEN = "of-the-test"
UES = 4
"""Of each container."""

FINISHED = "/v1/ues?status=finished"

PATIENCE_S = 300.0


class Stack:
    """The containers of a project of its own, with free ports; `rest` is the gNB's address."""

    def __init__(self, root: Path) -> None:
        ports = []
        for _ in range(2):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                ports.append(str(free.getsockname()[1]))
        self.rest = f"127.0.0.1:{ports[0]}"
        self._root = root
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("CSIEMU_")} | {
            "CSIEMU_REST_PORT": ports[0],
            "CSIEMU_GRPC_PORT": ports[1],
            "CSIEMU_GNB_TOKEN": TOKEN,
            "CSIEMU_UE_UES": str(UES),
        }

    def compose(self, *arguments: str, data: bytes | None = None, **variables: str) -> str:
        """What a compose command prints."""
        line = [shutil.which(PROGRAM[0]) or PROGRAM[0], *PROGRAM[1:], "-p", "csiemu-test", *arguments]
        done = subprocess.run(
            line, cwd=self._root, env=self._environment | variables, input=data, capture_output=True, check=False
        )
        text = (done.stdout + done.stderr).decode(errors="replace")
        assert done.returncode == 0, text
        return text

    def down(self, *options: str) -> None:
        """All containers away; asked twice, for podman-compose takes those of a scaled service last, and stumbles."""
        with suppress(AssertionError):
            self.compose("down", "--remove-orphans")
        self.compose("down", "--remove-orphans", *options)

    def nmse(self, query: str = "") -> Any:
        return get(self.rest, f"/v1/nmse{query}")

    def load(self, name: str, version: int) -> None:
        """Load a version with the token."""
        request = urllib.request.Request(
            f"http://{self.rest}/v2/repository/models/{name}/load",
            json.dumps({"parameters": {"version": version}}).encode(),
            {"authorization": f"Bearer {TOKEN}"},
        )
        urllib.request.urlopen(request, timeout=60).close()

    def wait(self, condition: Any) -> Any:
        """As `wait_for`, also while there is no gNB."""

        def asked() -> Any:
            try:
                return condition()
            except OSError:
                return None

        return wait_for(asked, PATIENCE_S)


@pytest.fixture
def stack(root: Path) -> Iterator[Stack]:
    made = Stack(root)
    made.compose("build", "gnb")
    yield made
    made.down("-v")


def version_to_copy(root: Path, folder: Path) -> bytes:
    """hyperrnn/9, the encoder and decoder of hyperrnn/3, as a tar file."""
    best = CheckpointStore(root / "checkpoints").load("hyperrnn", 3)
    CheckpointStore(folder).save("hyperrnn", 9, best.scheme, {"probe": best.card["probe"]})
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(folder / "hyperrnn" / "9", "hyperrnn/9")
    return archive.getvalue()


def test_from_up_to_down(stack: Stack, root: Path, tmp_path: Path) -> None:
    stack.compose("up", "-d", "gnb", "ue-hyperrnn", "ue-gmtc")
    stack.wait(lambda: {row["scheme"] for row in stack.nmse()["schemes"] if row["reports"]} == {"hyperrnn", "gmtc"})

    stack.compose("up", "-d", "--scale", "ue-hyperrnn=2", "gnb", "ue-hyperrnn")
    stack.wait(lambda: stack.nmse("?scheme=hyperrnn")["overall"]["ues_attached"] == 2 * UES)

    stack.compose("exec", "-T", "gnb", "tar", "x", "-C", "/checkpoints", data=version_to_copy(root, tmp_path))
    stack.load("hyperrnn", 9)  # another encoder, too
    hyperrnn = "/v1/ues?scheme=hyperrnn&status=attached"
    stack.wait(lambda: {row["decoder_version"] for row in get(stack.rest, hyperrnn)["ues"]} == {9})

    stack.compose("up", "-d", "ue-rnn", CSIEMU_UE_AIR="loss=0.2", CSIEMU_UE_RATE="50")
    stack.wait(lambda: [row for row in stack.nmse("?scheme=rnn")["schemes"] if row["air_lost"]])

    before = stack.nmse()["overall"]["reports"]
    stack.compose("restart", "gnb")
    stack.wait(lambda: stack.nmse()["overall"]["ues_attached"] == 4 * UES)
    stack.wait(lambda: stack.nmse()["overall"]["reports"] > before)  # with what they had before
    assert {row["decoder_version"] for row in get(stack.rest, hyperrnn)["ues"]} == {9}

    stack.compose("stop", "ue-hyperrnn", "ue-gmtc", "ue-rnn")
    stack.wait(lambda: get(stack.rest, FINISHED)["total"] >= 3 * UES)  # podman-compose stops one of a scaled service
    found = stack.nmse()["schemes"]
    for service, scheme in (("ue-gmtc", "gmtc"), ("ue-rnn", "rnn")):
        [summary] = [json.loads(text) for text in re.findall(r'{"sent".*}', stack.compose("logs", service))]
        assert summary["sent"] == sum(row["reports"] for row in found if row["scheme"] == scheme)  # lost is 0
        assert summary["unacked"] == 0
    for row in get(stack.rest, FINISHED)["ues"]:
        assert row["next_sequence"] == row["reports"] + row["dropped"]

    stack.down()
    stack.compose("up", "-d", "gnb")
    later = stack.wait(lambda: stack.nmse("?whole_run=true"))["overall"]
    assert later["ues"] == 4 * UES
    assert later["reports"] >= sum(row["reports"] for row in found)
    assert stack.nmse()["overall"]["ues"] == 0  # none of those that are no more
