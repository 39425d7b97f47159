"""REST over exports: kept reports of many UEs as a file, streamed."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException

from gnb_server.exports import Selection
from gnb_server.handlers import Handlers
from gnb_server.rest import models
from gnb_server.rest.seats import Seats
from gnb_server.tables import MEDIA_TYPES, Format, NoParquet
from shared.checkpoints import NAME

MOST_REPORTS = 10_000_000
"""In one answer."""

CLIENTS = 4
"""Clients that may read an export at once."""

FirstUe = Annotated[int, Query(ge=0, lt=2**32, description="first UE id")]
Ues = Annotated[int | None, Query(ge=1, le=2**32, description="so many UE ids from the first on; without it all")]
SchemeName = Annotated[str | None, Query(pattern=f"^{NAME}$", description="checkpoint name; without it all")]
Since = Annotated[float, Query(ge=0, le=1e12, description="received then or later [s since 1970]")]
Limit = Annotated[
    int, Query(ge=1, le=MOST_REPORTS, description="reports at most, the first by UE and sequence; first_ue goes on")
]


_FILES: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()}},
    501: {"model": models.ErrorAnswer, "description": "pyarrow is not installed"},
}


def router(handlers: Handlers) -> APIRouter:
    """The route."""
    routes = APIRouter(dependencies=[Depends(Seats(CLIENTS, "reports", "more would be too slow"))])

    @routes.get("/v1/reports.{file_format}", response_class=StreamingResponse, responses=_FILES)
    def reports(
        file_format: Format,
        scheme: SchemeName = None,
        first_ue: FirstUe = 0,
        ues: Ues = None,
        since: Since = 0.0,
        limit: Limit = 1_000_000,
    ) -> StreamingResponse:
        """The kept reports of many UEs, by UE and sequence, as CSV or Parquet. What holds for all of them stands in a
        CSV file's first lines, which begin with #, as JSON, and in the metadata of a Parquet file.
        """
        try:
            parts = handlers.export(Selection(scheme, first_ue, ues, since, limit)).write(file_format)
        except NoParquet as error:
            raise HTTPException(HTTPStatus.NOT_IMPLEMENTED, str(error)) from None
        name = {"content-disposition": f'attachment; filename="reports.{file_format}"'}
        return StreamingResponse(parts, media_type=MEDIA_TYPES[file_format], headers=name)

    return routes
