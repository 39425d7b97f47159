"""kill -9 of a gNB in the middle of an upload: nothing of it is ever listed, and the next start removes it."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from e2e_tools import Spawn, get, ready, wait_for

from shared.checkpoints import CheckpointStore


def test_a_killed_upload(spawn: Spawn, tmp_path: Path, small_store: CheckpointStore) -> None:
    root = tmp_path / "store"
    shutil.copytree(small_store.root / "rnn", root / "rnn")
    options = {"grpc_port": 0, "rest_port": 0, "store": f"sqlite:///{tmp_path / 's'}", "checkpoints": root}
    gnb = spawn("gnb_server", **options, ready_file=tmp_path / "first")
    host, _, port = ready(tmp_path / "first")["rest"].rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /v1/checkpoints HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\nPK")
        wait_for(lambda: list(root.glob(".upload-*")))
        gnb.kill()
        gnb.wait()
    assert list(root.glob(".upload-*"))
    assert CheckpointStore(root).names() == ["rnn"]
    spawn("gnb_server", **options, ready_file=tmp_path / "second")
    assert get(ready(tmp_path / "second")["rest"], "/v2/health/ready") == {"ready": True}
    assert [path.name for path in root.iterdir()] == ["rnn"]
