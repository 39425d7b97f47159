"""Who may change something: with a token who has it, without one who is on this machine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fastapi import Request
from fastapi.security import HTTPAuthorizationCredentials
from starlette.exceptions import HTTPException

from gnb_server.rest.access import Access, is_loopback
from gnb_server.settings import Settings
from shared.errors import InvalidInput

TOKEN = "s3cret-of_the.gNB~+/=="


def ask(access: Access, host: str | None, credentials: str | None = None, **headers: str) -> tuple[int, str]:
    """Status and message of a refusal; 200 without one."""
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    client = None if host is None else (host, 50000)
    request = Request({"type": "http", "client": client, "headers": sent})
    given = None if credentials is None else HTTPAuthorizationCredentials(scheme="Bearer", credentials=credentials)
    try:
        asyncio.run(access(request, given))
    except HTTPException as refused:
        return refused.status_code, refused.detail
    return 200, ""


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1"])
def test_without_a_token_this_machine_may(host: str) -> None:
    assert is_loopback(host)
    assert ask(Access(), host) == (200, "")
    assert ask(Access(), host, TOKEN) == (200, "")  # a client that always sends one


@pytest.mark.parametrize(
    "host", ["192.0.2.7", "::", "0.0.0.0", "2001:db8::1", "::ffff:192.0.2.7", "fe80::1%eth0", "ue"]
)
def test_without_a_token_others_may_not(host: str) -> None:
    status, text = ask(Access(), host)
    assert (status, f"client: {host} is not this machine" in text, "token" in text) == (403, True, True)
    assert ask(Access(), host, x_forwarded_for="127.0.0.1")[0] == 403


def test_without_a_token_and_an_address_nobody_may() -> None:
    assert ask(Access(), None)[0] == 403


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("x_forwarded_for", "127.0.0.1", "came through a proxy"),
        ("forwarded", "for=127.0.0.1", "came through a proxy"),
        ("x_real_ip", "127.0.0.1", "came through a proxy"),
        ("origin", "https://evil.example", "page of another site"),
        ("origin", "https://localhost.evil.example", "page of another site"),
        ("origin", "null", "page of another site"),
        ("origin", "", "page of another site"),
    ],
)
def test_what_comes_by_way_of_this_machine_only(name: str, value: str, says: str) -> None:
    status, text = ask(Access(), "127.0.0.1", **{name: value})
    assert (status, says in text) == (403, True)


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8000", "http://localhost:8000", "https://[::1]:8000"])
def test_our_own_pages_may(origin: str) -> None:
    assert ask(Access(), "127.0.0.1", origin=origin)[0] == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.7", None])
def test_with_a_token_who_has_it_may_from_anywhere(host: str | None) -> None:
    access = Access(TOKEN)
    assert ask(access, host, TOKEN) == (200, "")
    assert ask(access, host, TOKEN, origin="https://page.example", x_forwarded_for="192.0.2.1")[0] == 200
    for wrong in ("", TOKEN[:-1], TOKEN + "=", TOKEN.upper(), "ä"):
        status, text = ask(access, host, wrong)
        assert (status, text) == (401, "token: wrong")
    status, text = ask(access, host)
    assert (status, "Authorization: Bearer TOKEN" in text) == (401, True)


def test_the_token_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().access_token() is None
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert Settings(token_file=file).access_token() == TOKEN
    monkeypatch.setenv("CSIEMU_GNB_TOKEN", "")
    assert Settings().access_token() is None  # as docker compose has a variable that is not set
    monkeypatch.setenv("CSIEMU_GNB_TOKEN", TOKEN)
    assert Settings().access_token() == TOKEN
    assert TOKEN not in repr(Settings())
    with pytest.raises(InvalidInput, match="wanted one of them"):
        Settings(token_file=file).access_token()


@pytest.mark.parametrize("token", ["a b", "tökén", "a\nb", "=", '"quoted"'])
def test_a_token_that_no_header_can_have(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSIEMU_GNB_TOKEN", token)
    with pytest.raises(InvalidInput) as refused:
        Settings().access_token()
    assert str(refused.value) == "token: wanted letters, digits and - . _ ~ + / only, and at least one of them"


@pytest.mark.parametrize(
    ("content", "says"), [(None, "No such file"), (b"\xff\xfe", "is no text"), (b"\n", "^token: ")]
)
def test_a_token_file_without_one(tmp_path: Path, content: bytes | None, says: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidInput, match=says):
        Settings(token_file=file).access_token()
