"""A token, or nobody but this machine, for whatever changes something; everybody may read."""

from __future__ import annotations

import contextlib
import logging
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from tritonclient.http import InferenceServerClient
from tritonclient.utils import InferenceServerException

TOKEN = "an-open-secret"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
LOAD = "/v2/repository/models/rnn/load"
READING = ("/v1/nmse", "/v1/ues", "/v2/models/rnn", "/metrics", "/docs", "/v2/health/ready")


def test_with_a_token(
    start_gnb: Callable[..., Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSIEMU_GNB_TOKEN", TOKEN)
    with caplog.at_level(logging.DEBUG):
        gnb = start_gnb()
        for headers in (None, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            for path in (LOAD, "/v2/repository/models/rnn/unload"):
                status, answer = gnb.call(path, {}, headers=headers)
                assert (status, answer["error"].startswith("token: ")) == (401, True)
        assert gnb.call(LOAD, {}, headers=BEARER)[0] == 200
        for path in READING:
            assert gnb.call(path)[0] == 200
        assert gnb.call("/v2/repository/index", {})[0] == 200
        assert gnb.run_ues(scheme="rnn", ues=1, slots=8).counts.acked == 8  # UEs need none
        gnb.stop()
    assert "only clients with the token may change anything" in caplog.text
    assert TOKEN not in caplog.text


def test_the_challenge_says_what_is_wanted(start_gnb: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 6750, section 3: no error code where no token was sent."""
    monkeypatch.setenv("CSIEMU_GNB_TOKEN", TOKEN)
    gnb = start_gnb()
    for headers, challenge in (({}, "Bearer"), ({"Authorization": "Bearer no"}, 'Bearer error="invalid_token"')):
        request = urllib.request.Request(f"http://{gnb.rest}{LOAD}", b"{}", headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        assert refused.value.headers["www-authenticate"] == challenge


def test_a_public_client_with_a_token(start_gnb: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSIEMU_GNB_TOKEN", TOKEN)
    with contextlib.closing(InferenceServerClient(start_gnb().rest)) as client:
        for call in (client.load_model, client.unload_model):
            with pytest.raises(InferenceServerException, match="token: missing"):
                call("rnn")
        client.load_model("rnn", headers=BEARER)
        assert client.is_model_ready("rnn")
        client.unload_model("rnn", headers=BEARER)
        assert not client.is_model_ready("rnn")


@pytest.mark.parametrize(
    ("host", "asked"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("::", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")]
)
def test_without_a_token_this_machine_may(
    host: str, asked: str, start_gnb: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        gnb = start_gnb(host=host)
    assert caplog.text.count("no token is set, so only clients on this machine may change anything") == 1
    gnb.rest = f"{asked}:{gnb.rest.rpartition(':')[2]}"
    assert gnb.call(LOAD, {})[0] == 200
    for headers in ({"X-Forwarded-For": "127.0.0.1"}, {"Origin": "https://elsewhere.example"}):
        status, answer = gnb.call(LOAD, {}, headers=headers)
        assert (status, answer["error"].startswith("client: ")) == (403, True)


def own_address() -> str | None:
    """Of this machine, but not loopback, if it has one."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_way_out:
        any_way_out.connect(("192.0.2.254", 9))  # nothing is sent
        return str(any_way_out.getsockname()[0])
    return None


@pytest.mark.skipif(own_address() is None, reason="this machine has no address but loopback")
def test_without_a_token_others_may_not(start_gnb: Callable[..., Any]) -> None:
    gnb = start_gnb(host="0.0.0.0")
    gnb.rest = f"{own_address()}:{gnb.rest.rpartition(':')[2]}"
    for headers in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}, BEARER):
        status, answer = gnb.call(LOAD, {}, headers=headers)
        assert (status, "is not this machine" in answer["error"]) == (403, True)
    for path in READING:
        assert gnb.call(path)[0] == 200
