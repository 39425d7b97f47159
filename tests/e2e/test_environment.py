"""What others have set up: proxies, a notebook's plots, modules of our names in the current folder, IPv6."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from e2e_tools import Spawn, get, ready

from shared.checkpoints import CheckpointStore

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"):
        monkeypatch.setenv(name, NOWHERE)
        monkeypatch.setenv(name.upper(), NOWHERE)
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    """The current one, with modules that must not be imported."""
    folder = tmp_path / "here"
    folder.mkdir()
    for name in ("training", "shared", "grpc", "random", "signal", "torch", "gnb_server", "ue_client"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the current folder was imported')\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(root))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "csiemu").write_text("from csiemu.cli import main\n\nif __name__ == '__main__':\n    main()\n")
    return folder


def csiemu(folder: Path, *line: object) -> str:
    """As the installed command, which has its own folder on Python's path and not the current one."""
    command = [sys.executable, str(folder.parent / "bin" / "csiemu"), *map(str, line)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.usefixtures("proxies")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_emulation(
    host: str, folder: Path, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CSIEMU_GNB_HOST", host)
    options = ("--schemes", "rnn", "--ues", 2, "--slots", 16, "--rate", "max", "--rest-port", 0)
    files = ("--out", tmp_path / "out", "--json", tmp_path / "out.json", "--checkpoints", small_store.root)
    csiemu(folder, "emulate", *options, *files)
    results = json.loads((tmp_path / "out.json").read_text())
    assert (results["lost"], results["misdecoded"], results["failed"]) == (0, 0, [])
    assert results["schemes"]["rnn"]["reports_decoded"] == 32
    at = ready(tmp_path / "out" / "gnb.json")
    assert {name: address.rsplit(":", 1)[0] for name, address in at.items()} == dict.fromkeys(
        ("grpc", "rest"), "[::1]" if host == "::1" else host
    )


def test_an_emulation_needs_no_token_and_no_certificates(
    folder: Path, small_store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its processes are on loopback: what the shell has for others is not for them."""
    for name in ("GNB_TOKEN", "GNB_TOKEN_FILE", "GNB_TLS_CERTIFICATE", "GNB_TLS_KEY", "GNB_TLS_CLIENT_CA", "UE_TLS_CA"):
        monkeypatch.setenv(f"CSIEMU_{name}", "/nowhere")
    options = ("--schemes", "rnn", "--ues", 2, "--slots", 16, "--rate", "max", "--rest-port", 0)
    csiemu(folder, "emulate", *options, "--out", tmp_path / "out", "--checkpoints", small_store.root)


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "module://nowhere", "nonsense"])
def test_a_picture(backend: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made by workers, which import nothing from here either."""
    monkeypatch.setenv("MPLBACKEND", backend)
    preset = "cost2100-indoor-csinet:antennas=8,first_rows=8,subcarriers=32"
    csiemu(folder, "dataset", "generate", "--preset", preset, "--count", 8, "--out", "x.npz", "--workers", 1)
    assert "drawn: a/look.png" in csiemu(folder, "dataset", "inspect", "x.npz", "--plot", "a/look.png")
    assert (folder / "a" / "look.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("proxies")
@pytest.mark.parametrize("host", ["::1", "localhost"])
def test_hosts_that_are_no_ipv4_address(
    spawn: Spawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    gnb = spawn(
        "gnb_server",
        host=host,
        grpc_port=0,
        rest_port=0,
        store=f"sqlite:///{tmp_path / 's'}",
        ready_file=tmp_path / "r",
    )
    at = ready(tmp_path / "r")
    assert spawn("ue_client", gnb=at["grpc"], scheme="rnn", ues=2, slots=8).wait(120) == 0
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name)
    assert get(at["rest"], "/v1/nmse")["overall"]["reports"] == 16
    gnb.send_signal(signal.SIGTERM)
    assert gnb.wait(60) == 0
