"""REST by TLS, gRPC by TLS and mutual TLS, with certificates made here; who does not agree is told why."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from shared.commands import run_command
from shared.errors import InvalidInput
from ue_client.fleet import UeFleet
from ue_client.settings import Settings as UeSettings

Files = dict[str, Path]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """`gnb`, `ue` and `elsewhere` (for another host) of one authority, `ca`; `stranger` of another, `other`. Of each
    the certificate, NAME, and the key, NAME_key.
    """
    folder = tmp_path_factory.mktemp("tls")
    ours, others = trustme.CA(), trustme.CA()
    found = {}

    def keep(name: str, blob: trustme.Blob) -> None:
        found[name] = folder / f"{name}.pem"
        blob.write_to_path(found[name])

    for name, authority in (("ca", ours), ("other", others)):
        keep(name, authority.cert_pem)
    for name, authority, of in (
        ("gnb", ours, "127.0.0.1"),
        ("elsewhere", ours, "gnb.example.org"),
        ("ue", ours, "ue@example.org"),
        ("stranger", others, "ue@example.org"),
    ):
        issued = authority.issue_cert(of)
        keep(name, issued.cert_chain_pems[0])
        keep(f"{name}_key", issued.private_key_pem)
    return found


def shown(files: Files, name: str) -> dict[str, Path]:
    return {"tls_certificate": files[name], "tls_key": files[f"{name}_key"]}


def get(gnb: Any, path: str, **trust: Any) -> Any:
    context = ssl.create_default_context(**trust)
    with urllib.request.urlopen(f"https://{gnb.rest}{path}", timeout=30, context=context) as answer:
        return json.load(answer)


def test_rest(start_gnb: Callable[..., Any], files: Files) -> None:
    gnb = start_gnb(**shown(files, "gnb"))
    assert get(gnb, "/v2/health/ready", cafile=files["ca"]) == {"ready": True}
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        get(gnb, "/v2/health/ready", cafile=files["other"])
    with pytest.raises(OSError):
        gnb.call("/v2/health/ready")  # in the clear


@pytest.mark.parametrize("mutual", [False, True])
def test_ues(start_gnb: Callable[..., Any], files: Files, mutual: bool) -> None:
    ue = shown(files, "ue") if mutual else {}
    settings = {**shown(files, "gnb"), "tls_client_ca": files["ca"] if mutual else None}
    gnb = start_gnb(**settings)
    assert gnb.run_ues(scheme="rnn", ues=2, slots=16, tls_ca=files["ca"], **ue).counts.acked == 32
    assert get(gnb, "/v1/nmse", cafile=files["ca"])["overall"]["reports"] == 32


WITHOUT = "wants a certificate, --tls-certificate and --tls-key"


@pytest.mark.parametrize(
    ("gnb_is", "wants", "ue_is", "trusts", "says"),
    [
        ("gnb", None, None, "other", "is refused by --tls-ca: unable to get local issuer certificate"),
        (
            "elsewhere",
            None,
            None,
            "ca",
            "is refused by --tls-ca: IP address mismatch, certificate is not valid for '127",
        ),
        ("gnb", "ca", None, "ca", WITHOUT),
        ("gnb", "ca", "stranger", "ca", "refuses ours"),
        ("gnb", None, None, None, "speaks TLS; wanted --tls-ca"),
        ("gnb", "ca", None, None, "speaks TLS; wanted --tls-ca"),
        (None, None, None, "ca", "does not speak TLS as we do: WRONG_VERSION_NUMBER"),
    ],
)
def test_ues_that_do_not_agree(
    start_gnb: Callable[..., Any],
    files: Files,
    gnb_is: str | None,
    wants: str | None,
    ue_is: str | None,
    trusts: str | None,
    says: str,
) -> None:
    """One message, and an end: waiting would not help."""
    gnb = start_gnb(**(shown(files, gnb_is) if gnb_is else {}), tls_client_ca=wants and files[wants])
    with pytest.raises(InvalidInput, match=rf"^gnb: .*{re.escape(gnb.grpc)} .*{says}"):
        gnb.run_ues(
            scheme="rnn", ues=1, slots=8, tls_ca=trusts and files[trusts], **(shown(files, ue_is) if ue_is else {})
        )


def test_ues_wait_for_a_gnb_that_is_not_there(files: Files, small_store: Any) -> None:
    settings = UeSettings(gnb="127.0.0.1:1", scheme="rnn", checkpoints=small_store.root, tls_ca=files["ca"])
    fleet = UeFleet(settings, small_store.load("rnn", ends=("encoder",)))
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(fleet.run(), 2.0))


def test_ues_come_back_to_a_gnb_that_was_away(start_gnb: Callable[..., Any], files: Files) -> None:
    first = start_gnb(**shown(files, "gnb"))
    port = int(first.grpc.rpartition(":")[2])
    found: list[Any] = []
    options = {"scheme": "rnn", "ues": 1, "slots": 200, "rate": 100, "tls_ca": files["ca"]}
    ues = threading.Thread(target=lambda: found.append(first.run_ues(**options)), daemon=True)
    ues.start()
    while not get(first, "/v1/nmse", cafile=files["ca"])["overall"]["reports"]:
        time.sleep(0.05)
    first.stop()
    start_gnb(**shown(files, "gnb"), grpc_port=port)
    ues.join(60)
    assert found[0].counts.acked == 200
    assert found[0].counts.connects > 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tls_certificate": "gnb"}, "tls_certificate: "),
        ({"tls_key": "gnb_key"}, "tls_key: "),
        ({"tls_certificate": "gnb", "tls_key": "ue_key"}, "is not the key of"),
        ({"tls_client_ca": "ca"}, "tls_client_ca: "),
        ({"tls_certificate": "gnb", "tls_key": "gnb_key", "tls_client_ca": "gnb_key"}, "has no certificate in PEM"),
    ],
)
def test_files_that_cannot_be_used_end_the_gnb(
    files: Files,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, str],
    says: str,
) -> None:
    monkeypatch.setattr("gnb_server.command.limit_repeats", lambda: None)  # this process's log is that of other tests
    line = [text for name, file in options.items() for text in (f"--{name.replace('_', '-')}", str(files[file]))]
    store = ["--store", f"sqlite:///{tmp_path / 'gnb.sqlite'}", "--grpc-port", "0", "--rest-port", "0"]
    assert run_command("csiemu gnb", "gnb_server.command", [*line, *store]) == 2
    error = capfd.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert not (tmp_path / "gnb.sqlite").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tls_certificate": "ue", "tls_key": "ue_key"}, "and no tls_ca; wanted both"),
        ({"tls_ca": "ca", "tls_certificate": "ue"}, "and no tls_key; wanted both"),
        ({"tls_ca": "ue_key"}, "tls_ca: "),
    ],
)
def test_files_that_cannot_be_used_end_ues(files: Files, small_store: Any, options: dict[str, str], says: str) -> None:
    chosen = UeSettings(scheme="rnn", **{name: files[file] for name, file in options.items()})
    with pytest.raises(InvalidInput, match=says):
        UeFleet(chosen, small_store.load("rnn"))


@pytest.mark.parametrize(("trusts", "says"), [("other", "CERTIFICATE_VERIFY_FAILED"), ("gnb_key", "tls_ca: ")])
def test_a_swap_trusts_whom_it_is_told_to(
    start_gnb: Callable[..., Any], files: Files, capfd: pytest.CaptureFixture[str], trusts: str, says: str
) -> None:
    gnb = start_gnb(**shown(files, "gnb"))
    line = ["rnn", "1", "--gnb", f"https://{gnb.rest}", "--tls-ca"]
    assert run_command("csiemu swap", "csiemu.swap", [*line, str(files["ca"])]) == 0
    assert run_command("csiemu swap", "csiemu.swap", [*line, str(files[trusts])]) == 2
    assert says in capfd.readouterr().err
