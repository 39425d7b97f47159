"""REST over the handlers: live results (/v1), Open Inference Protocol health, models and repository (/v2), /metrics."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from importlib import metadata
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gnb_server.handlers import Handlers
from gnb_server.hardening import shorten
from gnb_server.metrics import RunCollector
from gnb_server.monitor import LONGEST_WINDOW_S
from gnb_server.rest import models
from gnb_server.rest.access import Access, who
from gnb_server.rest.airs import router as airs_router
from gnb_server.rest.alarms import router as alarms_router
from gnb_server.rest.cells import router as cells_router
from gnb_server.rest.exports import router as exports_router
from gnb_server.rest.fleets import router as fleets_router
from gnb_server.rest.history import router as history_router
from gnb_server.rest.page import add_page
from gnb_server.rest.rates import router as rates_router
from gnb_server.rest.rollouts import router as rollouts_router
from gnb_server.rest.seats import Seats
from gnb_server.rest.uploads import UPLOAD, HearOut
from gnb_server.rest.uploads import router as uploads_router
from gnb_server.uploads import Uploads
from shared.checkpoints import NAME
from shared.errors import CsiError, InvalidInput, Kind

Ue = Annotated[int, Query(ge=0, lt=2**32, description="UE id")]
UeInPath = Annotated[int, Path(ge=0, lt=2**32, description="UE id")]
Name = Annotated[str, Path(pattern=f"^{NAME}$", description="checkpoint name, never a path")]
Version = Annotated[int, Path(ge=1, lt=10**9, description="checkpoint version")]
Window = Annotated[
    float | None, Query(gt=0, le=LONGEST_WINDOW_S, description="sliding window [s]; without it all reports")
]
By = Annotated[Literal["scheme", "version"], Query(description="a row for each scheme, or for each of its versions")]
WholeRun = Annotated[bool, Query(description="of UEs, too, that were there before this gNB started and are not back")]
Cells = Annotated[
    list[str] | None,
    Query(
        description="runs of the gNB's store, or `all` of them, as they are stored: without delays, reports a second"
        " and what is attached; without it the gNB's own run"
    ),
]
SchemeName = Annotated[str | None, Query(pattern=f"^{NAME}$", description="checkpoint name")]

_ERRORS: dict[int | str, dict[str, Any]] = {kind.http_status: {"model": models.ErrorAnswer} for kind in Kind}


MAX_BODY = 2**20
"""Bytes of a request's body."""

STREAM = "/v1/stream"

_CHANGING: dict[int | str, dict[str, Any]] = {
    status.value: {"model": models.ErrorAnswer} for status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
}

_UNREADY: dict[int | str, dict[str, Any]] = {Kind.UNAVAILABLE.http_status: {"model": models.Readiness}}


def create_app(
    handlers: Handlers,
    window_s: float,
    stream_clients: int = 64,
    access: Access | None = None,
    uploads: Uploads | None = None,
) -> FastAPI:
    """The application. `window_s`: sliding window of the live stream [s]; so many clients may read it at once. Setting
    `state.stopping` ends their streams. `access`: who may change something. `uploads`: where checkpoints may be sent.
    """
    app = FastAPIOffline(
        title="CSI feedback emulator",
        version=metadata.version("csi-feedback-emulator"),
        responses=_ERRORS,
        redoc_url=None,
        dependencies=[Depends(_known_query)],
    )
    app.add_middleware(_Requests)
    app.state.stopping = stopping = asyncio.Event()
    changing: dict[str, Any] = {"dependencies": [Depends(access or Access())], "responses": _CHANGING}
    registry = CollectorRegistry()
    registry.register(RunCollector(handlers))
    ProcessCollector(registry=registry)

    @app.exception_handler(CsiError)
    async def on_csi_error(_: Request, error: CsiError) -> JSONResponse:
        end = {"connection": "close"} if error.kind is Kind.TOO_LARGE else None  # what is left of the body is not read
        return _error(str(error), error.kind.http_status, end)

    @app.exception_handler(RequestValidationError)
    async def on_bad_request(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "body"
        found = shorten(repr(first.get("input")))
        return _error(shorten(f"{where}: {found}: {first['msg']}", 400), Kind.INVALID.http_status)

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> JSONResponse:
        text, asked = str(error.detail), f"{request.method} {shorten(request.url.path)}"
        if text == HTTPStatus(error.status_code).phrase:
            text = f"{text}: {asked}; /docs lists what there is"
        return _error(text, error.status_code, error.headers)

    if uploads is not None:
        app.include_router(uploads_router(uploads, changing, handlers.uploaded))
        app.add_middleware(HearOut, most_bytes=uploads.most_bytes)
    app.include_router(rollouts_router(handlers, changing))
    app.include_router(fleets_router(handlers))
    app.include_router(rates_router(handlers, changing))
    app.include_router(airs_router(handlers, changing))
    app.include_router(cells_router(handlers))
    app.include_router(history_router(handlers, window_s))
    app.include_router(alarms_router(handlers))
    add_page(app)
    app.include_router(exports_router(handlers))
    seats = Seats(stream_clients, "stream", "stream_clients allows no more")

    @app.get("/v1/nmse", response_model=models.NmseAnswer)
    def nmse(
        scheme: SchemeName = None,
        ue: Ue | None = None,
        window: Window = None,
        by: By = "scheme",
        whole_run: WholeRun = False,
        cell: Cells = None,
    ) -> dict[str, Any]:
        """NMSE and feedback bits, per scheme (or version) and overall, or of one UE; of all reports or over a window;
        or of cells that other gNBs keep in the same store. UEs that an earlier gNB of the run had are among them once
        they are back.
        """
        return handlers.nmse(scheme, ue, window, by_version=by == "version", whole_run=whole_run, cells=cell or ())

    @app.get("/v1/ues", response_model=models.UesAnswer)
    def ues(
        scheme: SchemeName = None,
        status: Annotated[str | None, Query(pattern="^(attached|idle|gone|finished)$")] = None,
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=100_000)] = 1000,
        whole_run: WholeRun = False,
    ) -> dict[str, Any]:
        """UEs that were attached since this gNB started, or all that the run has."""
        return handlers.ues(scheme, status, offset, limit, whole_run=whole_run)

    @app.get("/v1/ues/{ue}", response_model=models.UeFigures)
    def one_ue(ue: UeInPath) -> dict[str, Any]:
        """Totals of one UE."""
        return handlers.ue(ue)

    @app.get("/v1/ues/{ue}/reports", response_model=models.ReportsAnswer)
    def reports(ue: UeInPath, limit: Annotated[int, Query(ge=1, le=100_000)] = 100) -> dict[str, Any]:
        """The newest kept reports of one UE, oldest first."""
        return handlers.reports(ue, limit)

    @app.get("/v1/ues/{ue}/channel", response_model=models.ChannelAnswer)
    def channel(ue: UeInPath) -> dict[str, Any]:
        """The newest report of one UE beside the true channel. Only UEs that are asked for are kept, for a minute, so
        the first answer has none yet: ask again.
        """
        return handlers.channel(ue)

    @app.get(STREAM, response_class=EventSourceResponse, dependencies=[Depends(seats)])
    async def stream(
        window: Window = None, by: By = "scheme", interval: Annotated[float, Query(ge=0.1, le=60)] = 1.0
    ) -> AsyncIterator[ServerSentEvent]:
        """Server-sent events `nmse`: the answer of /v1/nmse over the sliding window, every `interval` seconds."""
        asked = functools.partial(handlers.nmse, window_s=window or window_s, by_version=by == "version")
        while not stopping.is_set():
            answer = await asyncio.to_thread(asked)
            yield ServerSentEvent(event="nmse", data=models.NmseAnswer.model_validate(answer).model_dump())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), interval)

    @app.get("/v2", response_model=models.ServerAnswer)
    def server() -> dict[str, Any]:
        """Name, version and extensions of the Open Inference Protocol."""
        extensions = ["model_repository", "model_repository(unload_dependents)"]
        return {"name": "csiemu", "version": app.version, "extensions": extensions}

    @app.get("/v2/health/live", response_model=models.Liveness)
    def live() -> dict[str, bool]:
        """The process answers."""
        return {"live": True}

    @app.get("/v2/health/ready", response_model=models.Readiness, responses=_UNREADY)
    def ready(response: Response) -> dict[str, bool]:
        """UEs can attach; 503 until then."""
        return _readiness(response, handlers.ready)

    @app.get("/v2/models/{name}", response_model=models.ModelAnswer)
    def model(name: Name) -> dict[str, Any]:
        """A model's versions and the card of the one loaded last."""
        return handlers.model(name)

    @app.get("/v2/models/{name}/versions/{version}", response_model=models.ModelAnswer)
    def model_version(name: Name, version: Version) -> dict[str, Any]:
        """A model's versions and the card of one of them."""
        return handlers.model(name, version)

    @app.get("/v2/models/{name}/ready", response_model=models.Readiness, responses=_UNREADY)
    def model_ready(response: Response, name: Name) -> dict[str, bool]:
        """Whether a model is loaded; 503 if not."""
        return _readiness(response, handlers.model_ready(name))

    @app.get("/v2/models/{name}/versions/{version}/ready", response_model=models.Readiness, responses=_UNREADY)
    def version_ready(response: Response, name: Name, version: Version) -> dict[str, bool]:
        """Whether a version of a model is loaded; 503 if not."""
        return _readiness(response, handlers.model_ready(name, version))

    @app.post("/v2/repository/index", response_model=list[models.IndexRow])
    def index(body: models.IndexRequest | None = None) -> list[dict[str, Any]]:
        """All versions in the repository."""
        only_ready = body is not None and body.ready
        return [row for row in handlers.index() if row["state"] == "READY" or not only_ready]

    @app.post(
        "/v2/repository/models/{name}/load",
        response_model=models.RepositoryAnswer,
        response_model_exclude_unset=True,
        **changing,
    )
    def load(request: Request, name: Name, body: models.LoadRequest | None = None) -> dict[str, Any]:
        """Load (again) a version of a model: UEs use it, its encoder too, from their next frame on."""
        asked = body.parameters if body else models.LoadParameters()
        answer = {
            "name": name,
            "version": str(handlers.swaps.load(name, asked.version, who(request)).version),
            "state": "READY",
        }
        return answer if asked.config is None else answer | {"reason": "config is left out: the checkpoint has its own"}

    @app.post("/v2/repository/models/{name}/unload", response_model=models.RepositoryAnswer, **changing)
    def unload(request: Request, name: Name, body: models.UnloadRequest | None = None) -> dict[str, Any]:
        """Unload a model, or one version of it that is not in use."""
        asked = body.parameters.version if body else None
        handlers.swaps.unload(name, asked, who(request))
        return {"name": name, "version": None if asked is None else str(asked), "state": "UNAVAILABLE"}

    @app.post("/v2/models/{name}/infer", include_in_schema=False)
    @app.post("/v2/models/{name}/versions/{version}/infer", include_in_schema=False)
    def infer() -> None:
        raise HTTPException(HTTPStatus.NOT_IMPLEMENTED, "infer: not offered; UEs send their reports over gRPC")

    @app.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """Prometheus text format."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _readiness(response: Response, ready: bool) -> dict[str, bool]:
    if not ready:
        response.status_code = Kind.UNAVAILABLE.http_status
    return {"ready": ready}


class _Requests:
    """Takes HEAD wherever GET is, and JSON of at most MAX_BODY under any content type, as `curl -d` and clients of the
    protocol send it. Uploads have a limit of their own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The same request, said in another way; that the answer of a HEAD has no body, uvicorn sees to."""
        left = math.inf if scope["type"] == "http" and scope["path"] == UPLOAD else MAX_BODY

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                text = f"body: more than {MAX_BODY} bytes"
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text, {"connection": "close"})
            return message

        if scope["type"] == "http":
            if scope["method"] == "HEAD" and scope["path"] != STREAM:  # which would never end
                scope = {**scope, "method": "GET"}
            others = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
            scope = {**scope, "headers": [*others, (b"content-type", b"application/json")]}
        await self._app(scope, counted, send)


def _known_query(request: Request) -> None:
    """Refuses query parameters that the route does not have, which would be taken in silence."""
    known = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    for name in request.query_params.keys() - {*known}:
        raise InvalidInput(f"{shorten(name)}: no such parameter; known are {', '.join(known) or 'none'}")


def _error(text: str, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": shorten(text, 600)}, status, headers)
