"""Who may change something over REST: who has the token, or, where none is set, clients on the gNB's machine."""

from __future__ import annotations

import ipaddress
import secrets
from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

_BEARER = HTTPBearer(auto_error=False, description="the token of the gNB's settings (CSIEMU_GNB_TOKEN)")

_PROXIES = ("forwarded", "x-forwarded-for", "x-real-ip")
"""Headers by which a proxy on this machine shows that the client may be elsewhere; where, they are not asked."""


class Access:
    """A dependency for the routes that change something.

    Args:
        token: what `Authorization: Bearer TOKEN` (RFC 6750) has to say; without one only clients on this machine may.

    Raises:
        HTTPException: 401, the token is wrong or missing; 403, the client is elsewhere and no token is set.
    """

    def __init__(self, token: str | None = None) -> None:
        self._token = token

    @property
    def rule(self) -> str:
        """What holds, for people to read."""
        if self._token is None:
            return "no token is set, so only clients on this machine may change anything"
        return "only clients with the token may change anything"

    async def __call__(
        self, request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
    ) -> None:
        if self._token is not None:
            self._check_token(credentials)
        elif reason := _why_elsewhere(request):
            text = f"client: {reason}; without a token in the gNB's settings only clients on its machine may do this"
            raise HTTPException(HTTPStatus.FORBIDDEN, text)

    def _check_token(self, credentials: HTTPAuthorizationCredentials | None) -> None:
        if credentials is None:
            text, challenge = "token: missing; wanted the header Authorization: Bearer TOKEN", "Bearer"
        elif not secrets.compare_digest(credentials.credentials.encode(), str(self._token).encode()):
            text, challenge = "token: wrong", 'Bearer error="invalid_token"'
        else:
            return
        raise HTTPException(HTTPStatus.UNAUTHORIZED, text, {"www-authenticate": challenge})


def _why_elsewhere(request: Request) -> str | None:
    """Why a request may be of somebody who is not on this machine; None if it cannot."""
    host = request.client.host if request.client else "unknown"
    if not is_loopback(host):
        return f"{host} is not this machine"
    if any(name in request.headers for name in _PROXIES):
        return "the request came through a proxy"
    origin = request.headers.get("origin")
    if origin is not None and not is_loopback(urlsplit(origin).hostname or ""):  # a page of another site in a browser
        return "the request was made by a page of another site"
    return None


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: `localhost`, or an address of 127.0.0.0/8 or ::1, mapped into IPv6 too."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def who(request: Request) -> str:
    """Who asks, for the events."""
    return request.client.host if request.client else "unknown"
