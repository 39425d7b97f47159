"""REST over uploads of checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gnb_server.rest.access import who
from gnb_server.rest.models import ErrorAnswer
from gnb_server.uploads import Upload, Uploads
from shared.checkpoints import NAME
from shared.errors import InvalidInput, NotReady, TooLarge
from shared.schemes import ENDS

UPLOAD = "/v1/checkpoints"

PATIENCE_S = 600.0
"""For an upload to be here."""

_ZIP = {
    "requestBody": {
        "required": True,
        "content": {"application/zip": {"schema": {"format": "binary", "type": "string"}}},
    }
}


class CardSummary(BaseModel):
    """What a card says of a checkpoint."""

    scheme: str
    scenario: str
    payload: str = Field(description="layout of a report: fields as name:count x bits")
    feedback_bits: int
    nmse_db: float | None = Field(description="that it was measured to have, over all slots [dB]")


class UploadAnswer(BaseModel):
    """Answer of POST /v1/checkpoints."""

    name: str
    version: str
    encoder_id: str = Field(description="of the encoder whose reports it decodes, 16 hexadecimal digits")
    sha256: dict[str, str] = Field(description="of the files, by end")
    card: CardSummary


def router(uploads: Uploads, changing: dict[str, Any], uploaded: Callable[[str, int, str], None]) -> APIRouter:
    """The route. `changing`: what routes have that change something. `uploaded` is told name, version and by whom."""
    routes = APIRouter()
    others = {HTTPStatus.REQUEST_TIMEOUT.value: {"model": ErrorAnswer}}
    changing = {**changing, "responses": changing["responses"] | others}

    @routes.post(UPLOAD, response_model=UploadAnswer, status_code=201, openapi_extra=_ZIP, **changing)
    async def upload(
        request: Request,
        response: Response,
        name: Annotated[str | None, Query(pattern=f"^{NAME}$", description="default: the card's")] = None,
        version: Annotated[int | None, Query(ge=1, lt=10**9, description="default: the next that is free")] = None,
    ) -> dict[str, Any]:
        """Add a version to the repository, not loaded: a zip file of card.json, decoder.safetensors and, unless a
        version of the name has it already, encoder.safetensors. The card gets the name and the version given here.
        """
        with uploads.begin() as begun:
            await _receive(request, begun, uploads.most_bytes)
            checkpoint = await asyncio.to_thread(begun.accept, name, version)
        await asyncio.to_thread(uploaded, checkpoint.name, checkpoint.version, who(request))
        card = checkpoint.card
        response.headers["location"] = f"/v2/models/{checkpoint.name}/versions/{checkpoint.version}"
        return {
            "name": checkpoint.name,
            "version": str(checkpoint.version),
            "encoder_id": checkpoint.encoder_id,
            "sha256": {end: card["sha256"][end] for end in ENDS},
            "card": {**{field: card.get(field) for field in CardSummary.model_fields}, "nmse_db": _nmse_db(card)},
        }

    return routes


class HearOut:
    """Reads an upload to its end before it is refused, but for what is beyond `most_bytes`: a client that is still
    sending when its connection is closed does not see why. One that asks first (Expect: 100-continue) is not kept.
    """

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app, self._most_bytes = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The same request; its answer waits."""
        if scope["type"] != "http" or scope["path"] != UPLOAD or b"expect" in dict(scope["headers"]):
            await self._app(scope, receive, send)
            return
        read, more = 0, True

        async def counted() -> Message:
            nonlocal read, more
            message = await receive()
            read += len(message.get("body", b""))
            more = message.get("more_body", False)
            return message

        async def answered(message: Message) -> None:
            ends = message.get("status", HTTPStatus.SERVICE_UNAVAILABLE) == HTTPStatus.SERVICE_UNAVAILABLE
            while more and read <= self._most_bytes and not ends:  # a gNB that ends waits for nobody
                await counted()
            await send(message)

        await self._app(scope, counted, answered)


async def _receive(request: Request, upload: Upload, most_bytes: int) -> None:
    """The body, piece by piece. Raises TooLarge, at once if it says how long it is; InvalidInput if it breaks off;
    NotReady if the gNB ends.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most_bytes:
        raise TooLarge(f"archive: {length} bytes; at most {most_bytes} are taken")
    stopping = request.app.state.stopping
    ending = asyncio.ensure_future(stopping.wait())
    try:
        async with asyncio.timeout(PATIENCE_S) as limit:
            now = asyncio.get_running_loop().time
            ending.add_done_callback(lambda done: None if done.cancelled() else limit.reschedule(now()))
            async for data in request.stream():
                await asyncio.to_thread(upload.write, data)
    except TimeoutError:
        if stopping.is_set():
            raise NotReady("gNB: is stopping") from None
        raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, f"archive: not here within {PATIENCE_S:.0f} s") from None
    except ClientDisconnect:
        raise InvalidInput("archive: the connection ended before it was here") from None
    finally:
        ending.cancel()


def _nmse_db(card: dict[str, Any]) -> float | None:
    """What a card that nobody has measured again says, if it says anything."""
    figures = card.get("evaluation")
    value = figures.get("nmse_db") if isinstance(figures, dict) else None
    return value if isinstance(value, float) else None
