"""Uploads of checkpoints: what is whole stands in the repository, what is not leaves nothing behind."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import io
import json
import os
import shutil
import socket
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gnb_server.uploads import AT_ONCE
from shared.checkpoints import CheckpointStore
from shared.schemes import ENDS

UPLOAD = "/v1/checkpoints"
PARTS = CARD, ENCODER, DECODER = ("card.json", "encoder.safetensors", "decoder.safetensors")

Files = dict[str, bytes]


@pytest.fixture
def root(tmp_path: Path, small_store: CheckpointStore) -> Path:
    """rnn/1 alone."""
    shutil.copytree(small_store.root / "rnn", tmp_path / "store" / "rnn")
    return tmp_path / "store"


@pytest.fixture
def gnb(start_gnb: Callable[..., Any], root: Path) -> Any:
    return start_gnb(checkpoints=root, upload_mib=16)


@pytest.fixture
def files(small_store: CheckpointStore) -> Files:
    """Those of dldnn/1."""
    return {name: (small_store.root / "dldnn" / "1" / name).read_bytes() for name in PARTS}


def zipped(files: Files) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def with_card(files: Files, **fields: Any) -> Files:
    card = {**json.loads(files[CARD]), **fields}
    return {
        **files,
        CARD: json.dumps({name: value for name, value in card.items() if value is not ...}).encode(),
    }


def send(gnb: Any, files: Files, query: str = "") -> tuple[int, Any]:
    return gnb.call(UPLOAD + query, zipped(files), headers={"content-type": "application/zip"})


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def reason(gnb: Any, place: str) -> str | None:
    rows = gnb.call("/v2/repository/index", {})[1]
    return {f"{row['name']}/{row['version']}": row["reason"] for row in rows}.get(place)


def test_an_upload_can_be_used(gnb: Any, root: Path, files: Files) -> None:
    card = json.loads(files[CARD])
    status, answer = send(gnb, files)
    assert (status, answer) == (
        201,
        {
            "name": "dldnn",
            "version": "1",
            "encoder_id": card["encoder_id"],
            "sha256": card["sha256"],
            "card": {
                **{name: card[name] for name in ("scheme", "scenario", "payload", "feedback_bits")},
                "nmse_db": card["evaluation"]["nmse_db"],
            },
        },
    )
    assert {name: (root / "dldnn" / "1" / name).read_bytes() for name in PARTS} == files
    assert sorted(path.name for path in root.iterdir()) == ["dldnn", "rnn"]
    assert reason(gnb, "dldnn/1") == "not loaded"
    assert gnb.call("/v2/repository/models/dldnn/load", {})[0] == 200
    happened = [(event["kind"], event["model"], event["version"]) for event in gnb.call("/v1/events")[1]["events"]]
    assert happened[:2] == [("uploaded", "dldnn", "1"), ("loaded", "dldnn", "1")]
    assert gnb.run_ues(scheme="dldnn", ues=2, slots=8).counts.acked == 16


def test_it_gets_the_name_and_version_asked_for(gnb: Any, root: Path, files: Files) -> None:
    before = tree(root)
    places = (("", "dldnn", "1"), ("?name=mine", "mine", "1"), ("?version=7", "dldnn", "7"), ("", "dldnn", "8"))
    for query, name, version in places:
        request = http.client.HTTPConnection(gnb.rest, timeout=60)
        request.request("POST", UPLOAD + query, zipped(files))
        answer = request.getresponse()
        assert (answer.status, answer.headers["location"]) == (201, f"/v2/models/{name}/versions/{version}")
        card = json.loads((root / name / version / "card.json").read_text())
        assert (card["name"], card["version"]) == (name, int(version))
        assert reason(gnb, f"{name}/{version}") == "not loaded"
        assert gnb.call(answer.headers["location"])[0] == 200
    (root / "mine" / "12").mkdir()  # being copied, say
    assert send(gnb, files, "?name=mine")[1]["version"] == "13"
    assert before.items() <= tree(root).items()


def test_a_decoder_for_an_encoder_that_is_there(gnb: Any, root: Path, small_store: CheckpointStore) -> None:
    """hyperrnn/2 has the encoder of hyperrnn/1, and does not keep it again."""
    shutil.copytree(small_store.root / "hyperrnn" / "1", root / "hyperrnn" / "1")
    second = small_store.root / "hyperrnn" / "2"
    alone = {path.name: path.read_bytes() for path in second.iterdir()}
    assert {*alone} == {"card.json", "decoder.safetensors"}
    assert send(gnb, alone)[1]["version"] == "2"
    for version in (1, 2):
        assert CheckpointStore(root).load("hyperrnn", version, ENDS).version == version
    status, answer = send(gnb, alone, "?name=mine")
    assert (status, answer["error"]) == (
        400,
        "archive: encoder.safetensors is missing, and no version of mine has the one of the card",
    )
    assert not (root / "mine").exists()


def test_a_version_that_is_there_stays_as_it_is(gnb: Any, root: Path, files: Files) -> None:
    (root / "dldnn" / "3").mkdir(parents=True)
    (root / "dldnn" / "3" / "decoder.safetensors").write_bytes(b"half of it")
    before = tree(root)
    for query, place in (("?name=rnn&version=1", "rnn/1"), ("?version=3", "dldnn/3")):
        status, answer = send(gnb, files, query)
        assert (status, place in answer["error"], "another version" in answer["error"]) == (409, True, True)
    assert tree(root) == before
    (root / "dldnn" / "4").mkdir()  # with nothing in it
    assert send(gnb, files, "?version=4")[0] == 201


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        (lambda f: {**f, DECODER: flipped(f[DECODER])}, 422, "decoder.safetensors has sha256"),
        (lambda f: {**f, ENCODER: flipped(f[ENCODER])}, 422, "encoder.safetensors has sha256"),
        (lambda f: {**f, DECODER: b""}, 422, "decoder.safetensors has sha256"),
        (lambda f: with_card(f, encoder_id="ab" * 8), 422, "encoder_id"),
        (lambda f: with_card(f, payload="signs:7x1"), 422, "signs:7x1"),
        (lambda f: with_card(f, feedback_bits=21), 422, "feedback_bits: 21, of its layout 20"),
        (lambda f: with_card(f, feedback_bits="20"), 422, "card.json lacks ['feedback_bits']"),
        (lambda f: with_card(f, scheme="resnet"), 422, "scheme: 'resnet' is unknown"),
        (lambda f: with_card(f, scenario="elsewhere"), 422, "elsewhere"),
        (lambda f: with_card(f, config={"colour": "red"}), 422, "colour"),
        (lambda f: with_card(f, config={"feedback_bits": "six"}), 422, "checkpoint dldnn/1: "),
        (lambda f: with_card(f, probe=...), 422, "probe: 'ues'"),
        (lambda f: with_card(f, probe=[1]), 422, "probe: "),
        (lambda f: with_card(f, probe={"ues": 10**9}), 422, "ues: 1000000000 is not in [1, 256]"),
        (lambda f: with_card(f, sha256=...), 422, "card.json lacks ['sha256']"),
        (lambda f: with_card(f, format=2), 422, "format is 2, wanted 1"),
        (lambda f: {**f, CARD: b"{"}, 400, "card.json is not JSON"),
        (lambda f: {**f, CARD: b"\xff"}, 400, "card.json is not JSON"),
        (lambda f: {**f, CARD: b"[" * 100_000}, 400, "card.json is not JSON"),
        (lambda f: {**f, CARD: b'{"a": NaN}'}, 400, "card.json is not JSON"),
        (lambda f: {**f, CARD: b'{"a": "\\ud800"}'}, 400, "card.json is not JSON"),
        (lambda f: {**f, CARD: b"[1]"}, 400, "card.json is not a JSON object"),
        (lambda f: with_card(f, name="../../outside"), 400, "'../../outside' is not a name"),
        (lambda f: with_card(f, name=...), 400, "is not a name"),
        (lambda f: {**f, "../outside": b"x"}, 400, "'../outside' is a path"),
        (lambda f: {**f, "evil.so": b"x"}, 400, "'evil.so' is no file of a checkpoint"),
        (lambda f: {CARD: f[CARD]}, 400, "decoder.safetensors is missing"),
        (lambda f: {**f, DECODER: bytes(2**24)}, 413, "bytes when expanded; at most 16777216 are taken"),
        (lambda f: with_card(f, config={"feedback_bits": 65536, "uplink_reading": "none"}), 413, "weights, more than"),
    ],
)  # fmt: skip
def test_what_is_refused_leaves_nothing(
    gnb: Any, root: Path, files: Files, change: Callable[[Files], Files], status: int, says: str
) -> None:
    before = tree(root.parent)
    found, answer = send(gnb, change(files))
    assert (found, says in answer["error"]) == (status, True), answer
    assert {name: data for name, data in tree(root.parent).items() if "sqlite" not in name} == {
        name: data for name, data in before.items() if "sqlite" not in name
    }
    assert sorted(path.name for path in root.iterdir()) == ["rnn"]
    assert gnb.run_ues(scheme="rnn", ues=1, slots=8).counts.acked == 8


def test_a_card_with_another_name_than_asked_for_gets_that(gnb: Any, root: Path, files: Files) -> None:
    assert send(gnb, with_card(files, name="../../outside", version=-1), "?name=inside")[0] == 201
    assert reason(gnb, "inside/1") == "not loaded"


def test_ends_that_do_not_do_what_the_probe_says(gnb: Any, root: Path, files: Files) -> None:
    probe = json.loads(files[CARD])["probe"]
    status, answer = send(gnb, with_card(files, probe={**probe, "largest": 2 * probe["largest"]}))
    assert (status, "the decoder's estimates differ" in answer["error"]) == (422, True)
    status, answer = send(gnb, with_card(files, probe={**probe, "payload": "A" * len(probe["payload"].rstrip("="))}))
    assert status == 422


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("?name=../x", "name"),
        ("?name=", "name"),
        ("?name=A", "name"),
        ("?version=0", "version"),
        ("?version=x", "version"),
        ("?version=1000000000", "version"),
        ("?nmae=x", "nmae: no such parameter; known are name, version"),
    ],
)
def test_parameters_that_are_refused(gnb: Any, files: Files, query: str, says: str) -> None:
    status, answer = send(gnb, files, query)
    assert (status, says in answer["error"]) == (400, True)


@pytest.mark.parametrize("body", [b"", b"no archive", b"PK\5\6" + bytes(18)])
def test_a_body_that_is_no_archive(gnb: Any, root: Path, body: bytes) -> None:
    status, answer = gnb.call(UPLOAD, body, method="POST")
    assert (status, answer["error"].startswith("archive: ")) == (400, True)


def test_limits_of_bodies(start_gnb: Callable[..., Any], root: Path) -> None:
    gnb = start_gnb(checkpoints=root, upload_mib=2)
    zeros = bytes(2**16)

    def status(path: str, mib: float, *, chunked: bool) -> tuple[int, str]:
        connection = http.client.HTTPConnection(gnb.rest, timeout=60)
        pieces: Iterator[bytes] = iter([zeros] * int(mib * 16))
        length = {} if chunked else {"content-length": str(int(mib * 2**20))}
        with contextlib.suppress(ConnectionError):  # it has heard enough
            connection.request("POST", path, pieces, length, encode_chunked=chunked)
        answer = connection.getresponse()
        assert (answer.status != 413) or answer.headers["connection"] == "close"
        return answer.status, json.loads(answer.read())["error"]

    for chunked in (False, True):
        assert status(UPLOAD, 1.5, chunked=chunked)[0] == 400  # as no archive
        found, text = status(UPLOAD, 2.25, chunked=chunked)
        assert (found, "2097152" in text) == (413, True)
        found, text = status("/v2/repository/models/rnn/load", 1.25, chunked=chunked)
        assert (found, text) == (413, "body: more than 1048576 bytes")
    assert sorted(path.name for path in root.iterdir()) == ["rnn"]


def begun(gnb: Any) -> socket.socket:
    """An upload of which something has come."""
    host, _, port = gnb.rest.rpartition(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(f"POST {UPLOAD} HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\nPK".encode())
    return connection


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_who_hangs_up_leaves_nothing_and_few_are_taken_at_once(gnb: Any, root: Path, files: Files) -> None:
    connections = [begun(gnb) for _ in range(AT_ONCE)]
    wait_for(lambda: len(list(root.glob(".upload-*"))) == AT_ONCE)
    assert reason(gnb, "rnn/1") == "not loaded"  # and nothing of the uploads
    assert len(gnb.call("/v2/repository/index", {})[1]) == 1
    status, answer = send(gnb, files)
    assert (status, "uploads: 4 are under way" in answer["error"]) == (429, True)
    for connection in connections:
        connection.close()
    wait_for(lambda: not list(root.glob(".upload-*")))
    assert send(gnb, files)[0] == 201


def test_a_gnb_that_ends_waits_for_no_upload(gnb: Any, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with contextlib.closing(begun(gnb)) as connection:
        wait_for(lambda: len(list(root.glob(".upload-*"))) == 1)
        gnb.stop()
        connection.settimeout(60)
        assert connection.recv(20).startswith(b"HTTP/1.1 503")
    assert sorted(path.name for path in root.iterdir()) == ["rnn"]
    assert "Traceback" not in caplog.text


def test_what_a_kill_has_left_is_removed_at_the_start(start_gnb: Callable[..., Any], root: Path) -> None:
    left, others = root / ".upload-left", root / ".upload-others"
    for folder in (left / "dldnn" / "1", others):
        folder.mkdir(parents=True)
    (left / "dldnn" / "1" / "card.json").write_text("{}")
    held = os.open(others, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)  # an upload that another gNB takes
    gnb = start_gnb(checkpoints=root)
    assert sorted(path.name for path in root.iterdir()) == [".upload-others", "rnn"]
    os.close(held)
    assert [row["name"] for row in gnb.call("/v2/repository/index", {})[1]] == ["rnn"]


def test_a_folder_that_cannot_be_written(gnb: Any, root: Path, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: Any, **__: Any) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkdtemp", read_only)
    status, answer = send(gnb, files)
    assert (status, answer["error"]) == (409, f"checkpoints: {root} cannot be written: Read-only file system")


def test_who_may(start_gnb: Callable[..., Any], root: Path, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSIEMU_GNB_TOKEN", "open-secret")
    gnb = start_gnb(checkpoints=root)
    assert send(gnb, files)[0] == 401
    assert gnb.call(UPLOAD, zipped(files), headers={"Authorization": "Bearer open-secret"})[0] == 201
