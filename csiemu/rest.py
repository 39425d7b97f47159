"""A gNB's REST interface, asked by commands."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import Any

from shared.errors import Conflict, CsiError, DamagedCheckpoint, InvalidInput, NotFound, NotReady
from shared.tls import read_authorities

_ERRORS: dict[int, type[CsiError]] = {
    error.kind.http_status: error for error in (InvalidInput, NotFound, Conflict, DamagedCheckpoint, NotReady)
}

GET_S, POST_S = 10.0, 60.0
"""Deadlines of requests: what changes something may have to load a model first."""


class Rest:
    """Requests to a gNB at `http://host:port` or `https://...`, never through a proxy.

    Args:
        token: bearer token, for what changes something. authority: file of the certificate authority, for https.

    Raises:
        The errors that the gNB says. NotReady: it cannot be reached. InvalidInput: `authority` has no certificate.
    """

    def __init__(self, url: str, token: str | None = None, authority: Path | None = None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"content-type": "application/json"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        trusted = read_authorities("tls_ca", authority)
        context = ssl.create_default_context(cadata=trusted and trusted.decode()) if url.startswith("https:") else None
        handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
        self._opener = urllib.request.build_opener(*handlers)

    def get(self, path: str) -> dict[str, Any]:
        """The answer of a GET."""
        return self._ask(path, None, GET_S)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer of a POST."""
        return self._ask(path, json.dumps(body).encode(), POST_S)

    def _ask(self, path: str, data: bytes | None, timeout_s: float) -> dict[str, Any]:
        request = urllib.request.Request(self.url + path, data, self._headers)
        try:
            with self._opener.open(request, timeout=timeout_s) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            try:
                text = str(json.loads(text)["error"])
            except (ValueError, KeyError, TypeError):
                text = f"{HTTPStatus(error.code).phrase}: {text[:200]}"
            raise _ERRORS.get(error.code, InvalidInput)(text) from None
        except (OSError, http.client.HTTPException) as error:  # the latter where it ends in the midst of its answer
            raise NotReady(f"gnb: {self.url} cannot be reached: {getattr(error, 'reason', error)}") from None
