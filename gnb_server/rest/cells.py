"""REST over the cells that several gNBs keep in one store."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from gnb_server.handlers import Handlers


class CellListed(BaseModel):
    """A cell in /v1/cells."""

    cell: str = Field(description="name of a run of the store")
    changed_at: float | None = Field(
        description="when its stored figures over time last changed [s since 1970]; null: there are none yet"
    )


class CellsAnswer(BaseModel):
    """Answer of GET /v1/cells."""

    cell: str = Field(description="the gNB's own")
    cells: list[CellListed]


def router(handlers: Handlers) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.get("/v1/cells", response_model=CellsAnswer)
    def cells() -> dict[str, Any]:
        """Cells of the gNB's store, those first whose figures changed last; `cell` of /v1/nmse and /v1/history."""
        return handlers.cells()

    return routes
