"""Clients that others wrote for the Open Inference Protocol: all that it says of health, metadata and repository."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException


@pytest.fixture
def client(gnb: Any) -> Iterator[InferenceServerClient]:
    with contextlib.closing(InferenceServerClient(gnb.rest)) as found:
        yield found


def ready(client: InferenceServerClient) -> set[str]:
    rows = client.get_model_repository_index()
    return {f"{row['name']}/{row['version']}" for row in rows if row["state"] == "READY"}


def test_health_and_metadata(client: InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    server = client.get_server_metadata()
    assert (server["name"], "model_repository" in server["extensions"]) == ("csiemu", True)
    for model in (client.get_model_metadata("rnn"), client.get_model_metadata("rnn", "1")):
        assert (model["name"], model["versions"]) == ("rnn", ["1"])
        for tensor in (*model["inputs"], *model["outputs"]):
            assert {*tensor} == {"name", "datatype", "shape"}
    for unknown in (("nonsense", ""), ("rnn", "7")):
        assert not client.is_model_ready(*unknown)
        with pytest.raises(InferenceServerException, match=r"unknown|no version 7"):
            client.get_model_metadata(*unknown)


def test_repository(client: InferenceServerClient) -> None:
    assert ready(client) == set()
    client.load_model("rnn")
    client.load_model("dldnn", config=json.dumps({"backend": "pytorch"}))
    assert ready(client) == {"rnn/1", "dldnn/1"}
    assert client.is_model_ready("rnn")
    assert client.is_model_ready("rnn", "1")
    client.load_model("rnn")  # again
    client.unload_model("rnn")
    client.unload_model("dldnn", unload_dependents=True)
    assert ready(client) == set()
    assert not client.is_model_ready("rnn")
    for wrong in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="nonsense"):
            wrong("nonsense")


def test_what_is_not_offered_says_so(client: InferenceServerClient) -> None:
    payload = InferInput("payload", [1, 3], "UINT8")
    payload.set_data_from_numpy(np.zeros((1, 3), np.uint8))
    for version in ("", "1"):
        with pytest.raises(InferenceServerException, match="infer: not offered") as caught:
            client.infer("rnn", [payload], version)
        assert caught.value.status() == "501"
    with pytest.raises(InferenceServerException, match=r"Not Found: GET /v2/models/rnn/config"):
        client.get_model_config("rnn")
    with pytest.raises(InferenceServerException, match=r"'file:1/model.pt' is unknown; known are version, config"):
        client.load_model("rnn", config="{}", files={"file:1/model.pt": b"weights"})


def curl(gnb: Any, *arguments: str) -> tuple[int, str]:
    path = arguments[-1]
    command = ["curl", "-s", "--noproxy", "*", "-w", "\n%{http_code}", *arguments[:-1], f"http://{gnb.rest}{path}"]
    body, status = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.rsplit(
        "\n", 1
    )
    return int(status), body


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_curl_as_people_type_it(gnb: Any) -> None:
    """-d says that it sends a form, -X POST sends nothing, -I is HEAD."""
    load = "/v2/repository/models/hyperrnn/load"
    for arguments, version in (
        (("-X", "POST"), "1"),
        (("-d", '{"parameters": {"version": 2}}'), "2"),
        (("-d", ""), "2"),
    ):
        status, body = curl(gnb, *arguments, load)
        assert (status, json.loads(body)) == (200, {"name": "hyperrnn", "version": version, "state": "READY"})
    status, body = curl(gnb, "-d", '{"ready": true}', "/v2/repository/index")
    assert "2" in {row["version"] for row in json.loads(body)}  # no UE needs version 1 any more
    assert json.loads(curl(gnb, "-d", '{"parameters": {"config": "{}"}}', load)[1])["reason"].startswith(
        "config is left"
    )
    assert curl(gnb, "-X", "POST", "/v2/repository/models/hyperrnn/unload")[0] == 200
    for path in ("/v2/health/live", "/v2/health/ready", "/v2", "/metrics", "/docs", "/v1/nmse"):
        assert curl(gnb, "-I", path)[0] == 200
    assert curl(gnb, "-I", "/v2/models/hyperrnn/ready")[0] == 503


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v2/repository/models/rnn/load", {"parameters": {"versoin": 1}}, "'versoin' is unknown; known are version"),
        (
            "/v2/repository/models/rnn/unload",
            {"parameters": {"config": "{}"}},
            "'config' is unknown; known are version",
        ),
        ("/v2/repository/models/rnn/load", {"params": {}}, "'params' is unknown; known are parameters"),
        ("/v2/repository/index", {"raedy": True}, "'raedy' is unknown; known are ready"),
        ("/v2/repository/models/rnn/load", {"parameters": {"config": {"a": 1}}}, "parameters.config: {'a': 1}"),
        ("/v2/repository/models/rnn/load", {"parameters": {"{}": 1}}, "'{}' is unknown"),
    ],
)
def test_misspelt(gnb: Any, path: str, body: Any, says: str) -> None:
    status, answer = gnb.call(path, body)
    assert status == 400
    assert says in answer["error"]
