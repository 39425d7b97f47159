"""REST over the handlers: live results (/v1), Open Inference Protocol health, models and repository (/v2), /metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.exceptions import HTTPException

from gnb_server.handlers import Handlers
from gnb_server.metrics import RunCollector
from gnb_server.monitor import LONGEST_WINDOW_S
from gnb_server.rest import models
from shared.checkpoints import NAME
from shared.errors import CsiError, Kind

Ue = Annotated[int, Query(ge=0, lt=2**32, description="UE id")]
UeInPath = Annotated[int, Path(ge=0, lt=2**32, description="UE id")]
Name = Annotated[str, Path(pattern=f"^{NAME}$", description="checkpoint name, never a path")]
Version = Annotated[int, Path(ge=1, lt=10**9, description="checkpoint version")]
Window = Annotated[
    float | None, Query(gt=0, le=LONGEST_WINDOW_S, description="sliding window [s]; without it the whole run")
]
SchemeName = Annotated[str | None, Query(pattern=f"^{NAME}$", description="checkpoint name")]

_ERRORS: dict[int | str, dict[str, Any]] = {kind.http_status: {"model": models.ErrorAnswer} for kind in Kind}


def create_app(handlers: Handlers, window_s: float) -> FastAPI:
    """The application. `window_s`: sliding window of the live stream [s]."""
    app = FastAPI(title="CSI feedback emulator", version="1", responses=_ERRORS)
    registry = CollectorRegistry()
    registry.register(RunCollector(handlers))

    @app.exception_handler(CsiError)
    async def on_csi_error(_: Request, error: CsiError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, error.kind.http_status)

    @app.exception_handler(RequestValidationError)
    async def on_bad_request(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "body"
        return JSONResponse({"error": f"{where}: {first.get('input')!r}: {first['msg']}"}, Kind.INVALID.http_status)

    @app.exception_handler(HTTPException)
    async def on_http_error(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.get("/v1/nmse", response_model=models.NmseAnswer)
    def nmse(scheme: SchemeName = None, ue: Ue | None = None, window: Window = None) -> dict[str, Any]:
        """NMSE and feedback bits, per scheme and overall, or of one UE; since the start of the run or over a window."""
        return handlers.nmse(scheme, ue, window)

    @app.get("/v1/ues", response_model=models.UesAnswer)
    def ues(
        scheme: SchemeName = None,
        status: Annotated[str | None, Query(pattern="^(attached|gone|finished)$")] = None,
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=100_000)] = 1000,
    ) -> dict[str, Any]:
        """UEs known to this run."""
        rows = handlers.ues(scheme, status)
        return {"ues": rows[offset : offset + limit], "total": len(rows)}

    @app.get("/v1/ues/{ue}", response_model=models.UeFigures)
    def one_ue(ue: UeInPath) -> dict[str, Any]:
        """Totals of one UE."""
        return handlers.ue(ue)

    @app.get("/v1/ues/{ue}/reports", response_model=models.ReportsAnswer)
    def reports(ue: UeInPath, limit: Annotated[int, Query(ge=1, le=100_000)] = 100) -> dict[str, Any]:
        """The newest kept reports of one UE, oldest first."""
        return handlers.reports(ue, limit)

    @app.get("/v1/stream", response_class=EventSourceResponse)
    async def stream(
        window: Window = None, interval: Annotated[float, Query(ge=0.1, le=60)] = 1.0
    ) -> AsyncIterator[ServerSentEvent]:
        """Server-sent events `nmse`: the answer of /v1/nmse over the sliding window, every `interval` seconds."""
        while True:
            answer = await asyncio.to_thread(handlers.nmse, None, None, window or window_s)
            yield ServerSentEvent(event="nmse", data=models.NmseAnswer.model_validate(answer).model_dump())
            await asyncio.sleep(interval)

    @app.get("/v2/health/live", response_model=models.Liveness)
    def live() -> dict[str, bool]:
        """The process answers."""
        return {"live": True}

    @app.get("/v2/health/ready", response_model=models.Readiness)
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

    @app.get("/v2/models/{name}/ready", response_model=models.Readiness)
    def model_ready(response: Response, name: Name) -> dict[str, bool]:
        """Whether a model is loaded; 503 if not."""
        return _readiness(response, handlers.model_ready(name))

    @app.get("/v2/models/{name}/versions/{version}/ready", response_model=models.Readiness)
    def version_ready(response: Response, name: Name, version: Version) -> dict[str, bool]:
        """Whether a version of a model is loaded; 503 if not."""
        return _readiness(response, handlers.model_ready(name, version))

    @app.post("/v2/repository/index", response_model=list[models.IndexRow])
    def index(body: models.IndexRequest | None = None) -> list[dict[str, Any]]:
        """All versions in the repository."""
        only_ready = body is not None and body.ready
        return [row for row in handlers.index() if row["state"] == "READY" or not only_ready]

    @app.post("/v2/repository/models/{name}/load", response_model=models.RepositoryAnswer)
    def load(name: Name, body: models.RepositoryRequest | None = None) -> dict[str, Any]:
        """Load (again) a version of a model: frames that begin from now on are decoded with it."""
        checkpoint = handlers.load(name, body.parameters.version if body else None)
        return {"name": name, "version": str(checkpoint.version), "state": "READY"}

    @app.post("/v2/repository/models/{name}/unload", response_model=models.RepositoryAnswer)
    def unload(name: Name, body: models.RepositoryRequest | None = None) -> dict[str, Any]:
        """Unload a model, or one version of it that is not in use."""
        version = body.parameters.version if body else None
        handlers.unload(name, version)
        return {"name": name, "version": None if version is None else str(version), "state": "UNAVAILABLE"}

    @app.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """Prometheus text format."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _readiness(response: Response, ready: bool) -> dict[str, bool]:
    if not ready:
        response.status_code = Kind.UNAVAILABLE.http_status
    return {"ready": ready}
